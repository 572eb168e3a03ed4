//! The one filter language: which events somebody gets, sees or may publish.
//!
//! Source: cloudevents/spec `subscriptions/spec.md`, section "Filters", and one dialect of ours, `cel`,
//! over payloads. A list of filters is their conjunction; an empty list passes every event. In the
//! dialects that list attributes, they compare by their canonical text.
//!
//! [`Filter`] is the text; [`Compiled`] is what decides, made once for a subscription, a read or a
//! grant. It looks at a [`Candidate`], which parses the payload of an event when a filter first asks
//! for it, and once for all filters.

mod candidate;
pub mod cel;
pub mod cesql;
mod check;
mod compiled;
mod explain;
#[cfg(test)]
mod tests;
mod text;
mod wire;

use std::collections::BTreeMap;

pub use candidate::Candidate;
pub use compiled::{Compiled, Judgement};
pub use explain::{Explanation, Finding};
use serde::Serialize;
pub use wire::{from_wire, to_wire};

use crate::Result;

/// Filters within filters at most.
pub const DEPTH_MAX: usize = 16;
/// Filters in one list at most, those inside of others counted.
pub const NODES_MAX: usize = 256;
/// Bytes of all expressions in one list.
pub const EXPRESSIONS_BYTES_MAX: usize = 32 << 10;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Every listed attribute has exactly this value.
    Exact(BTreeMap<String, String>),
    /// Every listed attribute starts with this value.
    Prefix(BTreeMap<String, String>),
    /// Every listed attribute ends with this value.
    Suffix(BTreeMap<String, String>),
    /// All of these pass.
    All(Vec<Self>),
    /// At least one of these passes.
    Any(Vec<Self>),
    /// This does not pass.
    Not(Box<Self>),
    /// This CESQL expression is true.
    Sql(String),
    /// This CEL expression over the payload is true.
    Cel(String),
}

impl Filter {
    /// The name of its dialect.
    pub fn dialect(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::Suffix(_) => "suffix",
            Self::All(_) => "all",
            Self::Any(_) => "any",
            Self::Not(_) => "not",
            Self::Sql(_) => "sql",
            Self::Cel(_) => "cel",
        }
    }
}

/// Checks a list against the rules and limits.
///
/// # Errors
///
/// `Invalid`, naming the field by its path, as in `filters[2].any[0].sql`.
pub fn check_all(filters: &[Filter]) -> Result<()> {
    Compiled::new(filters).map(drop)
}
