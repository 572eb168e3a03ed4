//! One text for all layouts of a JSON document: no space between tokens, keys in order.
//!
//! Replicas compare the result, so it depends on no feature of a library (`preserve_order`), and
//! numbers stay as they are written: those beyond 64 bits are different numbers, too. One pass,
//! because it runs while an entry is applied: work that grows with depth would stop the group.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Values within values at most.
const DEPTH_MAX: usize = 128;

/// Rewrites a document, or says why it cannot.
pub(super) fn canonical(document: &RawValue) -> Result<String, String> {
    let text = document.get();
    let mut scanner = Scanner { text, at: 0 };
    let value = scanner.value(1)?;
    let mut out = String::with_capacity(text.len());
    value.write(&mut out)?;
    Ok(out)
}

enum Value<'a> {
    Object(BTreeMap<Cow<'a, str>, Self>),
    Array(Vec<Self>),
    String(Cow<'a, str>),
    /// A number, `true`, `false` or `null`, as it is written.
    Word(&'a str),
}

/// Splits what is known to be JSON; only depth, keys and the text of strings remain to be checked.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the document is nested deeper than {DEPTH_MAX}"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            _ => self.word().map(Value::Word),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, String> {
        let mut members = BTreeMap::new();
        self.at += 1;
        while !self.take(b'}') {
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.broken());
            }
            let value = self.value(depth + 1)?;
            if members.contains_key(&key) {
                // Which of the two counts depends on the reader.
                return Err(format!("the key {key:?} is there twice"));
            }
            members.insert(key, value);
            self.take(b',');
        }
        Ok(Value::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, String> {
        let mut items = Vec::new();
        self.at += 1;
        while !self.take(b']') {
            items.push(self.value(depth + 1)?);
            self.take(b',');
        }
        Ok(Value::Array(items))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let mut end = 1;
        while let Some(&byte) = bytes.get(end) {
            match byte {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let inner = rest.get(1..end).ok_or_else(|| self.broken())?;
        let token = rest.get(..=end).filter(|_| rest.starts_with('"'));
        let token = token.ok_or_else(|| self.broken())?;
        self.at += token.len();
        if !inner.contains('\\') {
            return Ok(Cow::Borrowed(inner));
        }
        // A half of a surrogate pair is JSON by its grammar, but no text.
        serde_json::from_str(token).map(Cow::Owned).map_err(|error| format!("{token}: {error}"))
    }

    fn word(&mut self) -> Result<&'a str, String> {
        let rest = self.rest();
        let ends = |c: char| matches!(c, ',' | ']' | '}') || c.is_ascii_whitespace();
        let word = rest.split(ends).next().filter(|word| !word.is_empty());
        let word = word.ok_or_else(|| self.broken())?;
        self.at += word.len();
        Ok(word)
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_ascii_start().len();
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        // Whatever comes next, it may have space before it.
        self.peek();
        found
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn broken(&self) -> String {
        format!("the document is not JSON at byte {}", self.at)
    }
}

impl Value<'_> {
    fn write(&self, out: &mut String) -> Result<(), String> {
        match self {
            Self::Object(members) => {
                out.push('{');
                for (place, (key, value)) in members.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    write_string(key, out)?;
                    out.push(':');
                    value.write(out)?;
                }
                out.push('}');
            }
            Self::Array(items) => {
                out.push('[');
                for (place, value) in items.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    value.write(out)?;
                }
                out.push(']');
            }
            Self::String(text) => write_string(text, out)?,
            Self::Word(word) => out.push_str(word),
        }
        Ok(())
    }
}

fn write_string(text: &str, out: &mut String) -> Result<(), String> {
    out.push_str(&serde_json::to_string(text).map_err(|error| error.to_string())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewrite(text: &str) -> Result<String, String> {
        canonical(&RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn layout_and_order_go_and_numbers_stay() {
        for (text, expected) in [
            (
                " {\n \"b\" : [ 1.50 , -0 , 1e400 ] ,\t\"a\":{ } } ",
                r#"{"a":{},"b":[1.50,-0,1e400]}"#,
            ),
            (
                r#"{"a\u0041":"\u00e9\/\"\\","":[null , true,false]}"#,
                r#"{"":[null,true,false],"aA":"é/\"\\"}"#,
            ),
            ("[[ ],[[]]]", "[[],[[]]]"),
            ("\"x\"", "\"x\""),
            (" 7 ", "7"),
        ] {
            assert_eq!(rewrite(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_readers_would_read_differently_is_refused() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));

        assert!(rewrite(&deep(DEPTH_MAX)).is_ok());
        for (text, words) in [
            (deep(DEPTH_MAX + 1).as_str(), "deeper than 128"),
            (deep(100_000).as_str(), "deeper than 128"),
            (r#"[{"a":1,"b":2,"\u0061":3}]"#, "the key \"a\" is there twice"),
            (r#"{"a":"\ud800"}"#, "\\ud800"),
        ] {
            let refused = rewrite(text).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::vec((any::<String>(), inner), 0..6).prop_map(|members| {
                    serde_json::Value::Object(members.into_iter().collect())
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn agrees_with_the_parser_whatever_the_layout(value in any_json()) {
            let short = value.to_string();
            let long = serde_json::to_string_pretty(&value).unwrap();

            let rewritten = rewrite(&short).unwrap();

            prop_assert_eq!(&rewrite(&long).unwrap(), &rewritten);
            prop_assert_eq!(&rewrite(&rewritten).unwrap(), &rewritten);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&rewritten).unwrap(), value);
        }
    }
}
