//! One test per refusal, then the bombs: what they cost is measured in steps, not in time.

use super::{Draft, Limit, Limits, Schema, SchemaProblem, Verdict, Violation};
use proptest::prelude::*;
use serde_json::{Value, json};

fn compile(schema: &Value) -> Result<Schema, SchemaProblem> {
    Schema::compile(schema.to_string().as_bytes(), &Limits::default())
}

fn problem(schema: &Value) -> SchemaProblem {
    compile(schema).map_or_else(|problem| problem, |_| panic!("compiled: {schema}"))
}

fn violation(schema: &Value, payload: &Value) -> Violation {
    match compile(schema).unwrap().check(payload.to_string().as_bytes()) {
        Verdict::Violation(violation) => violation,
        Verdict::Fits => panic!("{payload} fits {schema}"),
    }
}

#[test]
fn schema_must_be_strict_json() {
    let refuse = |text: &[u8]| Schema::compile(text, &Limits::default()).unwrap_err().to_string();

    let twice = refuse(br#"{"type": "object", "type": "array"}"#);
    assert_eq!(twice, "schema is not JSON: duplicate key at line 1 column 20");
    let deep = "{\"not\":".repeat(20_000) + "{}" + &"}".repeat(20_000);
    assert!(refuse(deep.as_bytes()).contains("nested deeper than 128"));
}

#[test]
fn unknown_draft_is_refused_with_the_list() {
    let root = problem(&json!({"$schema": "http://example.org/mine"}));
    let nested = problem(&json!({"$defs": {"a/b": {"$schema": "urn:x"}}}));

    assert_eq!(root.pointer(), "/$schema");
    for draft in Draft::ALL {
        assert!(root.to_string().contains(draft.uri()), "{root}");
    }
    assert_eq!(nested.pointer(), "/$defs/a~1b/$schema");
}

#[test]
fn references_out_of_the_document_are_refused_where_they_are() {
    for remote in [
        "http://example.org/x.json",
        "https://example.org/#/a",
        "file:///etc/passwd",
        "other.json",
        "//example.org/x",
        "/etc/passwd",
        "urn:uuid:0",
        "ftp://h/x",
        "../up.json#/a",
        "http://169.254.169.254/latest",
        "data:application/json,1",
    ] {
        let refused = problem(&json!({"properties": {"a": {"items": {"$ref": remote}}}}));

        let reference = remote.to_owned();
        let pointer = "/properties/a/items/$ref".to_owned();
        assert_eq!(refused, SchemaProblem::RemoteReference { pointer, reference }, "{remote}");
    }
    // Nor may they hide in a part that nothing leads to, or behind other keywords.
    for (keyword, draft) in [("$ref", 4), ("$dynamicRef", 4), ("$recursiveRef", 3)] {
        let schema = json!({
            "$schema": Draft::ALL[draft].uri(),
            "$defs": {"unused": {keyword: "http://example.org/x"}}
        });
        assert_eq!(problem(&schema).pointer(), format!("/$defs/unused/{keyword}"));
    }
    let mut base = json!({"$id": "http://example.org/a", "properties": {"p": {"$ref": "b"}}});
    assert_eq!(problem(&base).pointer(), "/properties/p/$ref");
    base["$defs"] = json!({"here": {"$id": "b", "type": "null"}});
    assert!(compile(&base).is_ok());
}

#[test]
fn names_of_members_are_no_keywords() {
    let schema = json!({
        "properties": {"$ref": {"type": "string"}, "enum": {"type": "array"}},
        "enum": [{"$ref": "http://example.org"}],
        "default": {"$ref": "http://example.org"},
        "examples": [{"uniqueItems": true}],
    });

    assert!(compile(&schema).is_ok(), "{}", problem(&schema));
}

#[test]
fn references_to_nothing_are_refused_where_they_are() {
    for dangling in ["#/$defs/b", "#nowhere", "#/$defs/a/items/7", "#/%zz"] {
        let refused = problem(&json!({"$defs": {"a": true}, "not": {"$ref": dangling}}));

        assert!(matches!(refused, SchemaProblem::DanglingReference { .. }), "{refused}");
        assert_eq!(refused.pointer(), "/not/$ref");
    }
    let encoded = json!({"$defs": {"a b/~": {"type": "null"}}, "$ref": "#/$defs/a%20b~1~0"});
    assert_eq!(violation(&encoded, &json!(1)).keyword, "type");
}

#[test]
fn loops_that_never_descend_are_refused() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
        json!({"$dynamicAnchor": "x", "anyOf": [{"$dynamicRef": "#x"}]}),
    ] {
        assert!(matches!(problem(&schema), SchemaProblem::EndlessReference { .. }), "{schema}");
    }
    assert!(compile(&json!({"properties": {"next": {"$ref": "#"}}})).is_ok());
}

