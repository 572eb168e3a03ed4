//! Functions: what is run, for which events, and how.

use serde::{Deserialize, Serialize};

use super::flow::FlowSpec;
use super::template::{policy_default, port_default};
use super::{
    DurationText, EnvVar, ProbeSpec, Protocol, ResourcesSpec, Revision, ScalingSpec, SecuritySpec,
    TrafficSpec, TriggerSpec, problem,
};
use crate::{Error, Name, QualifiedName, Result};

/// Longest name of a function, so that names derived from it stay names.
const NAME_LEN_MAX: usize = 40;
/// Each trigger is a subscription with a connection of its own.
const TRIGGERS_LEN_MAX: usize = 16;
/// Longest time for one event.
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
    /// Arguments for the program of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Where the program of the image listens.
    #[serde(default = "port_default")]
    pub port: u16,
    /// What instances speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// What an instance may use.
    #[serde(default)]
    pub resources: ResourcesSpec,
    /// When an instance counts as ready; when it accepts connections, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSpec>,
    /// What an instance runs as.
    #[serde(default)]
    pub security: SecuritySpec,
    /// Name of the policy that must allow all this.
    #[serde(default = "policy_default")]
    pub policy: String,
    /// Steps without a program. Instead of `command` or `image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowSpec>,
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
    /// Which revisions get which part of the events; without it, the newest gets all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficSpec>,
    /// What instances were and are made of: the cluster fills it in, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Revision>,
}

/// Events in one instance at once. A new instance starts at 1 and works its way up, as long as its
/// answers do not take longer for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    /// Never more than this; 0 = as many as do it good, at most 1,000.
    pub hard: u32,
    /// Percent of what instances are good for that scaling aims at.
    pub target: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { hard: 0, target: 70 }
    }
}

/// Where reply events go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplySpec {
    /// `name` or `namespace/name`.
    pub stream: String,
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
        if let Some(flow) = &self.flow {
            if self.image.is_some() || !self.command.is_empty() {
                let message = "a flow needs no program: no command and no image";
                return Err(problem("spec.flow", message));
            }
            flow.check("spec.flow")?;
        }
        match (&self.image, self.command.first()) {
            (None, None) if self.flow.is_some() => {}
            (None, None) => {
                let message =
                    "a function needs a command (a process), an image (a container) or a flow";
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
        self.check_template()?;
        if self.timeout.0.is_zero() || self.timeout > WAIT_MAX {
            let message = format!("{} is not in 1ms..={WAIT_MAX}", self.timeout);
            return Err(problem("spec.timeout", message));
        }
        if self.concurrency.hard > 10_000 {
            let message = format!("{} is not in 0..=10000", self.concurrency.hard);
            return Err(problem("spec.concurrency.hard", message));
        }
        if !(1..=100).contains(&self.concurrency.target) {
            let message = format!("{} is not in 1..=100 (percent)", self.concurrency.target);
            return Err(problem("spec.concurrency.target", message));
        }
        self.scaling.check("spec.scaling")?;
        self.check_triggers()?;
        self.check_traffic()?;
        if let Some(reply) = &self.reply {
            check_stream(&reply.stream, "spec.reply.stream")?;
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
            trigger.check(&format!("spec.triggers[{place}]"))?;
        }
        Ok(())
    }
}

pub(super) fn check_stream(stream: &str, field: &str) -> Result<()> {
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
    /// Revisions that get events, or have instances.
    pub revisions: Vec<RevisionStatus>,
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

/// How a revision is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevisionStatus {
    /// The revision.
    pub name: String,
    /// The part of the events that it gets, of 100.
    pub percent: u32,
    /// Its running copies.
    pub instances: Instances,
    /// Whether it fails so much that it is only asked now and then whether it is well again.
    pub circuit_open: bool,
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
    /// Events that became dead letters by the function's refusal, since the dispatcher started.
    pub dead: u64,
    /// Events that failed more often than they should and are tried on.
    pub blocked: u64,
    /// Events in hand that failed before.
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
        assert_eq!(spec.triggers[0].retry, TriggerSpec::new("default", "orders").retry);
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
            (trigger(r#","retry":{"cap":"8d"}"#), "spec.triggers[0].retry.cap"),
            (trigger(r#","retry":{"max_age":"0s"}"#), "spec.triggers[0].retry.max_age"),
            (trigger(r#","key":"A""#), "spec.triggers[0].key"),
            (trigger(r#","key":"a","ordering":"strict""#), "spec.triggers[0].key"),
            (trigger(r#","batch":{"max_events":0}"#), "spec.triggers[0].batch.max_events"),
            (trigger(r#","batch":{"linger":"2m"}"#), "spec.triggers[0].batch.linger"),
            (
                trigger(r#","batch":{"max_events":2},"ordering":"strict""#),
                "spec.triggers[0].batch.max_events",
            ),
            (
                r#"{"command":["a"],"triggers":[{"stream":"s"}],"concurrency":{"target":0}}"#
                    .to_owned(),
                "spec.concurrency.target",
            ),
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
