//! Functions: what is run, for which events, and how.

use serde::{Deserialize, Serialize};

use super::{DurationText, Start, problem};
use crate::filter::{self, Filter};
use crate::{Error, Name, QualifiedName, Result};

/// Longest name of a function, so that names derived from it stay names.
const NAME_LEN_MAX: usize = 40;
/// Each trigger is a subscription with a connection of its own.
const TRIGGERS_LEN_MAX: usize = 16;
const ENV_LEN_MAX: usize = 256;
/// Longest time for one event, and longest pause before another attempt.
const WAIT_MAX: DurationText = DurationText::from_secs(24 * 3_600);

/// What a function shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// Program and arguments, for the process launcher.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Container image, for container launchers. Either this or `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Environment of each instance; nothing else is inherited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// How long one event may take.
    #[serde(default = "timeout_default")]
    pub timeout: DurationText,
    /// Events in one instance at once.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// What it is run for.
    pub triggers: Vec<TriggerSpec>,
    /// Where its reply events go; without it replies are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplySpec>,
    /// How many instances run.
    #[serde(default)]
    pub scaling: ScalingSpec,
}

/// One variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Events in one instance at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    /// Never more than this; a new instance starts at 1 and works its way up.
    pub hard: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { hard: 16 }
    }
}

/// A stream whose events a function is run for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerSpec {
    /// Its name within the function.
    #[serde(default = "trigger_name_default")]
    pub name: String,
    /// `name` or `namespace/name`.
    pub stream: String,
    /// Where it begins; read once, when its subscription is made.
    #[serde(default)]
    pub start: Start,
    /// Which events; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// What happens after a failure.
    #[serde(default)]
    pub retry: RetrySpec,
}

/// When a failed event is tried again: after a random time up to `base` doubled with each attempt,
/// at most `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// After so many attempts the trigger is reported as failing; the event stays and is tried on.
    pub attempts: u32,
    /// Upper bound of the first pause.
    pub base: DurationText,
    /// Upper bound of all pauses.
    pub cap: DurationText,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 12,
            base: DurationText::from_millis(200),
            cap: DurationText::from_secs(60),
        }
    }
}

/// Where reply events go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplySpec {
    /// `name` or `namespace/name`.
    pub stream: String,
}

/// How many instances run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScalingSpec {
    /// At least so many, even without events.
    pub min: u32,
    /// At most so many.
    pub max: u32,
    /// An instance without work for this long is stopped.
    pub idle: DurationText,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self { min: 0, max: 1, idle: DurationText::from_secs(30) }
    }
}

impl RetrySpec {
    fn check(&self, field: &str) -> Result<()> {
        let field = |name: &str| format!("{field}.{name}");
        if self.attempts == 0 {
            return Err(problem(field("attempts"), "at least one attempt is needed"));
        }
        if self.base.0.is_zero() {
            return Err(problem(field("base"), "without a pause a failure would spin"));
        }
        if self.base > self.cap {
            return Err(problem(field("base"), "the first pause is longer than the cap"));
        }
        if self.cap > WAIT_MAX {
            return Err(problem(field("cap"), format!("{} is more than {WAIT_MAX}", self.cap)));
        }
        Ok(())
    }
}

impl FunctionSpec {
    /// Name of the subscription that a trigger of a function owns, in the function's namespace.
    ///
    /// # Errors
    ///
    /// `Invalid` for names that [`Self::check`] refuses.
    pub fn subscription_name(function: &Name, trigger: &str) -> Result<Name> {
        format!("fn-{function}-{trigger}")
            .parse()
            .map_err(|error: crate::NameError| Error::invalid(error.to_string()))
    }
}

const fn timeout_default() -> DurationText {
    DurationText::from_secs(30)
}

fn trigger_name_default() -> String {
    "default".to_owned()
}

