//! What the conformance cases do not say: traps, places of errors, limits, and random expressions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::ast::{Call, Connective, Node, Operator};
use super::function::Function;
use super::like::Pattern;
use super::*;

#[derive(Debug)]
struct Map(BTreeMap<&'static str, Value<'static>>);

impl Attributes for Map {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        self.0.get(name).map(Value::borrowed)
    }
}

fn event() -> Map {
    Map(BTreeMap::from([
        ("id", Value::Text("a-1".into())),
        ("source", Value::Text("/shop".into())),
        ("specversion", Value::Text("1.0".into())),
        ("type", Value::Text("order.placed".into())),
        ("hop", Value::Text("5".into())),
        ("count", Value::Integer(7)),
        ("flag", Value::Boolean(true)),
        ("flagtext", Value::Text("true".into())),
    ]))
}

/// The value and the errors, as text.
fn evaluated(source: &str) -> (String, String) {
    let (expression, event) = (Expression::parse(source).unwrap(), event());
    let (value, errors) = expression.evaluate(&event);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    (value.to_string(), errors.join("; "))
}

#[test]
fn traps_are_as_the_specification_says() {
    for (source, value, errors) in [
        ("'TRUE' = true", "true", ""),
        ("true = 'TRUE'", "false", ""),
        ("TRUE OR TRUE AND FALSE", "false", ""),
        ("FALSE AND FALSE OR TRUE", "true", ""),
        ("TRUE XOR TRUE OR TRUE", "true", ""),
        ("NOT FALSE = FALSE", "false", ""),
        ("NOT (FALSE = FALSE)", "false", ""),
        ("NOT type LIKE '%'", "false", "\"order.placed\" cannot be read as Boolean"),
        ("missing", "false", "the event has no attribute missing"),
        ("missing + 1 = 0", "false", "the event has no attribute missing"),
        ("missing OR TRUE", "false", "the event has no attribute missing"),
        ("TRUE OR missing", "true", ""),
        ("NOT 10 OR TRUE", "false", "10 cannot be read as Boolean"),
        ("1 != 1 / 0", "false", "division by zero"),
        ("LENGTH(missing) = 0", "false", "the event has no attribute missing"),
        ("missing NOT LIKE 'x'", "false", "the event has no attribute missing"),
        ("'a' IN ('a', missing)", "true", ""),
        ("'b' NOT IN ('a', missing)", "false", "the event has no attribute missing"),
        ("1 IN ('x', 1)", "true", "\"x\" cannot be read as Integer"),
        ("'x' != 1", "false", "\"x\" cannot be read as Integer"),
        ("'x' < 1", "false", "\"x\" cannot be read as Integer"),
        ("2147483647 + 1", "0", "the result does not fit 32 bits"),
        ("-2147483648 / -1", "0", "the result does not fit 32 bits"),
        ("-2147483648 % -1", "0", ""),
        ("- -2147483648", "0", "the result does not fit 32 bits"),
        ("-7 / 2", "-3", ""),
        ("-7 % 2", "-1", ""),
        ("hop-1", "4", ""),
        ("hop - -1", "6", ""),
        ("+5", "5", ""),
        ("hop < 10 AND count = '7'", "true", ""),
        ("flag", "true", ""),
        ("flagtext", "\"true\"", ""),
        ("flagtext = TRUE", "true", ""),
        ("EXISTS SOURCE AND EXISTS Hop", "true", ""),
        ("TYPE = 'order.placed'", "true", ""),
        ("nope(1)", "false", "there is no function NOPE with 1 arguments"),
        ("'it''s' = \"it's\"", "true", ""),
        ("'it\\'s' = \"it's\"", "true", ""),
        ("'a\\\\' LIKE 'a\\\\'", "true", ""),
        ("LEFT('déjà', 2)", "\"dé\"", ""),
        ("RIGHT('déjà', 0)", "\"\"", ""),
        ("SUBSTRING('déjà', -2, 1)", "\"j\"", ""),
        ("SUBSTRING('abc', 2, -1)", "\"\"", "SUBSTRING: the number of characters is negative"),
        ("SUBSTRING('abc', 3)", "\"c\"", ""),
        ("SUBSTRING('abc', 4)", "\"\"", "SUBSTRING: the position is outside of the text"),
        ("CONCAT_WS(type, 1, TRUE)", "\"1order.placedtrue\"", ""),
        ("'é' LIKE '_'", "true", ""),
        ("'aab' LIKE '%_b'", "true", ""),
        ("'ab' LIKE '%ab%ab'", "false", ""),
        ("'a\nb' LIKE 'a%b'", "true", ""),
    ] {
        assert_eq!(evaluated(source), (value.to_owned(), errors.to_owned()), "{source}");
    }
}

