//! Replay jobs: a stored range that is delivered again, to one target alone.

use serde::{Deserialize, Serialize};

use super::{FunctionSpec, Place, Start, WebhookSpec, problem};
use crate::filter::{self, Filter};
use crate::{QualifiedName, Result};

/// Most events a second.
const RATE_MAX: u32 = 1_000_000;

/// What a replay job shall be. All but pace and state is fixed when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayJobSpec {
    /// Who gets the events.
    pub target: ReplayTarget,
    /// The first events.
    #[serde(default = "earliest")]
    pub from: Place,
    /// Where it ends, exclusive; `latest` is what is stored when the job is made.
    #[serde(default = "latest")]
    pub to: Place,
    /// Only events that pass, of those that the target wants; none = all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// How fast.
    #[serde(default, skip_serializing_if = "is_default_pace")]
    pub pace: ReplayPace,
    /// Whether it goes on.
    #[serde(default, skip_serializing_if = "is_running")]
    pub state: ReplayState,
    /// What range and target were when the job was made: the cluster fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ReplayRange>,
}

/// Who gets the events of a replay job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayTarget {
    /// The members of a subscription in mode `shared` or `key-shared`, by its rules, beside the events
    /// that it has anyway: `name` or `namespace/name`.
    Subscription(String),
    /// The receiver of a webhook: `name` or `namespace/name`.
    Webhook(String),
    /// A function, through the subscription of one of its triggers.
    Function(FunctionTarget),
}

/// A function to which events are replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionTarget {
    /// `name` or `namespace/name`.
    pub name: String,
    /// The trigger whose stream is replayed, by whose rules.
    #[serde(default = "default_trigger")]
    pub trigger: String,
    /// The revision that gets them; by default they are shared out as all events of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

fn default_trigger() -> String {
    "default".to_owned()
}

/// How fast events are replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPace {
    /// As fast as the target takes them.
    #[default]
    Fastest,
    /// With the pauses between their append times, in each partition.
    Original,
    /// So many a second at most, shared out evenly among the partitions.
    PerSecond(u32),
}

/// Whether a replay job goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayState {
    /// It does, until its range is done.
    #[default]
    Running,
    /// It stands still: what is not settled is delivered when it runs again.
    Paused,
    /// It is over for good.
    Cancelled,
}

/// What is replayed, to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRange {
    /// The uid of the target: another one of the same name gets nothing.
    pub target_uid: u64,
    /// By partition, without those where there is nothing.
    pub partitions: Vec<ReplayPartition>,
}

/// The range in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayPartition {
    /// Which one.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// One past the last offset.
    pub to: u64,
}

fn earliest() -> Place {
    Start::Earliest.into()
}

fn latest() -> Place {
    Start::Latest.into()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_default_pace(pace: &ReplayPace) -> bool {
    *pace == ReplayPace::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_running(state: &ReplayState) -> bool {
    *state == ReplayState::Running
}

impl ReplayTarget {
    /// The field of a spec that names it.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Subscription(_) => "spec.target.subscription",
            Self::Webhook(_) => "spec.target.webhook",
            Self::Function(_) => "spec.target.function",
        }
    }

    /// Its name.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn name(&self) -> Result<QualifiedName> {
        let name = match self {
            Self::Subscription(name) | Self::Webhook(name) => name,
            Self::Function(function) => &function.name,
        };
        name.parse().map_err(|error: crate::NameError| problem(self.field(), error.to_string()))
    }

    /// The subscription: itself, that of the webhook, or that of the function's trigger.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn subscription(&self) -> Result<QualifiedName> {
        let name = self.name()?;
        match self {
            Self::Subscription(_) => Ok(name),
            Self::Webhook(_) => {
                let own = WebhookSpec::subscription_name(&name.name)?;
                Ok(QualifiedName { name: own, ..name })
            }
            Self::Function(function) => {
                let own = FunctionSpec::subscription_name(&name.name, &function.trigger)?;
                Ok(QualifiedName { name: own, ..name })
            }
        }
    }
}

impl ReplayJobSpec {
    /// A job that replays everything stored to a subscription, `name` or `namespace/name`, as fast as it
    /// takes it.
    pub fn new(subscription: impl Into<String>) -> Self {
        Self {
            target: ReplayTarget::Subscription(subscription.into()),
            from: earliest(),
            to: latest(),
            filters: Vec::new(),
            pace: ReplayPace::default(),
            state: ReplayState::default(),
            resolved: None,
        }
    }

