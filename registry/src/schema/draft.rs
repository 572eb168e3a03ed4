//! The drafts of JSON Schema, by their `$schema`.

use super::SchemaProblem;
use serde_json::Value;
use std::fmt;

/// A draft of JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Draft {
    /// Draft 4.
    Draft4,
    /// Draft 6.
    Draft6,
    /// Draft 7.
    Draft7,
    /// Draft 2019-09.
    Draft201909,
    /// Draft 2020-12, which a schema without `$schema` means.
    Draft202012,
}

impl Draft {
    /// All drafts, oldest first.
    pub const ALL: [Self; 5] =
        [Self::Draft4, Self::Draft6, Self::Draft7, Self::Draft201909, Self::Draft202012];

    /// The draft's `$schema`.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Draft4 => "http://json-schema.org/draft-04/schema#",
            Self::Draft6 => "http://json-schema.org/draft-06/schema#",
            Self::Draft7 => "http://json-schema.org/draft-07/schema#",
            Self::Draft201909 => "https://json-schema.org/draft/2019-09/schema",
            Self::Draft202012 => "https://json-schema.org/draft/2020-12/schema",
        }
    }

    /// The draft a root schema declares.
    pub(super) fn of(schema: &Value) -> Result<Self, SchemaProblem> {
        match schema.get("$schema") {
            None => Ok(Self::Draft202012),
            Some(Value::String(uri)) => Self::from_uri(uri).ok_or_else(|| unknown(uri, "/$schema")),
            Some(_) => Err(unknown("something else than a string", "/$schema")),
        }
    }

    /// The draft of a `$schema`; an empty fragment does not matter.
    pub(super) fn from_uri(uri: &str) -> Option<Self> {
        let bare = |uri: &'static str| uri.trim_end_matches('#');
        let asked = uri.strip_suffix('#').unwrap_or(uri);
        Self::ALL.into_iter().find(|draft| bare(draft.uri()) == asked)
    }

    /// Whether a `$ref` makes all its neighbours count for nothing.
    pub(super) fn ref_stands_alone(self) -> bool {
        self <= Self::Draft7
    }

    pub(super) fn upstream(self) -> jsonschema::Draft {
        match self {
            Self::Draft4 => jsonschema::Draft::Draft4,
            Self::Draft6 => jsonschema::Draft::Draft6,
            Self::Draft7 => jsonschema::Draft::Draft7,
            Self::Draft201909 => jsonschema::Draft::Draft201909,
            Self::Draft202012 => jsonschema::Draft::Draft202012,
        }
    }
}

pub(super) fn unknown(found: &str, pointer: &str) -> SchemaProblem {
    SchemaProblem::UnknownDraft { pointer: pointer.to_owned(), found: super::explain::shown(found) }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draft4 => "draft 4",
            Self::Draft6 => "draft 6",
            Self::Draft7 => "draft 7",
            Self::Draft201909 => "draft 2019-09",
            Self::Draft202012 => "draft 2020-12",
        })
    }
}
