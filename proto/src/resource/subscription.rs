//! Subscriptions: who reads a stream and remembers how far.

use serde::{Deserialize, Serialize};

use super::{DurationText, problem};
use crate::event::{EventView, attribute_hash, is_attribute_name, ordering_hash};
use crate::filter::{self, Filter};
use crate::{QualifiedName, Result, Timestamp};

/// Most events that are delivered and unsettled, or wait to be delivered again, in one partition.
const UNSETTLED_MAX: u32 = 16_000;
/// Longest text by which a sole member is picked.
const SOLE_LEN_MAX: usize = 256;
/// Longest lease, wait and grace: a week.
const WAIT_MAX: DurationText = DurationText::from_secs(7 * 24 * 3_600);

/// What a subscription shall be. Its stream, start and mode are fixed at creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionSpec {
    /// `name` or `namespace/name`.
    pub stream: String,
    /// Events that do not pass are settled unseen; none = all events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where it begins.
    #[serde(default)]
    pub start: Start,
    /// Who gets what when there are several members.
    #[serde(default)]
    pub mode: SubscriptionMode,
    /// How long an event is lent before it is delivered again, 1 s to 7 days. Modes `shared` and
    /// `key-shared`, like all that follows.
    #[serde(default = "default_lease", skip_serializing_if = "is_default_lease")]
    pub lease: DurationText,
    /// How long the leases of a member that is gone stay, so that it may come back and settle them.
    #[serde(default = "default_grace", skip_serializing_if = "is_default_grace")]
    pub grace: DurationText,
    /// What becomes of events whose delivery fails.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry: SubscriptionRetry,
    /// Events of one partition that are lent, or wait to be delivered again, 1 to 16,000.
    #[serde(default = "default_unsettled", skip_serializing_if = "is_default_unsettled")]
    pub unsettled_max: u32,
    /// Mode `key-shared`: events that may wait behind one whose delivery failed. With one more it
    /// becomes a dead letter, so that its key goes on.
    #[serde(default = "default_hold", skip_serializing_if = "is_default_hold")]
    pub hold_max: u32,
    /// Mode `key-shared`: of what at most one event is unsettled at a time.
    #[serde(default, skip_serializing_if = "OrderKey::is_default")]
    pub key: OrderKey,
    /// One member at a time gets events, the others stand by: of those that are there, it is the one
    /// that a hash of this text and its name picks. Subscriptions with the same text pick alike, so
    /// that one member may have all of them; those with different texts spread over their members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sole: Option<String>,
}

/// What events have in common that keep their order in mode `key-shared`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderKey {
    /// Their `partitionkey`, else `subject`; else they have nothing in common.
    #[default]
    PartitionKey,
    /// This attribute; without it they have nothing in common. Events of one key keep their order
    /// within a partition, so streams should be partitioned by the same attribute.
    Attribute(String),
    /// All events of a partition: one at a time.
    Partition,
}

impl OrderKey {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Events with the same hash keep their order.
    pub fn hash_of(&self, event: &EventView<'_>) -> u64 {
        match self {
            Self::PartitionKey => ordering_hash(event),
            Self::Attribute(name) => attribute_hash(event, name),
            Self::Partition => 0,
        }
    }

    pub(super) fn check(&self, field: &str) -> Result<()> {
        match self {
            Self::Attribute(name) if !is_attribute_name(name) => Err(problem(
                field,
                format!("{name:?} is no name of an attribute: a-z and 0-9, up to 64 of them"),
            )),
            _ => Ok(()),
        }
    }
}

/// What becomes of events whose delivery fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubscriptionRetry {
    /// Deliveries that may fail before the event becomes a dead letter, 1 to 1,000; 0 = any number.
    pub attempts: u32,
    /// The longest wait after the first failure; it doubles with each one, and a random part of it
    /// is waited.
    pub base: DurationText,
    /// The longest wait at all.
    pub cap: DurationText,
    /// An event that failed first so long ago becomes a dead letter, whatever its attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<DurationText>,
    /// Whether it is a failed delivery when a member is gone with events it holds. Else an event
    /// that brings its consumers down comes again without end.
    pub count_disconnect: bool,
}

impl Default for SubscriptionRetry {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: DurationText::from_secs(1),
            cap: DurationText::from_secs(60),
            max_age: None,
            count_disconnect: true,
        }
    }
}

fn default_lease() -> DurationText {
    DurationText::from_secs(30)
}

fn is_default_lease(lease: &DurationText) -> bool {
    *lease == default_lease()
}

fn default_grace() -> DurationText {
    DurationText::from_secs(5)
}

fn is_default_grace(grace: &DurationText) -> bool {
    *grace == default_grace()
}

fn is_default(retry: &SubscriptionRetry) -> bool {
    *retry == SubscriptionRetry::default()
}

const fn default_unsettled() -> u32 {
    10_000
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_default_unsettled(max: &u32) -> bool {
    *max == default_unsettled()
}

const fn default_hold() -> u32 {
    10_000
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_default_hold(max: &u32) -> bool {
    *max == default_hold()
}

/// Where a new reader begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the first stored event.
    Earliest,
    /// With the first event appended after the resource was created.
    #[default]
    Latest,
    /// At this offset in every partition.
    Offset(u64),
    /// With the first event appended at or after this RFC 3339 time.
    Time(String),
}

/// Who gets what when there are several members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriptionMode {
    /// One member has all partitions; the newest member takes them over.
    #[default]
    Exclusive,
    /// Each event is lent to one of the members, whichever has room.
    Shared,
    /// The same, but of one key (`partitionkey`, else `subject`, else source and id) at most one event
    /// is unsettled at a time, in the order of the partition.
    KeyShared,
}

