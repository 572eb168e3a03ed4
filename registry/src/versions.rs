//! The versions of one schema: numbered from 1, one per content.

use crate::json::{Document, Problem, canonical};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Names a version of a schema in the whole cluster; it is what a stored event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u32);

/// Counts the versions of one schema, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionNumber(pub u32);

/// One version of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its id in the cluster.
    pub id: SchemaId,
    /// Its place among the versions.
    pub number: VersionNumber,
    /// The schema as it was registered.
    pub text: Arc<str>,
    /// Hash of its content, the same for all spellings of it.
    pub digest: u128,
}

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Registered {
    /// A new version.
    New(VersionNumber),
    /// The content was a version already.
    Existing(VersionNumber),
}

/// The versions of one schema, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    name: Arc<str>,
    list: Vec<Version>,
}

impl Versions {
    /// A schema without versions.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), list: Vec::new() }
    }

    /// A schema from versions that were stored; they are put in order.
    #[must_use]
    pub fn restore(name: &str, mut list: Vec<Version>) -> Self {
        list.sort_unstable_by_key(|version| version.number);
        Self { name: name.into(), list }
    }

    /// Adds `text` as a version, with `id`, unless its content is one already.
    ///
    /// Content is compared by names and values: order of names, white space and escapes do not
    /// count; spelling of numbers does. The text is not compiled: that comes before.
    ///
    /// # Errors
    ///
    /// The text is not JSON.
    pub fn register(&mut self, text: &[u8], id: SchemaId) -> Result<Registered, Problem> {
        let document = Document::parse(text)?;
        let content = canonical(&document);
        let digest = xxh3_128(content.as_bytes());
        if let Some(existing) = self.with_content(digest, &content) {
            return Ok(Registered::Existing(existing.number));
        }
        let number = VersionNumber(self.latest().map_or(0, |last| last.number.0).saturating_add(1));
        self.list.push(Version { id, number, text: document.text().into(), digest });
        Ok(Registered::New(number))
    }

    /// The hash only finds candidates: it is no defence against who wants a collision.
    fn with_content(&self, digest: u128, content: &str) -> Option<&Version> {
        self.list.iter().filter(|version| version.digest == digest).find(|version| {
            Document::parse(version.text.as_bytes()).is_ok_and(|known| canonical(&known) == content)
        })
    }

    /// The version with the content of `text`, however it is spelt.
    ///
    /// # Errors
    ///
    /// The text is not JSON.
    pub fn find(&self, text: &[u8]) -> Result<Option<&Version>, Problem> {
        let content = canonical(&Document::parse(text)?);
        Ok(self.with_content(xxh3_128(content.as_bytes()), &content))
    }

    /// Name of the schema.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All versions, oldest first.
    #[must_use]
    pub fn list(&self) -> &[Version] {
        &self.list
    }

    /// The newest version.
    #[must_use]
    pub fn latest(&self) -> Option<&Version> {
        self.list.last()
    }

    /// A version by its number.
    #[must_use]
    pub fn get(&self, number: VersionNumber) -> Option<&Version> {
        let at = self.list.binary_search_by_key(&number, |version| version.number).ok()?;
        self.list.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::{Registered, SchemaId, VersionNumber, Versions};

    const ONE: VersionNumber = VersionNumber(1);
    const TWO: VersionNumber = VersionNumber(2);

    #[test]
    fn same_content_is_the_same_version() {
        let mut versions = Versions::new("order");

        let first = versions.register(br#"{"type": "object", "title": "\u0041/"}"#, SchemaId(7));
        let same = versions.register(br#"{"title":"A\/","type":"object"}"#, SchemaId(8));
        let other = versions.register(br#"{"type": "array"}"#, SchemaId(8));

        assert_eq!(first, Ok(Registered::New(ONE)));
        assert_eq!(same, Ok(Registered::Existing(ONE)));
        assert_eq!(other, Ok(Registered::New(TWO)));
        assert_eq!(versions.latest().map(|version| version.id), Some(SchemaId(8)));
        assert_eq!(versions.get(ONE).map(|version| version.id), Some(SchemaId(7)));
        assert_eq!(versions.get(VersionNumber(3)), None);
        let found = versions.find(br#"{ "type" : "array" }"#).unwrap();
        assert_eq!(found.map(|version| version.number), Some(TWO));
    }

    #[test]
    fn spelling_of_numbers_and_order_of_items_are_content() {
        let mut versions = Versions::new("order");

        for (text, number) in [("[1]", 1), ("[1.0]", 2), ("[1,2]", 3), ("[2,1]", 4)] {
            let number = VersionNumber(number);
            assert_eq!(
                versions.register(text.as_bytes(), SchemaId(1)),
                Ok(Registered::New(number))
            );
        }
    }

    #[test]
    fn restored_versions_go_on_counting() {
        let mut versions = Versions::new("order");
        assert_eq!(versions.register(b"1", SchemaId(1)), Ok(Registered::New(ONE)));
        assert_eq!(versions.register(b"2", SchemaId(2)), Ok(Registered::New(TWO)));
        let shuffled = versions.list().iter().rev().cloned().collect();

        let mut restored = Versions::restore("order", shuffled);

        assert_eq!(restored, versions);
        assert_eq!(restored.register(b"2", SchemaId(3)), Ok(Registered::Existing(TWO)));
        assert_eq!(restored.register(b"3", SchemaId(3)), Ok(Registered::New(VersionNumber(3))));
        assert!(restored.register(b"{", SchemaId(4)).is_err());
    }
}