#[test]
fn a_parse_error_says_where_and_what_was_expected() {
    for (source, place, message) in [
        ("", (0, 1, 1), "expected an attribute, a literal"),
        ("type =", (6, 1, 7), "NOT, EXISTS, - or (, found the end"),
        ("type = 'a", (7, 1, 8), "the string that begins here does not end; expected '"),
        (
            "x LIKE 123",
            (7, 1, 8),
            "expected a string literal as the pattern of LIKE, found \"123\"",
        ),
        ("a\nAND é", (6, 2, 5), "'é' has no meaning here"),
        ("a b", (2, 1, 3), "expected an operator or the end, found \"b\""),
        ("(a", (2, 1, 3), "expected an operator or ), found the end"),
        ("a IN ()", (6, 1, 7), "expected an attribute"),
        ("a IN 1", (5, 1, 6), "expected ( and the elements of a set"),
        ("a NOT 1", (6, 1, 7), "expected LIKE or IN behind NOT"),
        ("EXISTS 'a'", (7, 1, 8), "expected the name of an attribute, found a string"),
        ("EXISTS and", (7, 1, 8), "expected the name of an attribute"),
        ("2147483648", (0, 1, 1), "2147483648 is no 32-bit integer"),
        ("my_ext = 1", (0, 1, 1), "\"my_ext\" is no attribute"),
        ("f1(2)", (0, 1, 1), "\"f1\" is no name of a function"),
        ("f(1", (3, 1, 4), "expected an operator, a comma or )"),
        ("+ 5", (2, 1, 3), "expected digits right behind +"),
        ("a == 1", (3, 1, 4), "expected an attribute"),
        ("a AND OR b", (6, 1, 7), "expected an attribute"),
    ] {
        let error = Expression::parse(source).unwrap_err();
        let found = (error.place.offset, error.place.line, error.place.column);
        assert_eq!(found, place, "{source}: {error}");
        assert!(error.message.contains(message), "{source}: {error}");
    }
}

#[test]
fn size_depth_and_parts_are_bounded() {
    let nested = |depth: usize| format!("{}TRUE{}", "(".repeat(depth), ")".repeat(depth));
    let not = |depth: usize| format!("{}TRUE", "NOT ".repeat(depth));
    let sum = |terms: usize| vec!["1"; terms].join("+ ");
    let chain = |terms: usize| vec!["TRUE"; terms].join(" AND ");
    let calls = |depth: usize| format!("{}1{}", "ABS(".repeat(depth), ")".repeat(depth));
    for (fits, does_not) in [
        (nested(DEPTH_MAX - 1), nested(DEPTH_MAX)),
        (not(DEPTH_MAX - 1), not(DEPTH_MAX)),
        (sum(DEPTH_MAX), sum(DEPTH_MAX + 1)),
        (calls(DEPTH_MAX - 1), calls(DEPTH_MAX)),
        (chain(NODES_MAX / 2), chain(NODES_MAX / 2 + 1)),
        (" ".repeat(SOURCE_BYTES_MAX - 1) + "1", " ".repeat(SOURCE_BYTES_MAX) + "1"),
    ] {
        assert!(Expression::parse(&fits).is_ok(), "{fits}");
        assert!(Expression::parse(&does_not).is_err(), "{does_not}");
    }
    assert!(Expression::parse(&"(".repeat(SOURCE_BYTES_MAX)).is_err());
    assert!(Expression::parse(&"-".repeat(SOURCE_BYTES_MAX)).is_err());
}

#[test]
fn what_differs_from_sql_is_warned_of() {
    let warned = |source: &str| -> String {
        let (_, warnings) = Expression::parse_with_warnings(source).unwrap();
        let places = warnings.iter().map(|warning| warning.place.column.to_string());
        places.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(warned("a = 1 OR b = 2 AND c = 3"), "16");
    assert_eq!(warned("a = 1 OR (b = 2 AND c = 3)"), "");
    assert_eq!(warned("a = 1 AND b = 2 AND c = 3"), "");
    assert_eq!(warned("NOT a = 1"), "1");
    assert_eq!(warned("NOT a LIKE 'x'"), "1");
    assert_eq!(warned("TRUE AND NOT a IN (1)"), "10");
    assert_eq!(warned("NOT (a = 1) AND a NOT IN (1)"), "");
    assert_eq!(warned("NOT EXISTS a"), "");
}

/// Text that some string of the language stands for.
fn any_text() -> impl Strategy<Value = String> {
    "[a-z%_ '\"\\\\éTRUE0-9.-]{0,8}"
        .prop_filter("no string reads as this text", |text| lexer::escape(text).is_some())
}

fn any_value() -> impl Strategy<Value = Value<'static>> {
    let edges = vec![0, 1, -1, 10, i32::MAX, i32::MIN];
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        proptest::sample::select(edges).prop_map(Value::Integer),
        any_text().prop_map(|text| Value::Text(text.into())),
        "[+-]?[0-9]{1,11}|(?i:true|false)".prop_map(|text| Value::Text(text.into())),
    ]
}

