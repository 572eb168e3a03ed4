//! What goes wrong: while an expression is read, and while it is evaluated.

use std::fmt;

use super::value::{Type, Value};

/// A place in the text of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes before it.
    pub offset: usize,
    /// Line, from 1.
    pub line: usize,
    /// Character within the line, from 1.
    pub column: usize,
}

impl Place {
    /// The place of a byte.
    pub(crate) fn of(source: &str, offset: usize) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            offset,
            line: 1 + before.bytes().filter(|&byte| byte == b'\n').count(),
            column: 1 + line.chars().count(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {} (byte {})", self.line, self.column, self.offset)
    }
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub place: Place,
    /// What was expected, and what is there; without the place.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for ParseError {}

/// An error while an expression is evaluated. It borrows from the expression and the event, so that
/// a filter that fails on most events allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError<'a> {
    /// A value cannot be read as another type.
    Cast {
        /// The value.
        value: Value<'a>,
        /// The type.
        to: Type,
    },
    /// The result does not fit 32 bits.
    Overflow,
    /// The divisor is zero.
    DivisionByZero,
    /// The event has no such attribute.
    MissingAttribute(&'a str),
    /// There is no such function with so many arguments.
    MissingFunction(&'a str, usize),
    /// A function does not take this.
    Function {
        /// Its name.
        name: &'static str,
        /// What it does not take, as a sentence.
        problem: &'static str,
    },
    /// A filter wants a boolean.
    NotBoolean {
        /// What it got.
        value: Value<'a>,
    },
}

impl fmt::Display for EvalError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cast { value, to } => write!(f, "{value} cannot be read as {to}"),
            Self::Overflow => f.write_str("the result does not fit 32 bits"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::MissingAttribute(name) => write!(f, "the event has no attribute {name}"),
            Self::MissingFunction(name, count) => {
                write!(f, "there is no function {name} with {count} arguments")
            }
            Self::Function { name, problem } => write!(f, "{name}: {problem}"),
            Self::NotBoolean { value } => {
                write!(f, "the value is {value}, of type {}, and no Boolean", value.ty())
            }
        }
    }
}
