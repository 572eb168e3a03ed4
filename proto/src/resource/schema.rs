//! Schemas: a document and its versions.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use super::canonical::canonical;
use crate::{Error, Reason, Result};

/// A schema as it is put. Another document makes the next version; earlier ones stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSpec {
    /// The language of the document.
    #[serde(default)]
    pub format: SchemaFormat,
    /// The document, byte for byte; or a string that holds it.
    pub document: Box<RawValue>,
}

/// The language of a schema document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchemaFormat {
    /// JSON Schema, drafts 4 to 2020-12.
    #[default]
    JsonSchema,
}

impl SchemaSpec {
    /// Checks the rules that need no compiler.
    ///
    /// # Errors
    ///
    /// `InvalidSchema`, naming the field.
    pub fn check(&self) -> Result<()> {
        self.hash().map(drop)
    }

    /// The document itself, also where the spec has it as a string.
    ///
    /// # Errors
    ///
    /// `InvalidSchema` when it is no JSON object and no boolean, which are what a schema can be.
    pub fn document(&self) -> Result<Cow<'_, RawValue>> {
        let given = self.document.get();
        let document = match serde_json::from_str::<String>(given) {
            Ok(text) => Cow::Owned(RawValue::from_string(text).map_err(|error| {
                wrong(format!("the string that should hold the document is not JSON: {error}"))
            })?),
            Err(_) => Cow::Borrowed(&*self.document),
        };
        match document.get().as_bytes().first() {
            Some(b'{' | b't' | b'f') => Ok(document),
            _ => Err(wrong("a schema is a JSON object, true or false")),
        }
    }

    /// Tells documents apart by what they say, not by how they are laid out: 32 hex digits.
    ///
    /// # Errors
    ///
    /// `InvalidSchema` when the document cannot be read.
    pub fn hash(&self) -> Result<String> {
        let canonical = canonical(&self.document()?).map_err(wrong)?;
        Ok(format!("{:032x}", xxh3_128(canonical.as_bytes())))
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(Reason::InvalidSchema, message).with_field("spec.document")
}

/// The versions of a schema; kept by the cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SchemaStatus {
    /// All versions, in order.
    pub versions: Vec<SchemaVersion>,
}

/// One version of a schema.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SchemaVersion {
    /// Its number within the schema, from 1.
    pub version: u32,
    /// Its number in the cluster; kept with each event it governed.
    pub id: u32,
    /// Hash of its canonical text, in hex.
    pub hash: String,
    /// The document, byte for byte; never the string form.
    pub document: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(document: &str) -> SchemaSpec {
        serde_json::from_str(&format!(r#"{{"document":{document}}}"#)).unwrap()
    }

    fn hash(document: &str) -> String {
        spec(document).hash().unwrap()
    }

    #[test]
    fn layout_makes_no_new_version() {
        assert_eq!(
            hash(r#"{"a":1,"b":["x",{}]}"#),
            hash("{\"b\": [ \"\\u0078\", { }],\n \"a\": 1}")
        );
        assert_ne!(hash(r#"{"a":1}"#), hash(r#"{"a":2}"#));
        assert_ne!(hash(r#"{"a":[1,2]}"#), hash(r#"{"a":[2,1]}"#));
        // One apart, and the same to 64 bits of floating point.
        assert_ne!(
            hash(r#"{"maximum":12345678901234567890123}"#),
            hash(r#"{"maximum":12345678901234567890124}"#)
        );
    }

    #[test]
    fn hashes_never_change() {
        assert_eq!(hash(r#"{"b":[1.0,"ä"],"a":null}"#), GOLDEN);
    }

    // Replicas of two releases must agree on what is the same document.
    const GOLDEN: &str = "c8b59e35ed53e6e572f442cb948a4211";

    #[test]
    fn document_is_kept_as_given_and_may_come_as_a_string() {
        let text = "{ \"maximum\":1e400,\r\n \"title\": \"\\u00e4\" }";

        let plain = spec(text);
        let string = spec(&serde_json::to_string(text).unwrap());

        assert_eq!(plain.document().unwrap().get(), text);
        assert_eq!(string.document().unwrap().get(), text);
        assert_eq!(plain.hash().unwrap(), string.hash().unwrap());
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let deep =
            |depth: usize| format!("{}true{}", r#"{"not":"#.repeat(depth), "}".repeat(depth));
        for document in ["1", "null", "[]", r#""""#, r#""{""#, r#""1""#, &deep(128)] {
            let error = spec(document).check().unwrap_err();
            assert_eq!(error.field(), Some("spec.document"), "{document}");
            assert_eq!(error.reason(), Reason::InvalidSchema);
        }
        for document in ["true", "false", "{}", r#""{}""#, &deep(127)] {
            assert!(spec(document).check().is_ok(), "{document}");
        }
    }
}
