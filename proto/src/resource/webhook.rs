//! Webhooks: which events of a stream are sent to an address outside, and how.

use serde::{Deserialize, Serialize};

use super::webhook_url::WebhookUrl;
use super::{
    Condition, DurationText, Start, SubscriptionMode, SubscriptionRetry, SubscriptionSpec, problem,
};
use crate::filter::{self, Filter};
use crate::{Error, Name, QualifiedName, Result};

/// Says which webhook a subscription serves: its name, in the same namespace.
pub const WEBHOOK_LABEL: &str = "weft.webhook";
/// Longest name of a webhook, so that the name of its subscription stays one.
const NAME_LEN_MAX: usize = 60;
/// One in use, and one that takes its place.
const SECRETS_LEN_MAX: usize = 2;
const CONCURRENCY_MAX: u32 = 256;
const BATCH_EVENTS_MAX: u32 = 1_000;
const RATE_MAX: u32 = 1_000_000;
const TIMEOUT_MAX: DurationText = DurationText::from_secs(300);
/// Longest name of a file with a secret.
const FILE_LEN_MAX: usize = 128;
/// What a lease lasts beyond the time-out of a request.
const LEASE_MARGIN: DurationText = DurationText::from_secs(30);

/// Which events of a stream are sent to an address outside, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// `name` or `namespace/name`.
    pub stream: String,
    /// Which events; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where it begins; read once, when its subscription is made.
    #[serde(default)]
    pub start: Start,
    /// Where they are sent.
    pub url: WebhookUrl,
    /// How a request carries events.
    #[serde(default)]
    pub mode: WebhookMode,
    /// Whether events of one key are sent one after the other, in order.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub ordered: bool,
    /// Requests that are open at once, at most; it starts with one and works its way up.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// How long one request may take, from the connection to the end of the answer.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
    /// Requests a minute that are asked for; the receiver may allow fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_minute: Option<u32>,
    /// What happens to events that are not taken.
    #[serde(default)]
    pub retry: WebhookRetry,
    /// The value of the header `authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<SecretRef>,
    /// What requests are signed with; the newest first, and while it is rotated the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRef>,
}

/// How a request carries events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookMode {
    /// One event: its attributes as headers, its payload as the body.
    #[default]
    Binary,
    /// One event, as JSON.
    Structured,
    /// Up to so many events, as a JSON array.
    Batch(u32),
}

/// What happens to events that are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookRetry {
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
}

impl Default for WebhookRetry {
    fn default() -> Self {
        Self {
            attempts: 12,
            base: DurationText::from_secs(1),
            cap: DurationText::from_secs(600),
            max_age: None,
        }
    }
}

/// A secret, by the name of the file that holds it at the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Name of a file in the webhook's namespace's folder of the dispatcher's folder for secrets.
    pub file: String,
}

impl SecretRef {
    pub(super) fn check(&self, field: &str) -> Result<()> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = (1..=FILE_LEN_MAX).contains(&self.file.len())
            && self.file.chars().all(is_plain)
            && !self.file.starts_with('.');
        if is_name {
            return Ok(());
        }
        let message =
            "the name of a file: letters, digits, dots, hyphens and underscores, no dot first";
        Err(problem(format!("{field}.file"), message))
    }
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_yes(value: &bool) -> bool {
    *value
}

const fn default_concurrency() -> u32 {
    8
}

const fn default_timeout() -> DurationText {
    DurationText::from_secs(30)
}

impl WebhookSpec {
    /// Name of the subscription that a webhook owns, in its namespace.
    ///
    /// # Errors
    ///
    /// `Invalid` for names that [`Self::check`] refuses.
    pub fn subscription_name(webhook: &Name) -> Result<Name> {
        format!("wh-{webhook}")
            .parse()
            .map_err(|error: crate::NameError| Error::invalid(error.to_string()))
    }