fn beyond(schema: &Value) -> (Limit, u64, String) {
    match problem(schema) {
        SchemaProblem::BeyondLimit { pointer, limit, value, .. } => (limit, value, pointer),
        other => panic!("{other}"),
    }
}

/// `n` definitions, each of which refers to the next one twice.
fn doubling_chain(n: usize) -> Value {
    let mut defs = serde_json::Map::new();
    for at in 0..n {
        let next = json!({"$ref": format!("#/$defs/d{}", at + 1)});
        defs.insert(format!("d{at}"), json!({"allOf": [next, next]}));
    }
    defs.insert(format!("d{n}"), json!({"type": "object"}));
    json!({"$defs": defs, "$ref": "#/$defs/d0"})
}

#[test]
fn doubling_references_are_counted_and_refused() {
    assert!(compile(&doubling_chain(8)).is_ok());
    for n in [10, 22, 26, 40, 300] {
        let (limit, value, pointer) = beyond(&doubling_chain(n));

        assert_eq!(limit, Limit::Visits);
        assert!(value > 2_000 && pointer.starts_with("/$defs/d"), "{value} {pointer}");
    }
}

#[test]
fn long_chains_of_references_are_refused_before_they_fill_the_stack() {
    let chain = |links: usize| {
        let link = |at: usize| (format!("c{at}"), json!({"$ref": format!("#/$defs/c{}", at + 1)}));
        let mut defs: serde_json::Map<_, _> = (0..links).map(link).collect();
        defs.insert(format!("c{links}"), json!(true));
        json!({"$defs": defs})
    };

    let (limit, value, _) = beyond(&chain(100));

    assert_eq!((limit, value), (Limit::Nesting, Limits::default().nesting_max + 1));
    assert_eq!(beyond(&chain(10_000)).0, Limit::Visits);
}

#[test]
fn deepest_check_that_is_allowed_fits_a_small_stack() {
    // As many nested subschemas as allowed, at each of as many levels as a payload may have.
    let max = usize::try_from(Limits::default().nesting_max).unwrap();
    let link = |at: usize| (format!("c{at}"), json!({"$ref": format!("#/$defs/c{}", at + 1)}));
    let mut defs: serde_json::Map<_, _> = (0..max - 2).map(link).collect();
    let last = json!({"items": {"$ref": "#/$defs/c0"}, "maxItems": 1});
    defs.insert(format!("c{}", max - 2), last);
    let schema = json!({"$defs": defs, "$ref": "#/$defs/c0"});
    let payload = "[".repeat(127) + "[1, 2]" + &"]".repeat(127);

    let check = move || compile(&schema).unwrap().check(payload.as_bytes());
    let verdict = std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join();

    let Ok(Verdict::Violation(violation)) = verdict else { panic!("{verdict:?}") };
    assert_eq!(violation.pointer, "/0".repeat(127));
}

#[test]
fn sizes_are_limited_where_they_are_exceeded() {
    let many: Vec<u32> = (0..10_001).collect();
    let items = |max: u64| json!({"items": {"uniqueItems": true, "maxItems": max}});
    let patterns: serde_json::Map<_, _> =
        (0..257).map(|n| (format!("^p{n}"), json!(true))).collect();
    let long = "a".repeat(1_025);

    assert_eq!(
        beyond(&json!({"not": {"enum": many}})),
        (Limit::EnumValues, 10_001, "/not/enum".into())
    );
    assert_eq!(beyond(&items(4_097)), (Limit::UniqueItems, 4_097, "/items/maxItems".into()));
    assert!(compile(&items(4_096)).is_ok());
    let refused = beyond(&json!({"items": {"patternProperties": patterns}}));
    assert_eq!(refused, (Limit::Patterns, 257, "/items/patternProperties".into()));
    let refused = beyond(&json!({"not": {"pattern": long}}));
    assert_eq!(refused, (Limit::PatternBytes, 1_025, "/not/pattern".into()));
    let refused = beyond(&json!({"patternProperties": {long: true}}));
    assert_eq!(refused, (Limit::PatternBytes, 1_025, "/patternProperties".into()));
    assert_eq!(beyond(&json!({"default": vec![0; 200_000]})).0, Limit::Values);
    assert_eq!(beyond(&json!({"title": "x".repeat(1 << 20)})).0, Limit::Bytes);
}

#[test]
fn unique_items_need_a_bound() {
    let refused = problem(&json!({"properties": {"a": {"uniqueItems": true}}}));

    let pointer = "/properties/a/uniqueItems".to_owned();
    assert_eq!(refused, SchemaProblem::UnboundedUniqueItems { pointer });
    assert!(compile(&json!({"uniqueItems": false})).is_ok());
}

