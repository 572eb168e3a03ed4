//! The newest entries of every log in memory, within one budget per node.
//!
//! Each entry is read several times soon after it was appended: by the streams to the other
//! replicas, by the state machine, by subscribers. None of them should touch the disk.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::record::Record;

/// The newest entries of one log, without a gap up to its end.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The index of the first entry, or of the next one while there is none.
    first: u64,
    records: VecDeque<(u64, Record)>,
    /// Entries below are in the engine too, so they may leave.
    written: u64,
    budget: Arc<Budget>,
}

impl Tail {
    /// Creates an empty tail in front of the entry `next`.
    pub(crate) fn new(next: u64, budget: Arc<Budget>) -> Self {
        Self { first: next, records: VecDeque::new(), written: next, budget }
    }

    /// Returns the index from which on all entries are here.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Returns an entry.
    pub(crate) fn get(&self, index: u64) -> Option<&Record> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.records.get(at).map(|(_, record)| record)
    }

    /// Returns entries `from..to`, the first of them whatever its size, no more than `bytes_max`.
    pub(crate) fn range(&self, from: u64, to: u64, bytes_max: usize) -> Vec<Record> {
        let Some(start) = from.checked_sub(self.first).and_then(|at| usize::try_from(at).ok())
        else {
            return Vec::new();
        };
        let len = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = 0_usize;
        let fits = |(_, record): &&(u64, Record)| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(record.bytes());
            is_first || bytes <= bytes_max
        };
        let found = self.records.iter().skip(start).take(len).take_while(fits);
        found.map(|(_, record)| record.clone()).collect()
    }

    /// Appends the next entry.
    pub(crate) fn push(&mut self, record: Record) {
        if self.records.is_empty() {
            self.first = record.point.index;
            // What is not here any more is in the engine.
            self.written = self.first;
        }
        self.budget.used.fetch_add(record.bytes(), Relaxed);
        let stamp = self.budget.clock.fetch_add(1, Relaxed);
        self.records.push_back((stamp, record));
    }

    /// Forgets the entries from `next` on.
    pub(crate) fn truncate(&mut self, next: u64) {
        let kept = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        while self.records.len() > kept {
            self.records.pop_back().map(|(_, record)| self.free(&record));
        }
        self.first = self.first.min(next);
        self.written = self.written.min(next);
    }

    /// Forgets the entries below `next`; they were purged.
    pub(crate) fn purge(&mut self, next: u64) {
        while self.first < next && self.pop_front().is_some() {}
        if self.records.is_empty() {
            self.first = self.first.max(next);
        }
        self.written = self.written.max(next);
    }

    /// Notes that the engine has all entries below `next`.
    pub(crate) fn mark_written(&mut self, next: u64) {
        self.written = self.written.max(next);
    }

    /// Returns when the oldest entry that may leave came.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let (stamp, _) = self.records.front()?;
        (self.first < self.written).then_some(*stamp)
    }

    /// Lets the oldest entries leave, about `bytes` of them.
    pub(crate) fn evict(&mut self, bytes: usize) {
        let mut freed = 0;
        while freed < bytes && self.oldest().is_some() {
            freed += self.pop_front().unwrap_or_default();
        }
    }

    fn pop_front(&mut self) -> Option<usize> {
        let (_, record) = self.records.pop_front()?;
        self.first = record.point.index.saturating_add(1);
        Some(self.free(&record))
    }

    fn free(&self, record: &Record) -> usize {
        self.budget.used.fetch_sub(record.bytes(), Relaxed);
        record.bytes()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        for (_, record) in &self.records {
            self.free(record);
        }
    }
}

/// Something whose tail may have to shrink.
pub(crate) trait HasTail: Send + Sync {
    /// Works on the tail.
    fn with_tail(&self, work: &mut dyn FnMut(&mut Tail));
}

/// How much memory all tails of a node may take together.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
    /// Numbers entries as they come, to tell whose is the oldest.
    clock: AtomicU64,
    tails: Mutex<Vec<Weak<dyn HasTail>>>,
}

impl std::fmt::Debug for dyn HasTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HasTail")
    }
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            used: AtomicUsize::new(0),
            clock: AtomicU64::new(0),
            tails: Mutex::default(),
        }
    }

    /// Makes a tail share the budget.
    pub(crate) fn register(&self, tail: Weak<dyn HasTail>) {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        tails.retain(|tail| tail.strong_count() > 0);
        tails.push(tail);
    }

    /// Returns how many bytes all tails take.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Lets the oldest entries of all logs leave until the budget is kept, or until only
    /// entries are left that the engine does not have yet; the writer's queue bounds those.
    ///
    /// INVARIANT: the caller holds no lock of a tail.
    pub(crate) fn enforce(&self) {
        if self.used() <= self.bytes_max {
            return;
        }
        // Some room beyond the limit, or every append would come by here.
        let low = self.bytes_max - self.bytes_max / 16;
        let step = self.bytes_max / 64 + 1;
        let tails: Vec<_> = {
            let tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
            tails.iter().filter_map(Weak::upgrade).collect()
        };
        while self.used() > low {
            let age = |tail: &Arc<dyn HasTail>| {
                let mut oldest = None;
                tail.with_tail(&mut |tail| oldest = tail.oldest());
                oldest
            };
            let oldest = tails.iter().filter_map(|tail| Some((age(tail)?, tail)));
            let Some((_, tail)) = oldest.min_by_key(|(age, _)| *age) else { return };
            tail.with_tail(&mut |tail| tail.evict(step));
        }
    }
}
