//! Schemas and their checks: which schema governs an event, and does its payload fit?
//!
//! Owns: strict JSON, JSON Schema drafts 4 to 2020-12, bindings from an event's type to a schema,
//! versions, the cache of compiled schemas, the gate that ingest asks. Never: input or output, a
//! clock, a hash map, a task. A `$ref` cannot leave its document, so nothing is ever fetched.
//!
//! A schema is hostile input, and so is a payload. Three walls keep both cheap:
//!
//! 1. [`Document::parse`] refuses duplicate keys and nesting beyond [`DEPTH_MAX`].
//! 2. [`Schema::compile`] refuses what could cost too much, before anything is compiled
//!    (see [`Limits`]).
//! 3. [`Schema::check`] counts its steps and gives up beyond [`Limits::steps_base`].
//!
//! ```
//! use weft_registry::{Limits, Schema, Verdict};
//!
//! let schema = br#"{"type": "object", "properties": {"total": {"minimum": 0}}}"#;
//! let schema = Schema::compile(schema, &Limits::default()).unwrap();
//!
//! assert_eq!(schema.check(br#"{"total": 3}"#), Verdict::Fits);
//! let Verdict::Violation(violation) = schema.check(br#"{"total": -1}"#) else { panic!() };
//! assert_eq!(violation.pointer, "/total");
//! assert_eq!(violation.message, "is less than the minimum 0");
//! ```
#![deny(missing_docs)]

mod bindings;
mod cache;
mod content;
mod gate;
mod json;
mod schema;
mod versions;

pub use bindings::{Binding, BindingProblem, Bindings, Mode, Pin};
pub use cache::Cache;
pub use content::is_json;
pub use gate::{Decision, Event, Gate, GateProblem, Governed, Refusal, RefusalKind, Schemas};
pub use json::{DEPTH_MAX, Document, Problem, ProblemKind};
pub use schema::{Draft, Limit, Limits, Schema, SchemaProblem, Verdict, Violation};
pub use versions::{Registered, SchemaId, Version, VersionNumber, Versions};
