//! CESQL as users write it: what parses prints to what parses to the same, and both ways to evaluate
//! it agree.

#![cfg_attr(fuzzing, no_main)]

use weft_fuzz::sample;
use weft_proto::event::EventView;
use weft_proto::filter::cesql::{EvalError, Expression, Value};

weft_fuzz::target!();

pub const MAX_LEN: usize = 1_024;

pub fn run(data: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(data) else { return false };
    let expression = match Expression::parse_with_warnings(source) {
        Ok((expression, warnings)) => {
            assert!(warnings.iter().all(|warning| source.is_char_boundary(warning.place.offset)));
            expression
        }
        Err(error) => {
            assert!(source.is_char_boundary(error.place.offset), "{error}");
            return false;
        }
    };
    let printed = expression.to_string();
    // What is printed may be longer than what was read, and longer than what is allowed.
    if printed.len() <= weft_proto::filter::cesql::SOURCE_BYTES_MAX {
        assert_eq!(Expression::parse(&printed).expect("what is printed parses"), expression);
    }
    let event = sample::encode(&sample::event());
    let view = EventView::parse(&event).expect("an event");
    let (value, errors) = expression.evaluate(&view);
    match (errors.first(), value) {
        (Some(first), _) => assert_eq!(expression.test(&view).as_ref(), Err(first)),
        (None, Value::Boolean(value)) => assert_eq!(expression.test(&view), Ok(value)),
        (None, value) => {
            assert_eq!(expression.test(&view), Err(EvalError::NotBoolean { value }));
        }
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let sources = [
        "type LIKE 'com.%' AND EXISTS subject",
        "NOT (id IN ('1', \"2\", 3)) XOR TRUE",
        "-5 + 3 * INT('7') % 2 <= LENGTH(CONCAT_WS(',', id, type))",
        "SUBSTRING(source, -2, 1) = LEFT('a\\'b', 1) OR missing NOT LIKE '\\_%'",
        "type =",
        "f1(2",
    ];
    sources.map(|source| source.as_bytes().to_vec()).into()
}
