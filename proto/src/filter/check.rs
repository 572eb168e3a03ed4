//! From text to tests: the rules and limits of a list of filters.

use std::collections::BTreeMap;

use super::cel::Predicate;
use super::cesql::{Expression, ParseError};
use super::compiled::{Check, Test};
use super::{DEPTH_MAX, EXPRESSIONS_BYTES_MAX, Filter, NODES_MAX};
use crate::{Error, Result};

/// What has been used up by one list.
#[derive(Default)]
struct Used {
    nodes: usize,
    expressions: usize,
}

/// Compiles a list, in its order.
pub(super) fn compile(filters: &[Filter]) -> Result<Vec<Test>> {
    let mut used = Used::default();
    let tests = filters.iter().enumerate();
    tests.map(|(place, filter)| one(filter, format!("filters[{place}]"), 1, &mut used)).collect()
}

/// What is wrong with the field at a path.
pub(super) fn refused(path: String, problem: &str) -> Error {
    Error::invalid(format!("{path}: {problem}")).with_field(path)
}

fn one(filter: &Filter, path: String, depth: usize, used: &mut Used) -> Result<Test> {
    used.nodes += 1;
    if depth > DEPTH_MAX {
        return Err(refused(path, &format!("filters are nested deeper than {DEPTH_MAX}")));
    }
    if used.nodes > NODES_MAX {
        return Err(refused(path, &format!("there are more than {NODES_MAX} filters")));
    }
    let path = format!("{path}.{}", filter.dialect());
    let check = match filter {
        Filter::Exact(wanted) => Check::Exact(attributes(wanted, &path)?),
        Filter::Prefix(wanted) => Check::Prefix(attributes(wanted, &path)?),
        Filter::Suffix(wanted) => Check::Suffix(attributes(wanted, &path)?),
        Filter::All(filters) => Check::All(list(filters, &path, depth, used)?),
        Filter::Any(filters) => Check::Any(list(filters, &path, depth, used)?),
        Filter::Not(filter) => Check::Not(Box::new(one(filter, path.clone(), depth + 1, used)?)),
        Filter::Sql(source) => {
            expression(source, &path, used)?;
            Check::Sql(Expression::parse(source).map_err(|error| wrong(&path, &error))?)
        }
        Filter::Cel(source) => {
            expression(source, &path, used)?;
            Check::Cel(Predicate::compile(source).map_err(|error| wrong(&path, &error))?)
        }
    };
    Ok(Test::new(path, check))
}

fn list(filters: &[Filter], path: &str, depth: usize, used: &mut Used) -> Result<Vec<Test>> {
    if filters.is_empty() {
        return Err(refused(path.to_owned(), "at least one filter is needed"));
    }
    let tests = filters.iter().enumerate();
    tests.map(|(place, filter)| one(filter, format!("{path}[{place}]"), depth + 1, used)).collect()
}

fn expression(source: &str, path: &str, used: &mut Used) -> Result<()> {
    used.expressions = used.expressions.saturating_add(source.len());
    if used.expressions > EXPRESSIONS_BYTES_MAX {
        let problem = format!("all expressions together exceed {EXPRESSIONS_BYTES_MAX} bytes");
        return Err(refused(path.to_owned(), &problem));
    }
    Ok(())
}

fn wrong(path: &str, error: &ParseError) -> Error {
    refused(path.to_owned(), &error.to_string())
}

fn attributes(wanted: &BTreeMap<String, String>, path: &str) -> Result<Vec<(Box<str>, Box<str>)>> {
    let refused = |problem: &str| Err(refused(path.to_owned(), problem));
    if wanted.is_empty() {
        return refused("at least one attribute is needed");
    }
    for (name, value) in wanted {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(allowed) {
            return refused(&format!("{name:?} is no attribute name"));
        }
        if value.is_empty() {
            return refused(&format!("the value for {name} is empty"));
        }
    }
    Ok(wanted.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect())
}
