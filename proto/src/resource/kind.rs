//! The kinds of resources.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A named set of partitions with one policy.
    Stream,
    /// A schema document and its versions.
    Schema,
    /// A durable reader of a stream.
    Subscription,
    /// Something that is run for events.
    Function,
    /// A stored range that is delivered again.
    ReplayJob,
    /// An address outside that events are sent to.
    Webhook,
    /// Who may do what.
    Grant,
    /// How much of the cluster somebody may use.
    Limit,
    /// What functions may be made of.
    ContainerPolicy,
}

impl Kind {
    /// All kinds, in the order in which resources can be applied: what others need comes first.
    pub const ALL: [Self; 9] = [
        Self::Schema,
        Self::Stream,
        Self::Subscription,
        Self::ContainerPolicy,
        Self::Function,
        Self::ReplayJob,
        Self::Webhook,
        Self::Grant,
        Self::Limit,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "Stream",
            Self::Schema => "Schema",
            Self::Subscription => "Subscription",
            Self::Function => "Function",
            Self::ReplayJob => "ReplayJob",
            Self::Webhook => "Webhook",
            Self::Grant => "Grant",
            Self::Limit => "Limit",
            Self::ContainerPolicy => "ContainerPolicy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Takes any case, the plural, and hyphens between words, for the command line.
impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wanted = text.to_ascii_lowercase().replace('-', "");
        let found = Self::ALL.into_iter().find(|kind| {
            let name = kind.as_str().to_ascii_lowercase();
            let plural = match name.strip_suffix('y') {
                Some(stem) => format!("{stem}ies"),
                None => format!("{name}s"),
            };
            wanted == name || wanted == plural
        });
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            let message = format!("{text:?} is no kind; kinds are {known}");
            Error::invalid(message).with_field("kind")
        })
    }
}
