//! Filters, ready to decide.

use std::sync::Arc;

use super::cel::Predicate;
use super::cesql::Expression;
use super::{Candidate, Filter, check};
use crate::event::EventView;
use crate::{Result, v1};

/// A list of filters, checked and compiled. Clones share it.
#[derive(Clone, Debug)]
pub struct Compiled(Arc<List>);

#[derive(Debug, Default)]
struct List {
    filters: Vec<Filter>,
    /// The cheap ones first.
    tests: Vec<Test>,
}

/// What a rule of access takes from filters: an error is an answer of its own.
///
/// What is certain in spite of an error stays certain: `any` passes if one passes, whatever the
/// others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// All pass.
    Passes,
    /// One does not pass.
    Fails,
    /// An error decides: an expression failed, or the payload cannot be read.
    Undecided,
}

/// One filter.
#[derive(Debug)]
pub(super) struct Test {
    /// Where it is in the list it came from.
    pub(super) path: Box<str>,
    cost: Cost,
    pub(super) check: Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    Attributes,
    Expression,
    Payload,
}

#[derive(Debug)]
pub(super) enum Check {
    Exact(Vec<(Box<str>, Box<str>)>),
    Prefix(Vec<(Box<str>, Box<str>)>),
    Suffix(Vec<(Box<str>, Box<str>)>),
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
    Sql(Expression),
    Cel(Predicate),
}

impl Compiled {
    /// Checks and compiles a list of filters.
    ///
    /// # Errors
    ///
    /// `Invalid` for a filter that breaks a rule or a limit; the field is its path, as in
    /// `filters[2].any[0].sql`, and the message says where in an expression it is wrong.
    pub fn new(filters: &[Filter]) -> Result<Self> {
        let mut tests = check::compile(filters)?;
        tests.sort_by_key(|test| test.cost);
        Ok(Self(Arc::new(List { filters: filters.to_vec(), tests })))
    }

    /// Reads, checks and compiles filters as they come over the wire.
    ///
    /// # Errors
    ///
    /// `Invalid`, as [`Compiled::new`], also for a dialect that this version does not know.
    pub fn from_wire(filters: Vec<v1::Filter>) -> Result<Self> {
        Self::new(&super::wire::read(filters)?)
    }

    /// No filters: everything passes.
    pub fn all() -> Self {
        Self(Arc::default())
    }

    /// The filters as they were written.
    pub fn filters(&self) -> &[Filter] {
        &self.0.filters
    }

    /// Whether every event passes.
    pub fn is_empty(&self) -> bool {
        self.0.tests.is_empty()
    }

    /// Whether some filter looks at payloads.
    pub fn reads_payload(&self) -> bool {
        self.0.tests.iter().any(|test| test.cost == Cost::Payload)
    }

    /// Whether an event passes all filters. A filter that fails in error does not pass, so its `not`
    /// does.
    pub fn passes(&self, event: &Candidate<'_>) -> bool {
        self.0.tests.iter().all(|test| test.passes(event))
    }

    /// Whether an event passes all filters, or an error decides.
    pub fn judge(&self, event: &Candidate<'_>) -> Judgement {
        all(self.0.tests.iter().map(|test| test.judge(event)))
    }

    pub(super) fn tests(&self) -> &[Test] {
        &self.0.tests
    }
}

impl PartialEq for Compiled {
    fn eq(&self, other: &Self) -> bool {
        self.0.filters == other.0.filters
    }
}

impl Eq for Compiled {}

impl Test {
    pub(super) fn new(path: String, mut check: Check) -> Self {
        let cost = match &mut check {
            Check::Exact(_) | Check::Prefix(_) | Check::Suffix(_) => Cost::Attributes,
            Check::Sql(_) => Cost::Expression,
            Check::Cel(_) => Cost::Payload,
            Check::Not(test) => test.cost,
            Check::All(tests) | Check::Any(tests) => {
                tests.sort_by_key(|test| test.cost);
                tests.last().map_or(Cost::Attributes, |test| test.cost)
            }
        };
        Self { path: path.into(), cost, check }
    }

    pub(super) fn passes(&self, event: &Candidate<'_>) -> bool {
        match &self.check {
            Check::All(tests) => tests.iter().all(|test| test.passes(event)),
            Check::Any(tests) => tests.iter().any(|test| test.passes(event)),
            Check::Not(test) => !test.passes(event),
            Check::Sql(expression) => expression.test(event.event()) == Ok(true),
            _ => self.leaf(event) == Judgement::Passes,
        }
    }

    pub(super) fn judge(&self, event: &Candidate<'_>) -> Judgement {
        match &self.check {
            Check::All(tests) => all(tests.iter().map(|test| test.judge(event))),
            Check::Any(tests) => {
                let failing = all(tests.iter().map(|test| test.judge(event).reversed()));
                failing.reversed()
            }
            Check::Not(test) => test.judge(event).reversed(),
            _ => self.leaf(event),
        }
    }

    fn leaf(&self, event: &Candidate<'_>) -> Judgement {
        let view = event.event();
        match &self.check {
            Check::Exact(wanted) => compare(view, wanted, |value, wanted| value == wanted).into(),
            Check::Prefix(wanted) => {
                compare(view, wanted, |value, wanted| value.starts_with(wanted)).into()
            }
            Check::Suffix(wanted) => {
                compare(view, wanted, |value, wanted| value.ends_with(wanted)).into()
            }
            Check::Sql(expression) => {
                expression.test(view).map_or(Judgement::Undecided, Judgement::from)
            }
            Check::Cel(predicate) => {
                let value = event.payload().map(|payload| predicate.test(payload));
                match value {
                    Ok(Ok(value)) => value.into(),
                    Ok(Err(_)) | Err(_) => Judgement::Undecided,
                }
            }
            Check::All(_) | Check::Any(_) | Check::Not(_) => Judgement::Undecided,
        }
    }
}

impl From<bool> for Judgement {
    fn from(passes: bool) -> Self {
        if passes { Self::Passes } else { Self::Fails }
    }
}

impl Judgement {
    fn reversed(self) -> Self {
        match self {
            Self::Passes => Self::Fails,
            Self::Fails => Self::Passes,
            Self::Undecided => Self::Undecided,
        }
    }
}

/// One that fails settles it; else one that is undecided.
fn all(judgements: impl Iterator<Item = Judgement>) -> Judgement {
    let mut result = Judgement::Passes;
    for judgement in judgements {
        match judgement {
            Judgement::Passes => {}
            Judgement::Fails => return judgement,
            Judgement::Undecided => result = judgement,
        }
    }
    result
}

pub(super) fn compare(
    event: &EventView<'_>,
    wanted: &[(Box<str>, Box<str>)],
    fits: impl Fn(&str, &str) -> bool,
) -> bool {
    // A missing attribute never fits.
    wanted
        .iter()
        .all(|(name, wanted)| event.attribute(name).is_some_and(|value| fits(&value, wanted)))
}