    /// The range in a partition; nothing where there is nothing to replay.
    pub fn range(&self, partition: u32) -> Option<ReplayPartition> {
        let all = self.resolved.iter().flat_map(|range| &range.partitions);
        all.copied().find(|range| range.partition == partition && range.from < range.to)
    }

    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn check(&self) -> Result<()> {
        self.target.subscription()?;
        self.from.check("spec.from")?;
        self.to.check("spec.to")?;
        if self.to == earliest() {
            return Err(problem("spec.to", "before the first event there is nothing to replay"));
        }
        let is_empty = match (&self.from, &self.to) {
            (Place::At(Start::Offset(from)), Place::At(Start::Offset(to))) => from >= to,
            (Place::Event(from), Place::Event(to)) => from == to,
            _ => false,
        };
        if is_empty {
            return Err(problem(
                "spec.to",
                "the range ends before it begins; its end is exclusive",
            ));
        }
        if let ReplayPace::PerSecond(rate) = self.pace
            && !(1..=RATE_MAX).contains(&rate)
        {
            return Err(problem("spec.pace.per_second", "1 to 1,000,000 are possible"));
        }
        filter::check_all(&self.filters).map_err(|error| {
            problem(format!("spec.{}", error.field().unwrap_or("filters")), error.message())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_is_named() {
        let cases = [
            (r#"{"target":{"subscription":"Billing"}}"#, Some("spec.target.subscription")),
            (r#"{"target":{"webhook":"a/b/c"}}"#, Some("spec.target.webhook")),
            (r#"{"target":{"webhook":"shop/billing"}}"#, None),
            (r#"{"target":{"function":{"name":"f","trigger":"t","revision":"f-00001"}}}"#, None),
            (r#"{"target":{"function":{"name":"F"}}}"#, Some("spec.target.function")),
            (r#"{"target":{"subscription":"b"},"from":{"time":"noon"}}"#, Some("spec.from")),
            (r#"{"target":{"subscription":"b"},"to":{"time":"noon"}}"#, Some("spec.to")),
            (r#"{"target":{"subscription":"b"},"to":"earliest"}"#, Some("spec.to")),
            (
                r#"{"target":{"subscription":"b"},"from":{"offset":7},"to":{"offset":7}}"#,
                Some("spec.to"),
            ),
            (
                r#"{"target":{"subscription":"b"},"pace":{"per_second":0}}"#,
                Some("spec.pace.per_second"),
            ),
            (
                r#"{"target":{"subscription":"b"},"filters":[{"exact":{}}]}"#,
                Some("spec.filters[0].exact"),
            ),
            (r#"{"target":{"subscription":"b"},"from":{"event":""}}"#, Some("spec.from.event")),
            (
                r#"{"target":{"subscription":"b"},"to":{"event":"1","since":"noon"}}"#,
                Some("spec.to.since"),
            ),
            (
                r#"{"target":{"subscription":"b"},"from":{"event":"1"},"to":{"event":"1"}}"#,
                Some("spec.to"),
            ),
            (r#"{"target":{"subscription":"b"},"from":{"event":"1"},"to":{"event":"2"}}"#, None),
            (r#"{"target":{"subscription":"ns/b"},"pace":"original","state":"paused"}"#, None),
            (r#"{"target":{"subscription":"b"},"from":{"offset":7},"to":{"offset":8}}"#, None),
        ];
        for (json, field) in cases {
            let spec: ReplayJobSpec = serde_json::from_str(json).unwrap();
            let found = spec.check().err().and_then(|error| error.field().map(str::to_owned));
            assert_eq!(found.as_deref(), field, "{json}");
        }
        for json in
            [r#"{"target":{"functoin":{"name":"f"}}}"#, r#"{"target":{"subscription":"b"},"x":1}"#]
        {
            assert!(serde_json::from_str::<ReplayJobSpec>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_webhook_is_reached_by_its_subscription() {
        let target = ReplayTarget::Webhook("shop/billing".to_owned());
        assert_eq!(target.subscription().unwrap().to_string(), "shop/wh-billing");
        assert_eq!(target.name().unwrap().to_string(), "shop/billing");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let spec: ReplayJobSpec =
            serde_json::from_str(r#"{"target":{"subscription":"b"}}"#).unwrap();

        assert_eq!(spec, ReplayJobSpec::new("b"));
        assert_eq!(spec.range(0), None);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(json, r#"{"target":{"subscription":"b"},"from":"earliest","to":"latest"}"#);
    }
}
