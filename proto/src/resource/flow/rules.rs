//! Rules of single values, each with the name of its field.

use serde_json::Value;

use super::{DurationText, Pointer, Template};
use crate::Result;
use crate::filter::{self, Filter};
use crate::resource::problem;

/// Attributes that say where an event comes from; flows set them themselves.
const OF_THE_FLOW: [&str; 8] =
    ["id", "specversion", "causationid", "hopcount", "splitid", "splitindex", "splitcount", "data"];
pub(super) fn filters(list: &[Filter], field: &str) -> Result<()> {
    filter::check_all(list).map_err(|error| {
        let inner = error.field().and_then(|inner| inner.strip_prefix("filters"));
        problem(format!("{field}{}", inner.unwrap_or_default()), error.message())
    })
}

pub(super) fn template(text: &str, field: &str) -> Result<Template> {
    Template::parse(text).map_err(|error| problem(field, error))
}

pub(super) fn pointer(text: &str, field: &str) -> Result<()> {
    Pointer::parse(text).map(drop).map_err(|error| problem(field, error))
}

/// All texts within are templates.
pub(super) fn leaves(json: &Value, field: &str) -> Result<()> {
    match json {
        Value::String(text) => template(text, field).map(drop),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .try_for_each(|(place, one)| leaves(one, &format!("{field}[{place}]"))),
        Value::Object(map) => {
            map.iter().try_for_each(|(name, one)| leaves(one, &format!("{field}.{name}")))
        }
        _ => Ok(()),
    }
}

pub(super) fn attribute(name: &str, field: &str) -> Result<()> {
    is_attribute_name(name, field)?;
    if OF_THE_FLOW.contains(&name) || name.starts_with("weft") {
        return Err(problem(field, format!("{name} is set by the flow itself")));
    }
    Ok(())
}

pub(super) fn is_attribute_name(name: &str, field: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(problem(field, format!("{name:?} is no name of an attribute")));
    }
    Ok(())
}

pub(super) fn attribute_text(text: Option<&str>, field: &str) -> Result<()> {
    match text {
        Some(text) if text.is_empty() || text.len() > 256 || text.contains(char::is_control) => {
            Err(problem(field, "a type has 1 to 256 bytes, and no control characters"))
        }
        _ => Ok(()),
    }
}

pub(super) fn duration(value: DurationText, most: DurationText, field: &str) -> Result<()> {
    if value.0.is_zero() || value > most {
        return Err(problem(field, format!("{value} is not in 1ms..={most}")));
    }
    Ok(())
}

pub(super) fn range<T: Copy + PartialOrd + std::fmt::Display>(
    value: T,
    least: T,
    most: T,
    at: &str,
) -> Result<()> {
    if value < least || value > most {
        return Err(problem(at, format!("{value} is not in {least}..={most}")));
    }
    Ok(())
}