#[test]
fn patterns_outside_the_linear_dialect_are_refused() {
    for pattern in ["(?<=a)b", "(a)\\1", "(", "a(?!b)c+(?=d)", "(\\p{L}{1,100}){1,100}"] {
        let refused = problem(&json!({"properties": {"a": {"pattern": pattern}}}));

        assert!(matches!(refused, SchemaProblem::Pattern { .. }), "{pattern}: {refused:?}");
        assert_eq!(refused.pointer(), "/properties/a/pattern");
        assert!(compile(&json!({"patternProperties": {pattern: true}})).is_err(), "{pattern}");
    }
    let evil = json!({"pattern": "^(a+)+$"});
    assert_eq!(violation(&evil, &json!("a".repeat(100_000) + "!")).keyword, "pattern");
}

#[test]
fn what_is_no_schema_of_its_draft_is_refused_where_it_deviates() {
    let refused = problem(&json!({"properties": {"a": {"type": "objekt"}}}));

    assert_eq!(refused.pointer(), "/properties/a/type");
    assert!(matches!(refused, SchemaProblem::NotASchema { .. }), "{refused}");
    assert!(refused.to_string().starts_with("not a schema of its draft: "), "{refused}");
    assert_eq!(problem(&json!([])).pointer(), "");
    let old = json!({"$schema": Draft::Draft4.uri(), "exclusiveMaximum": 5});
    assert_eq!(problem(&old).pointer(), "/exclusiveMaximum");
}

#[test]
fn reasons_that_multiply_at_each_level_are_given_up() {
    // One place is visited thrice from each level above: 3^n reasons at level n.
    let branch = json!({"properties": {"next": {"$ref": "#"}}, "required": ["end"]});
    let schema = json!({"anyOf": [branch, branch, branch]});
    let payload: Value = (0..100).fold(json!(1), |inner, _| json!({"next": inner}));

    let violation = violation(&schema, &payload);

    assert_eq!(violation.keyword, "schema");
    assert_eq!(violation.message, "does not fit, for more reasons than can be told");
}

#[test]
fn check_is_given_up_when_its_steps_are_spent() {
    let limits = Limits { steps_base: 100, steps_per_value: 0, ..Limits::default() };
    let schema =
        json!({"items": {"properties": {"a": true, "b": true}, "additionalProperties": false}});
    let schema = Schema::compile(schema.to_string().as_bytes(), &limits).unwrap();
    let check =
        |count: usize| schema.check(json!(vec![json!({"a": 1}); count]).to_string().as_bytes());

    assert_eq!(check(2), Verdict::Fits);
    let Verdict::Violation(violation) = check(1_000) else { panic!("more steps than allowed") };

    assert_eq!(violation.keyword, "steps");
    assert_eq!(violation.message, "check was given up after 100 steps");
}

#[test]
fn large_honest_payload_is_not_given_up() {
    let item = json!({"oneOf": [{"type": "string"}, {"type": "object", "required": ["a"]}]});
    let schema = compile(&json!({"items": {"items": item}, "type": "array"})).unwrap();
    let payload = Value::from(vec![vec![json!({"a": 1, "b": [1, 2, 3]}); 100]; 400]);

    let verdict = schema.check(payload.to_string().as_bytes());

    assert_eq!(verdict, Verdict::Fits);
}

#[test]
fn violation_points_at_the_offender() {
    let schema = json!({
        "properties": {
            "a/b": {"items": {"properties": {"qty": {"minimum": 1, "type": "integer"}}}},
            "kind": {"enum": ["x", "y"]},
        },
        "required": ["kind"],
        "additionalProperties": false,
    });
    let at = |payload: &Value| {
        let Violation { pointer, message, more, .. } = violation(&schema, payload);
        (pointer, message, more)
    };
    let text = str::to_owned;

    let deep = json!({"kind": "x", "a/b": [{"qty": 1}, {"qty": 0}]});
    assert_eq!(at(&deep), (text("/a~1b/1/qty"), text("is less than the minimum 1"), 0));
    let kind = json!({"kind": "x", "a/b": [{"qty": "secret"}]});
    assert_eq!(at(&kind), (text("/a~1b/0/qty"), text("must be integer, found string"), 0));
    let value = json!({"kind": "secret"});
    assert_eq!(at(&value), (text("/kind"), text("must be one of \"x\", \"y\""), 0));
    assert_eq!(at(&json!({})), (text(""), text("misses the member \"kind\""), 0));
    let extra = json!({"kind": "x", "e~": 1, "f": 2});
    let message = text("member \"e~\" and 1 more are not allowed");
    assert_eq!(at(&extra), (text("/e~0"), message, 0));
    let both = json!({"kind": 1, "a/b": [{"qty": 0}]});
    assert_eq!(at(&both).2, 1);
}

