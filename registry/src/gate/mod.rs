//! What ingest asks for each event before it proposes an entry: does it fit, and which version?
//!
//! A gate is a snapshot: bindings and compiled schemas of one stream at one catalog generation.

use crate::{
    Binding, Bindings, Mode, Pin, Schema, SchemaId, Verdict, VersionNumber, Violation, is_json,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A compiled version of a schema, with its names.
#[derive(Debug, Clone)]
pub struct Governed {
    /// Name of the schema.
    pub schema: Arc<str>,
    /// Id of the version in the cluster.
    pub id: SchemaId,
    /// Number of the version.
    pub version: VersionNumber,
    /// The schema, compiled.
    pub compiled: Schema,
}

/// The compiled schemas a gate may need, by name and version.
#[derive(Debug, Clone, Default)]
pub struct Schemas(BTreeMap<Arc<str>, BTreeMap<VersionNumber, Governed>>);

impl Schemas {
    /// Adds a version; one of the same name and number is replaced.
    pub fn insert(&mut self, governed: Governed) {
        let versions = self.0.entry(Arc::clone(&governed.schema)).or_default();
        versions.insert(governed.version, governed);
    }

    fn resolve(&self, binding: &Binding) -> Result<Governed, GateProblem> {
        let unknown = || GateProblem::UnknownSchema {
            event_type: binding.event_type.clone(),
            schema: binding.schema.clone(),
        };
        let versions = self.0.get(binding.schema.as_str()).ok_or_else(unknown)?;
        let found = match binding.pin {
            Pin::Latest => versions.last_key_value().map(|(_, latest)| latest),
            Pin::Version(number) => versions.get(&number),
        };
        match (found, binding.pin) {
            (Some(governed), _) => Ok(governed.clone()),
            (None, Pin::Latest) => Err(unknown()),
            (None, Pin::Version(version)) => Err(GateProblem::UnknownVersion {
                event_type: binding.event_type.clone(),
                schema: binding.schema.clone(),
                version,
            }),
        }
    }
}

impl FromIterator<Governed> for Schemas {
    fn from_iter<I: IntoIterator<Item = Governed>>(all: I) -> Self {
        let mut schemas = Self::default();
        all.into_iter().for_each(|governed| schemas.insert(governed));
        schemas
    }
}

/// A binding in `enforce` that leads to nothing. A gate with one could not say what it enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateProblem {
    /// No schema of that name, or none of its versions.
    UnknownSchema {
        /// Pattern of the binding.
        event_type: String,
        /// Name of the schema.
        schema: String,
    },
    /// The schema has no such version.
    UnknownVersion {
        /// Pattern of the binding.
        event_type: String,
        /// Name of the schema.
        schema: String,
        /// The version it is pinned to.
        version: VersionNumber,
    },
}

impl fmt::Display for GateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownSchema { event_type, schema } => {
                write!(f, "binding of {event_type:?} names the schema {schema:?}, which is unknown")
            }
            Self::UnknownVersion { event_type, schema, version } => write!(
                f,
                "binding of {event_type:?} names version {} of the schema {schema:?}, which is unknown",
                version.0
            ),
        }
    }
}

impl std::error::Error for GateProblem {}

/// What the gate needs to know of an event.
#[derive(Debug, Clone, Copy)]
pub struct Event<'e> {
    /// `type`.
    pub event_type: &'e str,
    /// `datacontenttype`.
    pub datacontenttype: Option<&'e str>,
    /// The payload.
    pub data: Option<&'e [u8]>,
    /// Whether `dataref` says that the payload is elsewhere.
    pub has_dataref: bool,
}

/// What is to be done with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// No binding governs it, or its payload is elsewhere: accept without a version.
    Unchecked,
    /// It fits: accept, and keep this with it.
    Accepted {
        /// Id of the schema version it fits.
        schema_id: SchemaId,
        /// Number of that version.
        version: VersionNumber,
    },
    /// Refuse.
    Refused(Box<Refusal>),
}

/// Why an event was refused, and by which schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the schema.
    pub schema: Arc<str>,
    /// Id of the version.
    pub schema_id: SchemaId,
    /// Number of the version.
    pub version: VersionNumber,
    /// For programs.
    pub kind: RefusalKind,
    /// For people: where and why.
    pub violation: Violation,
}

/// Why an event was refused, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The payload is JSON and does not fit.
    Mismatch,
    /// The payload is said to be JSON and is not.
    NotJson,
    /// The payload is said to be something else than JSON.
    ContentType,
    /// There is neither a payload nor a `dataref`.
    NoData,
    /// The check would have cost too much.
    TooCostly,
}

impl RefusalKind {
    /// The reason's code, which never changes.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Mismatch => "schema_violation",
            Self::NotJson => "not_json",
            Self::ContentType => "content_type",
            Self::NoData => "no_data",
            Self::TooCostly => "check_too_costly",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { pointer, message, more, .. } = &self.violation;
        let version = self.version.0;
        write!(f, "at \"{pointer}\": {message} (schema {} version {version}", self.schema)?;
        if *more > 0 {
            write!(f, ", and {more} more")?;
        }
        f.write_str(")")
    }
}

/// The check of one stream's events.
#[derive(Debug, Clone)]
pub struct Gate {
    bindings: Bindings,
    /// For each binding, what it enforces.
    governed: Vec<Option<Governed>>,
}

impl Gate {
    /// Resolves each binding once, so that a check only looks up its type.
    ///
    /// # Errors
    ///
    /// A binding in `enforce` whose schema or version is not among `schemas`.
    pub fn new(bindings: Bindings, schemas: &Schemas) -> Result<Self, GateProblem> {
        let resolve = |binding: &Binding| match binding.mode {
            Mode::Off => Ok(None),
            Mode::Enforce => schemas.resolve(binding).map(Some),
        };
        let governed = bindings.list().iter().map(resolve).collect::<Result<_, _>>()?;
        Ok(Self { bindings, governed })
    }

    /// Whether no event is checked at all.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.governed.iter().all(Option::is_none)
    }

    /// The version that events of this type are checked against.
    #[must_use]
    pub fn governed(&self, event_type: &str) -> Option<&Governed> {
        self.governed[self.bindings.index_for(event_type)?].as_ref()
    }

    /// Decides on one event.
    pub fn check(&self, event: &Event<'_>) -> Decision {
        let Some(governed) = self.governed(event.event_type) else { return Decision::Unchecked };
        let Some(data) = event.data else {
            return if event.has_dataref {
                Decision::Unchecked
            } else {
                governed.refuse(RefusalKind::NoData, Violation::no_data())
            };
        };
        if !is_json(event.datacontenttype) {
            let found = event.datacontenttype.unwrap_or_default();
            return governed.refuse(RefusalKind::ContentType, Violation::content_type(found));
        }
        match governed.compiled.check(data) {
            Verdict::Fits => {
                Decision::Accepted { schema_id: governed.id, version: governed.version }
            }
            Verdict::Violation(violation) => {
                let kind = match violation.keyword.as_str() {
                    "json" => RefusalKind::NotJson,
                    "steps" => RefusalKind::TooCostly,
                    _ => RefusalKind::Mismatch,
                };
                governed.refuse(kind, violation)
            }
        }
    }
}

impl Governed {
    fn refuse(&self, kind: RefusalKind, violation: Violation) -> Decision {
        Decision::Refused(Box::new(Refusal {
            schema: Arc::clone(&self.schema),
            schema_id: self.id,
            version: self.version,
            kind,
            violation,
        }))
    }
}

#[cfg(test)]
mod tests;
