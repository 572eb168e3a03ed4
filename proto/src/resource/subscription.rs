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
        filter::check_all(&self.filters)
    }
}
