//! Strict JSON: one test per rule, then the same answers as `serde_json` on whatever both accept.

use super::{DEPTH_MAX, Document, ProblemKind, Walk, canonical};
use crate::json::Tape;
use proptest::prelude::*;
use serde_json::Value;

fn refused(text: &[u8]) -> (ProblemKind, usize) {
    let problem = Document::parse(text).expect_err("refused");
    (problem.kind, problem.offset)
}

#[test]
fn duplicate_keys_are_refused_at_the_second() {
    use ProblemKind::DuplicateKey;

    assert_eq!(refused(br#"{"a": 1, "b": 2, "a": 3}"#), (DuplicateKey, 17));
    assert_eq!(refused(br#"[{"x": {"": 1, "": 2}}]"#).0, DuplicateKey);
    // Escapes do not hide one.
    assert_eq!(refused(br#"{"\u0061": 1, "a": 2}"#), (DuplicateKey, 14));
    assert_eq!(refused(br#"{"a": 1, "\u0061": 2}"#).0, DuplicateKey);
    // The same name in two objects is no duplicate, nor is a name that shares first, last, length.
    assert!(Document::parse(br#"{"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]}"#).is_ok());
    assert!(Document::parse(br#"{"axb": 1, "ayb": 2}"#).is_ok());
}

#[test]
fn duplicate_keys_of_large_objects_are_refused_too() {
    let names = |count: usize| (0..count).map(|n| format!("\"k{n}\": {n}")).collect::<Vec<_>>();
    for count in [16, 17, 18, 200] {
        let mut members = names(count);
        let text = format!("{{{}}}", members.join(","));
        let document = Document::parse(text.as_bytes()).unwrap();
        for n in 0..count {
            assert_eq!(document.kind_at(&format!("/k{n}")), Some("integer"));
        }
        assert_eq!(document.kind_at("/k"), None);

        members.push("\"k3\": 0".to_owned());
        let text = format!("{{{}}}", members.join(","));
        let at = text.rfind("\"k3\"").unwrap();
        assert_eq!(refused(text.as_bytes()), (ProblemKind::DuplicateKey, at), "{count}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);

    assert!(Document::parse(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(refused(nested(DEPTH_MAX + 1).as_bytes()), (ProblemKind::TooDeep, DEPTH_MAX));
    assert_eq!(refused("[".repeat(1_000_000).as_bytes()).0, ProblemKind::TooDeep);
    assert_eq!(refused("{\"a\":".repeat(1_000_000).as_bytes()).0, ProblemKind::TooDeep);
}

#[test]
fn only_the_grammar_of_json_is_accepted() {
    let wrong: [&[u8]; 44] = [
        b"",
        b" ",
        b"nul",
        b"nulll",
        b"True",
        b"NaN",
        b"Infinity",
        b"-",
        b"+1",
        b"01",
        b"-01",
        b"1.",
        b".1",
        b"1e",
        b"1e+",
        b"0x1",
        b"1 2",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[",
        b"]",
        b"{",
        b"{\"a\"}",
        b"{\"a\":}",
        b"{\"a\":1,}",
        b"{,}",
        b"{a:1}",
        b"{'a':1}",
        b"{1:1}",
        b"\"",
        b"\"a",
        b"\"\n\"",
        b"\"\x01\"",
        b"\"\\x\"",
        b"\"\\u12\"",
        b"\"\\u123g\"",
        b"\"\\ud800\"",
        b"\"\\ud800\\u0041\"",
        b"\"\\udc00\"",
        b"\xef\xbb\xbf{}",
        b"// \n1",
        b"\"01234567\x1f\"",
        b"\"\\",
    ];
    for text in wrong {
        assert_eq!(refused(text).0, ProblemKind::Syntax, "{:?}", String::from_utf8_lossy(text));
    }
    assert_eq!(refused(b"\"\xff\""), (ProblemKind::Encoding, 1));
    assert_eq!(refused(b"[1e400]"), (ProblemKind::NumberRange, 1));
    assert_eq!(refused(b"-1e400").0, ProblemKind::NumberRange);
}

#[test]
fn position_is_told_as_line_and_column() {
    let problem = Document::parse(b"{\n  \"a\": 1,\n  \"b\" 2\n}").unwrap_err();

    assert_eq!((problem.line, problem.column), (3, 7));
    assert_eq!(problem.to_string(), "expected a colon at line 3 column 7");
}

#[test]
fn values_are_those_of_serde_json() {
    let texts = [
        "null",
        "true",
        " false ",
        "0",
        "-0",
        "-0.0",
        "1",
        "-1",
        "1.5",
        "1e2",
        "1E-2",
        "-1.25e+3",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "123456789012345678901234567890",
        "1.0",
        "5e-324",
        "1e-400",
        "\"\"",
        "\"a\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u00e9\\ud83e\\udd80x\"",
        "\"h\u{e9}llo\"",
        "[]",
        "{}",
        "[[],{}]",
        "{\"a\\tb\":[1,\"x\"],\"\":null}",
        "\"0123456\\n89abcdefghi\"",
    ];
    for text in texts {
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Document::parse(text.as_bytes()).unwrap().to_value(), expected, "{text}");
    }
}

#[test]
fn pointers_find_their_values() {
    let text = br#"{"a/b": [10, {"~": true}], "": {"": "x"}}"#;
    let document = Document::parse(text).unwrap();

    assert_eq!(document.kind_at(""), Some("object"));
    assert_eq!(document.kind_at("/a~1b/1/~0"), Some("boolean"));
    assert_eq!(document.kind_at("//"), Some("string"));
    assert_eq!(document.kind_at("/a~1b/2"), None);
    assert_eq!(document.kind_at("/a~1b/0/x"), None);
}

#[test]
fn canonical_text_is_one_per_content() {
    let spelt = br#"{ "b" : [1, "\u0041\n\"\/"], "a" : {"y":null,"x":1.50} }"#;

    let text = canonical(&Document::parse(spelt).unwrap());

    assert_eq!(text, r#"{"a":{"x":1.50,"y":null},"b":[1,"A\u000a\"/"]}"#);
    assert_eq!(canonical(&Document::parse(text.as_bytes()).unwrap()), text);
}

#[test]
fn representation_keeps_the_upstream_contract() {
    let text = jsonschema::json::conformance::document().to_string();
    let document = Document::parse(text.as_bytes()).unwrap();
    let walk = Walk::showing_values(&document);

    jsonschema::json::conformance::assert_conformance::<Tape>(&walk.root());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 96, 24, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..24).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..24)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_is_written_is_read(value in any_json(), pretty in any::<bool>()) {
        let text =
            if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let document = Document::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(document.to_value(), value.clone());
        let canonical = canonical(&document);
        prop_assert_eq!(serde_json::from_str::<Value>(&canonical).unwrap(), value);
    }

    #[test]
    fn damaged_text_gets_the_verdict_of_serde_json(
        value in any_json(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\ue.-+0\n ".to_vec())],
    ) {
        let mut text = serde_json::to_vec(&value).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        let ours = Document::parse(&text);
        match serde_json::from_slice::<Value>(&text) {
            Ok(theirs) => match ours {
                Ok(ours) => prop_assert_eq!(ours.to_value(), theirs),
                Err(problem) => prop_assert_eq!(problem.kind, ProblemKind::DuplicateKey),
            },
            Err(_) => prop_assert!(ours.is_err(), "{}", String::from_utf8_lossy(&text)),
        }
    }
}
