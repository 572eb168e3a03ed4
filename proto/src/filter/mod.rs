//! Filters on attributes: the dialects of the CloudEvents Subscriptions draft.
//!
//! Source: cloudevents/spec `subscriptions/spec.md`, section "Filters". A list of filters is their
//! conjunction; an empty list passes every event. Attributes compare by their canonical text.

pub mod cesql;
mod text;
mod wire;

use std::collections::BTreeMap;

use serde::Serialize;
pub use wire::{from_wire, to_wire};

use crate::event::EventView;
use crate::{Error, Result};

/// Filters within filters at most.
pub const DEPTH_MAX: usize = 16;
/// Filters in one list at most, those inside of others counted.
pub const NODES_MAX: usize = 256;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Every listed attribute has exactly this value.
    Exact(BTreeMap<String, String>),
    /// Every listed attribute starts with this value.
    Prefix(BTreeMap<String, String>),
    /// Every listed attribute ends with this value.
    Suffix(BTreeMap<String, String>),
    /// All of these pass.
    All(Vec<Self>),
    /// At least one of these passes.
    Any(Vec<Self>),
    /// This does not pass.
    Not(Box<Self>),
}

impl Filter {
    /// Whether an event passes.
    pub fn passes(&self, event: &EventView<'_>) -> bool {
        match self {
            Self::Exact(wanted) => compare(event, wanted, |value, wanted| value == wanted),
            Self::Prefix(wanted) => {
                compare(event, wanted, |value, wanted| value.starts_with(wanted))
            }
            Self::Suffix(wanted) => compare(event, wanted, |value, wanted| value.ends_with(wanted)),
            Self::All(filters) => filters.iter().all(|filter| filter.passes(event)),
            Self::Any(filters) => filters.iter().any(|filter| filter.passes(event)),
            Self::Not(filter) => !filter.passes(event),
        }
    }

    fn check(&self, depth: usize, nodes: &mut usize) -> Result<(), String> {
        *nodes += 1;
        if depth > DEPTH_MAX {
            return Err(format!("filters are nested deeper than {DEPTH_MAX}"));
        }
        if *nodes > NODES_MAX {
            return Err(format!("there are more than {NODES_MAX} filters"));
        }
        let dialect = self.dialect();
        match self {
            Self::Exact(wanted) | Self::Prefix(wanted) | Self::Suffix(wanted) => {
                check_names(wanted).map_err(|problem| format!("{dialect}: {problem}"))
            }
            Self::All(filters) | Self::Any(filters) if filters.is_empty() => {
                Err(format!("{dialect}: at least one filter is needed"))
            }
            Self::All(filters) | Self::Any(filters) => {
                filters.iter().enumerate().try_for_each(|(place, filter)| {
                    let inside = |problem| format!("{dialect}[{place}].{problem}");
                    filter.check(depth + 1, nodes).map_err(inside)
                })
            }
            Self::Not(filter) => {
                filter.check(depth + 1, nodes).map_err(|problem| format!("{dialect}.{problem}"))
            }
        }
    }

    fn dialect(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::Suffix(_) => "suffix",
            Self::All(_) => "all",
            Self::Any(_) => "any",
            Self::Not(_) => "not",
        }
    }
}

/// Whether an event passes all of a list.
pub fn passes_all(filters: &[Filter], event: &EventView<'_>) -> bool {
    filters.iter().all(|filter| filter.passes(event))
}

/// Checks a list against the rules and limits.
///
/// # Errors
///
/// `Invalid`, naming the filter by its place, as in `filters[2]`.
pub fn check_all(filters: &[Filter]) -> Result<()> {
    let mut nodes = 0;
    for (place, filter) in filters.iter().enumerate() {
        filter.check(1, &mut nodes).map_err(|problem| {
            Error::invalid(format!("filter {place}: {problem}"))
                .with_field(format!("filters[{place}]"))
        })?;
    }
    Ok(())
}

fn compare(
    event: &EventView<'_>,
    wanted: &BTreeMap<String, String>,
    fits: impl Fn(&str, &str) -> bool,
) -> bool {
    // A missing attribute never fits.
    wanted
        .iter()
        .all(|(name, wanted)| event.attribute(name).is_some_and(|value| fits(&value, wanted)))
}

