//! A JSON Schema, vetted, compiled once, cheap to clone.
//!
//! Owns: which drafts are spoken, what a schema may cost, what a violation says.

mod draft;
mod explain;
mod graph;
mod limits;
mod vet;

#[cfg(test)]
mod tests;

pub use draft::Draft;
pub use explain::Violation;
pub use limits::{Limit, Limits, SchemaProblem};

use crate::json::{Document, Tape, Walk};
use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The payload fits the schema.
    Fits,
    /// It does not, or it is not JSON.
    Violation(Violation),
}

/// A compiled schema. Cloning is cheap; checks may run on many threads at once.
#[derive(Clone)]
pub struct Schema(Arc<Compiled>);

struct Compiled {
    validator: Validator<Tape>,
    draft: Draft,
    /// Steps that one way down into the payload costs.
    charge: u64,
    limits: Limits,
    text_bytes: usize,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("draft", &self.0.draft)
            .field("text_bytes", &self.0.text_bytes)
            .finish_non_exhaustive()
    }
}

/// Belt to the braces of [`vet`]: whatever reference slips through is not fetched either.
struct DenyAll;

impl Retrieve for DenyAll {
    fn retrieve(
        &self,
        _uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("other documents are never fetched".into())
    }
}

impl Schema {
    /// Vets and compiles a schema.
    ///
    /// `format`, `contentEncoding` and `contentMediaType` are annotations in every draft: they
    /// refuse nothing.
    ///
    /// # Errors
    ///
    /// [`SchemaProblem`] says what is wrong and where: not JSON, unknown `$schema`, beyond a limit,
    /// a `$ref` to another document or to nothing, or not a schema of its draft.
    pub fn compile(text: &[u8], limits: &Limits) -> Result<Self, SchemaProblem> {
        limits.check("", Limit::Bytes, text.len() as u64)?;
        let document = Document::parse(text).map_err(SchemaProblem::NotJson)?;
        limits.check("", Limit::Values, document.values() as u64)?;
        let value = document.to_value();
        let draft = Draft::of(&value)?;
        let visits = vet::vet(&value, draft, limits)?;
        let patterns = PatternOptions::regex()
            .size_limit(limits.pattern_program_bytes_max)
            .dfa_size_limit(limits.pattern_program_bytes_max);
        let validator = jsonschema::options_for::<Tape>()
            .with_draft(draft.upstream())
            .with_retriever(DenyAll)
            .with_pattern_options(patterns)
            .should_validate_formats(false)
            .without_content_media_type_support("application/json")
            .without_content_encoding_support("base64")
            .build(&value)
            .map_err(|error| SchemaProblem::from_build(&error, limits))?;
        Ok(Self(Arc::new(Compiled {
            validator,
            draft,
            charge: (visits / 8).max(1),
            limits: limits.clone(),
            text_bytes: text.len(),
        })))
    }

    /// The draft the schema is written in.
    pub fn draft(&self) -> Draft {
        self.0.draft
    }

    /// About how much memory the compiled schema takes: an estimate, for [`Cache`](crate::Cache).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        // A schema of 630 KB took 12 times its text; a small one has its fixed costs.
        16 * 1024 + 16 * self.0.text_bytes
    }

    /// Parses `payload` strictly and checks it.
    pub fn check(&self, payload: &[u8]) -> Verdict {
        match Document::parse(payload) {
            Ok(document) => self.check_document(&document),
            Err(problem) => Verdict::Violation(Violation::not_json(&problem)),
        }
    }

    /// Checks a payload that was parsed before.
    pub fn check_document(&self, document: &Document<'_>) -> Verdict {
        let steps = self.0.limits.steps(document.values());
        let walk = Walk::new(document, steps, self.0.charge);
        let fits = self.0.validator.is_valid(walk.root());
        if walk.is_exhausted() {
            return Verdict::Violation(Violation::too_costly(steps));
        }
        if fits { Verdict::Fits } else { Verdict::Violation(self.explain(document, steps)) }
    }

    /// Finds the reasons. Its own walk: reasons of branches that nobody meant multiply where the
    /// engine remembers plain answers.
    fn explain(&self, document: &Document<'_>, steps: u64) -> Violation {
        let walk = Walk::new(document, steps, self.0.charge);
        let errors = self.0.validator.iter_errors(walk.root()).into_errors();
        if walk.is_exhausted() {
            return Violation::unexplained();
        }
        explain::explain(document, errors.as_slice())
    }
}
