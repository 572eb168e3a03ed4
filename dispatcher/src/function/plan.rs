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
//!       ordering: per_key
//!       retry: { attempts: 12, base: 200ms, cap: 60s }
//!   reply: { stream: confirmations }
//!   scaling: { min: 0, max: 4, idle: 30s }
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use weft_proto::event::EventView;
use weft_proto::resource::{
    self, FunctionSpec, Kind, OnExhausted, OnPermanent, OrderKey, Ordering, Template, TriggerSpec,
};
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, Name, QualifiedName, ResourceUid, Result, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::delivery::{FeedPolicy, InstanceId, RevisionNo};
use crate::feed::FUNCTION_LABEL;
use crate::launch::{Labels, Launch, Run};
use crate::port::SUBSCRIPTION;
use crate::scale;

/// What an instance gets on top of its time-out to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// A function as the runner needs it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: QualifiedName,
    pub(crate) uid: ResourceUid,
    pub(crate) generation: Generation,
    /// Those that are kept, by number.
    pub(crate) revisions: BTreeMap<RevisionNo, Revision>,
    /// Who gets which part of a hundred, in this order.
    pub(crate) shares: Vec<(RevisionNo, u32)>,
    pub(crate) scale: scale::Policy,
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) reply_to: Option<QualifiedName>,
}

/// What instances are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) name: String,
    pub(crate) template: Template,
}

/// A stream whose events go to the function, through a subscription of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    pub(crate) subscription: QualifiedName,
    pub(crate) resource: Resource,
    pub(crate) policy: FeedPolicy,
    /// Events travel as batches.
    pub(crate) is_batch: bool,
    /// After so many failures an event counts as blocked, if it is not given up.
    pub(crate) blocks_after: Option<u32>,
    /// By what events are shared out among revisions.
    key: OrderKey,
    seed: u64,
}

impl Plan {
    /// Reads a function of the catalog.
    ///
    /// # Errors
    ///
    /// `Invalid`, with a sentence for the status of the function.
    pub(crate) fn of(resource: &Resource) -> Result<Self> {
        let name = name_of(resource)?;
        let mut spec: FunctionSpec = resource::parse(Kind::Function, &resource.spec)?;
        // The catalog has checked it, perhaps an older one with fewer rules.
        spec.check(&name.name)?;
        if spec.flow.is_some() {
            let message = "this version does not run flows: weft flow test tries them";
            return Err(Error::invalid(message).with_field("spec.flow"));
        }
        if spec.revisions.is_empty() {
            spec.revise(&name.name, None, "", Timestamp::default())?;
        }
        let triggers = spec.triggers.iter().map(|trigger| Trigger::of(trigger, &name));
        let triggers = triggers.collect::<Result<_>>()?;
        let reply_to = spec.reply.as_ref().map(|reply| stream(&reply.stream)).transpose()?;
        let number = |revision: &resource::Revision| RevisionNo(revision.number());
        let shares = spec.shares().into_iter();
        let shares = shares.map(|(revision, percent)| (number(revision), percent)).collect();
        let revisions = spec.revisions.iter().map(|revision| {
            let (name, template) = (revision.name.clone(), revision.template.clone());
            (number(revision), Revision { name, template })
        });
        Ok(Self {
            uid: ResourceUid(resource.uid),
            generation: Generation(resource.generation),
            revisions: revisions.collect(),
            shares,
            scale: scale::Policy {
                min: spec.scaling.min,
                max: spec.scaling.max,
                idle: spec.scaling.idle.0,
                down_delay: spec.scaling.down_delay.0.min(spec.scaling.idle.0),
            },
            triggers,
            reply_to,
            name,
        })
    }

    /// What to start for one more instance of a revision.
    pub(crate) fn launch(&self, id: InstanceId, revision: RevisionNo) -> Option<Launch> {
        let Revision { name, template } = self.revisions.get(&revision)?.clone();
        Some(Launch {
            id,
            function: self.name.clone(),
            revision: name,
            run: match template.image {
                Some(image) => Run::Container { image, args: template.args, port: template.port },
                None => Run::Process { command: template.command },
            },
            env: template.env,
            resources: template.resources,
            probe: template.probe,
            protocol: template.protocol,
            security: template.security,
            // The catalog has checked it.
            policy: template.policy.parse().ok()?,
            instances: self.scale.max,
            grace: self.grace(revision),
            labels: Labels::default(),
        })
    }