fn check_names(wanted: &BTreeMap<String, String>) -> Result<(), String> {
    if wanted.is_empty() {
        return Err("at least one attribute is needed".to_owned());
    }
    for (name, value) in wanted {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(format!("{name:?} is no attribute name"));
        }
        if value.is_empty() {
            return Err(format!("the value for {name} is empty"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::cloudevents::CloudEvent;

    fn passes(filter: &str, ty: &str) -> bool {
        let filters: Vec<Filter> = serde_json::from_str(filter).unwrap();
        let event = CloudEvent {
            id: "1".to_owned(),
            source: "/s".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: ty.to_owned(),
            ..CloudEvent::default()
        };
        let bytes = event.encode_to_vec();
        check_all(&filters).unwrap();
        passes_all(&filters, &EventView::parse(&bytes).unwrap())
    }

    #[test]
    fn dialects_mean_what_the_draft_says() {
        assert!(passes("[]", "a"));
        assert!(passes(r#"[{"exact":{"type":"a.b","source":"/s"}}]"#, "a.b"));
        assert!(!passes(r#"[{"exact":{"type":"A.b"}}]"#, "a.b"));
        assert!(passes(r#"[{"prefix":{"type":"a."}},{"suffix":{"type":".b"}}]"#, "a.b"));
        assert!(!passes(r#"[{"exact":{"subject":"x"}}]"#, "a.b"));
        assert!(passes(r#"[{"not":{"exact":{"subject":"x"}}}]"#, "a.b"));
        assert!(passes(r#"[{"any":[{"exact":{"type":"x"}},{"exact":{"type":"a"}}]}]"#, "a"));
        assert!(!passes(r#"[{"all":[{"exact":{"type":"x"}},{"exact":{"type":"a"}}]}]"#, "a"));
    }

    #[test]
    fn what_the_draft_forbids_is_refused() {
        for text in [
            r#"[{"exact":{}}]"#,
            r#"[{"prefix":{"type":""}}]"#,
            r#"[{"exact":{"":"a"}}]"#,
            r#"[{"all":[]}]"#,
            r#"[{"any":[]}]"#,
            r#"[{"not":{"any":[]}}]"#,
        ] {
            let filters: Vec<Filter> = serde_json::from_str(text).unwrap();
            assert_eq!(check_all(&filters).unwrap_err().field(), Some("filters[0]"), "{text}");
        }
        let inner = r#"[{"exact":{"type":"a"}},{"any":[{"not":{"suffix":{"id":""}}}]}]"#;
        let refused = check_all(&serde_json::from_str::<Vec<Filter>>(inner).unwrap()).unwrap_err();
        assert_eq!(refused.field(), Some("filters[1]"));
        assert_eq!(refused.message(), "filter 1: any[0].not.suffix: the value for id is empty");
        let nested = |depth: usize| {
            let leaf = Filter::Exact([("type".to_owned(), "a".to_owned())].into());
            vec![(1..depth).fold(leaf, |inner, _| Filter::Not(Box::new(inner)))]
        };
        let many = |count: usize| vec![nested(1).remove(0); count];
        assert!(check_all(&nested(DEPTH_MAX)).is_ok());
        assert!(check_all(&nested(DEPTH_MAX + 1)).is_err());
        assert!(from_wire(to_wire(&nested(DEPTH_MAX + 1))).is_err());
        assert!(check_all(&many(NODES_MAX)).is_ok());
        assert!(check_all(&many(NODES_MAX + 1)).is_err());
        assert!(check_all(&[Filter::Any(many(NODES_MAX))]).is_err());
        assert!(from_wire(vec![crate::v1::Filter { dialect: None }]).is_err());
    }

    fn any_filter() -> impl Strategy<Value = Filter> {
        let map = proptest::collection::btree_map("(type|source|id|subject)", "[ab]{1,2}", 1..3);
        let leaf = (map, 0..3_u8).prop_map(|(map, kind)| match kind {
            0 => Filter::Exact(map),
            1 => Filter::Prefix(map),
            _ => Filter::Suffix(map),
        });
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..4).prop_map(Filter::All),
                proptest::collection::vec(inner.clone(), 1..4).prop_map(Filter::Any),
                inner.prop_map(|filter| Filter::Not(Box::new(filter))),
            ]
        })
    }

    /// The draft, read literally, over a plain map.
    fn oracle(filter: &Filter, event: &BTreeMap<&str, String>) -> bool {
        let fits = |map: &BTreeMap<String, String>, fits: fn(&str, &str) -> bool| {
            map.iter().all(|(name, wanted)| match event.get(name.as_str()) {
                Some(value) => fits(value, wanted),
                None => false,
            })
        };
        match filter {
            Filter::Exact(map) => fits(map, |value, wanted| value == wanted),
            Filter::Prefix(map) => fits(map, |value, wanted| value.find(wanted) == Some(0)),
            Filter::Suffix(map) => fits(map, |value, wanted| {
                value.len() >= wanted.len() && &value[value.len() - wanted.len()..] == wanted
            }),
            Filter::All(list) => !list.iter().any(|filter| !oracle(filter, event)),
            Filter::Any(list) => list.iter().any(|filter| oracle(filter, event)),
            Filter::Not(filter) => !oracle(filter, event),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn agrees_with_the_oracle_and_survives_the_wire(
            filter in any_filter(), id in "[ab]{1,3}", ty in "[ab]{1,3}",
        ) {
            let message = CloudEvent {
                id: id.clone(),
                source: "ab".to_owned(),
                spec_version: "1.0".to_owned(),
                r#type: ty.clone(),
                ..CloudEvent::default()
            };
            let bytes = message.encode_to_vec();
            let event = BTreeMap::from([("id", id), ("type", ty), ("source", "ab".to_owned())]);

            let passes = filter.passes(&EventView::parse(&bytes).unwrap());

            prop_assert_eq!(passes, oracle(&filter, &event));
            let filters = vec![filter];
            prop_assert_eq!(&from_wire(to_wire(&filters)).unwrap(), &filters);
            let text = serde_json::to_string(&filters).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<Filter>>(&text).unwrap(), filters);
        }
    }
}
