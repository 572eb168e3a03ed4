//! Filters on the wire.

use super::check::refused;
use super::{DEPTH_MAX, Filter, check_all};
use crate::v1::filter::Dialect;
use crate::{Error, Result, v1};

/// Reads and checks a list of filters.
///
/// # Errors
///
/// `Invalid` for an unknown dialect, one that breaks a rule, or one beyond the limits; the field is
/// its path.
pub fn from_wire(filters: Vec<v1::Filter>) -> Result<Vec<Filter>> {
    let filters = read(filters)?;
    check_all(&filters)?;
    Ok(filters)
}

/// Reads a list of filters, which nobody has checked then.
pub(super) fn read(filters: Vec<v1::Filter>) -> Result<Vec<Filter>> {
    list(filters, "filters", 1)
}

fn list(filters: Vec<v1::Filter>, path: &str, depth: usize) -> Result<Vec<Filter>> {
    let filters = filters.into_iter().enumerate();
    filters.map(|(place, filter)| one(filter, format!("{path}[{place}]"), depth)).collect()
}

fn one(filter: v1::Filter, path: String, depth: usize) -> Result<Filter> {
    if depth > DEPTH_MAX {
        return Err(refused(path, &format!("filters are nested deeper than {DEPTH_MAX}")));
    }
    let map = |map: v1::AttributeMap| map.attributes.into_iter().collect();
    Ok(match filter.dialect {
        Some(Dialect::Exact(wanted)) => Filter::Exact(map(wanted)),
        Some(Dialect::Prefix(wanted)) => Filter::Prefix(map(wanted)),
        Some(Dialect::Suffix(wanted)) => Filter::Suffix(map(wanted)),
        Some(Dialect::All(all)) => {
            Filter::All(list(all.filters, &format!("{path}.all"), depth + 1)?)
        }
        Some(Dialect::Any(any)) => {
            Filter::Any(list(any.filters, &format!("{path}.any"), depth + 1)?)
        }
        Some(Dialect::Not(not)) => {
            Filter::Not(Box::new(one(*not, format!("{path}.not"), depth + 1)?))
        }
        Some(Dialect::Sql(source)) => Filter::Sql(source),
        Some(Dialect::Cel(source)) => Filter::Cel(source),
        // Ignoring it would let through what the caller wanted to leave out.
        None => return Err(unknown(path)),
    })
}

fn unknown(path: String) -> Error {
    let known = super::text::KNOWN;
    refused(path, &format!("its dialect is not known to this version; known are {known}"))
}

/// Writes a list of filters.
pub fn to_wire(filters: &[Filter]) -> Vec<v1::Filter> {
    filters.iter().map(out).collect()
}

fn out(filter: &Filter) -> v1::Filter {
    let map = |map: &std::collections::BTreeMap<String, String>| v1::AttributeMap {
        attributes: map.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    };
    let dialect = match filter {
        Filter::Exact(wanted) => Dialect::Exact(map(wanted)),
        Filter::Prefix(wanted) => Dialect::Prefix(map(wanted)),
        Filter::Suffix(wanted) => Dialect::Suffix(map(wanted)),
        Filter::All(filters) => Dialect::All(v1::FilterList { filters: to_wire(filters) }),
        Filter::Any(filters) => Dialect::Any(v1::FilterList { filters: to_wire(filters) }),
        Filter::Not(filter) => Dialect::Not(Box::new(out(filter))),
        Filter::Sql(source) => Dialect::Sql(source.clone()),
        Filter::Cel(source) => Dialect::Cel(source.clone()),
    };
    v1::Filter { dialect: Some(dialect) }
}
