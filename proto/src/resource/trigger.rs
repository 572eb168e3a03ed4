//! Triggers: for which events a function is run, and what becomes of those that fail.

use serde::{Deserialize, Serialize};

use super::function::check_stream;
use super::{
    DurationText, OrderKey, Start, SubscriptionMode, SubscriptionRetry, SubscriptionSpec, problem,
};
use crate::filter::{self, Filter};
use crate::{QualifiedName, Result};

/// Longest pause before another attempt, and longest age of one that failed.
const WAIT_MAX: DurationText = DurationText::from_secs(7 * 24 * 3_600);
/// Longest time to wait for the rest of a batch.
const LINGER_MAX: DurationText = DurationText::from_secs(60);
/// A member that is gone may come back for so long: a dispatcher that lost its connection, not one
/// that died.
const GRACE: DurationText = DurationText::from_secs(3);

/// A stream whose events a function is run for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerSpec {
    /// Its name within the function.
    #[serde(default = "name_default")]
    pub name: String,
    /// `name` or `namespace/name`.
    pub stream: String,
    /// Where it begins; read once, when its subscription is made.
    #[serde(default)]
    pub start: Start,
    /// Which events; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// What an event that fails holds up.
    #[serde(default)]
    pub ordering: Ordering,
    /// Ordering `per_key`: the attribute by which events belong together; by default
    /// `partitionkey`, else `subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Events of one request.
    #[serde(default, skip_serializing_if = "BatchSpec::is_default")]
    pub batch: BatchSpec,
    /// What happens after a failure.
    #[serde(default)]
    pub retry: RetrySpec,
    /// What happens when all attempts failed.
    #[serde(default)]
    pub on_exhausted: OnExhausted,
    /// What happens when the function refuses an event for good.
    #[serde(default)]
    pub on_permanent: OnPermanent,
}

/// What an event that fails holds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// Nothing: events are run in any order.
    Unordered,
    /// Those after it with the same key: events of a key are run one after the other.
    #[default]
    PerKey,
    /// All after it in its partition: events of a partition are run one after the other.
    Strict,
}

/// Events of one request. More than one are sent as a CloudEvents batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSpec {
    /// At most so many, 1 to 10,000.
    pub max_events: u32,
    /// With at most so many bytes, unless the first event alone has more.
    pub max_bytes: u64,
    /// How long the first of them waits for others.
    pub linger: DurationText,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self { max_events: 1, max_bytes: 1 << 20, linger: DurationText::from_millis(0) }
    }
}

impl BatchSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When a failed event is tried again: after a random time up to `base` doubled with each attempt,
/// at most `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// Attempts that may fail, 1 to 1,000.
    pub attempts: u32,
    /// Upper bound of the first pause.
    pub base: DurationText,
    /// Upper bound of all pauses.
    pub cap: DurationText,
    /// An event that failed first so long ago is tried no more, whatever its attempts.
    pub max_age: DurationText,
    /// The longest pause that the function may ask for by `Retry-After`.
    pub retry_after_max: DurationText,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 12,
            base: DurationText::from_millis(200),
            cap: DurationText::from_secs(60),
            max_age: DurationText::from_secs(24 * 3_600),
            retry_after_max: DurationText::from_secs(300),
        }
    }
}

/// What happens to an event when all its attempts failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// It is kept as a dead letter of the trigger's subscription, and what it held up goes on.
    #[default]
    DeadLetter,
    /// It is tried on, and holds up what it holds up; the function says so.
    Block,
}

/// What happens to an event that the function refuses for good (most of 4xx).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPermanent {
    /// It is a dead letter at once; with `on_exhausted: block` it is tried on.
    #[default]
    DeadLetter,
    /// It is tried again as after any failure.
    Retry,
}

fn name_default() -> String {
    "default".to_owned()
}

