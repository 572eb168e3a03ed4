//! What is in memory of one log.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::pledge::{Claim, ClaimedEntry, ClaimedVote, Claims, Pledge};
use crate::raft::point::LogPoint;
use crate::raft::receipts::Receipts;
use crate::raft::record::Record;
use crate::raft::tail::{Budget, HasTail, Tail};
use crate::raft::types::{Entry, LogId, Vote, log_id};
use crate::store::keys::{entry, term};
use crate::store::{Changes, Family, LogEngine, StoreError, Writer};
use weft_proto::GroupId;

/// One log, shared by consensus and all readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) group: GroupId,
    pub(super) engine: Arc<dyn LogEngine>,
    pub(super) writer: Writer,
    pub(super) budget: Arc<Budget>,
    pub(super) pledge: Option<Arc<Pledge>>,
    pub(super) receipts: Arc<Receipts>,
    /// Changes with the commit.
    pub(super) shown: watch::Sender<()>,
    state: Mutex<State>,
}

/// INVARIANT: entries above `base` and up to `last` exist without a gap, those from
/// `tail.first()` on in memory, those before in the engine.
#[derive(Debug)]
pub(super) struct State {
    /// The last purged entry.
    pub(super) base: Option<LogPoint>,
    /// The last entry; `base` when nothing follows it.
    pub(super) last: Option<LogPoint>,
    /// The last entry that is on disk for certain, as long as nothing is truncated.
    pub(super) synced: Option<LogPoint>,
    /// Each term in the log with its first index.
    pub(super) terms: Vec<(u64, u64)>,
    pub(super) tail: Tail,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// Counts what takes entries away: a reader of the disk compares it before and after.
    pub(super) removals: u64,
    /// Counts truncations: what was written before one says nothing about entries after it.
    pub(super) truncations: u64,
}

/// Where a range of entries is.
pub(super) enum Place {
    Nowhere,
    Memory(Vec<Record>),
    /// In the engine: the range without its end, and what `removals` said.
    Disk {
        from: u64,
        to: u64,
        removals: u64,
    },
}

/// What an append puts on disk.
pub(super) struct Accepted {
    pub(super) changes: Changes,
    /// The index after the last new entry.
    pub(super) next: u64,
    pub(super) truncations: u64,
}

impl State {
    /// Returns the index of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index.saturating_add(1))
    }

    /// Returns the lowest index that may be read.
    pub(super) fn first(&self) -> u64 {
        let begin = || self.terms.first().map_or(0, |(_, first)| *first);
        self.base.map_or_else(begin, |base| base.index.saturating_add(1))
    }

    /// Finds entries `from..to`.
    pub(super) fn locate(&self, from: u64, to: u64, bytes_max: usize) -> Place {
        let from = from.max(self.first());
        let to = to.min(self.next());
        if from >= to {
            Place::Nowhere
        } else if from >= self.tail.first() {
            Place::Memory(self.tail.range(from, to, bytes_max))
        } else {
            Place::Disk { from, to: to.min(self.tail.first()), removals: self.removals }
        }
    }

    fn check(last: Option<&LogPoint>, entry: &Entry) -> Result<(), String> {
        let (term, index) = (entry.log_id.leader_id.term, entry.log_id.index);
        match last {
            // The first entry of an empty log may have any index, a later one may not.
            Some(last) if last.index.checked_add(1) != Some(index) => {
                Err(format!("entry {index} does not follow entry {}", last.index))
            }
            Some(last) if term < last.term => {
                Err(format!("entry {index} of term {term} follows one of term {}", last.term))
            }
            _ => Ok(()),
        }
    }

    /// Takes new entries in: they can be read at once. All or none.
    pub(super) fn accept(
        &mut self,
        group: GroupId,
        entries: impl IntoIterator<Item = Entry>,
        receipts: &Receipts,
    ) -> Result<Accepted, StoreError> {
        let mut last = self.last;
        let mut records = Vec::new();
        for entry in entries {
            Self::check(last.as_ref(), &entry)
                .map_err(|detail| StoreError::Misuse { group, detail })?;
            let record = Record::of_entry(last.as_ref(), entry);
            last = Some(record.point);
            records.push(record);
        }
        let mut changes = Changes::new();
        let family = Family::Log(group);
        for record in records {
            let LogPoint { index, term, .. } = record.point;
            if self.terms.last().is_none_or(|(known, _)| *known != term) {
                self.terms.push((term, index));
                changes.put(Family::Meta, &term::key(group, term), &term::encode(index));
            }
            changes.put_parts(family, &entry::key(index), &record.head(), record.body.clone());
            receipts.took(&record.point);
            self.tail.push(record);
        }
        self.last = last;
        Ok(Accepted { changes, next: self.next(), truncations: self.truncations })
    }

    /// Takes away the entries above `last`.
    pub(super) fn truncate(&mut self, group: GroupId, last: Option<LogPoint>) -> Changes {
        let mut changes = Changes::new();
        let Some(old) = self.last else { return changes };
        self.last = last.or(self.base);
        if self.synced.map(|synced| synced.index) > self.last.map(|last| last.index) {
            self.synced = self.last;
        }
        let next = self.next();
        self.removals += 1;
        self.truncations += 1;
        self.tail.truncate(next);
        if next <= old.index {
            changes.delete_entries(group, next, old.index);
        }
        while let Some((term, _)) = self.terms.pop_if(|(_, first)| *first >= next) {
            changes.delete(Family::Meta, &term::key(group, term));
        }
        changes
    }

    /// Takes away the entries up to `base`.
    pub(super) fn purge(&mut self, group: GroupId, base: LogPoint) -> Changes {
        let mut changes = Changes::new();
        self.removals += 1;
        self.base = Some(base);
        if self.last.is_none_or(|last| last.index <= base.index) {
            self.last = Some(base);
        }
        let first = self.first();
        self.tail.purge(first);
        // A term stays while an entry of it does.
        while let Some((term, _)) = self.terms.first().copied() {
            let end = self.terms.get(1).map_or_else(|| self.next(), |(_, next)| *next);
            if end > first {
                break;
            }
            self.terms.remove(0);
            changes.delete(Family::Meta, &term::key(group, term));
        }
        changes
    }

    /// Returns the last log id of each term within a range of indexes, both ends included.
    pub(super) fn last_of_terms(&self, from: u64, to: u64) -> Vec<LogId> {
        let ends = self.terms.iter().skip(1).map(|(_, first)| *first).chain([self.next()]);
        self.terms
            .iter()
            .zip(ends)
            .filter(|((_, first), end)| *first <= to && *end > from)
            .map(|((term, _), end)| log_id(*term, end.saturating_sub(1).min(to)))
            .collect()
    }
}

