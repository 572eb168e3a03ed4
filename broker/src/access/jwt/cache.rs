//! Tokens that were verified: found again by their hash, without looking at the signature.
//!
//! *Owns* the tokens' hashes and what they proved. *Never* keeps a token itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use ring::digest;
use weft_proto::Timestamp;

use super::Verified;
use crate::data::lock;

/// Collisions would let one token pass as another, so nothing weaker will do.
type Hash = [u8; 32];

/// What an entry takes besides its texts: the hash twice, the maps' nodes, the allocations.
const ENTRY_BYTES: usize = 320;

/// A bounded number of verified tokens; the oldest make room.
#[derive(Debug)]
pub(super) struct Cache {
    entries_max: usize,
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    found: HashMap<Hash, Entry>,
    /// In the order in which they came.
    order: BTreeMap<u64, Hash>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    verified: Arc<Verified>,
    number: u64,
    bytes: usize,
}

impl Entry {
    fn counts(&self, now: Timestamp) -> bool {
        now < self.verified.expires && self.verified.is_vouched_for()
    }
}

impl Cache {
    pub(super) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { entries_max, bytes_max, inner: Mutex::default() }
    }

    /// What a token proved, while it has not expired and its key is still the issuer's.
    pub(super) fn get(&self, token: &str, now: Timestamp) -> Option<Arc<Verified>> {
        let hash = hash(token);
        let mut inner = lock(&self.inner);
        let entry = inner.found.get(&hash)?;
        if entry.counts(now) {
            return Some(Arc::clone(&entry.verified));
        }
        inner.remove(&hash);
        None
    }

    pub(super) fn put(&self, token: &str, verified: &Arc<Verified>) {
        let hash = hash(token);
        let bytes = ENTRY_BYTES + verified.bytes();
        let mut inner = lock(&self.inner);
        inner.remove(&hash);
        inner.make_room(self.entries_max, self.bytes_max.saturating_sub(bytes));
        if bytes > self.bytes_max || self.entries_max == 0 {
            return;
        }
        let number = inner.next;
        inner.next += 1;
        inner.bytes += bytes;
        inner.order.insert(number, hash);
        let entry = Entry { verified: Arc::clone(verified), number, bytes };
        inner.found.insert(hash, entry);
    }

    /// Forgets what counts no more.
    pub(super) fn sweep(&self, now: Timestamp) {
        let mut inner = lock(&self.inner);
        let gone = |entry: &Entry| !entry.counts(now);
        let hashes: Vec<Hash> = inner
            .order
            .values()
            .filter(|hash| inner.found.get(*hash).is_some_and(gone))
            .copied()
            .collect();
        for hash in hashes {
            inner.remove(&hash);
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let inner = lock(&self.inner);
        assert_eq!(inner.found.len(), inner.order.len());
        (inner.found.len(), inner.bytes)
    }
}

impl Inner {
    fn remove(&mut self, hash: &Hash) {
        if let Some(entry) = self.found.remove(hash) {
            self.order.remove(&entry.number);
            self.bytes -= entry.bytes;
        }
    }

    /// Until one more entry fits, and at most `bytes_max` are left.
    fn make_room(&mut self, entries_max: usize, bytes_max: usize) {
        while self.found.len() >= entries_max || self.bytes > bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            if let Some(entry) = self.found.remove(&oldest) {
                self.bytes -= entry.bytes;
            }
        }
    }
}

fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}
