//! The conformance cases of the specification, all of them: see `tck/README.md`.

use std::collections::BTreeMap;

use prost::Message as _;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Attributes, EvalError, Expression, Value};
use crate::event::{EventView, from_json};

const FILES: [&str; 18] = [
    include_str!("tck/binary_comparison_operators.yaml"),
    include_str!("tck/binary_logical_operators.yaml"),
    include_str!("tck/binary_math_operators.yaml"),
    include_str!("tck/case_sensitivity.yaml"),
    include_str!("tck/casting_functions.yaml"),
    include_str!("tck/context_attributes_access.yaml"),
    include_str!("tck/exists_expression.yaml"),
    include_str!("tck/in_expression.yaml"),
    include_str!("tck/integer_builtin_functions.yaml"),
    include_str!("tck/like_expression.yaml"),
    include_str!("tck/literals.yaml"),
    include_str!("tck/negate_operator.yaml"),
    include_str!("tck/not_operator.yaml"),
    include_str!("tck/parse_errors.yaml"),
    include_str!("tck/spec_examples.yaml"),
    include_str!("tck/string_builtin_functions.yaml"),
    include_str!("tck/sub_expression.yaml"),
    include_str!("tck/subscriptions_api_recreations.yaml"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "part of the format")]
    name: String,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    name: String,
    expression: Json,
    result: Option<Json>,
    error: Option<String>,
    event: Option<BTreeMap<String, Json>>,
    #[serde(default)]
    event_overrides: BTreeMap<String, Json>,
}

/// An event as its JSON is written: times keep their offset.
struct Written(BTreeMap<String, Json>);

impl Attributes for Written {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        Some(match self.0.get(name)? {
            Json::Bool(value) => Value::Boolean(*value),
            Json::Number(value) => Value::Integer(value.as_i64().unwrap().try_into().unwrap()),
            value => Value::Text(value.as_str().unwrap().into()),
        })
    }
}

impl Case {
    fn source(&self) -> String {
        // Without quotes some are numbers and booleans to a reader of YAML.
        match &self.expression {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    fn event(&self) -> Written {
        let mut event = self.event.clone().unwrap_or_else(|| {
            ["id", "source", "type"].map(|name| (name.to_owned(), "x".into())).into()
        });
        event.insert("specversion".to_owned(), "1.0".into());
        event.extend(self.event_overrides.clone());
        Written(event)
    }

    /// Runs it against a view of its event.
    fn run(&self, event: &impl Attributes) {
        let (name, source) = (&self.name, self.source());
        let expression = Expression::parse(&source);
        if self.error.as_deref() == Some("parse") {
            assert!(expression.is_err(), "{name}: {source}");
            return;
        }
        let expression = expression.unwrap_or_else(|error| panic!("{name}: {source}: {error}"));
        let (value, errors) = expression.evaluate(event);
        let found = errors.first().map(kind);
        assert_eq!(found, self.error.as_deref(), "{name}: {source}: {errors:?}");
        let wanted = self.result.as_ref().unwrap();
        let found: Json = match &value {
            Value::Boolean(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Text(text) => (&**text).into(),
        };
        assert_eq!(&found, wanted, "{name}: {source}");
        // As a filter: an error, or what is no boolean, is false.
        let passes = errors.is_empty() && value == Value::Boolean(true);
        assert_eq!(expression.test(event) == Ok(true), passes, "{name}: {source}");
        let again = Expression::parse(&expression.to_string());
        assert_eq!(again.as_ref(), Ok(&expression), "{name}: {source} became {expression}");
    }
}

fn kind(error: &EvalError<'_>) -> &'static str {
    match error {
        EvalError::Cast { .. } => "cast",
        EvalError::Overflow | EvalError::DivisionByZero => "math",
        EvalError::MissingAttribute(_) => "missingAttribute",
        EvalError::MissingFunction(..) => "missingFunction",
        EvalError::Function { .. } => "functionEvaluation",
        EvalError::NotBoolean { .. } => "generic",
    }
}

fn cases() -> Vec<Case> {
    FILES.iter().flat_map(|file| serde_saphyr::from_str::<File>(file).unwrap().tests).collect()
}

#[test]
fn all_275_cases_of_the_conformance_kit_hold() {
    let cases = cases();

    assert_eq!(cases.len(), 275);
    assert_eq!(cases.iter().filter(|case| case.error.is_some()).count(), 35);
    for case in &cases {
        case.run(&case.event());
    }
}

/// The same over events as they are stored. Only the offset of a time is lost there.
#[test]
fn the_cases_hold_for_stored_events() {
    let mut ran = 0;
    for case in cases() {
        if case.source() == "time" {
            continue;
        }
        let json = serde_json::to_vec(&case.event().0).unwrap();
        let stored = from_json(&json).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        case.run(&EventView::parse(&stored.encode_to_vec()).unwrap());
        ran += 1;
    }
    assert_eq!(ran, 274);
}