impl Start {
    pub(super) fn check(&self, field: &str) -> Result<()> {
        match self {
            Self::Time(text) => match text.parse::<Timestamp>() {
                Ok(_) => Ok(()),
                Err(error) => Err(problem(field, error.to_string())),
            },
            Self::Earliest | Self::Latest | Self::Offset(_) => Ok(()),
        }
    }
}

impl SubscriptionSpec {
    /// A subscription to all new events of a stream, `name` or `namespace/name`, with everything else
    /// as it is by default.
    pub fn new(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            filters: Vec::new(),
            start: Start::default(),
            mode: SubscriptionMode::default(),
            lease: default_lease(),
            grace: default_grace(),
            retry: SubscriptionRetry::default(),
            unsettled_max: default_unsettled(),
            hold_max: default_hold(),
            key: OrderKey::default(),
            sole: None,
        }
    }

    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn check(&self) -> Result<()> {
        self.stream
            .parse::<QualifiedName>()
            .map_err(|error| problem("spec.stream", error.to_string()))?;
        self.start.check("spec.start")?;
        self.check_lending()?;
        filter::check_all(&self.filters).map_err(|error| {
            problem(format!("spec.{}", error.field().unwrap_or("filters")), error.message())
        })
    }
    fn check_lending(&self) -> Result<()> {
        let second = DurationText::from_secs(1);
        if !(second..=WAIT_MAX).contains(&self.lease) {
            return Err(problem("spec.lease", "a lease lasts 1 s to 7 days"));
        }
        let retry = &self.retry;
        for (field, wait) in [
            ("spec.grace", self.grace),
            ("spec.retry.base", retry.base),
            ("spec.retry.cap", retry.cap),
        ] {
            if wait > WAIT_MAX {
                return Err(problem(field, "at most 7 days"));
            }
        }
        if retry.attempts > 1_000 {
            return Err(problem("spec.retry.attempts", "at most 1,000; 0 means any number"));
        }
        if retry.max_age == Some(DurationText::from_millis(0)) {
            return Err(problem("spec.retry.max_age", "an age of 0 would retry nothing"));
        }
        if !(1..=UNSETTLED_MAX).contains(&self.unsettled_max) {
            return Err(problem("spec.unsettled_max", "1 to 16,000 are possible"));
        }
        if !(1..=UNSETTLED_MAX).contains(&self.hold_max) {
            return Err(problem("spec.hold_max", "1 to 16,000 are possible"));
        }
        self.key.check("spec.key")?;
        if self.mode != SubscriptionMode::KeyShared && !self.key.is_default() {
            return Err(problem("spec.key", "only mode key-shared keeps the order of keys"));
        }
        match &self.sole {
            Some(_) if self.mode == SubscriptionMode::Exclusive => {
                Err(problem("spec.sole", "in mode exclusive the newest member is served"))
            }
            Some(text) if text.is_empty() || text.len() > SOLE_LEN_MAX => {
                Err(problem("spec.sole", "1 to 256 bytes are possible"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_is_named() {
        let cases = [
            (r#"{"stream":"Orders"}"#, Some("spec.stream")),
            (r#"{"stream":"s","start":{"time":"noon"}}"#, Some("spec.start")),
            (r#"{"stream":"s","filters":[{"exact":{}}]}"#, Some("spec.filters[0].exact")),
            (r#"{"stream":"ns/s","start":{"offset":7},"mode":"exclusive"}"#, None),
            (r#"{"stream":"s","start":{"time":"2026-03-01T12:00:00Z"}}"#, None),
            (r#"{"stream":"s","mode":"shared","lease":"999ms"}"#, Some("spec.lease")),
            (r#"{"stream":"s","mode":"shared","lease":"8d"}"#, Some("spec.lease")),
            (r#"{"stream":"s","grace":"8d"}"#, Some("spec.grace")),
            (r#"{"stream":"s","retry":{"attempts":1001}}"#, Some("spec.retry.attempts")),
            (r#"{"stream":"s","retry":{"base":"8d"}}"#, Some("spec.retry.base")),
            (r#"{"stream":"s","retry":{"cap":"8d"}}"#, Some("spec.retry.cap")),
            (r#"{"stream":"s","retry":{"max_age":"0s"}}"#, Some("spec.retry.max_age")),
            (r#"{"stream":"s","unsettled_max":0}"#, Some("spec.unsettled_max")),
            (r#"{"stream":"s","unsettled_max":16001}"#, Some("spec.unsettled_max")),
            (r#"{"stream":"s","hold_max":0}"#, Some("spec.hold_max")),
            (r#"{"stream":"s","mode":"key-shared","lease":"1m","retry":{"attempts":0}}"#, None),
            (r#"{"stream":"s","mode":"key-shared","key":"partition","sole":"a"}"#, None),
            (r#"{"stream":"s","mode":"key-shared","key":{"attribute":"customerid"}}"#, None),
            (
                r#"{"stream":"s","mode":"key-shared","key":{"attribute":"Customer"}}"#,
                Some("spec.key"),
            ),
            (r#"{"stream":"s","mode":"shared","key":"partition"}"#, Some("spec.key")),
            (r#"{"stream":"s","mode":"shared","sole":""}"#, Some("spec.sole")),
            (r#"{"stream":"s","sole":"a"}"#, Some("spec.sole")),
        ];
        for (json, field) in cases {
            let spec: SubscriptionSpec = serde_json::from_str(json).unwrap();
            let found = spec.check().err().and_then(|error| error.field().map(str::to_owned));
            assert_eq!(found.as_deref(), field, "{json}");
        }
        assert!(serde_json::from_str::<SubscriptionSpec>(r#"{"stream":"s","begin":1}"#).is_err());
        assert!(serde_json::from_str::<SubscriptionSpec>(r#"{"stream":"s","mode":"x"}"#).is_err());
    }
}
