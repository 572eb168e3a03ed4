//! Which schema governs an event of a stream: the most specific binding of its type.

use crate::VersionNumber;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

/// What happens to an event that a binding governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is checked.
    Off,
    /// An event that does not fit is refused.
    Enforce,
}

/// Which version of a schema a binding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// The newest one there is.
    Latest,
    /// This one, whatever is registered later.
    Version(VersionNumber),
}

/// Binds the types of a stream that match a pattern to a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// An exact type, a prefix with a trailing `*`, or `*` for all.
    pub event_type: String,
    /// Name of the schema.
    pub schema: String,
    /// Which of its versions.
    pub pin: Pin,
    /// What is done with events that do not fit.
    pub mode: Mode,
}

/// Why a set of bindings was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingProblem {
    /// A pattern of no characters.
    Empty,
    /// A `*` that is not the last character.
    StarInside(String),
    /// Two bindings of one pattern.
    Twice(String),
}

impl fmt::Display for BindingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("event type of a binding is empty, write * for all types"),
            Self::StarInside(pattern) => {
                write!(f, "event type {pattern:?} of a binding has a * that is not at its end")
            }
            Self::Twice(pattern) => write!(f, "event type {pattern:?} is bound twice"),
        }
    }
}

impl std::error::Error for BindingProblem {}

/// The bindings of one stream.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    list: Vec<Binding>,
    exact: BTreeMap<String, usize>,
    prefixes: BTreeMap<String, Prefix>,
}

#[derive(Debug, Clone)]
struct Prefix {
    binding: usize,
    /// The longest other prefix that this one starts with.
    wider: Option<String>,
}

impl Bindings {
    /// Takes the bindings of a stream, in any order.
    ///
    /// # Errors
    ///
    /// A pattern that is empty, has a `*` inside, or occurs twice.
    pub fn new(list: Vec<Binding>) -> Result<Self, BindingProblem> {
        let mut bindings = Self::default();
        for (at, binding) in list.iter().enumerate() {
            let pattern = &binding.event_type;
            if pattern.is_empty() {
                return Err(BindingProblem::Empty);
            }
            let prefix = pattern.strip_suffix('*');
            if prefix.unwrap_or(pattern).contains('*') {
                return Err(BindingProblem::StarInside(pattern.clone()));
            }
            let is_taken = match prefix {
                Some(prefix) => {
                    let entry = Prefix { binding: at, wider: None };
                    bindings.prefixes.insert(prefix.to_owned(), entry).is_some()
                }
                None => bindings.exact.insert(pattern.clone(), at).is_some(),
            };
            if is_taken {
                return Err(BindingProblem::Twice(pattern.clone()));
            }
        }
        bindings.list = list;
        bindings.link_prefixes();
        Ok(bindings)
    }

    /// In sorted order, a prefix comes after all that it starts with: a stack finds the longest.
    fn link_prefixes(&mut self) {
        let mut open: Vec<String> = Vec::new();
        for (text, prefix) in &mut self.prefixes {
            while open.last().is_some_and(|last| !text.starts_with(last.as_str())) {
                open.pop();
            }
            prefix.wider = open.last().cloned();
            open.push(text.clone());
        }
    }

    /// The binding that governs events of this type: exact before prefix, longer before shorter.
    #[must_use]
    pub fn binding_for(&self, event_type: &str) -> Option<&Binding> {
        self.index_for(event_type).map(|at| &self.list[at])
    }

    /// The bindings, in the order they came.
    #[must_use]
    pub fn list(&self) -> &[Binding] {
        &self.list
    }

    pub(crate) fn index_for(&self, event_type: &str) -> Option<usize> {
        if let Some(at) = self.exact.get(event_type) {
            return Some(*at);
        }
        // Whatever the type starts with sorts at or before it; the nearest neighbour either is the
        // longest match or starts with it.
        let up_to = (Bound::Unbounded, Bound::Included(event_type));
        let (mut text, mut prefix) = self.prefixes.range::<str, _>(up_to).next_back()?;
        while !event_type.starts_with(text.as_str()) {
            (text, prefix) = self.prefixes.get_key_value(prefix.wider.as_ref()?)?;
        }
        Some(prefix.binding)
    }
}

#[cfg(test)]
mod tests {
    use super::{Binding, BindingProblem, Bindings, Mode, Pin};
    use proptest::prelude::*;

    fn bind(event_type: &str) -> Binding {
        Binding {
            event_type: event_type.to_owned(),
            schema: "order".to_owned(),
            pin: Pin::Latest,
            mode: Mode::Enforce,
        }
    }

    fn bound(patterns: &[&str]) -> Result<Bindings, BindingProblem> {
        Bindings::new(patterns.iter().map(|pattern| bind(pattern)).collect())
    }

    fn pattern_for<'b>(bindings: &'b Bindings, event_type: &str) -> Option<&'b str> {
        bindings.binding_for(event_type).map(|binding| binding.event_type.as_str())
    }

    #[test]
    fn most_specific_binding_wins() {
        let bindings = bound(&["*", "com.shop.*", "com.shop.order.*", "com.shop.order"]).unwrap();

        assert_eq!(pattern_for(&bindings, "com.shop.order"), Some("com.shop.order"));
        assert_eq!(pattern_for(&bindings, "com.shop.order.paid"), Some("com.shop.order.*"));
        assert_eq!(pattern_for(&bindings, "com.shop.orders"), Some("com.shop.*"));
        assert_eq!(pattern_for(&bindings, "com.shop."), Some("com.shop.*"));
        assert_eq!(pattern_for(&bindings, "com.shop"), Some("*"));
        assert_eq!(pattern_for(&bindings, ""), Some("*"));
        assert_eq!(pattern_for(&bound(&["a.*"]).unwrap(), "b.c"), None);
        assert_eq!(pattern_for(&Bindings::default(), "a"), None);
    }

    #[test]
    fn unclear_patterns_are_refused() {
        assert_eq!(bound(&[""]).unwrap_err(), BindingProblem::Empty);
        assert_eq!(bound(&["a*b"]).unwrap_err(), BindingProblem::StarInside("a*b".to_owned()));
        assert_eq!(bound(&["a**"]).unwrap_err(), BindingProblem::StarInside("a**".to_owned()));
        assert_eq!(bound(&["a*", "a*"]).unwrap_err(), BindingProblem::Twice("a*".to_owned()));
        assert_eq!(bound(&["a", "a"]).unwrap_err(), BindingProblem::Twice("a".to_owned()));
        assert!(bound(&["a", "a*"]).is_ok());
    }

    /// The definition, by trying every binding.
    fn brute<'b>(list: &'b [Binding], event_type: &str) -> Option<&'b Binding> {
        let exact = list.iter().find(|binding| binding.event_type == event_type);
        exact.or_else(|| {
            let prefix = |binding: &'b Binding| binding.event_type.strip_suffix('*');
            let matches =
                list.iter().filter(|b| prefix(b).is_some_and(|p| event_type.starts_with(p)));
            matches.max_by_key(|binding| binding.event_type.len())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn resolution_equals_its_definition(
            patterns in prop::collection::btree_set("[ab.ü]{0,4}[*]?", 0..24),
            types in prop::collection::vec("[ab.ü]{0,6}", 1..24),
        ) {
            let list: Vec<_> =
                patterns.iter().filter(|text| !text.is_empty()).map(|text| bind(text)).collect();
            let bindings = Bindings::new(list.clone()).unwrap();
            for event_type in &types {
                prop_assert_eq!(bindings.binding_for(event_type), brute(&list, event_type));
            }
        }
    }
}
