//! What a schema may cost, and what is said when it is too much or wrong.

use super::Draft;
use crate::json::Problem;
use jsonschema::ValidationError;
use std::fmt;

/// Bounds on a schema and on a check. The defaults admit the schemas of large public APIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the schema's text.
    pub bytes_max: u64,
    /// JSON values in the schema's text.
    pub values_max: u64,
    /// Subschemas that one place of a payload can meet, through `$ref`, `allOf` and their like.
    /// Bounds the product of references that refer to references.
    pub visits_max: u64,
    /// How many of those can be nested in one another. Bounds the stack.
    pub nesting_max: u64,
    /// Values of one `enum`.
    pub enum_max: u64,
    /// Bytes of one regular expression.
    pub pattern_bytes_max: u64,
    /// Regular expressions in one schema.
    pub patterns_max: u64,
    /// Bytes of one compiled regular expression.
    pub pattern_program_bytes_max: usize,
    /// `maxItems` beside `uniqueItems`.
    pub unique_items_max: u64,
    /// Steps that a check of any payload may take. A step is a lookup or a way down into the
    /// payload, weighted by what it can lead to.
    pub steps_base: u64,
    /// Steps more for each JSON value in the payload: an honest check grows with its payload.
    pub steps_per_value: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 20,
            values_max: 200_000,
            visits_max: 2_000,
            nesting_max: 48,
            enum_max: 10_000,
            pattern_bytes_max: 1_024,
            patterns_max: 256,
            pattern_program_bytes_max: 1 << 20,
            unique_items_max: 4_096,
            // Twice what it takes to explain a payload that fits none of 66 large alternatives.
            steps_base: 150_000,
            steps_per_value: 64,
        }
    }
}

/// A limit of [`Limits`], by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::bytes_max`].
    Bytes,
    /// [`Limits::values_max`].
    Values,
    /// [`Limits::visits_max`].
    Visits,
    /// [`Limits::nesting_max`].
    Nesting,
    /// [`Limits::enum_max`].
    EnumValues,
    /// [`Limits::pattern_bytes_max`].
    PatternBytes,
    /// [`Limits::patterns_max`].
    Patterns,
    /// [`Limits::unique_items_max`].
    UniqueItems,
}

impl Limits {
    fn of(&self, limit: Limit) -> u64 {
        match limit {
            Limit::Bytes => self.bytes_max,
            Limit::Values => self.values_max,
            Limit::Visits => self.visits_max,
            Limit::Nesting => self.nesting_max,
            Limit::EnumValues => self.enum_max,
            Limit::PatternBytes => self.pattern_bytes_max,
            Limit::Patterns => self.patterns_max,
            Limit::UniqueItems => self.unique_items_max,
        }
    }

    pub(super) fn steps(&self, values: usize) -> u64 {
        self.steps_per_value.saturating_mul(values as u64).saturating_add(self.steps_base)
    }

    pub(super) fn check(
        &self,
        pointer: &str,
        limit: Limit,
        value: u64,
    ) -> Result<(), SchemaProblem> {
        self.check_at(limit, value, || pointer.to_owned())
    }

    pub(super) fn check_at(
        &self,
        limit: Limit,
        value: u64,
        pointer: impl FnOnce() -> String,
    ) -> Result<(), SchemaProblem> {
        let max = self.of(limit);
        if value <= max {
            return Ok(());
        }
        Err(SchemaProblem::BeyondLimit { pointer: pointer(), limit, value, max })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Values => "JSON values",
            Self::Visits => "subschemas for one place of the payload",
            Self::Nesting => "subschemas nested at one place of the payload",
            Self::EnumValues => "values of enum",
            Self::PatternBytes => "bytes of a pattern",
            Self::Patterns => "patterns",
            Self::UniqueItems => "maxItems beside uniqueItems",
        })
    }
}

