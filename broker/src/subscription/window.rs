//! What of a partition a member still has to be sent, and how much of it is unsettled.
//!
//! Lives where a cursor is delivered from, for one lease. Never: changes the cursor.

use std::collections::BTreeMap;

use weft_proto::{Offset, v1};

use super::OffsetSet;
use crate::entry::OffsetRange;

/// What a member may still be sent, over all partitions it holds. Both kinds must be positive; the
/// last batch may exceed the bytes by one event, which the next credit pays first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    events: u64,
    bytes: i64,
}

impl Credit {
    /// Grants more.
    pub fn add(&mut self, events: u32, bytes: u64) {
        self.events = self.events.saturating_add(events.into());
        self.bytes = self.bytes.saturating_add_unsigned(bytes);
    }

    /// Events that may be sent now.
    pub fn events(&self) -> u64 {
        if self.bytes > 0 { self.events } else { 0 }
    }

    /// Takes back what is left.
    pub fn take_all(&mut self) -> v1::Credit {
        let left = std::mem::take(self);
        let events = u32::try_from(left.events).unwrap_or(u32::MAX);
        v1::Credit { events, bytes: u64::try_from(left.bytes).unwrap_or(0) }
    }

    /// Uses up one event of this size.
    pub fn spend(&mut self, bytes: u64) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub_unsigned(bytes);
    }
}

/// How much may be delivered and unsettled in one window; at the limit nothing is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsettledMax {
    /// Events.
    pub events: usize,
    /// Their bytes; the last event may exceed them.
    pub bytes: u64,
}

/// The delivery of one partition under one lease.
#[derive(Clone, Debug)]
pub struct Window {
    /// Everything below is delivered, settled or skipped.
    next: Offset,
    /// Settled above `next`; nothing below is kept.
    settled: OffsetSet,
    /// Size of each event that was delivered and is not settled.
    unsettled: BTreeMap<Offset, u64>,
    unsettled_bytes: u64,
    max: UnsettledMax,
}

impl Window {
    /// Begins where the cursor is.
    pub fn new(watermark: Offset, settled: OffsetSet, max: UnsettledMax) -> Self {
        let mut window =
            Self { next: watermark, settled, unsettled: BTreeMap::new(), unsettled_bytes: 0, max };
        window.skip_settled();
        window
    }

    /// The first offset that was neither delivered nor settled.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The next events to deliver, below `end`: a run without a settled event, as long as credit
    /// and limits allow. Nothing changes until they are [`Window::delivered`].
    pub fn wanted(&self, end: Offset, credit: &Credit) -> Option<OffsetRange> {
        if self.unsettled_bytes >= self.max.bytes {
            return None;
        }
        let room = self.max.events.saturating_sub(self.unsettled.len());
        let count = credit.events().min(u64::try_from(room).unwrap_or(u64::MAX));
        let stop = self.settled.next_at(self.next).map_or(end, |settled| settled.min(end));
        // Offsets are exclusive here, so one more than the largest is never needed.
        let stop = self.next.checked_add(count).map_or(stop, |enough| enough.min(stop));
        let last = Offset(stop.get().checked_sub(1)?);
        OffsetRange::new(self.next, last)
    }

    /// The next event was delivered; false if it did not fit any more and must not be sent.
    pub fn delivered(&mut self, offset: Offset, bytes: u64, credit: &mut Credit) -> bool {
        let is_wanted = offset.checked_add(1).is_some_and(|end| {
            self.wanted(end, credit).is_some_and(|range| range.first() == offset)
        });
        if !is_wanted {
            return false;
        }
        credit.spend(bytes);
        self.unsettled.insert(offset, bytes);
        self.unsettled_bytes = self.unsettled_bytes.saturating_add(bytes);
        self.skip_to(offset.checked_add(1).unwrap_or(offset));
        true
    }

    /// The next event is not for this subscription (a filter left it out, or it was trimmed): it is
    /// passed over. The caller settles it.
    pub fn skip_to(&mut self, next: Offset) {
        self.next = self.next.max(next);
        self.skip_settled();
    }

    /// Events were settled, whoever delivered them.
    pub fn settle(&mut self, range: OffsetRange) {
        let settled: Vec<Offset> =
            self.unsettled.range(range.first()..=range.last()).map(|(&offset, _)| offset).collect();
        for offset in settled {
            let bytes = self.unsettled.remove(&offset).unwrap_or(0);
            self.unsettled_bytes = self.unsettled_bytes.saturating_sub(bytes);
        }
        if let Some(ahead) = OffsetRange::new(range.first().max(self.next), range.last()) {
            self.settled.insert(ahead);
            self.skip_settled();
        }
    }

    /// Events delivered and not settled.
    pub fn unsettled_events(&self) -> usize {
        self.unsettled.len()
    }

    /// Their bytes.
    pub fn unsettled_bytes(&self) -> u64 {
        self.unsettled_bytes
    }

    /// The oldest event that was delivered and is not settled.
    pub fn oldest_unsettled(&self) -> Option<Offset> {
        self.unsettled.first_key_value().map(|(&offset, _)| offset)
    }

    fn skip_settled(&mut self) {
        if let Some(range) = self.settled.range_at(self.next) {
            self.next = range.last().checked_add(1).unwrap_or(Offset(u64::MAX));
        }
        self.settled.remove_below(self.next);
    }
}
