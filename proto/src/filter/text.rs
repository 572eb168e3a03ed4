//! Filters in JSON and YAML: a map with one entry, named by the dialect.

use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Filter;

const KNOWN: &str = "exact, prefix, suffix, all, any, not";

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
            "exact" => Filter::Exact(map.next_value()?),
            "prefix" => Filter::Prefix(map.next_value()?),
            "suffix" => Filter::Suffix(map.next_value()?),
            "all" => Filter::All(map.next_value()?),
            "any" => Filter::Any(map.next_value()?),
            "not" => Filter::Not(map.next_value()?),
            // Ignoring it would let through what the caller wanted to leave out.
            "sql" | "cel" => {
                return Err(A::Error::custom(format!(
                    "the filter dialect {dialect} is not supported by this version, only {KNOWN}"
                )));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_dialects_are_errors_that_say_so() {
        let cases = [
            (r#"{"sql":"TRUE"}"#, "sql is not supported by this version"),
            (r#"{"not":{"cel":"true"}}"#, "cel is not supported by this version"),
            (r#"{"regex":{"type":"a"}}"#, "\"regex\" is no filter dialect"),
            (r#"{"exact":{"type":"a"},"any":[]}"#, "one filter has one dialect"),
            ("{}", "needs a dialect"),
            (r#"{"exact":{"count":5}}"#, "expected a string"),
            (r#""exact""#, "expected a filter, as in"),
        ];
        for (text, part) in cases {
            let error = serde_json::from_str::<Filter>(text).unwrap_err().to_string();

            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