/// Why a schema was refused. Pointers are JSON pointers into the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaProblem {
    /// The text is not JSON.
    NotJson(Problem),
    /// `$schema` names no draft that is spoken here.
    UnknownDraft {
        /// Where.
        pointer: String,
        /// What it names.
        found: String,
    },
    /// More than a limit allows.
    BeyondLimit {
        /// Where.
        pointer: String,
        /// Which limit.
        limit: Limit,
        /// What the schema has.
        value: u64,
        /// What it may have.
        max: u64,
    },
    /// A reference to another document, which is never fetched.
    RemoteReference {
        /// Of the reference.
        pointer: String,
        /// The reference as written.
        reference: String,
    },
    /// A reference to nothing in this document.
    DanglingReference {
        /// Of the reference.
        pointer: String,
        /// The reference as written.
        reference: String,
    },
    /// References that lead back without ever going down into the payload.
    EndlessReference {
        /// Of a subschema on the loop.
        pointer: String,
    },
    /// `uniqueItems` without `maxItems`: the cost has no bound.
    UnboundedUniqueItems {
        /// Of the `uniqueItems`.
        pointer: String,
    },
    /// A regular expression outside the linear-time dialect, or too large once compiled.
    Pattern {
        /// Of the expression, or of the schema that holds it as a name.
        pointer: String,
        /// The expression.
        pattern: String,
    },
    /// Not a schema of its draft.
    NotASchema {
        /// Where it deviates.
        pointer: String,
        /// How.
        message: String,
    },
}

impl SchemaProblem {
    /// JSON pointer into the schema; empty means the whole of it.
    #[must_use]
    pub fn pointer(&self) -> &str {
        match self {
            Self::NotJson(_) => "",
            Self::UnknownDraft { pointer, .. }
            | Self::BeyondLimit { pointer, .. }
            | Self::RemoteReference { pointer, .. }
            | Self::DanglingReference { pointer, .. }
            | Self::EndlessReference { pointer }
            | Self::UnboundedUniqueItems { pointer }
            | Self::Pattern { pointer, .. }
            | Self::NotASchema { pointer, .. } => pointer,
        }
    }

    /// What the compiler found that [`vet`](super::vet) leaves to it.
    pub(super) fn from_build(error: &ValidationError<'_>, limits: &Limits) -> Self {
        use jsonschema::error::ValidationErrorKind;
        let at = |path: &str| path.to_owned();
        match error.kind() {
            ValidationErrorKind::Format { format } if format == "regex" => {
                let pattern = error.instance().as_str().unwrap_or_default();
                let own = error.schema_path().as_str();
                let place = if own.is_empty() { error.instance_path().as_str() } else { own };
                debug_assert!(pattern.len() as u64 <= limits.pattern_bytes_max);
                Self::Pattern { pointer: at(place), pattern: super::explain::shown(pattern) }
            }
            kind => Self::NotASchema {
                pointer: at(error.instance_path().as_str()),
                message: super::explain::reason(kind, None),
            },
        }
    }
}

impl fmt::Display for SchemaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(problem) => return write!(f, "schema is not JSON: {problem}"),
            Self::UnknownDraft { found, .. } => {
                write!(f, "$schema is {found}, known are")?;
                for (place, draft) in Draft::ALL.into_iter().enumerate() {
                    let before = if place == 0 { "" } else { "," };
                    write!(f, "{before} {}", draft.uri())?;
                }
            }
            Self::BeyondLimit { limit, value, max, .. } => {
                write!(f, "schema has {value} {limit}, at most {max} are allowed")?;
            }
            Self::RemoteReference { reference, .. } => {
                write!(f, "{reference} is in another document, and those are never fetched")?;
            }
            Self::DanglingReference { reference, .. } => {
                write!(f, "{reference} points at nothing in this document")?;
            }
            Self::EndlessReference { .. } => {
                f.write_str("references lead back to where they start")?;
            }
            Self::UnboundedUniqueItems { .. } => {
                f.write_str("uniqueItems needs maxItems beside it")?;
            }
            Self::Pattern { pattern, .. } => write!(
                f,
                "pattern {pattern} is not supported (no look-around, no back-references) or too large"
            )?,
            Self::NotASchema { message, .. } => write!(f, "not a schema of its draft: {message}")?,
        }
        write!(f, ", at \"{}\"", self.pointer())
    }
}

impl std::error::Error for SchemaProblem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::NotJson(problem) = self { Some(problem) } else { None }
    }
}