impl FunctionSpec {
    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn check(&self, name: &Name) -> Result<()> {
        if name.as_str().len() > NAME_LEN_MAX {
            let message = format!("a function's name has at most {NAME_LEN_MAX} characters");
            return Err(problem("metadata.name", message));
        }
        match (&self.image, self.command.first()) {
            (None, None) => {
                let message = "a function needs a command (a process) or an image (a container)";
                return Err(problem("spec.command", message));
            }
            (Some(_), Some(_)) => {
                let message = "there is a command and an image; which of the two shall run?";
                return Err(problem("spec.image", message));
            }
            (Some(image), None) if image.is_empty() => {
                return Err(problem("spec.image", "the image is empty"));
            }
            (None, Some(program)) if program.is_empty() => {
                return Err(problem("spec.command", "the program is empty"));
            }
            _ => {}
        }
        if self.command.iter().any(|part| part.contains('\0')) {
            return Err(problem("spec.command", "a command cannot hold NUL"));
        }
        self.check_env()?;
        if self.timeout.0.is_zero() || self.timeout > WAIT_MAX {
            let message = format!("{} is not in 1ms..={WAIT_MAX}", self.timeout);
            return Err(problem("spec.timeout", message));
        }
        if !(1..=10_000).contains(&self.concurrency.hard) {
            let message = format!("{} is not in 1..=10000", self.concurrency.hard);
            return Err(problem("spec.concurrency.hard", message));
        }
        self.check_scaling()?;
        self.check_triggers()?;
        if let Some(reply) = &self.reply {
            check_stream(&reply.stream, "spec.reply.stream")?;
        }
        Ok(())
    }

    fn check_env(&self) -> Result<()> {
        if self.env.len() > ENV_LEN_MAX {
            let message = format!("{} variables, more than {ENV_LEN_MAX}", self.env.len());
            return Err(problem("spec.env", message));
        }
        for (place, variable) in self.env.iter().enumerate() {
            let field = |name: &str| format!("spec.env[{place}].{name}");
            if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
                let message = format!("{:?} is no name of a variable", variable.name);
                return Err(problem(field("name"), message));
            }
            if self.env[..place].iter().any(|other| other.name == variable.name) {
                let message = format!("the variable {:?} is there twice", variable.name);
                return Err(problem(field("name"), message));
            }
            if variable.value.contains('\0') {
                return Err(problem(field("value"), "a variable cannot hold NUL"));
            }
        }
        Ok(())
    }

    fn check_scaling(&self) -> Result<()> {
        let ScalingSpec { min, max, .. } = self.scaling;
        if !(1..=50).contains(&max) {
            return Err(problem("spec.scaling.max", format!("{max} is not in 1..=50")));
        }
        if min > max {
            return Err(problem(
                "spec.scaling.min",
                format!("{min} is more than the maximum {max}"),
            ));
        }
        Ok(())
    }

    fn check_triggers(&self) -> Result<()> {
        if self.triggers.is_empty() {
            return Err(problem("spec.triggers", "a function without trigger would never run"));
        }
        if self.triggers.len() > TRIGGERS_LEN_MAX {
            let message = format!("{} triggers, more than {TRIGGERS_LEN_MAX}", self.triggers.len());
            return Err(problem("spec.triggers", message));
        }
        for (place, trigger) in self.triggers.iter().enumerate() {
            let field = |name: &str| format!("spec.triggers[{place}].{name}");
            trigger
                .name
                .parse::<Name>()
                .map_err(|error| problem(field("name"), error.to_string()))?;
            // `fn-<function>-<trigger>` must stay a name.
            if trigger.name.len() > 63 - 4 - NAME_LEN_MAX {
                return Err(problem(field("name"), "a trigger's name has at most 19 characters"));
            }
            if self.triggers[..place].iter().any(|other| other.name == trigger.name) {
                let message = format!("the trigger {:?} is there twice", trigger.name);
                return Err(problem(field("name"), message));
            }
            check_stream(&trigger.stream, &field("stream"))?;
            trigger.start.check(&field("start"))?;
            trigger.retry.check(&field("retry"))?;
            filter::check_all(&trigger.filters).map_err(|error| {
                let inner = error.field().unwrap_or("filters").to_owned();
                problem(field(&inner), error.message())
            })?;
        }
        Ok(())
    }
}

fn check_stream(stream: &str, field: &str) -> Result<()> {
    match stream.parse::<QualifiedName>() {
        Ok(_) => Ok(()),
        Err(error) => Err(problem(field, error.to_string())),
    }
}

