//! Events whose delivery failed, until they are due again.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::{Offset, Timestamp};

use super::event::{Event, Offered};
use crate::entry::OffsetRange;

/// An event that was given back.
#[derive(Debug)]
struct Retry {
    event: Event,
    /// Whether what failed is committed; before that it is not lent again.
    is_logged: bool,
}

/// Events that were given back.
#[derive(Debug, Default)]
pub(super) struct Retries {
    by_offset: BTreeMap<Offset, Retry>,
    /// Behind another event of their key.
    behind: BTreeSet<Offset>,
    /// Waiting for nothing but that it is committed that they come again.
    handed_on: BTreeSet<Offset>,
    /// Those that wait for nothing but the time.
    armed: BTreeSet<(Timestamp, Offset)>,
}

impl Retries {
    pub(super) fn len(&self) -> usize {
        self.by_offset.len()
    }

    /// Keeps an event until it is due, and, unless it is logged already, until that is committed.
    pub(super) fn put(&mut self, event: Event, is_logged: bool) {
        let offset = event.offset;
        self.by_offset.insert(offset, Retry { event, is_logged });
        self.arm(offset);
    }

    /// Keeps an event that comes again as soon as that is committed.
    pub(super) fn hand_on(&mut self, event: Event) {
        self.handed_on.insert(event.offset);
        self.put(event, false);
    }

    /// Whether there is such an event.
    pub(super) fn hands_on(&self) -> bool {
        !self.handed_on.is_empty()
    }

    /// An event that was known by its offset only was read; false if it is not kept here. It is
    /// neither armed nor blocked by this.
    pub(super) fn see(&mut self, offered: &Offered) -> bool {
        let Some(retry) = self.by_offset.get_mut(&offered.offset) else {
            return false;
        };
        retry.event.see(offered);
        true
    }

    /// The event waits for its key as well; to be said before it is armed.
    pub(super) fn block(&mut self, offset: Offset) {
        self.behind.insert(offset);
    }

    /// The event has its key.
    pub(super) fn unblock(&mut self, offset: Offset) {
        self.behind.remove(&offset);
        self.arm(offset);
    }

    /// What failed is committed.
    pub(super) fn logged(&mut self, offset: Offset) {
        self.handed_on.remove(&offset);
        if let Some(retry) = self.by_offset.get_mut(&offset) {
            retry.is_logged = true;
        }
        self.arm(offset);
    }

    /// Lets the clock run, if there is nothing else to wait for.
    pub(super) fn arm(&mut self, offset: Offset) {
        if let Some(retry) = self.by_offset.get(&offset)
            && retry.event.is_seen
            && retry.is_logged
            && !self.behind.contains(&offset)
        {
            self.armed.insert((due(&retry.event), offset));
        }
    }

    /// The next event that is due.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Event> {
        let &(due, offset) = self.armed.first()?;
        if due > now { None } else { self.remove(offset) }
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.armed.first().map(|&(due, _)| due)
    }

    /// Whether an event waits for a time to come, and not only for a commit or for its key.
    pub(super) fn is_early(&self, offset: Offset, now: Timestamp) -> bool {
        self.by_offset.get(&offset).is_some_and(|retry| due(&retry.event) > now)
    }

    pub(super) fn remove(&mut self, offset: Offset) -> Option<Event> {
        let Retry { event, .. } = self.by_offset.remove(&offset)?;
        self.armed.remove(&(due(&event), offset));
        self.behind.remove(&offset);
        self.handed_on.remove(&offset);
        Some(event)
    }

    /// Takes out an event whose failures are committed and that has its key, if it passes the test.
    pub(super) fn remove_if(
        &mut self,
        offset: Offset,
        fits: impl FnOnce(&Event) -> bool,
    ) -> Option<Event> {
        let retry = self.by_offset.get(&offset)?;
        let is_free = retry.is_logged && !self.behind.contains(&offset);
        if is_free && fits(&retry.event) { self.remove(offset) } else { None }
    }

    /// Forgets the events of a range.
    pub(super) fn remove_range(&mut self, range: OffsetRange) {
        while let Some((&offset, _)) = self.by_offset.range(range.first()..=range.last()).next() {
            self.remove(offset);
        }
    }

    pub(super) fn contains(&self, offset: Offset) -> bool {
        self.by_offset.contains_key(&offset)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Event, bool)> {
        self.by_offset.values().map(|retry| (&retry.event, retry.is_logged))
    }
}

fn due(event: &Event) -> Timestamp {
    event.history.as_ref().map(|history| history.due).unwrap_or_default()
}
