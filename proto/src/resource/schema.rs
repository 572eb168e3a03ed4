//! Schemas: a document and its versions.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::problem;
use crate::Result;

/// Largest schema document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// A schema as it is put. Another document makes the next version; earlier ones stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSpec {
    /// The language of the document.
    #[serde(default)]
    pub format: SchemaFormat,
    /// The document, byte for byte.
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
    /// `Invalid`, naming the field.
    pub fn check(&self) -> Result<()> {
        let bytes = self.document.get().len();
        if bytes > DOCUMENT_BYTES_MAX {
            let message = format!("the document has {bytes} bytes, more than {DOCUMENT_BYTES_MAX}");
            return Err(problem("spec.document", message));
        }
        Ok(())
    }

    /// Tells documents apart by what they say, not by how they are laid out.
    pub fn hash(&self) -> u64 {
        // Objects of serde_json are sorted by key, so equal documents have equal texts.
        let value: Option<serde_json::Value> = serde_json::from_str(self.document.get()).ok();
        let canonical = value.map(|value| value.to_string());
        xxh3_64(canonical.as_deref().unwrap_or(self.document.get()).as_bytes())
    }
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
    /// The document.
    pub document: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_makes_no_new_version() {
        let spec = |text: &str| {
            let json = format!(r#"{{"document":{text}}}"#);
            serde_json::from_str::<SchemaSpec>(&json).unwrap().hash()
        };

        assert_eq!(spec(r#"{"a":1,"b":2}"#), spec("{\"b\": 2,\n \"a\": 1}"));
        assert_ne!(spec(r#"{"a":1}"#), spec(r#"{"a":2}"#));
    }
}