/// How a function is doing; written by the dispatcher.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FunctionStatus {
    /// Generation of the spec that this status is about.
    pub observed_generation: u64,
    /// What holds at present.
    pub conditions: Vec<Condition>,
    /// Running copies.
    pub instances: Instances,
    /// One for each trigger.
    pub triggers: Vec<TriggerStatus>,
    /// The newest failures, at most 10.
    pub last_errors: Vec<String>,
    /// The newest lines that instances wrote, at most 100.
    pub logs: Vec<LogLine>,
}

/// Something that holds, or does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What: `Ready`, `CrashLoop`, `Retrying`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: bool,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Running copies of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instances {
    /// Take events.
    pub ready: u32,
    /// Will take events soon.
    pub starting: u32,
}

/// How a trigger is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TriggerStatus {
    /// The trigger.
    pub name: String,
    /// Events not settled yet.
    pub lag: u64,
    /// Events at an instance now.
    pub in_flight: u64,
    /// Events that succeeded, since the dispatcher started.
    pub delivered: u64,
    /// Attempts that failed, since the dispatcher started.
    pub failed: u64,
    /// Events that wait for another attempt.
    pub retrying: u64,
    /// Age of the oldest event that is not settled, in milliseconds.
    pub oldest_unacked_age_ms: u64,
}

/// A line that an instance wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, in RFC 3339.
    pub time: String,
    /// Which instance.
    pub instance: String,
    /// What.
    pub line: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(json: &str) -> Option<String> {
        let spec: FunctionSpec = serde_json::from_str(json).unwrap();
        let name = "confirm".parse().unwrap();
        spec.check(&name).err().and_then(|error| error.field().map(str::to_owned))
    }

    #[test]
    fn the_smallest_function_has_all_defaults() {
        let json = r#"{"command":["run"],"triggers":[{"stream":"orders"}]}"#;
        let spec: FunctionSpec = serde_json::from_str(json).unwrap();

        assert_eq!(field_of(json), None);
        assert_eq!(spec.triggers[0].retry, RetrySpec::default());
        let again: FunctionSpec =
            serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn each_wrong_field_is_named() {
        let trigger = |extra: &str| {
            format!(r#"{{"command":["run"],"triggers":[{{"stream":"orders"{extra}}}]}}"#)
        };
        let cases = [
            (r#"{"triggers":[{"stream":"s"}]}"#.to_owned(), "spec.command"),
            (r#"{"command":["a"],"triggers":[]}"#.to_owned(), "spec.triggers"),
            (trigger(r#","name":"A""#), "spec.triggers[0].name"),
            (trigger(r#","start":{"time":"noon"}"#), "spec.triggers[0].start"),
            (trigger(r#","retry":{"attempts":0}"#), "spec.triggers[0].retry.attempts"),
            (trigger(r#","retry":{"base":"0s"}"#), "spec.triggers[0].retry.base"),
            (trigger(r#","retry":{"base":"2s","cap":"1s"}"#), "spec.triggers[0].retry.base"),
            (trigger(r#","retry":{"cap":"2d"}"#), "spec.triggers[0].retry.cap"),
            (trigger("}").replace("}}]", "},{\"stream\":\"s\"}]"), "spec.triggers[1].name"),
            (
                r#"{"command":["a"],"image":"b","triggers":[{"stream":"s"}]}"#.to_owned(),
                "spec.image",
            ),
            (
                r#"{"command":["a","\u0000"],"triggers":[{"stream":"s"}]}"#.to_owned(),
                "spec.command",
            ),
            (
                r#"{"command":["a"],"timeout":"2d","triggers":[{"stream":"s"}]}"#.to_owned(),
                "spec.timeout",
            ),
            (trigger(r#","filters":[{"exact":{}}]"#), "spec.triggers[0].filters[0].exact"),
            (
                r#"{"command":["a"],"triggers":[{"stream":"s"}],"scaling":{"max":0}}"#.to_owned(),
                "spec.scaling.max",
            ),
            (
                r#"{"command":["a"],"triggers":[{"stream":"s"}],"env":[{"name":"","value":""}]}"#
                    .to_owned(),
                "spec.env[0].name",
            ),
        ];
        for (json, field) in cases {
            assert_eq!(field_of(&json).as_deref(), Some(field), "{json}");
        }
    }
}