    /// Whose turn an event of this hash is.
    pub(crate) fn route(&self, hash: u64) -> RevisionNo {
        let mut slot = hash % 100;
        for &(revision, percent) in &self.shares {
            match slot.checked_sub(percent.into()) {
                None => return revision,
                Some(rest) => slot = rest,
            }
        }
        self.shares.first().map_or(RevisionNo(0), |&(first, _)| first)
    }

    /// What a revision is called.
    pub(crate) fn name_of(&self, revision: RevisionNo) -> String {
        let found = self.revisions.get(&revision).map(|revision| revision.name.clone());
        found.unwrap_or_else(|| format!("{}-{:05}", self.name.name, revision.0))
    }

    /// Its number.
    pub(crate) fn number_of(&self, name: &str) -> Option<RevisionNo> {
        let mut all = self.revisions.iter();
        all.find(|(_, revision)| revision.name == name).map(|(&number, _)| number)
    }

    /// How long an instance of a revision may take to end.
    pub(crate) fn grace(&self, revision: RevisionNo) -> Duration {
        self.timeout(revision).saturating_add(GRACE)
    }

    /// How long an event may take at a revision.
    pub(crate) fn timeout(&self, revision: RevisionNo) -> Duration {
        let found = self.revisions.get(&revision).map(|revision| revision.template.timeout.0);
        found.unwrap_or_else(|| self.longest_timeout())
    }