const NAMES: [&str; 6] = ["id", "type", "a", "b1", "1c", "missing"];

fn any_name() -> impl Strategy<Value = Box<str>> {
    proptest::sample::select(&NAMES[..]).prop_map(Into::into)
}

fn any_binary(inner: impl Strategy<Value = Node> + Clone) -> impl Strategy<Value = Node> {
    use Operator as O;
    let operators = [
        O::Multiply,
        O::Divide,
        O::Remainder,
        O::Add,
        O::Subtract,
        O::Equal,
        O::NotEqual,
        O::Less,
        O::LessOrEqual,
        O::Greater,
        O::GreaterOrEqual,
    ];
    let operator = proptest::sample::select(operators.to_vec());
    (operator, inner.clone(), inner)
        .prop_map(|(operator, left, right)| Node::Binary(operator, Box::new([left, right])))
}

fn any_call(inner: impl Strategy<Value = Node>) -> impl Strategy<Value = Node> {
    let names = [
        "INT",
        "BOOL",
        "STRING",
        "ABS",
        "LENGTH",
        "CONCAT",
        "CONCAT_WS",
        "LOWER",
        "UPPER",
        "TRIM",
        "LEFT",
        "RIGHT",
        "SUBSTRING",
        "NOPE",
    ];
    let name = proptest::sample::select(names.to_vec());
    (name, proptest::collection::vec(inner, 0..4)).prop_map(|(name, arguments)| {
        let function = Function::find(name, arguments.len());
        Node::Call(Call { name: name.into(), function, arguments })
    })
}

fn any_node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        any_value().prop_map(Node::Literal),
        any_name().prop_map(Node::Attribute),
        any_name().prop_map(Node::Exists),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let connectives = vec![Connective::And, Connective::Or, Connective::Xor];
        let rest = (proptest::sample::select(connectives), inner.clone());
        let inside = || inner.clone().prop_map(Box::new);
        prop_oneof![
            inside().prop_map(Node::Not),
            inside().prop_map(Node::Negate),
            any_binary(inner.clone()),
            any_call(inner.clone()),
            (inside(), proptest::collection::vec(rest, 1..4))
                .prop_map(|(first, rest)| Node::Logic(first, rest)),
            (inside(), any_text(), any::<bool>()).prop_map(|(value, pattern, negated)| {
                Node::Like { value, pattern: Pattern::new(&pattern), negated }
            }),
            (inside(), proptest::collection::vec(inner.clone(), 1..4), any::<bool>())
                .prop_map(|(value, set, negated)| Node::In { value, set, negated }),
        ]
    })
}

fn any_event() -> impl Strategy<Value = Map> {
    let names = proptest::sample::select(&NAMES[..5]);
    proptest::collection::btree_map(names, any_value(), 0..5).prop_map(Map)
}

/// What a pattern means, read literally.
fn matches_slowly(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['\\', wanted @ ('%' | '_'), rest @ ..] | [wanted, rest @ ..]
            if !matches!(pattern, ['%' | '_', ..]) =>
        {
            text.split_first()
                .is_some_and(|(one, text)| one == wanted && matches_slowly(rest, text))
        }
        ['_', rest @ ..] => text.split_first().is_some_and(|(_, text)| matches_slowly(rest, text)),
        [_, rest @ ..] => (0..=text.len()).any(|skipped| matches_slowly(rest, &text[skipped..])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_printed_parses_to_the_same(root in any_node()) {
        let expression = Expression { root };
        let text = expression.to_string();
        prop_assert_eq!(Expression::parse(&text), Ok(expression), "{}", text);
    }

    #[test]
    fn failing_fast_agrees_with_going_on(root in any_node(), event in any_event()) {
        let expression = Expression { root };
        let (value, errors) = expression.evaluate(&event);
        let test = expression.test(&event);
        match errors.first() {
            Some(first) => prop_assert_eq!(test.as_ref(), Err(first)),
            None => match value {
                Value::Boolean(value) => prop_assert_eq!(test, Ok(value)),
                value => prop_assert_eq!(test, Err(EvalError::NotBoolean { value })),
            }
        }
    }

    #[test]
    fn patterns_match_what_they_mean(pattern in "[ab%_\\\\]{0,8}", text in "[ab%_\\\\]{0,8}") {
        let slowly = |text: &str| text.chars().collect::<Vec<_>>();
        let wanted = matches_slowly(&slowly(&pattern), &slowly(&text));
        prop_assert_eq!(Pattern::new(&pattern).matches(&text), wanted);
    }

    #[test]
    fn hostile_text_never_panics(source in "[ -~é\n]{0,60}|(a|1|'|\"|NOT|LIKE|IN|AND|[(),+=-]| ){0,30}") {
        if let Ok(expression) = Expression::parse(&source) {
            prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
        }
    }
}
