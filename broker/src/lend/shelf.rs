//! Events that were read and are not lent yet, as far as memory allows; the rest is read again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use weft_proto::{Offset, SchemaId, Timestamp};

/// Bytes that one desk keeps.
const SHELF_BYTES: usize = 4 << 20;
/// Bytes that all desks of a node keep.
const BUDGET_BYTES: usize = 256 << 20;

/// An event, and what the broker knows of it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) event: Bytes,
    pub(super) time: Timestamp,
    pub(super) schema: SchemaId,
}

/// Bytes that the desks of a node keep together; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// The events of one desk.
#[derive(Debug)]
pub(super) struct Shelf {
    events: BTreeMap<Offset, Stored>,
    bytes: usize,
    budget: Budget,
}

impl Shelf {
    pub(super) fn new(budget: Budget) -> Self {
        Self { events: BTreeMap::new(), bytes: 0, budget }
    }

    /// Keeps an event if there is room.
    pub(super) fn put(&mut self, offset: Offset, stored: Stored) {
        let len = stored.event.len();
        let is_free = self.bytes.saturating_add(len) <= SHELF_BYTES
            && self.budget.0.load(Ordering::Relaxed).saturating_add(len) <= BUDGET_BYTES;
        if is_free && !self.events.contains_key(&offset) {
            self.bytes = self.bytes.saturating_add(len);
            self.budget.0.fetch_add(len, Ordering::Relaxed);
            self.events.insert(offset, stored);
        }
    }

    /// Takes an event away, if it is here.
    pub(super) fn take(&mut self, offset: Offset) -> Option<Stored> {
        let stored = self.events.remove(&offset)?;
        self.give_back(stored.event.len());
        Some(stored)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.budget.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(len: usize) -> Stored {
        let event = Bytes::from(vec![0; len]);
        Stored { event, time: Timestamp::default(), schema: SchemaId(0) }
    }

    #[test]
    fn what_has_no_room_is_not_kept_and_all_room_comes_back() {
        let budget = Budget::default();
        let mut shelf = Shelf::new(budget.clone());

        for offset in 0..5 {
            shelf.put(Offset(offset), stored(1 << 20));
        }
        assert_eq!(shelf.bytes(), 4 << 20);
        assert!(shelf.take(Offset(4)).is_none());
        assert!(shelf.take(Offset(1)).is_some() && shelf.take(Offset(1)).is_none());
        shelf.put(Offset(4), stored(1 << 20));
        assert!(shelf.take(Offset(4)).is_some());

        assert_eq!(budget.0.load(Ordering::Relaxed), 3 << 20);
        drop(shelf);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_desks_share_one_budget() {
        let budget = Budget::default();
        budget.0.store(BUDGET_BYTES - 5, Ordering::Relaxed);
        let mut shelf = Shelf::new(budget);

        shelf.put(Offset(0), stored(6));
        assert!(shelf.take(Offset(0)).is_none());
        shelf.put(Offset(0), stored(5));
        assert!(shelf.take(Offset(0)).is_some());
    }
}