    /// How long an event may take at any revision.
    pub(crate) fn longest_timeout(&self) -> Duration {
        let all = self.revisions.values().map(|revision| revision.template.timeout.0);
        all.max().unwrap_or_default()
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

fn stream(text: &str) -> Result<QualifiedName> {
    text.parse().map_err(|error| Error::invalid(format!("stream {text:?}: {error}")))
}

impl Trigger {
    fn of(trigger: &TriggerSpec, function: &QualifiedName) -> Result<Self> {
        let name = FunctionSpec::subscription_name(&function.name, &trigger.name)?;
        let spec = trigger.subscription(function)?;
        let key = match trigger.ordering {
            Ordering::PerKey => spec.key.clone(),
            // Nothing that several events have in common.
            Ordering::Unordered | Ordering::Strict => OrderKey::Attribute(String::new()),
        };
        let text = serde_json::to_vec(&spec).map_err(|error| Error::internal(error.to_string()))?;
        let resource = Resource {
            kind: SUBSCRIPTION.to_owned(),
            namespace: function.namespace.to_string(),
            name: name.to_string(),
            labels: [(FUNCTION_LABEL.to_owned(), function.name.to_string())].into(),
            spec: text.into(),
            ..Resource::default()
        };
        let batch = trigger.batch;
        let blocks = trigger.on_exhausted == OnExhausted::Block;
        let subscription = QualifiedName { namespace: function.namespace.clone(), name };
        Ok(Self {
            name: trigger.name.clone(),
            seed: xxh3_64_with_seed(subscription.to_string().as_bytes(), 0),
            subscription,
            resource,
            policy: FeedPolicy {
                batch_events: usize::try_from(batch.max_events).unwrap_or(1).max(1),
                batch_bytes: batch.max_bytes,
                linger: batch.linger.0,
                retry_after_max: trigger.retry.retry_after_max.0,
                gives_up: !blocks && trigger.on_permanent == OnPermanent::DeadLetter,
            },
            is_batch: batch.max_events > 1,
            blocks_after: blocks.then_some(trigger.retry.attempts),
            key,
        })
    }

    /// By what an event finds its revision: the same for all of its key, and at every try.
    pub(crate) fn hash_of(&self, event: &EventView<'_>) -> u64 {
        // The hash of the key alone decides about the partition: without a seed, the events of a
        // partition would have few revisions among them.
        xxh3_64_with_seed(&self.key.hash_of(event).to_le_bytes(), self.seed)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::{Value, json};
    use weft_proto::cloudevents::CloudEvent;

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
        assert_eq!(plan.shares, [(RevisionNo(1), 100)]);
        assert_eq!(plan.timeout(RevisionNo(1)), Duration::from_secs(10));
        assert_eq!(plan.revisions[&RevisionNo(1)].template.concurrency.hard, 8);
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
            "mode": "key-shared",
            "sole": "function shop/confirm",
            "grace": "3s",
            "retry": {
                "attempts": 3, "base": "100ms", "cap": "1m", "max_age": "1d",
                "count_disconnect": false,
            },
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn without_further_words_the_defaults_hold() {
        let spec = json!({ "command": ["f"], "triggers": [{ "stream": "s" }] });

        let plan = Plan::of(&resource(&spec)).unwrap();

        assert_eq!(plan.longest_timeout(), Duration::from_secs(30));
        assert_eq!((plan.scale.min, plan.scale.max), (0, 10));
        let trigger = &plan.triggers[0];
        assert_eq!(trigger.subscription.to_string(), "shop/fn-confirm-default");
        assert_eq!((trigger.policy.batch_events, trigger.is_batch), (1, false));
        assert!(trigger.policy.gives_up && trigger.blocks_after.is_none());
    }

    #[test]
    fn each_ordering_has_its_mode() {
        let spec = |trigger: Value| {
            let mut spec = example();
            spec["triggers"] = json!([trigger]);
            let plan = Plan::of(&resource(&spec)).unwrap();
            let spec: Value = serde_json::from_slice(&plan.triggers[0].resource.spec).unwrap();
            (spec["mode"].clone(), spec["key"].clone(), spec["retry"]["attempts"].clone())
        };
        let unordered = spec(json!({ "stream": "s", "ordering": "unordered" }));
        assert_eq!(unordered, ("shared".into(), Value::Null, 12.into()));
        let keyed = spec(json!({ "stream": "s", "key": "customer" }));
        assert_eq!(keyed.0, "key-shared");
        assert_eq!(keyed.1, json!({ "attribute": "customer" }));
        let strict = spec(json!({ "stream": "s", "ordering": "strict", "on_exhausted": "block" }));
        assert_eq!(strict, ("key-shared".into(), "partition".into(), 0.into()));
    }

    #[test]
    fn a_key_stays_with_its_revision_and_shares_are_what_they_say() {
        let mut spec = example();
        let name: Name = "confirm".parse().unwrap();
        let mut first: FunctionSpec = serde_json::from_value(spec.clone()).unwrap();
        first.revise(&name, None, "", Timestamp::default()).unwrap();
        spec["command"] = json!(["other"]);
        spec["traffic"] = json!([
            { "revision": "confirm-00001", "percent": 80 },
            { "revision": "latest", "percent": 20 },
        ]);
        let mut second: FunctionSpec = serde_json::from_value(spec).unwrap();
        second.revise(&name, Some(&first), "", Timestamp::default()).unwrap();
        let plan = Plan::of(&resource(&serde_json::to_value(&second).unwrap())).unwrap();
        let route = |key: u32, id: u32| {
            let mut event = CloudEvent {
                id: id.to_string(),
                source: "/s".to_owned(),
                spec_version: "1.0".to_owned(),
                r#type: "t".to_owned(),
                ..CloudEvent::default()
            };
            let attr = weft_proto::cloudevents::cloud_event::CloudEventAttributeValue {
                attr: Some(
                    weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr::CeString(
                        key.to_string(),
                    ),
                ),
            };
            event.attributes.insert("partitionkey".to_owned(), attr);
            let bytes = event.encode_to_vec();
            plan.route(plan.triggers[0].hash_of(&EventView::parse(&bytes).unwrap()))
        };
        let mut canary = 0;
        for key in 0..10_000 {
            assert_eq!(route(key, 1), route(key, 2));
            canary += u32::from(route(key, 1) == RevisionNo(2));
        }
        assert!((1_800..2_200).contains(&canary), "{canary}");
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
        let plan = Plan::of(&resource(&container)).unwrap();
        let launch = plan.launch(InstanceId(3), RevisionNo(1)).unwrap();
        let image = "example.com/f".to_owned();
        assert_eq!(launch.run, Run::Container { image, args: Vec::new(), port: 8_080 });
        assert_eq!((launch.revision.as_str(), launch.instances), ("confirm-00001", 4));
        let mut flow = example();
        flow.as_object_mut().unwrap().remove("command");
        flow["flow"] = json!({ "steps": [{ "dedup": { "window": "1m" } }] });
        let error = Plan::of(&resource(&flow)).unwrap_err();
        assert!(error.message().contains("does not run flows"), "{}", error.message());
        assert!(Plan::of(&Resource { name: "A".to_owned(), ..resource(&example()) }).is_err());
    }
}
