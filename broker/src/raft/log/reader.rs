//! Reading a log: for openraft, and for the rest of the broker.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, ControlFlow, RangeBounds, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::RaftLogReader;
use tokio::sync::watch;

use crate::raft::point::{EntryKind, LogPoint};
use crate::raft::record::Record;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use crate::store::keys::entry;
use crate::store::{Family, StoreError};

use super::READ_BYTES_MAX;
use super::state::{Place, Shared};

/// Reads the log of one group. Clones share it.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

/// An entry as the broker reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// The log time in microseconds: the greatest leader time up to here.
    pub time: u64,
    /// The bytes of all payloads up to and with this one.
    pub pos: u64,
    /// The replicated payload; none for entries of consensus itself.
    pub payload: Option<Bytes>,
}

impl From<Record> for StoredEntry {
    fn from(record: Record) -> Self {
        let LogPoint { index, term, pos, time, .. } = record.point;
        let payload = (record.kind == EntryKind::Normal).then_some(record.body);
        Self { index, term, time, pos, payload }
    }
}

/// For the broker. Nothing here shows an entry above the commit.
impl LogReader {
    /// Returns committed entries from `from` on out of memory, the first of them whatever its
    /// size, no more than `bytes_max`; `None` if `from` is not in memory.
    pub fn tail(&self, from: u64, bytes_max: usize) -> Option<Vec<StoredEntry>> {
        let state = self.shared.state();
        if from < state.tail.first() {
            return None;
        }
        let to = state.committed.map_or(0, |id| id.index.saturating_add(1)).min(state.next());
        let found = state.tail.range(from, to, bytes_max);
        Some(found.into_iter().map(StoredEntry::from).collect())
    }

    /// Visits committed entries from `from` to `to`, both included, until the visitor breaks off
    /// or `bytes_max` is passed. Reads the disk: not for an async worker.
    ///
    /// # Errors
    ///
    /// `Purged` when `from` is no longer there, `DataLoss` for an entry that cannot be read.
    pub fn scan(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
        visit: &mut dyn FnMut(StoredEntry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut next = from;
        let mut bytes = 0_usize;
        let mut ended = false;
        while !ended && next <= to {
            let place = {
                let state = self.shared.state();
                if next < state.first() {
                    let (group, first) = (self.shared.group, state.first());
                    return Err(StoreError::Purged { group, index: next, first });
                }
                let end = state.committed.map_or(0, |id| id.index.saturating_add(1));
                state.locate(next, end.min(to.saturating_add(1)), bytes_max.saturating_sub(bytes))
            };
            let mut show = |record: Record| {
                next = record.point.index.saturating_add(1);
                bytes = bytes.saturating_add(record.bytes());
                let flow = visit(record.into());
                ended = flow.is_break() || bytes >= bytes_max;
                if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match place {
                Place::Nowhere => return Ok(()),
                Place::Memory(records) => {
                    _ = records.into_iter().try_for_each(show);
                }
                Place::Disk { from, to, removals } => {
                    let result = self.shared.scan_disk(from, to, &mut show);
                    // Whatever was purged meanwhile shows as missing.
                    if self.shared.state().removals == removals {
                        result?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the point after an entry, if the log has it. May read the disk.
    pub fn point(&self, index: u64) -> Result<Option<LogPoint>, StoreError> {
        {
            let state = self.shared.state();
            if state.base.is_some_and(|base| base.index == index) {
                return Ok(state.base);
            }
            if index < state.first() || index >= state.next() {
                return Ok(None);
            }
            if let Some(record) = state.tail.get(index) {
                return Ok(Some(record.point));
            }
        }
        let key = entry::key(index);
        let value = self.shared.engine.get(Family::Log(self.shared.group), &key)?;
        value
            .map(|value| Record::decode(self.shared.group, &key, &value))
            .transpose()
            .map(|record| record.map(|record| record.point))
    }

    /// Returns the lowest index that can be read.
    pub fn first_index(&self) -> u64 {
        self.shared.state().first()
    }

    /// Follows the commit, up to which entries are shown.
    pub fn shown(&self) -> watch::Receiver<()> {
        self.shared.shown.subscribe()
    }

    /// Returns the index of the last purged entry, if any was.
    pub fn purged(&self) -> Option<u64> {
        self.shared.state().base.map(|base| base.index)
    }

    /// Returns the bytes of all payloads of the group that were purged.
    pub fn begins_at(&self) -> u64 {
        self.shared.state().base.map_or(0, |base| base.pos)
    }

    /// Returns the bytes of the payloads that the log has.
    pub fn bytes(&self) -> u64 {
        let state = self.shared.state();
        let pos = |point: Option<LogPoint>| point.map_or(0, |point| point.pos);
        pos(state.last).saturating_sub(pos(state.base))
    }

    /// Returns the last point of the log, committed or not.
    pub fn last(&self) -> Option<LogPoint> {
        self.shared.state().last
    }

    /// Returns the index of the last committed entry known here.
    pub fn committed(&self) -> Option<u64> {
        self.shared.state().committed.map(|id| id.index)
    }
}

/// For openraft, which sees everything.
impl LogReader {
    /// Returns entries `from..to`: at least one if there is any, then no more than `bytes_max`.
    async fn some(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Record>, StoreError> {
        loop {
            let place = self.shared.state().locate(from, to, bytes_max);
            let (from, to, removals) = match place {
                Place::Nowhere => return Ok(Vec::new()),
                Place::Memory(records) => return Ok(records),
                Place::Disk { from, to, removals } => (from, to, removals),
            };
            let found = self.off_worker(move |shared| shared.read_disk(from, to, bytes_max)).await;
            // Entries that were taken away meanwhile may be missing from what was read.
            if self.shared.state().removals == removals {
                return found;
            }
        }
    }

    /// Runs a read where it may wait for the disk.
    pub(super) async fn off_worker<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.shared.engine.is_blocking() {
            return read(&self.shared);
        }
        let shared = Arc::clone(&self.shared);
        // The runtime is stopping, or the read panicked.
        tokio::task::spawn_blocking(move || read(&shared))
            .await
            .unwrap_or_else(|_ended| Err(StoreError::Closed))
    }

    /// Like `point`, for an async worker.
    pub(super) async fn point_of(&self, index: u64) -> Result<Option<LogPoint>, StoreError> {
        let reader = self.clone();
        self.off_worker(move |_| reader.point(index)).await
    }

    async fn some_entries(&self, from: u64, to: u64) -> Result<Vec<Entry>, io::Error> {
        let records = self.some(from, to, READ_BYTES_MAX).await?;
        Ok(records.iter().map(Record::to_entry).collect::<Result<_, _>>()?)
    }
}

/// Turns bounds into `from..to`.
fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Piece by piece: what waits to be applied may be far more than fits into memory.
        stream::try_unfold((self.clone(), half_open(&range)), |(reader, (from, to))| async move {
            let entries = reader.some_entries(from, to).await?;
            let Some(last) = entries.last() else { return Ok::<_, io::Error>(None) };
            let rest = (last.log_id.index.saturating_add(1), to);
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), (reader, rest))))
        })
        .try_flatten()
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut from, to) = half_open(&range);
        let mut all = Vec::new();
        loop {
            let entries = self.some_entries(from, to).await?;
            let Some(last) = entries.last() else { return Ok(all) };
            from = last.log_id.index.saturating_add(1);
            all.extend(entries);
        }
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.state().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.some_entries(start, end).await
    }

    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> Result<Vec<LogId>, io::Error> {
        Ok(self.shared.state().last_of_terms(range.start().index, range.end().index))
    }
}
