//! Each draft by what sets it apart from its neighbours.

#![expect(clippy::panic, reason = "helpers of tests")]

use weft_registry::{Draft, Limits, Schema, Verdict};

fn compile(draft: Option<Draft>, body: &str) -> Schema {
    let declared = draft.map_or_else(String::new, |d| format!("\"$schema\": \"{}\", ", d.uri()));
    let text = body.replacen('{', &format!("{{{declared}"), 1).replace(", }", "}");
    let schema = Schema::compile(text.as_bytes(), &Limits::default());
    let schema = schema.unwrap_or_else(|problem| panic!("{text}: {problem}"));
    assert_eq!(schema.draft(), draft.unwrap_or(Draft202012));
    schema
}

/// For each draft, a schema without its `$schema`, payloads that fit and payloads that do not.
type Case = (&'static [Draft], &'static str, &'static [&'static str], &'static [&'static str]);

use Draft::{Draft4, Draft6, Draft7, Draft201909, Draft202012};

const CASES: &[Case] = &[
    (&[Draft4], r#"{"maximum": 5, "exclusiveMaximum": true}"#, &["4", "4.9"], &["5", "6"]),
    (&[Draft4], r#"{"type": "integer"}"#, &["1"], &["1.0", "1.5"]),
    (
        &[Draft4],
        r##"{"definitions": {"a": {"id": "#x", "type": "null"}}, "properties": {"p": {"$ref": "#x"}}}"##,
        &[r#"{"p": null}"#],
        &[r#"{"p": 1}"#],
    ),
    (&[Draft6, Draft7, Draft201909, Draft202012], r#"{"exclusiveMaximum": 5}"#, &["4"], &["5"]),
    (
        &[Draft6, Draft7, Draft201909, Draft202012],
        r#"{"type": "integer"}"#,
        &["1", "1.0"],
        &["1.5"],
    ),
    (
        &[Draft6, Draft7, Draft201909, Draft202012],
        r#"{"const": {"a": [1]}}"#,
        &[r#"{"a": [1.0]}"#],
        &[r#"{"a": [2]}"#, "null"],
    ),
    (
        &[Draft6, Draft7, Draft201909, Draft202012],
        r#"{"propertyNames": {"maxLength": 2}}"#,
        &[r#"{"ab": 1}"#],
        &[r#"{"abc": 1}"#],
    ),
    (
        &[Draft6, Draft7, Draft201909, Draft202012],
        r#"{"properties": {"no": false, "yes": true}}"#,
        &[r#"{"yes": 1}"#],
        &[r#"{"no": 1}"#],
    ),
    (
        &[Draft4, Draft6, Draft7, Draft201909],
        r#"{"items": [{"type": "null"}], "additionalItems": false}"#,
        &["[]", "[null]"],
        &["[1]", "[null, 1]"],
    ),
    (
        &[Draft4, Draft6, Draft7],
        r##"{"definitions": {"n": {"type": "null"}}, "$ref": "#/definitions/n", "enum": [7]}"##,
        &["null"],
        &["7"],
    ),
    (
        &[Draft7, Draft201909, Draft202012],
        r#"{"if": {"minimum": 10}, "then": {"multipleOf": 10}, "else": {"multipleOf": 3}}"#,
        &["20", "9"],
        &["21", "5"],
    ),
    (
        &[Draft201909, Draft202012],
        r##"{"$defs": {"n": {"type": "number"}}, "$ref": "#/$defs/n", "enum": [7]}"##,
        &["7"],
        &["8", "null"],
    ),
    (
        &[Draft201909, Draft202012],
        r#"{"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"maxProperties": 1}}}"#,
        &[r#"{"a": 1, "b": 2}"#, r#"{"c": 1}"#],
        &[r#"{"a": 1}"#, r#"{"c": 1, "b": 2}"#],
    ),
    (
        &[Draft201909, Draft202012],
        r#"{"allOf": [{"properties": {"a": true}}], "unevaluatedProperties": false}"#,
        &[r#"{"a": 1}"#],
        &[r#"{"b": 1}"#],
    ),
    (
        &[Draft201909, Draft202012],
        r#"{"contains": {"type": "null"}, "minContains": 2, "maxContains": 3}"#,
        &["[null, null]"],
        &["[null]", "[null, null, null, null]"],
    ),
    (
        &[Draft201909, Draft202012],
        r##"{"$defs": {"n": {"$anchor": "here", "type": "null"}}, "$ref": "#here"}"##,
        &["null"],
        &["1"],
    ),
    (
        &[Draft201909],
        r##"{"$recursiveAnchor": true, "type": "object", "additionalProperties": {"$recursiveRef": "#"}}"##,
        &["{}", r#"{"a": {"b": {}}}"#],
        &["1", r#"{"a": {"b": 1}}"#],
    ),
    (
        &[Draft202012],
        r#"{"prefixItems": [{"type": "null"}], "items": {"type": "number"}}"#,
        &["[null, 1]", "[]"],
        &["[1]", "[null, null]"],
    ),
    (
        &[Draft202012],
        r##"{"$id": "http://h/strict", "$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": false,
          "$defs": {"tree": {"$id": "tree", "$dynamicAnchor": "node", "type": "object", "properties":
            {"value": true, "children": {"type": "array", "items": {"$dynamicRef": "#node"}}}}}}"##,
        &[r#"{"value": 1, "children": [{"value": 2}]}"#],
        &[r#"{"value": 1, "daat": 2}"#, r#"{"children": [{"daat": 2}]}"#],
    ),
    // Annotations in every draft, so that a schema means the same wherever it is declared.
    (
        &[Draft4, Draft6, Draft7, Draft201909, Draft202012],
        r#"{"format": "email", "contentEncoding": "base64", "contentMediaType": "application/json"}"#,
        &["\"no address\"", "\"%%%\""],
        &[],
    ),
    (
        &[Draft4, Draft6, Draft7, Draft201909, Draft202012],
        r#"{"pattern": "^[a-z]+$", "minLength": 2, "maxLength": 3}"#,
        &["\"ab\"", "1"],
        &["\"a\"", "\"abcd\"", "\"AB\""],
    ),
    (
        &[Draft4, Draft6, Draft7, Draft201909, Draft202012],
        r#"{"uniqueItems": true, "maxItems": 40}"#,
        &["[]", "[1, \"1\", true, [1], {\"a\": 1}]"],
        &["[1, 1.0]", "[{\"a\": [1]}, {\"a\": [1]}]"],
    ),
    (
        &[Draft4, Draft6, Draft7, Draft201909, Draft202012],
        r##"{"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": false}"##,
        &[r#"{"left": {"right": {}}}"#],
        &[r#"{"left": {"right": {"x": 1}}}"#],
    ),
];

#[test]
fn drafts_keep_their_own_rules() {
    for (drafts, body, fit, miss) in CASES {
        for draft in *drafts {
            let schema = compile(Some(*draft), body);
            for payload in *fit {
                let verdict = schema.check(payload.as_bytes());
                assert_eq!(verdict, Verdict::Fits, "{draft}, {body}: {payload}");
            }
            for payload in *miss {
                let verdict = schema.check(payload.as_bytes());
                let Verdict::Violation(violation) = verdict else {
                    panic!("{draft}, {body}: {payload}")
                };
                assert!(!violation.message.is_empty() && !violation.keyword.is_empty());
                assert!(violation.message.len() <= 200, "{violation:?}");
            }
        }
    }
}

#[test]
fn no_declared_draft_means_the_newest() {
    let schema = compile(None, r#"{"prefixItems": [{"type": "null"}]}"#);

    assert!(matches!(schema.check(b"[1]"), Verdict::Violation(_)));
}

#[test]
fn every_verdict_is_that_of_the_plain_representation() {
    // The same engine over serde_json values: only our representation can make a difference.
    for (drafts, body, fit, miss) in CASES {
        for draft in *drafts {
            let mut value: serde_json::Value = serde_json::from_str(body).unwrap();
            value["$schema"] = draft.uri().into();
            let plain = jsonschema::options()
                .should_validate_formats(false)
                .without_content_media_type_support("application/json")
                .without_content_encoding_support("base64")
                .build(&value)
                .unwrap();
            let ours = compile(Some(*draft), body);
            for payload in
                CASES.iter().flat_map(|case| case.2.iter().chain(case.3)).chain(*fit).chain(*miss)
            {
                let expected = plain.is_valid(&serde_json::from_str(payload).unwrap());
                assert_eq!(
                    ours.check(payload.as_bytes()) == Verdict::Fits,
                    expected,
                    "{draft} {body} {payload}"
                );
            }
        }
    }
}