    /// The subscription that a webhook owns: attempts, pauses and dead letters are kept there.
    pub fn subscription(&self) -> SubscriptionSpec {
        let WebhookRetry { attempts, base, cap, max_age } = self.retry;
        SubscriptionSpec {
            filters: self.filters.clone(),
            start: self.start.clone(),
            mode: if self.ordered { SubscriptionMode::KeyShared } else { SubscriptionMode::Shared },
            lease: DurationText(self.timeout.0.saturating_add(LEASE_MARGIN.0)),
            // A dispatcher that dies has not failed on the event.
            retry: SubscriptionRetry { attempts, base, cap, max_age, count_disconnect: false },
            ..SubscriptionSpec::new(self.stream.clone())
        }
    }

    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn check(&self, name: &Name) -> Result<()> {
        if name.as_str().len() > NAME_LEN_MAX {
            let message = format!("a webhook's name has at most {NAME_LEN_MAX} characters");
            return Err(problem("metadata.name", message));
        }
        self.stream
            .parse::<QualifiedName>()
            .map_err(|error| problem("spec.stream", error.to_string()))?;
        self.start.check("spec.start")?;
        if let WebhookMode::Batch(events) = self.mode
            && !(1..=BATCH_EVENTS_MAX).contains(&events)
        {
            let message = format!("{events} is not in 1..={BATCH_EVENTS_MAX}");
            return Err(problem("spec.mode.batch", message));
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency) {
            let message = format!("{} is not in 1..={CONCURRENCY_MAX}", self.concurrency);
            return Err(problem("spec.concurrency", message));
        }
        if self.timeout.0.is_zero() || self.timeout > TIMEOUT_MAX {
            let message = format!("{} is not in 1ms..={TIMEOUT_MAX}", self.timeout);
            return Err(problem("spec.timeout", message));
        }
        if self.rate_per_minute.is_some_and(|rate| !(1..=RATE_MAX).contains(&rate)) {
            return Err(problem("spec.rate_per_minute", format!("it is not in 1..={RATE_MAX}")));
        }
        if self.retry.base.0.is_zero() {
            return Err(problem("spec.retry.base", "without a pause a failure would spin"));
        }
        if self.retry.base > self.retry.cap {
            return Err(problem("spec.retry.base", "the first pause is longer than the cap"));
        }
        if let Some(authorization) = &self.authorization {
            authorization.check("spec.authorization")?;
        }
        if self.secrets.len() > SECRETS_LEN_MAX {
            let message = format!("{} secrets, more than {SECRETS_LEN_MAX}", self.secrets.len());
            return Err(problem("spec.secrets", message));
        }
        for (place, secret) in self.secrets.iter().enumerate() {
            secret.check(&format!("spec.secrets[{place}]"))?;
        }
        filter::check_all(&self.filters).map_err(|error| {
            problem(format!("spec.{}", error.field().unwrap_or("filters")), error.message())
        })?;
        // Leases, attempts and waits have the rules of subscriptions.
        self.subscription().check()
    }
}

/// How a webhook is doing; written by a dispatcher.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookStatus {
    /// Generation of the spec that this status is about.
    pub observed_generation: u64,
    /// What holds at present.
    pub conditions: Vec<Condition>,
    /// What the receiver said to being sent events.
    pub consent: ConsentStatus,
    /// `closed`, `open` or `half-open`: whether the receiver is left alone after failures.
    pub circuit: String,
    /// The receiver said that it is gone (410); nothing is sent until the webhook is enabled again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Events not settled yet.
    pub lag: u64,
    /// Events that this dispatcher sends now.
    pub in_flight: u64,
    /// Events that were taken, since the dispatcher started.
    pub delivered: u64,
    /// Attempts that failed, since the dispatcher started.
    pub failed: u64,
    /// Events that were refused for good and became dead letters, since the dispatcher started.
    pub rejected: u64,
    /// The newest failures, at most 10.
    pub last_errors: Vec<String>,
}

