//! JSON that can be understood in one way only: no name twice, bounded depth, nothing after it.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Objects and lists within each other.
const DEPTH_MAX: u8 = 16;

/// Why a text is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// No JSON object, or nested too deeply.
    NoObject,
    /// A name comes twice.
    Repeats,
}

/// Reads one object.
pub(super) fn object(text: &[u8]) -> Result<Map<String, Value>, Problem> {
    let repeats = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let strict = Strict { repeats: &repeats, depth: DEPTH_MAX };
    let value = strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match value {
        Ok(Value::Object(object)) => Ok(object),
        Err(_) if repeats.get() => Err(Problem::Repeats),
        _ => Err(Problem::NoObject),
    }
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    repeats: &'a Cell<bool>,
    /// How much deeper it may get.
    depth: u8,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if members.contains_key(&name) {
                self.repeats.set(true);
                return Err(A::Error::custom("a name twice"));
            }
            let value = object.next_value_seed(inner)?;
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_whole() {
        let text = br#" {"a": [1, -2, 3.5, true, null, "x\u0041"], "b": {"c": {}}} "#;

        let read = object(text).unwrap();

        assert_eq!(Value::Object(read), serde_json::from_slice::<Value>(text).unwrap());
    }

    #[test]
    fn a_name_twice_is_noticed_at_any_depth_and_however_it_is_written() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"{"x": [{"b": {"a": 1, "a": 2}}]}"#,
        ] {
            assert_eq!(object(text.as_bytes()), Err(Problem::Repeats), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_object() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(15).as_bytes()).is_ok());
        for text in [
            "",
            "[]",
            "\"{}\"",
            "1",
            "null",
            "{} {}",
            "{},",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "\u{feff}{}",
            "// x\n{}",
            &nested(16),
            &nested(100_000),
        ] {
            let shown = &text[..text.len().min(40)];
            assert_eq!(object(text.as_bytes()), Err(Problem::NoObject), "{shown}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(Problem::NoObject));
    }
}
