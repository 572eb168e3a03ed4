//! API keys: what the cluster keeps of them. Their secrets are nowhere.

use weft_proto::{Error, Reason, Timestamp, internal, v1};

use super::{Applied, Changed, Outcome, State};

/// One in use, and one that takes its place.
const KEYS_OF_NAME_MAX: usize = 2;
/// HMAC-SHA256.
const HASH_LEN: usize = 32;
const SECRET_LEN_MIN: usize = 32;

impl State {
    /// All keys, by id.
    pub fn keys(&self) -> impl Iterator<Item = &internal::CatalogKey> {
        self.keys.values()
    }

    /// One key.
    pub fn key(&self, id: &str) -> Option<&internal::CatalogKey> {
        self.keys.get(id)
    }

    /// What keys the hashes; nothing before the cluster asks for credentials.
    pub fn key_secret(&self) -> Option<&[u8]> {
        (!self.key_secret.is_empty()).then_some(&self.key_secret)
    }

    /// The cluster asks for credentials from now on. Only the first time does something.
    pub(super) fn secure(&mut self, secure: internal::CatalogSecure) -> Outcome {
        if !self.key_secret.is_empty() {
            return Ok(Applied::unchanged(None));
        }
        if secure.key_secret.len() < SECRET_LEN_MIN {
            return Err(Error::invalid("the secret of the hashes is too short"));
        }
        let applied = self.add_key(secure.key)?;
        self.key_secret = secure.key_secret;
        Ok(applied)
    }

    /// Adds a key to a name.
    pub(super) fn add_key(&mut self, key: Option<internal::CatalogKey>) -> Outcome {
        let mut key = key.unwrap_or_default();
        if key.id.is_empty() || key.hash.len() != HASH_LEN {
            return Err(Error::invalid("a key has an id and a hash"));
        }
        if self.keys.contains_key(&key.id) {
            return Err(Error::new(Reason::AlreadyExists, "a key has this id already"));
        }
        let now = self.time;
        let is_same = |other: &&internal::CatalogKey| {
            other.namespace == key.namespace && other.name == key.name
        };
        let live: Vec<&str> = self
            .keys
            .values()
            .filter(is_same)
            .filter(|other| !is_over(other, now))
            .map(|other| other.id.as_str())
            .collect();
        if live.len() >= KEYS_OF_NAME_MAX {
            let message = format!(
                "key:{}/{} has {KEYS_OF_NAME_MAX} keys already, {}: revoke one first",
                key.namespace,
                key.name,
                live.join(" and ")
            );
            return Err(Error::new(Reason::FailedPrecondition, message).with_field("name"));
        }
        // Those that are over only take room.
        self.keys.retain(|_, other| !is_over(other, now));
        key.created_us = now.as_micros();
        self.keys.insert(key.id.clone(), key);
        Ok(Applied {
            change: v1::Change::Created,
            changed: Some(Changed::Access),
            ..Applied::unchanged(None)
        })
    }

    /// Ends a key.
    pub(super) fn revoke_key(&mut self, revoke: &internal::CatalogRevokeKey) -> Outcome {
        if self.keys.remove(&revoke.id).is_none() {
            let message = format!("there is no key {}", revoke.id);
            return Err(Error::new(Reason::UnknownResource, message).with_field("id"));
        }
        Ok(Applied {
            change: v1::Change::Updated,
            changed: Some(Changed::Access),
            ..Applied::unchanged(None)
        })
    }
}

fn is_over(key: &internal::CatalogKey, now: Timestamp) -> bool {
    key.expires_us > 0 && key.expires_us <= now.as_micros()
}