/// What the receiver said to being sent events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsentStatus {
    /// `granted`, `refused`, or `pending`.
    pub state: String,
    /// Why, unless it is granted.
    pub reason: String,
    /// When it was asked last, in RFC 3339.
    pub asked: String,
    /// Requests a minute that are allowed; any number without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_minute: Option<u32>,
}

/// The receiver said that it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// The generation of the webhook that was told so; a newer one is tried again.
    pub generation: u64,
    /// When, in RFC 3339.
    pub time: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(json: &str) -> Option<String> {
        let spec: WebhookSpec = serde_json::from_str(json).unwrap();
        let name = "billing".parse().unwrap();
        spec.check(&name).err().and_then(|error| error.field().map(str::to_owned))
    }

    fn with(extra: &str) -> String {
        format!(r#"{{"stream":"orders","url":"https://h.example/x"{extra}}}"#)
    }

    #[test]
    fn the_smallest_webhook_has_all_defaults_and_a_subscription() {
        let json = with("");
        let spec: WebhookSpec = serde_json::from_str(&json).unwrap();

        assert_eq!(field_of(&json), None);
        assert_eq!((spec.mode, spec.concurrency), (WebhookMode::Binary, 8));
        let again: WebhookSpec =
            serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        let subscription = spec.subscription();
        assert_eq!(subscription.mode, SubscriptionMode::KeyShared);
        assert_eq!(subscription.lease, DurationText::from_secs(60));
        assert!(!subscription.retry.count_disconnect);
    }

    #[test]
    fn each_wrong_field_is_named() {
        let file = |name: &str| format!(r#"{{"file":"{name}"}}"#);
        let cases = [
            (with(r#","mode":{"batch":0}"#), Some("spec.mode.batch")),
            (with(r#","mode":{"batch":1001}"#), Some("spec.mode.batch")),
            (with(r#","mode":{"batch":100}"#), None),
            (with(r#","mode":"structured""#), None),
            (with(r#","concurrency":0"#), Some("spec.concurrency")),
            (with(r#","timeout":"6m""#), Some("spec.timeout")),
            (with(r#","rate_per_minute":0"#), Some("spec.rate_per_minute")),
            (with(r#","retry":{"base":"0s"}"#), Some("spec.retry.base")),
            (with(r#","retry":{"base":"2h"}"#), Some("spec.retry.base")),
            (with(r#","retry":{"attempts":1001}"#), Some("spec.retry.attempts")),
            (with(r#","start":{"time":"noon"}"#), Some("spec.start")),
            (with(r#","filters":[{"exact":{}}]"#), Some("spec.filters[0].exact")),
            (with(&format!(r#","authorization":{}"#, file("token.txt"))), None),
            (
                with(&format!(r#","authorization":{}"#, file("../root"))),
                Some("spec.authorization.file"),
            ),
            (
                with(&format!(r#","authorization":{}"#, file(".hidden"))),
                Some("spec.authorization.file"),
            ),
            (
                with(&format!(r#","secrets":[{},{}]"#, file("a"), file("/etc/passwd"))),
                Some("spec.secrets[1].file"),
            ),
            (with(&format!(r#","secrets":[{0},{0},{0}]"#, file("a"))), Some("spec.secrets")),
            (r#"{"stream":"A b","url":"https://h.example/"}"#.to_owned(), Some("spec.stream")),
        ];
        for (json, field) in cases {
            assert_eq!(field_of(&json).as_deref(), field, "{json}");
        }
        let parsed = |json: &str| serde_json::from_str::<WebhookSpec>(json);
        let error = parsed(r#"{"stream":"s","url":"https://u@h/"}"#).unwrap_err().to_string();
        assert!(error.contains("has a user name"), "{error}");
        assert!(parsed(&with(r#","allow":["10.0.0.0/8"]"#)).is_err());
    }
}
