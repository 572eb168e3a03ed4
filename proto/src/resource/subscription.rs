//! Subscriptions: who reads a stream and remembers how far.

use serde::{Deserialize, Serialize};

use super::problem;
use crate::filter::{self, Filter};
use crate::{QualifiedName, Result, Timestamp};

/// What a subscription shall be. Only its filters may change later.
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
#[serde(rename_all = "lowercase")]
pub enum SubscriptionMode {
    /// One member has all partitions; the newest member takes them over.
    #[default]
    Exclusive,
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
            (r#"{"stream":"Orders"}"#, Some("spec.stream")),
            (r#"{"stream":"s","start":{"time":"noon"}}"#, Some("spec.start")),
            (r#"{"stream":"s","filters":[{"exact":{}}]}"#, Some("spec.filters[0]")),
            (r#"{"stream":"ns/s","start":{"offset":7},"mode":"exclusive"}"#, None),
            (r#"{"stream":"s","start":{"time":"2026-03-01T12:00:00Z"}}"#, None),
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
