//! What the definition of a function means, checked once.
//!
//! ```yaml
//! apiVersion: weft/v1
//! kind: Function
//! metadata: { name: confirm }
//! spec:
//!   template:
//!     command: [weft, sample-function]   # a bare name is looked up in the allowed directories
//!     env: [{ name: GREETING, value: hello }]
//!     timeout: 30s
//!     concurrency: { hard: 8 }
//!   triggers:
//!     - name: placed
//!       stream: orders
//!       start: earliest
//!       filters: [{ suffix: { type: .order.placed } }]
//!       retry: { attempts: 12, base: 200ms, cap: 60s }
//!   reply: { stream: confirmations }
//!   scaling: { min: 0, max: 4, idle: 30s }
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, Name, QualifiedName, ResourceUid, Result};

use crate::feed::FUNCTION_LABEL;
use crate::port::SUBSCRIPTION;
use crate::{delivery, scale};

/// Longest name of a function: derived names must stay labels.
const NAME_LEN_MAX: usize = 40;
/// Longest `Retry-After` that is obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
/// What a function gets on top of its time-out to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// A function as the runner needs it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: QualifiedName,
    pub(crate) uid: ResourceUid,
    pub(crate) generation: Generation,
    pub(crate) template: Template,
    pub(crate) delivery: delivery::Policy,
    pub(crate) scale: scale::Policy,
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) reply_to: Option<QualifiedName>,
}

/// What instances are made of: a change of it needs new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    pub(crate) permits: u32,
}

/// A stream whose events go to the function, through a subscription of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    pub(crate) subscription: QualifiedName,
    pub(crate) resource: Resource,
}

impl Plan {
    /// Reads a function of the catalog.
    ///
    /// # Errors
    ///
    /// `Invalid`, with a sentence for the status of the function.
    pub(crate) fn of(resource: &Resource) -> Result<Self> {
        let invalid = |error: &dyn std::fmt::Display| Error::invalid(error.to_string());
        let namespace = match resource.namespace.as_str() {
            "" => Name::default_namespace(),
            text => text.parse().map_err(|error| invalid(&error))?,
        };
        let name: Name = resource.name.parse().map_err(|error| invalid(&error))?;
        if name.as_str().len() > NAME_LEN_MAX {
            let message = format!("a function's name has at most {NAME_LEN_MAX} characters");
            return Err(Error::invalid(message).with_field("metadata.name"));
        }
        let name = QualifiedName { namespace, name };
        let spec: Spec = serde_json::from_slice(&resource.spec).map_err(|error| invalid(&error))?;
        let template = spec.template.check()?;
        let mut names = BTreeSet::new();
        let mut triggers = Vec::new();
        let mut retry = None;
        for trigger in spec.triggers {
            if !names.insert(trigger.name.clone()) {
                let message = format!("there are two triggers named {}", trigger.name);
                return Err(Error::invalid(message).with_field("spec.triggers"));
            }
            retry = retry.or_else(|| trigger.retry.clone());
            triggers.push(trigger.check(&name)?);
        }
        let retry = retry.unwrap_or_default();
        Ok(Self {
            uid: ResourceUid(resource.uid),
            generation: Generation(resource.generation),
            delivery: delivery::Policy {
                backoff_base: retry.base.0,
                backoff_cap: retry.cap.0.max(retry.base.0),
                retry_after_max: RETRY_AFTER_MAX,
                attempts: retry.attempts.max(1),
                permits_hard: template.permits,
            },
            scale: spec.scaling.policy(template.permits),
            reply_to: spec.reply.map(|reply| namespaced(&reply.stream, &name)).transpose()?,
            name,
            template,
            triggers,
        })
    }

    /// How long an instance may take to end.
    pub(crate) fn grace(&self) -> Duration {
        self.template.timeout.saturating_add(GRACE)
    }
}

fn namespaced(text: &str, function: &QualifiedName) -> Result<QualifiedName> {
    let invalid = |error| Error::invalid(format!("stream {text:?}: {error}"));
    if text.contains('/') {
        return text.parse().map_err(invalid);
    }
    let name = text.parse().map_err(invalid)?;
    Ok(QualifiedName { namespace: function.namespace.clone(), name })
}

