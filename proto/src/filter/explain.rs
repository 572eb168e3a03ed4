//! Why an event does not pass, for people.

use super::compiled::{Check, Test};
use super::{Candidate, Compiled, Filter, cesql};

/// What filters say about one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it passes.
    pub passes: bool,
    /// What keeps it from passing: the innermost filters, and why each does.
    pub reasons: Vec<Finding>,
    /// Expressions that failed, whether that mattered or not.
    pub errors: Vec<Finding>,
}

/// Something about one filter of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The filter, as in `filters[2].any[0].sql`.
    pub path: String,
    /// A sentence.
    pub message: String,
}

impl Compiled {
    /// What the filters say about an event, all of them.
    pub fn explain(&self, event: &Candidate<'_>) -> Explanation {
        let mut explanation = Explanation { passes: self.passes(event), ..Explanation::default() };
        for test in self.tests() {
            test.errors(event, &mut explanation.errors);
            if !test.passes(event) {
                test.reasons(event, &mut explanation.reasons);
            }
        }
        explanation
    }

    /// What is allowed in the filters and often not meant.
    pub fn warnings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (place, filter) in self.filters().iter().enumerate() {
            warnings(filter, &format!("filters[{place}]"), &mut found);
        }
        found
    }
}

fn warnings(filter: &Filter, path: &str, found: &mut Vec<Finding>) {
    let path = format!("{path}.{}", filter.dialect());
    match filter {
        Filter::Sql(source) => {
            let parsed = cesql::Expression::parse_with_warnings(source);
            for warning in parsed.into_iter().flat_map(|(_, warnings)| warnings) {
                let message = format!("{}: {}", warning.place, warning.message);
                found.push(Finding { path: path.clone(), message });
            }
        }
        Filter::All(filters) | Filter::Any(filters) => {
            for (place, filter) in filters.iter().enumerate() {
                warnings(filter, &format!("{path}[{place}]"), found);
            }
        }
        Filter::Not(filter) => warnings(filter, &path, found),
        Filter::Exact(_) | Filter::Prefix(_) | Filter::Suffix(_) | Filter::Cel(_) => {}
    }
}

impl Test {
    fn finding(&self, message: String) -> Finding {
        Finding { path: self.path.to_string(), message }
    }

    /// Why it does not pass.
    fn reasons(&self, event: &Candidate<'_>, found: &mut Vec<Finding>) {
        match &self.check {
            Check::Exact(wanted) => self.attributes(event, wanted, "is", found),
            Check::Prefix(wanted) => self.attributes(event, wanted, "starts with", found),
            Check::Suffix(wanted) => self.attributes(event, wanted, "ends with", found),
            Check::All(tests) | Check::Any(tests) => {
                for test in tests.iter().filter(|test| !test.passes(event)) {
                    test.reasons(event, found);
                }
            }
            Check::Not(inner) => {
                found.push(self.finding(format!("{} passes", inner.path)));
            }
            Check::Sql(_) | Check::Cel(_) => {
                let message = self.error(event).unwrap_or_else(|| "the value is false".to_owned());
                found.push(self.finding(message));
            }
        }
    }

    fn attributes(
        &self,
        event: &Candidate<'_>,
        wanted: &[(Box<str>, Box<str>)],
        verb: &str,
        found: &mut Vec<Finding>,
    ) {
        for (name, wanted) in wanted {
            let value = event.event().attribute(name);
            let fits = value.as_deref().is_some_and(|value| match verb {
                "is" => value == &**wanted,
                "starts with" => value.starts_with(&**wanted),
                _ => value.ends_with(&**wanted),
            });
            if fits {
                continue;
            }
            found.push(self.finding(match value {
                Some(value) => format!("{name} is {value:?}; wanted is one that {verb} {wanted:?}"),
                None => format!("the event has no attribute {name}"),
            }));
        }
    }

    /// The errors of all expressions.
    fn errors(&self, event: &Candidate<'_>, found: &mut Vec<Finding>) {
        match &self.check {
            Check::All(tests) | Check::Any(tests) => {
                for test in tests {
                    test.errors(event, found);
                }
            }
            Check::Not(test) => test.errors(event, found),
            Check::Sql(_) | Check::Cel(_) => {
                found.extend(self.error(event).map(|message| self.finding(message)));
            }
            Check::Exact(_) | Check::Prefix(_) | Check::Suffix(_) => {}
        }
    }

    fn error(&self, event: &Candidate<'_>) -> Option<String> {
        match &self.check {
            Check::Sql(expression) => {
                expression.test(event.event()).err().map(|error| error.to_string())
            }
            Check::Cel(predicate) => match event.payload() {
                Ok(payload) => predicate.test(payload).err(),
                Err(problem) => Some(problem.to_owned()),
            },
            _ => None,
        }
    }
}
