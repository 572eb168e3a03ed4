//! Values of CESQL, and where they come from.

use std::borrow::Cow;
use std::fmt;

use crate::event::{self, EventView};

/// A value of one of the three types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A boolean.
    Boolean(bool),
    /// A 32-bit integer.
    Integer(i32),
    /// Text; times and URIs, too.
    Text(Cow<'a, str>),
}

/// The three types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Boolean.
    Boolean,
    /// Integer.
    Integer,
    /// String.
    Text,
}

/// What an expression sees of an event.
pub trait Attributes {
    /// An attribute by its name in lower case.
    fn attribute(&self, name: &str) -> Option<Value<'_>>;
}

impl<'a> Value<'a> {
    /// Its type.
    pub fn ty(&self) -> Type {
        match self {
            Self::Boolean(_) => Type::Boolean,
            Self::Integer(_) => Type::Integer,
            Self::Text(_) => Type::Text,
        }
    }

    /// The same value, borrowed from this one.
    pub(super) fn borrowed(&'a self) -> Self {
        match self {
            Self::Boolean(value) => Self::Boolean(*value),
            Self::Integer(value) => Self::Integer(*value),
            Self::Text(text) => Self::Text(Cow::Borrowed(text)),
        }
    }
}

impl Type {
    /// What stands for a value of this type when there is none.
    pub fn zero(self) -> Value<'static> {
        match self {
            Self::Boolean => Value::Boolean(false),
            Self::Integer => Value::Integer(0),
            Self::Text => Value::Text(Cow::Borrowed("")),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::Text => "String",
        })
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Booleans and integers keep their type, as the language says; everything else is its canonical
/// text.
impl Attributes for EventView<'_> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        Some(match self.value(name)? {
            event::Value::Boolean(value) => Value::Boolean(value),
            event::Value::Integer(value) => Value::Integer(value),
            value => Value::Text(value.to_text()),
        })
    }
}
