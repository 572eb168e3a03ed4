//! Filters on the wire.

use super::{DEPTH_MAX, Filter, check_all};
use crate::v1::filter::Dialect;
use crate::{Error, Result, v1};

/// Reads and checks a list of filters.
///
/// # Errors
///
/// `Invalid` for an unknown dialect, one that breaks a rule, or one beyond the limits.
pub fn from_wire(filters: Vec<v1::Filter>) -> Result<Vec<Filter>> {
    let read = |(place, filter)| {
        one(filter, 1).map_err(|problem: String| {
            Error::invalid(format!("filter {place}: {problem}"))
                .with_field(format!("filters[{place}]"))
        })
    };
    let filters = filters.into_iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
    check_all(&filters)?;
    Ok(filters)
}

fn one(filter: v1::Filter, depth: usize) -> Result<Filter, String> {
    if depth > DEPTH_MAX {
        return Err(format!("filters are nested deeper than {DEPTH_MAX}"));
    }
    let list = |list: v1::FilterList| {
        list.filters.into_iter().map(|filter| one(filter, depth + 1)).collect::<Result<Vec<_>, _>>()
    };
    let map = |map: v1::AttributeMap| map.attributes.into_iter().collect();
    Ok(match filter.dialect {
        Some(Dialect::Exact(wanted)) => Filter::Exact(map(wanted)),
        Some(Dialect::Prefix(wanted)) => Filter::Prefix(map(wanted)),
        Some(Dialect::Suffix(wanted)) => Filter::Suffix(map(wanted)),
        Some(Dialect::All(filters)) => Filter::All(list(filters)?),
        Some(Dialect::Any(filters)) => Filter::Any(list(filters)?),
        Some(Dialect::Not(filter)) => Filter::Not(Box::new(one(*filter, depth + 1)?)),
        // Ignoring it would let through what the caller wanted to leave out.
        None => return Err("its dialect is not known to this version".to_owned()),
    })
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
    };
    v1::Filter { dialect: Some(dialect) }
}