#[test]
fn alternatives_are_judged_by_what_the_payload_means_to_be() {
    let kind = |name: &str, member: &str| {
        json!({
            "properties": {"kind": {"const": name}, member: {"type": "object", "required": ["id"]}},
            "required": ["kind", member],
        })
    };
    let schema = json!({"oneOf": [kind("a", "alpha"), kind("b", "beta"), {"type": "null"}]});

    let inner = violation(&schema, &json!({"kind": "b", "beta": {}}));
    assert_eq!((inner.pointer.as_str(), inner.keyword.as_str()), ("/beta", "required"));
    assert_eq!(inner.schema_pointer, "/oneOf/1/properties/beta/required");
    let unknown = violation(&schema, &json!({"kind": "c", "beta": {"id": 1}}));
    assert_eq!(unknown.pointer, "/kind");
    let other = violation(&json!({"anyOf": [{"type": "null"}, {"type": "string"}]}), &json!(1));
    assert_eq!(other.message, "must be null or string");
    let twice = violation(&json!({"oneOf": [true, {"minimum": 0}]}), &json!(1));
    assert_eq!(twice.message, "fits more than one of the alternatives");
}

#[test]
fn messages_stay_short_whatever_is_in_them() {
    let long = "x".repeat(10_000);
    let schemas = [
        json!({"const": long}),
        json!({"enum": [long, long.clone() + "y"]}),
        json!({"enum": (0..1000).collect::<Vec<_>>()}),
        json!({"required": [long]}),
        json!({"additionalProperties": false}),
        json!({"unevaluatedProperties": false}),
        json!({"propertyNames": {"const": long}}),
        json!({"pattern": "^a".repeat(500)}),
    ];
    for schema in schemas {
        for payload in [json!(format!("secret {long}")), json!({format!("é{long}"): 1})] {
            let verdict = compile(&schema).unwrap().check(payload.to_string().as_bytes());
            if let Verdict::Violation(violation) = verdict {
                assert!(violation.message.len() <= 200, "{}", violation.message);
                assert!(!violation.message.contains("secret"), "{}", violation.message);
            }
        }
    }
}

fn any_schema() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec!["null", "object", "array", "string", "integer", "number"])
            .prop_map(|kind| json!({"type": kind})),
        (0..4_u8)
            .prop_map(|n| json!({"minimum": n, "maxLength": n, "minItems": n, "minProperties": n})),
        (0..4_u8).prop_map(|n| json!({"enum": [n, n.to_string(), {"a": n}, null]})),
        name().prop_map(|name| json!({"required": [name]})),
    ];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            pair().prop_map(|(a, b)| json!({"oneOf": [a, b]})),
            pair().prop_map(|(a, b)| json!({"anyOf": [a, b]})),
            pair().prop_map(|(a, b)| json!({"if": a, "then": b, "unevaluatedProperties": false})),
            pair().prop_map(|(a, b)| json!({"prefixItems": [a], "items": b})),
            inner.clone().prop_map(|a| json!({"not": a})),
            (name(), inner.clone(), inner.clone()).prop_map(
                |(name, a, b)| json!({"properties": {name: a}, "additionalProperties": b})
            ),
            inner.clone().prop_map(|a| json!({"contains": a, "propertyNames": {"maxLength": 1}})),
        ]
    })
}

fn any_payload() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        (0..5_u8).prop_map(Value::from),
        (-2.0..4.0_f64).prop_map(Value::from),
        "[a-c0-4]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn verdict_is_that_of_plain_values_and_points_into_the_payload(
        schema in any_schema(),
        payloads in prop::collection::vec(any_payload(), 1..8),
    ) {
        let ours = compile(&schema).unwrap();
        let plain = jsonschema::draft202012::options().offline().build(&schema).unwrap();
        for payload in payloads {
            match ours.check(payload.to_string().as_bytes()) {
                Verdict::Fits => prop_assert!(plain.is_valid(&payload)),
                Verdict::Violation(violation) => {
                    prop_assert!(!plain.is_valid(&payload));
                    prop_assert!(payload.pointer(&violation.pointer).is_some(), "{:?}", violation);
                    prop_assert!(schema.pointer(&violation.schema_pointer).is_some(), "{:?}", violation);
                    prop_assert!(!violation.message.is_empty() && violation.message.len() <= 200);
                }
            }
        }
    }
}
