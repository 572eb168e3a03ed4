//! Which keys have an event out, and what waits behind it.

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use weft_proto::Offset;

use super::event::Event;

/// What waits for its key.
#[derive(Debug)]
pub(super) enum Waiting {
    /// An event.
    Event(Event),
    /// An event that is kept among the retries.
    Retry(Offset),
}

#[derive(Debug)]
struct Key {
    hash: u64,
    /// The one event of the key that may be ready, lent, parked or in a change.
    head: Offset,
    behind: VecDeque<Waiting>,
}

/// The keys with an unsettled event.
///
/// Their hashes are known to whoever publishes; the seed is not, so nobody can choose keys that meet.
#[derive(Debug)]
pub(super) struct Keys {
    seed: u64,
    by_hash: HashTable<Key>,
    /// Events behind all heads.
    events: usize,
}

impl Keys {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, by_hash: HashTable::new(), events: 0 }
    }

    fn get_mut(&mut self, hash: u64) -> Option<&mut Key> {
        self.by_hash.find_mut(mix(self.seed, hash), |key| key.hash == hash)
    }

    /// Events that wait for their key, without retries.
    pub(super) fn len(&self) -> usize {
        self.events
    }

    /// Makes the event the head of its key, unless the key has one.
    pub(super) fn lead(&mut self, key: u64, offset: Offset) -> bool {
        let seed = self.seed;
        let entry = self.by_hash.entry(
            mix(seed, key),
            |known| known.hash == key,
            |known| mix(seed, known.hash),
        );
        let Entry::Vacant(place) = entry else { return false };
        place.insert(Key { hash: key, head: offset, behind: VecDeque::new() });
        true
    }

    /// Lets something wait behind the head of its key, which must have one.
    pub(super) fn follow(&mut self, key: u64, waiting: Waiting) {
        let is_event = matches!(waiting, Waiting::Event(_));
        if let Some(key) = self.get_mut(key) {
            key.behind.push_back(waiting);
            self.events += usize::from(is_event);
        }
    }

    /// The head, if more than `max` events wait behind it.
    pub(super) fn overlong(&self, key: u64, max: u32) -> Option<Offset> {
        let key = self.by_hash.find(mix(self.seed, key), |known| known.hash == key)?;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        (key.behind.len() > max).then_some(key.head)
    }

    /// The head is settled: the next one takes its place.
    pub(super) fn free(&mut self, hash: u64) -> Option<Waiting> {
        let mixed = mix(self.seed, hash);
        let mut found = self.by_hash.find_entry(mixed, |key| key.hash == hash).ok()?;
        let key = found.get_mut();
        let Some(next) = key.behind.pop_front() else {
            found.remove();
            return None;
        };
        key.head = match &next {
            Waiting::Event(event) => event.offset,
            Waiting::Retry(offset) => *offset,
        };
        self.events -= usize::from(matches!(next, Waiting::Event(_)));
        Some(next)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.by_hash.iter().flat_map(|key| &key.behind).filter_map(|waiting| match waiting {
            Waiting::Event(event) => Some(event),
            Waiting::Retry(_) => None,
        })
    }
}

fn mix(seed: u64, hash: u64) -> u64 {
    let product = u128::from(hash ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (high, low) = (product >> 64, product & u128::from(u64::MAX));
    // Both halves depend on many bits of the hash.
    u64::try_from(high ^ low).unwrap_or_default()
}
