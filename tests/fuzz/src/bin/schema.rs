//! A JSON Schema and a payload, both hostile: vetting, compiling, checking.
//!
//! The limits are those of production; the fuzzer's own `-timeout` and `-rss_limit_mb` are the
//! assertion that they suffice.

#![cfg_attr(fuzzing, no_main)]

use weft_fuzz::{Input, chunk};
use weft_registry::{
    Binding, Bindings, Decision, Event, Gate, Governed, Limits, Mode, Pin, Schema, SchemaId,
    Schemas, Verdict, VersionNumber,
};

weft_fuzz::target!();

pub const MAX_LEN: usize = 8_192;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let text = input.chunk();
    let payload = input.rest();
    let compiled = match Schema::compile(text, &Limits::default()) {
        Ok(compiled) => compiled,
        Err(problem) => {
            assert!(!problem.to_string().is_empty());
            return false;
        }
    };
    let verdict = compiled.check(payload);
    assert_eq!(compiled.check(payload), verdict, "a check has no memory");
    if let Verdict::Violation(violation) = &verdict {
        assert!(violation.pointer.is_empty() || violation.pointer.starts_with('/'));
        assert!(!violation.message.is_empty());
    }
    let governed =
        Governed { schema: "s".into(), id: SchemaId(7), version: VersionNumber(1), compiled };
    let binding = Binding {
        event_type: "t".to_owned(),
        schema: "s".to_owned(),
        pin: Pin::Latest,
        mode: Mode::Enforce,
    };
    let bindings = Bindings::new(vec![binding]).expect("one binding");
    let gate = Gate::new(bindings, &[governed].into_iter().collect::<Schemas>()).expect("a gate");
    let event =
        Event { event_type: "t", datacontenttype: None, data: Some(payload), has_dataref: false };
    match (gate.check(&event), verdict) {
        (Decision::Accepted { .. }, Verdict::Fits) => {}
        (Decision::Refused(refusal), Verdict::Violation(violation)) => {
            assert_eq!(refusal.violation, violation);
            assert!(!refusal.to_string().is_empty());
        }
        (decision, verdict) => panic!("{decision:?} for {verdict:?}"),
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let cases = [
        (
            r#"{"type":"object","required":["a"],"properties":{"a":{"minimum":0}},"additionalProperties":false}"#,
            r#"{"a":-1,"b":2}"#,
        ),
        (
            r##"{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"n":{"type":"string","pattern":"^a+$"}},"items":{"$ref":"#/definitions/n"}}"##,
            r#"["aa","b"]"#,
        ),
        (
            r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","$defs":{"t":{"$dynamicAnchor":"x","prefixItems":[{"$ref":"#/$defs/t"}]}},"$ref":"#/$defs/t","unevaluatedItems":false}"##,
            "[[[]]]",
        ),
        (r#"{"anyOf":[{"const":1},{"enum":["a",null]}],"not":{"multipleOf":2}}"#, "3"),
        (
            r#"{"oneOf":[{"type":"integer"},{"minimum":2}],"if":{"maximum":5},"then":{"exclusiveMaximum":4},"else":{}}"#,
            "2.5",
        ),
        (
            r#"{"patternProperties":{"^x":{"maxLength":2}},"propertyNames":{"minLength":1},"dependentRequired":{"x":["y"]},"unevaluatedProperties":false}"#,
            r#"{"x":"abc"}"#,
        ),
        (
            r#"{"type":"array","uniqueItems":true,"maxItems":9,"contains":{"type":"null"},"minContains":1}"#,
            "[1,1,null]",
        ),
        (
            r#"{"$schema":"http://json-schema.org/draft-04/schema#","minimum":5,"exclusiveMinimum":true}"#,
            "5",
        ),
        (r##"{"allOf":[{"$ref":"#"}]}"##, "1"),
        (r#"{"$ref":"http://example.com/other"}"#, "1"),
        (
            r##"{"$defs":{"a":{"allOf":[{"$ref":"#/$defs/b"},{"$ref":"#/$defs/b"}]},"b":{"allOf":[{"$ref":"#/$defs/c"},{"$ref":"#/$defs/c"}]},"c":{"type":"null"}},"$ref":"#/$defs/a"}"##,
            "null",
        ),
        ("true", "not json"),
        ("{", ""),
    ];
    cases
        .iter()
        .map(|(schema, payload)| [chunk(schema.as_bytes()), payload.as_bytes().to_vec()].concat())
        .collect()
}
