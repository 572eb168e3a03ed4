//! Casts, implicit and by `INT`, `BOOL` and `STRING`: section 3.7 of the specification.

use std::borrow::Cow;

use super::error::EvalError;
use super::value::{Type, Value};

type Cast<'a, T> = Result<T, EvalError<'a>>;

/// Any value as a boolean.
pub(super) fn boolean(value: Value<'_>) -> Cast<'_, bool> {
    match value {
        Value::Boolean(value) => Ok(value),
        Value::Integer(value) => Ok(value != 0),
        Value::Text(ref text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::Text(ref text) if text.eq_ignore_ascii_case("false") => Ok(false),
        value @ Value::Text(_) => Err(EvalError::Cast { value, to: Type::Boolean }),
    }
}

/// Any value as an integer.
pub(super) fn integer(value: Value<'_>) -> Cast<'_, i32> {
    match value {
        Value::Boolean(value) => Ok(value.into()),
        Value::Integer(value) => Ok(value),
        // A sign, and digits: what Rust reads is what the specification says.
        Value::Text(ref text) => match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => Err(EvalError::Cast { value, to: Type::Integer }),
        },
    }
}

/// Any value as text.
pub(super) fn text(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Boolean(true) => Cow::Borrowed("true"),
        Value::Boolean(false) => Cow::Borrowed("false"),
        Value::Integer(value) => Cow::Owned(value.to_string()),
        Value::Text(text) => text,
    }
}

/// A value as another type.
pub(super) fn to(value: Value<'_>, ty: Type) -> Cast<'_, Value<'_>> {
    Ok(match ty {
        Type::Boolean => Value::Boolean(boolean(value)?),
        Type::Integer => Value::Integer(integer(value)?),
        Type::Text => Value::Text(text(value)),
    })
}
