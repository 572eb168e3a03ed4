//! Filters in JSON and YAML: a map with one entry, named by the dialect.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Filter;

/// The dialects, for errors.
pub(super) const KNOWN: &str = "exact, prefix, suffix, all, any, not, sql, cel";

// Written by hand for the errors: who comes with another dialect reads here what to do.
impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OneDialect)
    }
}

struct OneDialect;

impl<'de> Visitor<'de> for OneDialect {
    type Value = Filter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a filter, as in {{\"exact\": {{\"type\": \"com.example.paid\"}}}}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Filter, A::Error> {
        let Some(dialect) = map.next_key::<String>()? else {
            return Err(A::Error::custom(format!("a filter needs a dialect: {KNOWN}")));
        };
        let filter = match dialect.as_str() {
            "exact" => Filter::Exact(map.next_value::<Wanted>()?.0),
            "prefix" => Filter::Prefix(map.next_value::<Wanted>()?.0),
            "suffix" => Filter::Suffix(map.next_value::<Wanted>()?.0),
            "all" => Filter::All(map.next_value()?),
            "any" => Filter::Any(map.next_value()?),
            "not" => Filter::Not(map.next_value()?),
            "sql" => Filter::Sql(map.next_value()?),
            "cel" => Filter::Cel(map.next_value()?),
            // Ignoring it would let through what the caller wanted to leave out.
            _ => {
                return Err(A::Error::custom(format!(
                    "{dialect:?} is no filter dialect; there are {KNOWN}"
                )));
            }
        };
        if map.next_key::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("one filter has one dialect; write a list of filters"));
        }
        Ok(filter)
    }
}

/// Attributes and values. Of two equal names the last must not silently win: the other condition
/// would be gone.
struct Wanted(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WantedVisitor).map(Self)
    }
}

struct WantedVisitor;

impl<'de> Visitor<'de> for WantedVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of attribute names and text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut wanted = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if wanted.contains_key(&name) {
                return Err(A::Error::custom(format!("the attribute {name} is there twice")));
            }
            wanted.insert(name, value);
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_dialects_are_errors_that_say_so() {
        let cases = [
            (
                r#"{"regex":{"type":"a"}}"#,
                "\"regex\" is no filter dialect; there are exact, prefix",
            ),
            (r#"{"not":{"cesql":"TRUE"}}"#, "not, sql, cel"),
            (r#"{"sql":5}"#, "expected a string"),
            (r#"{"exact":{"type":"a"},"any":[]}"#, "one filter has one dialect"),
            ("{}", "needs a dialect"),
            (r#"{"exact":{"type":"a","type":"b"}}"#, "attribute type is there twice"),
            (r#"{"exact":"a"}"#, "a map of attribute names and text"),
            (r#"{"exact":{"count":5}}"#, "expected a string"),
            (r#""exact""#, "expected a filter, as in"),
        ];
        for (text, part) in cases {
            let error = serde_json::from_str::<Filter>(text).unwrap_err().to_string();

            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
