//! Which keys have an event out, and what waits behind it.

use std::collections::{HashMap, VecDeque};

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
    /// The one event of the key that may be ready, lent, parked or in a change.
    head: Offset,
    behind: VecDeque<Waiting>,
}

/// The keys with an unsettled event.
#[derive(Debug, Default)]
pub(super) struct Keys {
    by_hash: HashMap<u64, Key>,
    /// Events behind all heads.
    events: usize,
}

impl Keys {
    /// Events that wait for their key, without retries.
    pub(super) fn len(&self) -> usize {
        self.events
    }

    /// Makes the event the head of its key, unless the key has one.
    pub(super) fn lead(&mut self, key: u64, offset: Offset) -> bool {
        let mut is_head = false;
        self.by_hash.entry(key).or_insert_with(|| {
            is_head = true;
            Key { head: offset, behind: VecDeque::new() }
        });
        is_head
    }

    /// Lets something wait behind the head of its key, which must have one.
    pub(super) fn follow(&mut self, key: u64, waiting: Waiting) {
        if let Some(key) = self.by_hash.get_mut(&key) {
            self.events += usize::from(matches!(waiting, Waiting::Event(_)));
            key.behind.push_back(waiting);
        }
    }

    /// The head, if more than `max` events wait behind it.
    pub(super) fn overlong(&self, key: u64, max: u32) -> Option<Offset> {
        let key = self.by_hash.get(&key)?;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        (key.behind.len() > max).then_some(key.head)
    }

    /// The head is settled: the next one takes its place.
    pub(super) fn free(&mut self, hash: u64) -> Option<Waiting> {
        let key = self.by_hash.get_mut(&hash)?;
        let Some(next) = key.behind.pop_front() else {
            self.by_hash.remove(&hash);
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
        self.by_hash.values().flat_map(|key| &key.behind).filter_map(|waiting| match waiting {
            Waiting::Event(event) => Some(event),
            Waiting::Retry(_) => None,
        })
    }
}
