//! CESQL 1.0: CloudEvents SQL expressions over the attributes of an event.
//!
//! Source: cloudevents/spec `cesql/spec.md` 1.0.0; where it leaves something open, its conformance
//! cases in `tck/` decide. Pure and total: an expression always ends, and never sees a payload.
//!
//! One tree, two ways to evaluate it: [`Expression::evaluate`] goes on after an error and gives a
//! value and all errors; [`Expression::test`] stops at the first, as a filter does.

mod ast;
mod cast;
mod error;
mod eval;
mod function;
mod lexer;
mod like;
mod parser;
mod print;
#[cfg(test)]
mod tck;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

use ast::Node;
pub use error::{EvalError, ParseError, Place};
pub use value::{Attributes, Type, Value};

/// Longest expression, in bytes.
pub const SOURCE_BYTES_MAX: usize = 8_192;
/// Expressions within expressions at most. A chain of AND, OR and XOR counts once.
pub const DEPTH_MAX: usize = 48;
/// Values, attributes, operators and calls in one expression at most.
pub const NODES_MAX: usize = 512;

/// An expression, ready to be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    root: Node,
}

/// Something that is allowed and often not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it begins.
    pub place: Place,
    /// What it is, as a sentence.
    pub message: String,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// Where it stops being one, and what was expected there.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        parser::parse(source).map(|(root, _)| Self { root })
    }

    /// Reads an expression, and says what in it is often not meant.
    ///
    /// # Errors
    ///
    /// As [`Expression::parse`].
    pub fn parse_with_warnings(source: &str) -> Result<(Self, Vec<Warning>), ParseError> {
        parser::parse(source).map(|(root, warnings)| (Self { root }, warnings))
    }

    /// Complete evaluation: a value, and every error on the way to it.
    pub fn evaluate<'a>(&'a self, event: &'a impl Attributes) -> (Value<'a>, Vec<EvalError<'a>>) {
        eval::complete(&self.root, event)
    }

    /// Fail-fast evaluation, as a filter: whether it is true.
    ///
    /// # Errors
    ///
    /// The first error, or that the value is no boolean. A filter takes both for false.
    pub fn test<'a>(&'a self, event: &'a impl Attributes) -> Result<bool, EvalError<'a>> {
        match eval::fail_fast(&self.root, event)? {
            Value::Boolean(value) => Ok(value),
            value => Err(EvalError::NotBoolean { value }),
        }
    }
}

/// Writes it so that parsing gives the same expression.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::write(f, &self.root)
    }
}
