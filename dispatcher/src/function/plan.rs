//! What the definition of a function means for the one who runs it.
//!
//! ```yaml
//! apiVersion: weft/v1
//! kind: Function
//! metadata: { name: confirm }
//! spec:
//!   command: [weft, sample-function]   # a bare name is looked up in the allowed directories
//!   env: [{ name: GREETING, value: hello }]
//!   timeout: 30s
//!   concurrency: { hard: 8 }
//!   triggers:
//!     - name: placed
//!       stream: orders
//!       start: earliest
//!       filters: [{ suffix: { type: .order.placed } }]
//!       retry: { attempts: 12, base: 200ms, cap: 60s }
//!   reply: { stream: confirmations }
//!   scaling: { min: 0, max: 4, idle: 30s }
//! ```

use std::time::Duration;

use weft_proto::resource::{self, FunctionSpec, Kind, SubscriptionSpec};
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, Name, QualifiedName, ResourceUid, Result};

use crate::feed::FUNCTION_LABEL;
use crate::port::SUBSCRIPTION;
use crate::{delivery, scale};

/// Longest `Retry-After` that is obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
/// What a function gets on top of its time-out to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Longest time that past demand keeps surplus instances.
const DOWN_DELAY_MAX: Duration = Duration::from_secs(30);

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
        let name = name_of(resource)?;
        let spec: FunctionSpec = resource::parse(Kind::Function, &resource.spec)?;
        // The catalog has checked it, perhaps an older one with fewer rules.
        spec.check(&name.name)?;
        if spec.command.is_empty() {
            let message = "this dispatcher runs functions with a command, and this one has none";
            return Err(Error::invalid(message).with_field("spec.command"));
        }
        if spec.command.iter().chain(spec.env.iter().map(|env| &env.value)).any(has_nul) {
            return Err(Error::invalid("command and environment must not hold NUL"));
        }
        // One function has one queue of retries, so its triggers share the rules of the first.
        let retry = spec.triggers.first().map(|trigger| trigger.retry).unwrap_or_default();
        let permits = spec.concurrency.hard;
        let triggers = spec.triggers.iter().map(|trigger| Trigger::of(trigger, &name));
        let triggers = triggers.collect::<Result<_>>()?;
        let reply_to = spec.reply.as_ref().map(|reply| stream(&reply.stream)).transpose()?;
        Ok(Self {
            uid: ResourceUid(resource.uid),
            generation: Generation(resource.generation),
            delivery: delivery::Policy {
                backoff_base: retry.base.0,
                backoff_cap: retry.cap.0,
                retry_after_max: RETRY_AFTER_MAX,
                attempts: retry.attempts,
                permits_hard: permits,
            },
            scale: scale::Policy {
                min: spec.scaling.min,
                max: spec.scaling.max,
                idle: spec.scaling.idle.0,
                down_delay: spec.scaling.idle.0.min(DOWN_DELAY_MAX),
                permits,
            },
            template: Template {
                command: spec.command,
                env: spec.env.into_iter().map(|env| (env.name, env.value)).collect(),
                timeout: spec.timeout.0,
                permits,
            },
            triggers,
            reply_to,
            name,
        })
    }

    /// How long an instance may take to end.
    pub(crate) fn grace(&self) -> Duration {
        self.template.timeout.saturating_add(GRACE)
    }
}

/// The full name of a resource.
pub(crate) fn name_of(resource: &Resource) -> Result<QualifiedName> {
    let invalid = |error| Error::invalid(format!("{error}"));
    let namespace = match resource.namespace.as_str() {
        "" => Name::default_namespace(),
        text => text.parse().map_err(invalid)?,
    };
    Ok(QualifiedName { namespace, name: resource.name.parse().map_err(invalid)? })
}

#[expect(clippy::ptr_arg, reason = "used as a function on the items of a list of strings")]
fn has_nul(text: &String) -> bool {
    text.contains('\0')
}

fn stream(text: &str) -> Result<QualifiedName> {
    text.parse().map_err(|error| Error::invalid(format!("stream {text:?}: {error}")))
}

impl Trigger {
    fn of(trigger: &resource::TriggerSpec, function: &QualifiedName) -> Result<Self> {
        let text = format!("fn-{}-{}", function.name, trigger.name);
        let name: Name = text.parse().map_err(|error| Error::invalid(format!("{error}")))?;
        let spec = SubscriptionSpec {
            filters: trigger.filters.clone(),
            start: trigger.start.clone(),
            ..SubscriptionSpec::new(stream(&trigger.stream)?.to_string())
        };
        let spec = serde_json::to_vec(&spec).map_err(|error| Error::internal(error.to_string()))?;
        let resource = Resource {
            kind: SUBSCRIPTION.to_owned(),
            namespace: function.namespace.to_string(),
            name: name.to_string(),
            labels: [(FUNCTION_LABEL.to_owned(), function.name.to_string())].into(),
            spec: spec.into(),
            ..Resource::default()
        };
        let subscription = QualifiedName { namespace: function.namespace.clone(), name };
        Ok(Self { name: trigger.name.clone(), subscription, resource })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

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
            "command": ["weft", "sample-function"],
            "env": [{ "name": "GREETING", "value": "hello" }],
            "timeout": "10s",
            "concurrency": { "hard": 8 },
            "triggers": [{
                "name": "placed",
                "stream": "shop/orders",
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
        let expected = json!({
            "stream": "shop/orders",
            "start": "earliest",
            "filters": filters,
            "mode": "exclusive",
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn without_further_words_the_defaults_hold() {
        let spec = json!({ "command": ["f"], "triggers": [{ "stream": "s" }] });

        let plan = Plan::of(&resource(&spec)).unwrap();

        assert_eq!(plan.template.timeout, Duration::from_secs(30));
        assert_eq!(plan.delivery.attempts, 12);
        assert_eq!((plan.scale.min, plan.scale.max), (0, 1));
        assert_eq!(plan.triggers[0].subscription.to_string(), "shop/fn-confirm-default");
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        let mistakes: &[(&str, Value, &str)] = &[
            ("/command", json!([]), "command"),
            ("/command", json!(["a\0b"]), "NUL"),
            ("/env/0/value", json!("a\0b"), "NUL"),
            ("/timeout", json!("0s"), "1ms"),
            ("/triggers/0/stream", json!("a b"), "a b"),
            ("/scaling", json!({ "maximum": 3 }), "maximum"),
        ];
        for (pointer, value, word) in mistakes {
            let mut spec = example();
            *spec.pointer_mut(pointer).unwrap() = value.clone();

            let error = Plan::of(&resource(&spec)).unwrap_err();

            assert!(error.message().contains(word), "{pointer}: {}", error.message());
        }
        let mut container = example();
        container.as_object_mut().unwrap().remove("command");
        container["image"] = json!("example.com/f");
        let error = Plan::of(&resource(&container)).unwrap_err();
        assert!(error.message().contains("with a command"));
        assert!(Plan::of(&Resource { name: "A".to_owned(), ..resource(&example()) }).is_err());
    }
}