impl Shared {
    pub(super) fn new(
        group: GroupId,
        engine: Arc<dyn LogEngine>,
        writer: Writer,
        (budget, pledge): (Arc<Budget>, Option<Arc<Pledge>>),
        state: State,
    ) -> Self {
        let (receipts, shown) = (Arc::default(), watch::Sender::default());
        Self { group, engine, writer, budget, pledge, receipts, shown, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic here ends the core of this group; others only read.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the engine has all entries below `next`.
    pub(super) fn mark_written(&self, next: u64, truncations: u64) {
        let mut state = self.state();
        if state.truncations == truncations {
            let last = next.checked_sub(1).and_then(|last| state.tail.get(last));
            let point = last.map(|record| record.point);
            if point.map(|point| point.index) > state.synced.map(|synced| synced.index) {
                state.synced = point;
            }
            state.tail.mark_written(next);
        }
        drop(state);
        self.budget.enforce();
    }

    /// Visits entries `from..to` of the engine, without a gap. Reads the disk.
    pub(super) fn scan_disk(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut next = from;
        let mut outcome = Ok(());
        let mut broken_off = false;
        let keys = (entry::key(from), entry::key(to));
        self.engine.scan(Family::Log(self.group), &keys.0, &keys.1, &mut |key, value| {
            match Record::decode(self.group, key, value) {
                Ok(record) if record.point.index == next => {
                    next += 1;
                    let flow = visit(record);
                    broken_off = flow.is_break();
                    flow
                }
                Ok(_) => ControlFlow::Break(()),
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        outcome?;
        if next < to && !broken_off {
            let detail = "it is missing".to_owned();
            return Err(StoreError::DataLoss { group: self.group, index: next, detail });
        }
        Ok(())
    }

    /// Reads entries `from..to` of the engine: at least one, then no more than `bytes_max`.
    pub(super) fn read_disk(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        self.scan_disk(from, to, &mut |record| {
            bytes += record.bytes();
            found.push(record);
            if bytes >= bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }
}

impl Claims for Shared {
    fn group(&self) -> GroupId {
        self.group
    }

    fn claim(&self) -> Claim {
        let state = self.state();
        let vote = state.vote.map(|vote| ClaimedVote {
            term: vote.leader_id.term,
            node: vote.leader_id.voted_for,
            committed: vote.committed,
        });
        let last = state.synced.map(|LogPoint { index, term, chain, .. }| ClaimedEntry {
            index,
            term,
            chain,
        });
        Claim { vote, last }
    }
}

impl HasTail for Shared {
    fn with_tail(&self, work: &mut dyn FnMut(&mut Tail)) {
        work(&mut self.state().tail);
    }
}
