//! What is to be replicated: one change in flight, and the next one.

use std::collections::BTreeMap;

use weft_proto::{Offset, Timestamp};

use super::event::Event;
use crate::entry::OffsetRange;
use crate::subscription::{Failure, OffsetSet, Parked};

/// Number of a change, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeNo(pub u64);

/// Why an event is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// All its deliveries failed.
    Attempts,
    /// A member rejected it.
    Rejected,
    /// Its first failure is too long ago.
    TooOld,
    /// Too many events waited behind it.
    Held,
    /// Retention takes it before it comes again.
    Retention,
}

/// An event that is settled by being set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the partition.
    pub offset: Offset,
    /// Why it is set aside.
    pub cause: Cause,
    /// Deliveries that failed, with the one that was rejected.
    pub attempts: u32,
    /// When it was given back first.
    pub first_failure: Timestamp,
    /// Why it was given back last.
    pub failure: Failure,
}

/// What is to be replicated, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub no: ChangeNo,
    /// What is settled, rising, without the dead letters.
    pub settled: Vec<OffsetRange>,
    /// What is remembered of events that failed, rising.
    pub parked: Vec<(Offset, Parked)>,
    /// Events that are settled by becoming dead letters.
    pub dead: Vec<DeadLetter>,
}

/// What the desk is rid of when a change is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Relief {
    pub(super) events: usize,
    pub(super) bytes: u64,
    pub(super) keys: Vec<u64>,
    pub(super) logged: Vec<Offset>,
}

#[derive(Debug, Default)]
struct Draft {
    /// The last range, which the next event most likely continues.
    run: Option<OffsetRange>,
    settled: OffsetSet,
    parked: BTreeMap<Offset, Parked>,
    dead: Vec<DeadLetter>,
    relief: Relief,
}

#[derive(Debug)]
struct Flight {
    no: ChangeNo,
    settled: Vec<OffsetRange>,
    relief: Relief,
}

/// What is settled, and what is about to be.
#[derive(Debug)]
pub(super) struct Changes {
    watermark: Offset,
    settled: OffsetSet,
    last: ChangeNo,
    draft: Draft,
    flight: Option<Flight>,
}

impl Changes {
    pub(super) fn new(watermark: Offset, settled: OffsetSet) -> Self {
        let (last, draft, flight) = (ChangeNo(0), Draft::default(), None);
        let mut changes = Self { watermark, settled, last, draft, flight };
        changes.advance();
        changes
    }

    /// Everything below is settled and committed.
    pub(super) fn watermark(&self) -> Offset {
        self.watermark
    }

    /// Settled and committed above the watermark.
    pub(super) fn settled(&self) -> &OffsetSet {
        &self.settled
    }

    /// The change that what is settled now belongs to.
    pub(super) fn draft_no(&self) -> ChangeNo {
        ChangeNo(self.last.0.saturating_add(1))
    }

    /// Whether a change is not committed yet.
    pub(super) fn is_pending(&self, no: ChangeNo) -> bool {
        no > self.last || self.flight.as_ref().is_some_and(|flight| flight.no <= no)
    }

    /// Events in changes that are not committed.
    pub(super) fn events(&self) -> usize {
        let flight = self.flight.as_ref().map_or(0, |flight| flight.relief.events);
        self.draft.relief.events.saturating_add(flight)
    }

    /// Whether there is something for the next change.
    pub(super) fn is_due(&self) -> bool {
        let draft = &self.draft;
        draft.run.is_some() || !draft.parked.is_empty() || !draft.dead.is_empty()
    }

    pub(super) fn settle(&mut self, range: OffsetRange) {
        let Some(run) = self.draft.run else {
            self.draft.run = Some(range);
            return;
        };
        if run.last().checked_add(1) == Some(range.first()) {
            self.draft.run = Some(run.join(range));
        } else {
            self.draft.settled.insert(run);
            self.draft.run = Some(range);
        }
    }

    pub(super) fn park(&mut self, offset: Offset, parked: Parked) {
        self.draft.parked.insert(offset, parked);
    }

    pub(super) fn unpark(&mut self, range: OffsetRange) {
        let parked = &mut self.draft.parked;
        while let Some((&offset, _)) = parked.range(range.first()..=range.last()).next() {
            parked.remove(&offset);
        }
    }

    pub(super) fn bury(&mut self, letter: DeadLetter) {
        self.draft.parked.remove(&letter.offset);
        self.draft.dead.push(letter);
    }

    /// The event leaves the desk with the next change.
    pub(super) fn relieve(&mut self, event: &Event, has_key: bool) {
        // What was not seen was not counted either.
        if event.is_seen {
            let relief = &mut self.draft.relief;
            relief.events += 1;
            relief.bytes = relief.bytes.saturating_add(event.bytes.into());
            if has_key {
                relief.keys.push(event.key);
            }
        }
    }

    pub(super) fn next(&mut self) -> Option<Change> {
        if self.flight.is_some() || !self.is_due() {
            return None;
        }
        let mut draft = std::mem::take(&mut self.draft);
        draft.run.into_iter().for_each(|run| draft.settled.insert(run));
        self.last = ChangeNo(self.last.0.saturating_add(1));
        let settled: Vec<OffsetRange> = draft.settled.iter().collect();
        draft.relief.logged = draft.parked.keys().copied().collect();
        let dead = draft.dead.iter().filter_map(|letter| one(letter.offset));
        self.flight = Some(Flight {
            no: self.last,
            settled: settled.iter().copied().chain(dead).collect(),
            relief: draft.relief,
        });
        let parked = draft.parked.into_iter().collect();
        Some(Change { no: self.last, settled, parked, dead: draft.dead })
    }

    /// The change is committed; `None` if it is not the one in flight.
    pub(super) fn committed(&mut self, no: ChangeNo) -> Option<Relief> {
        let flight = self.flight.take_if(|flight| flight.no == no)?;
        for range in flight.settled {
            self.settled.insert(range);
        }
        self.advance();
        Some(flight.relief)
    }

    /// Moves the watermark over what is settled.
    fn advance(&mut self) {
        if let Some(range) = self.settled.range_at(self.watermark) {
            self.watermark = range.last().checked_add(1).unwrap_or(Offset(u64::MAX));
        }
        self.settled.remove_below(self.watermark);
    }
}

/// The range of one offset.
pub(super) fn one(offset: Offset) -> Option<OffsetRange> {
    OffsetRange::new(offset, offset)
}