impl RetrySpec {
    fn check(&self, field: &str) -> Result<()> {
        let field = |name: &str| format!("{field}.{name}");
        if !(1..=1_000).contains(&self.attempts) {
            let message = format!("{} is not in 1..=1000", self.attempts);
            return Err(problem(field("attempts"), message));
        }
        if self.base.0.is_zero() {
            return Err(problem(field("base"), "without a pause a failure would spin"));
        }
        if self.base > self.cap {
            return Err(problem(field("base"), "the first pause is longer than the cap"));
        }
        for (name, wait) in [
            ("cap", self.cap),
            ("max_age", self.max_age),
            ("retry_after_max", self.retry_after_max),
        ] {
            if wait > WAIT_MAX || wait.0.is_zero() {
                return Err(problem(field(name), format!("{wait} is not in 1ms..={WAIT_MAX}")));
            }
        }
        Ok(())
    }
}

impl TriggerSpec {
    /// The smallest one.
    pub fn new(name: impl Into<String>, stream: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            stream: stream.into(),
            start: Start::default(),
            filters: Vec::new(),
            ordering: Ordering::default(),
            key: None,
            batch: BatchSpec::default(),
            retry: RetrySpec::default(),
            on_exhausted: OnExhausted::default(),
            on_permanent: OnPermanent::default(),
        }
    }

    /// The subscription that it owns. All of one function have one member at a time, which is the
    /// dispatcher that runs it.
    ///
    /// # Errors
    ///
    /// `Invalid` for a stream that [`FunctionSpec::check`](super::FunctionSpec::check) refuses.
    pub fn subscription(&self, function: &QualifiedName) -> Result<SubscriptionSpec> {
        let stream: QualifiedName = self.stream.parse().map_err(|error: crate::NameError| {
            problem("spec.triggers.stream", error.to_string())
        })?;
        let (mode, key) = match (self.ordering, &self.key) {
            (Ordering::Unordered, _) => (SubscriptionMode::Shared, OrderKey::default()),
            (Ordering::PerKey, None) => (SubscriptionMode::KeyShared, OrderKey::default()),
            (Ordering::PerKey, Some(name)) => {
                (SubscriptionMode::KeyShared, OrderKey::Attribute(name.clone()))
            }
            (Ordering::Strict, _) => (SubscriptionMode::KeyShared, OrderKey::Partition),
        };
        let blocks = self.on_exhausted == OnExhausted::Block;
        Ok(SubscriptionSpec {
            filters: self.filters.clone(),
            start: self.start.clone(),
            mode,
            key,
            sole: Some(format!("function {function}")),
            grace: GRACE,
            retry: SubscriptionRetry {
                attempts: if blocks { 0 } else { self.retry.attempts },
                base: self.retry.base,
                cap: self.retry.cap,
                max_age: (!blocks).then_some(self.retry.max_age),
                // That a dispatcher is gone is no failure of the function.
                count_disconnect: false,
            },
            ..SubscriptionSpec::new(stream.to_string())
        })
    }

    pub(super) fn check(&self, field: &str) -> Result<()> {
        let field = |name: &str| format!("{field}.{name}");
        check_stream(&self.stream, &field("stream"))?;
        self.start.check(&field("start"))?;
        self.retry.check(&field("retry"))?;
        if let Some(key) = &self.key {
            OrderKey::Attribute(key.clone()).check(&field("key"))?;
            if self.ordering != Ordering::PerKey {
                return Err(problem(field("key"), "only ordering per_key has a key"));
            }
        }
        if !(1..=10_000).contains(&self.batch.max_events) {
            let message = format!("{} is not in 1..=10000", self.batch.max_events);
            return Err(problem(field("batch.max_events"), message));
        }
        if self.batch.max_events > 1 && self.ordering == Ordering::Strict {
            let message = "with ordering strict events are run one after the other, not together";
            return Err(problem(field("batch.max_events"), message));
        }
        if self.batch.linger > LINGER_MAX {
            let message = format!("{} is more than {LINGER_MAX}", self.batch.linger);
            return Err(problem(field("batch.linger"), message));
        }
        filter::check_all(&self.filters).map_err(|error| {
            let inner = error.field().unwrap_or("filters").to_owned();
            problem(field(&inner), error.message())
        })
    }
}
