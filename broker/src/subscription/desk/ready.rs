//! Events that may be lent at once.

use std::collections::{BTreeMap, VecDeque};

use weft_proto::Offset;

use super::event::Event;

/// Events that may be lent at once, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// Those that come again, or waited for their key.
    again: BTreeMap<Offset, Event>,
    /// Rising, because events are offered in order.
    fresh: VecDeque<Event>,
}

impl Ready {
    pub(super) fn len(&self) -> usize {
        self.again.len().saturating_add(self.fresh.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.fresh.is_empty()
    }

    /// An event that was just offered.
    pub(super) fn push(&mut self, event: Event) {
        self.fresh.push_back(event);
    }

    /// An event that was here before.
    pub(super) fn give_back(&mut self, event: Event) {
        self.again.insert(event.offset, event);
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<Event> {
        let fresh = self.fresh.front().map(|event| event.offset);
        match self.again.first_entry() {
            Some(again) if fresh.is_none_or(|fresh| *again.key() < fresh) => Some(again.remove()),
            _ => self.fresh.pop_front(),
        }
    }

    /// Takes out one event if it passes the test.
    pub(super) fn remove_if(
        &mut self,
        offset: Offset,
        fits: impl FnOnce(&Event) -> bool,
    ) -> Option<Event> {
        if let Some(event) = self.again.get(&offset) {
            return if fits(event) { self.again.remove(&offset) } else { None };
        }
        let index = self.fresh.binary_search_by_key(&offset, |event| event.offset).ok()?;
        if self.fresh.get(index).is_some_and(fits) { self.fresh.remove(index) } else { None }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.again.values().chain(&self.fresh)
    }
}