/// A duration as people write it: `250ms`, `30s`, `5m`, `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no duration; write 250ms, 30s, 5m or 24h");
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok().ok_or_else(wrong)?;
        let ms = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => None,
        };
        ms.map(Duration::from_millis).map(Self).ok_or_else(wrong)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    template: TemplateSpec,
    #[serde(default)]
    triggers: Vec<TriggerSpec>,
    reply: Option<ReplySpec>,
    #[serde(default)]
    scaling: ScalingSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateSpec {
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    env: Vec<EnvSpec>,
    timeout: Option<Span>,
    #[serde(default)]
    concurrency: ConcurrencySpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvSpec {
    name: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConcurrencySpec {
    #[serde(default)]
    hard: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerSpec {
    name: String,
    stream: String,
    start: Option<Value>,
    #[serde(default)]
    filters: Vec<Value>,
    retry: Option<RetrySpec>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetrySpec {
    attempts: u32,
    base: Span,
    cap: Span,
}

impl Default for RetrySpec {
    fn default() -> Self {
        let (base, cap) = (Duration::from_millis(200), Duration::from_mins(1));
        Self { attempts: 12, base: Span(base), cap: Span(cap) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplySpec {
    stream: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ScalingSpec {
    min: u32,
    max: u32,
    idle: Span,
    down_delay: Span,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        let idle = Span(Duration::from_secs(30));
        Self { min: 0, max: 50, idle, down_delay: idle }
    }
}

impl ScalingSpec {
    fn policy(&self, permits: u32) -> scale::Policy {
        scale::Policy {
            min: self.min,
            max: self.max,
            idle: self.idle.0,
            down_delay: self.down_delay.0,
            permits: if permits == 0 { delivery::PERMITS_DEFAULT } else { permits },
        }
    }
}

impl TemplateSpec {
    fn check(self) -> Result<Template> {
        if self.command.is_empty() {
            let message = "this dispatcher runs functions with a command, and this one has none";
            return Err(Error::invalid(message).with_field("spec.template.command"));
        }
        let text = self.command.iter().chain(self.env.iter().flat_map(|e| [&e.name, &e.value]));
        if text.into_iter().any(|text| text.contains('\0')) {
            return Err(Error::invalid("command and environment must not hold NUL"));
        }
        if let Some(wrong) = self.env.iter().find(|e| e.name.is_empty() || e.name.contains('=')) {
            let message = format!("{:?} cannot be the name of a variable", wrong.name);
            return Err(Error::invalid(message).with_field("spec.template.env"));
        }
        let timeout = self.timeout.map_or(Duration::from_secs(30), |span| span.0);
        if timeout.is_zero() {
            return Err(Error::invalid("the time-out is zero").with_field("spec.template.timeout"));
        }
        Ok(Template {
            command: self.command,
            env: self.env.into_iter().map(|env| (env.name, env.value)).collect(),
            timeout,
            permits: self.concurrency.hard,
        })
    }
}

impl TriggerSpec {
    fn check(self, function: &QualifiedName) -> Result<Trigger> {
        let text = format!("fn-{}-{}", function.name, self.name);
        let name: Name = text.parse().map_err(|error| {
            let message = format!("trigger {:?} has no usable name: {error}", self.name);
            Error::invalid(message).with_field("spec.triggers.name")
        })?;
        let stream = namespaced(&self.stream, function)?;
        let mut spec = json!({ "stream": stream.to_string() });
        if let Some(map) = spec.as_object_mut() {
            map.extend(self.start.map(|start| ("start".to_owned(), start)));
            if !self.filters.is_empty() {
                map.insert("filters".to_owned(), Value::Array(self.filters));
            }
        }
        let resource = Resource {
            kind: SUBSCRIPTION.to_owned(),
            namespace: function.namespace.to_string(),
            name: name.to_string(),
            labels: [(FUNCTION_LABEL.to_owned(), function.name.to_string())].into(),
            spec: spec.to_string().into(),
            ..Resource::default()
        };
        let subscription = QualifiedName { namespace: function.namespace.clone(), name };
        Ok(Trigger { name: self.name, subscription, resource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(spec: &Value) -> Resource {
        Resource {
            namespace: "shop".to_owned(),
            name: "confirm".to_owned(),
            uid: 7,
            generation: 9,
            spec: spec.to_string().into(),
            ..Resource::default()
        }
    }

    fn example() -> Value {
        json!({
            "template": {
                "command": ["weft", "sample-function"],
                "env": [{ "name": "GREETING", "value": "hello" }],
                "timeout": "10s",
                "concurrency": { "hard": 8 },
            },
            "triggers": [{
                "name": "placed",
                "stream": "orders",
                "start": "earliest",
                "filters": [{ "suffix": { "type": ".order.placed" } }],
                "retry": { "attempts": 3, "base": "100ms", "cap": "1m" },
            }],
            "reply": { "stream": "other/confirmations" },
            "scaling": { "max": 4, "idle": "5s" },
        })
    }

    #[test]
    fn the_example_means_what_it_says() {
        let plan = Plan::of(&resource(&example())).unwrap();

        assert_eq!(plan.name.to_string(), "shop/confirm");
        assert_eq!(plan.template.timeout, Duration::from_secs(10));
        assert_eq!(plan.delivery.permits_hard, 8);
        assert_eq!(plan.delivery.attempts, 3);
        assert_eq!(plan.delivery.backoff_cap, Duration::from_mins(1));
        assert_eq!((plan.scale.min, plan.scale.max), (0, 4));
        assert_eq!(plan.scale.idle, Duration::from_secs(5));
        assert_eq!(plan.reply_to.unwrap().to_string(), "other/confirmations");
        let [trigger] = plan.triggers.as_slice() else { panic!("{:?}", plan.triggers) };
        assert_eq!(trigger.subscription.to_string(), "shop/fn-confirm-placed");
        assert_eq!(trigger.resource.labels[FUNCTION_LABEL], "confirm");
        let spec: Value = serde_json::from_slice(&trigger.resource.spec).unwrap();
        let filters = json!([{ "suffix": { "type": ".order.placed" } }]);
        let expected = json!({ "stream": "shop/orders", "start": "earliest", "filters": filters });
        assert_eq!(spec, expected);
    }

    #[test]
    fn without_further_words_the_defaults_hold() {
        let plan = Plan::of(&resource(&json!({ "template": { "command": ["f"] } }))).unwrap();

        assert_eq!(plan.template.timeout, Duration::from_secs(30));
        assert_eq!(plan.delivery.attempts, 12);
        assert_eq!(plan.delivery.backoff_base, Duration::from_millis(200));
        assert_eq!((plan.scale.min, plan.scale.max), (0, 50));
        assert_eq!(plan.scale.permits, delivery::PERMITS_DEFAULT);
    }

    #[test]
    fn each_mistake_is_named() {
        let mistakes: &[(&str, Value, &str)] = &[
            ("/template/command", json!([]), "command"),
            ("/template/command", json!(["a\0b"]), "NUL"),
            ("/template/timeout", json!("0s"), "time-out"),
            ("/template/timeout", json!("10"), "no duration"),
            ("/template/timeout", json!("99999999999999999999h"), "no duration"),
            ("/template/env/0/name", json!("A=B"), "variable"),
            ("/triggers/0/name", json!("Upper"), "trigger"),
            ("/triggers/0/name", json!("x".repeat(60)), "at most"),
            ("/triggers/0/stream", json!("a b"), "stream"),
            ("/scaling/max", json!(-1), "invalid"),
            ("/scaling", json!({ "maximum": 3 }), "maximum"),
        ];
        for (pointer, value, word) in mistakes {
            let mut spec = example();
            *spec.pointer_mut(pointer).unwrap() = value.clone();

            let error = Plan::of(&resource(&spec)).unwrap_err();

            assert!(error.message().contains(word), "{pointer}: {}", error.message());
        }
        let mut twice = example();
        let trigger = twice["triggers"][0].clone();
        twice["triggers"].as_array_mut().unwrap().push(trigger);
        assert!(Plan::of(&resource(&twice)).unwrap_err().message().contains("two triggers"));
        let long = Resource { name: "f".repeat(41), ..resource(&example()) };
        assert!(Plan::of(&long).is_err());
        assert!(Plan::of(&Resource { spec: "[]".into(), ..resource(&example()) }).is_err());
    }
}
