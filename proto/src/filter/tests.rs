//! What filters mean, over all dialects, and what is refused.

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::Error;
use crate::cloudevents::CloudEvent;
use crate::cloudevents::cloud_event::Data;
use crate::event::EventView;

fn event(ty: &str, data: Option<&str>) -> Vec<u8> {
    let event = CloudEvent {
        id: "1".to_owned(),
        source: "/s".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: ty.to_owned(),
        data: data.map(|data| Data::TextData(data.to_owned())),
        ..CloudEvent::default()
    };
    event.encode_to_vec()
}

fn compiled(filters: &str) -> Compiled {
    Compiled::new(&serde_json::from_str::<Vec<Filter>>(filters).unwrap()).unwrap()
}

fn candidate(bytes: &[u8]) -> Candidate<'_> {
    Candidate::new(EventView::parse(bytes).unwrap())
}

fn passes(filters: &str, ty: &str) -> bool {
    compiled(filters).passes(&candidate(&event(ty, None)))
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
    assert!(passes(r#"[{"sql":"type LIKE 'a.%' AND EXISTS source"}]"#, "a.b"));
    assert!(!passes(r#"[{"sql":"type"}]"#, "a.b"));
    // An error makes that element false, so its negation is true.
    assert!(!passes(r#"[{"sql":"subject = 'x'"}]"#, "a.b"));
    assert!(passes(r#"[{"not":{"sql":"subject = 'x'"}}]"#, "a.b"));
    assert!(!passes(r#"[{"cel":"true"}]"#, "a.b"));
    assert!(passes(r#"[{"not":{"cel":"true"}}]"#, "a.b"));
}

#[test]
fn payloads_are_parsed_once_and_only_if_asked_for() {
    let filters = compiled(
        r#"[{"any":[{"cel":"data.n > 3"},{"cel":"data.n < 2"}]},{"prefix":{"type":"order."}}]"#,
    );
    assert!(filters.reads_payload());
    let (other, order) = (event("cart", Some("{\"n\":5}")), event("order.a", Some("{\"n\":5}")));
    let (other, order) = (candidate(&other), candidate(&order));

    assert!(!filters.passes(&other));
    // The prefix comes last and is cheap.
    assert!(!other.is_parsed());
    assert!(filters.passes(&order));
    assert!(order.is_parsed());
    assert!(!compiled(r#"[{"sql":"TRUE"}]"#).reads_payload());
}

#[test]
fn a_rule_of_access_is_told_of_errors_that_decide() {
    use Judgement::{Fails, Passes, Undecided};
    let sql_error = r#"{"sql":"subject = 'x'"}"#;
    let cel_error = r#"{"cel":"data.n > 1"}"#;
    let (yes, no) = (r#"{"exact":{"type":"a"}}"#, r#"{"exact":{"type":"b"}}"#);
    for (filters, wanted) in [
        (format!("[{sql_error}]"), Undecided),
        (format!("[{cel_error}]"), Undecided),
        (format!("[{{\"not\":{sql_error}}}]"), Undecided),
        (format!("[{{\"any\":[{sql_error},{yes}]}}]"), Passes),
        (format!("[{{\"any\":[{sql_error},{no}]}}]"), Undecided),
        (format!("[{{\"all\":[{sql_error},{yes}]}}]"), Undecided),
        (format!("[{{\"all\":[{sql_error},{no}]}}]"), Fails),
        (format!("[{cel_error},{no}]"), Fails),
        (format!("[{yes}]"), Passes),
        ("[]".to_owned(), Passes),
    ] {
        let bytes = event("a", None);
        assert_eq!(compiled(&filters).judge(&candidate(&bytes)), wanted, "{filters}");
    }
}

#[test]
fn it_is_said_why_an_event_does_not_pass() {
    let filters = compiled(
        r#"[
        {"exact":{"type":"a","subject":"x"}},
        {"any":[{"prefix":{"type":"b"}},{"sql":"tenant = 'x' OR TRUE AND FALSE"}]},
        {"not":{"suffix":{"source":"s"}}},
        {"cel":"data.n > 10"},
        {"not":{"cel":"data.missing"}}
    ]"#,
    );
    let bytes = event("a", Some("{\"n\":5}"));
    let found = |findings: &[Finding]| {
        let lines = findings.iter().map(|one| format!("{}: {}", one.path, one.message));
        lines.collect::<Vec<_>>().join("\n")
    };

    let explanation = filters.explain(&candidate(&bytes));

    assert!(!explanation.passes);
    assert_eq!(
        found(&explanation.reasons),
        r#"filters[0].exact: the event has no attribute subject
filters[2].not: filters[2].not.suffix passes
filters[1].any[0].prefix: type is "a"; wanted is one that starts with "b"
filters[1].any[1].sql: the event has no attribute tenant
filters[3].cel: the value is false"#
    );
    assert_eq!(
        found(&explanation.errors),
        "filters[1].any[1].sql: the event has no attribute tenant\n\
         filters[4].not.cel: No such key: missing"
    );
    let warnings = found(&filters.warnings());
    assert!(warnings.starts_with("filters[1].any[1].sql: line 1, column 22 (byte 21): AND, OR"));
}

#[test]
fn what_the_draft_forbids_is_refused() {
    let refused = |text: &str| -> Error {
        check_all(&serde_json::from_str::<Vec<Filter>>(text).unwrap()).unwrap_err()
    };
    for (text, field) in [
        (r#"[{"exact":{}}]"#, "filters[0].exact"),
        (r#"[{"prefix":{"type":""}}]"#, "filters[0].prefix"),
        (r#"[{"exact":{"":"a"}}]"#, "filters[0].exact"),
        (r#"[{"all":[]}]"#, "filters[0].all"),
        (r#"[{"any":[]}]"#, "filters[0].any"),
        (r#"[{"not":{"any":[]}}]"#, "filters[0].not.any"),
        (r#"[{"sql":""}]"#, "filters[0].sql"),
        (r#"[{"cel":""}]"#, "filters[0].cel"),
    ] {
        assert_eq!(refused(text).field(), Some(field), "{text}");
    }
    let inner = refused(r#"[{"exact":{"type":"a"}},{"any":[{"not":{"suffix":{"id":""}}}]}]"#);
    assert_eq!(inner.field(), Some("filters[1].any[0].not.suffix"));
    assert_eq!(inner.message(), "filters[1].any[0].not.suffix: the value for id is empty");
    let sql = refused(r#"[{"any":[{"sql":"type =\n AND"}]}]"#);
    assert_eq!(sql.field(), Some("filters[0].any[0].sql"));
    assert!(
        sql.message().starts_with("filters[0].any[0].sql: line 2, column 2 (byte 8): expected")
    );
    let cel = refused(r#"[{"not":{"cel":"data.n > nope"}}]"#);
    assert_eq!(
        cel.message(),
        "filters[0].not.cel: line 1, column 10 (byte 9): there is no \"nope\" here, only data and ce"
    );
    let long = Filter::Sql(format!("type = '{}'", "x".repeat(cesql::SOURCE_BYTES_MAX - 20)));
    assert!(check_all(&vec![long.clone(); 4]).is_ok());
    assert!(check_all(&vec![long; 5]).is_err());
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
    let map = || proptest::collection::btree_map("(type|source|id|subject)", "[ab]{1,2}", 1..3);
    let leaf = prop_oneof![
        map().prop_map(Filter::Exact),
        map().prop_map(Filter::Prefix),
        map().prop_map(Filter::Suffix),
        "(type|source|id|subject) = '[ab]{1,2}'".prop_map(Filter::Sql),
        "ce[.](type|source|id|subject) == '[ab]{1,2}'".prop_map(Filter::Cel),
    ];
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
    let equal = |source: &str, operator: &str| {
        let (name, value) = source.split_once(operator).unwrap();
        event.get(name.trim_start_matches("ce.")).is_some_and(|found| format!("'{found}'") == value)
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
        Filter::Sql(source) => equal(source, " = "),
        Filter::Cel(source) => equal(source, " == "),
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
            data: Some(Data::TextData("1".to_owned())),
            ..CloudEvent::default()
        };
        let bytes = message.encode_to_vec();
        let event = BTreeMap::from([("id", id), ("type", ty), ("source", "ab".to_owned())]);
        let filters = vec![filter];
        let compiled = Compiled::new(&filters).unwrap();

        let passes = compiled.passes(&candidate(&bytes));

        prop_assert_eq!(passes, oracle(&filters[0], &event));
        // What is certain in spite of errors is what a filter says, too.
        let judged = compiled.judge(&candidate(&bytes));
        prop_assert!(judged == Judgement::Undecided || judged == Judgement::from(passes));
        let explanation = compiled.explain(&candidate(&bytes));
        prop_assert_eq!(explanation.passes, passes);
        prop_assert_eq!(explanation.reasons.is_empty(), passes);
        prop_assert_eq!(&from_wire(to_wire(&filters)).unwrap(), &filters);
        let text = serde_json::to_string(&filters).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<Filter>>(&text).unwrap(), filters);
    }
}
