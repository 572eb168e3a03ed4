//! One partition as one reader goes through it.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use weft_proto::{Error, NodeId, Offset, PartitionUid, Reason, Result, SchemaId, Timestamp, v1};

use super::History;
use crate::data::{Bounds, DataGroup};
use crate::entry::{Batch, Content, Entry};
use crate::partition::place;
use crate::planted::{self, Bug};
use crate::raft::log::StoredEntry;
use crate::raft::machine::AppliedUpto;
use crate::store::keys::index;
use crate::store::{Family, StoreError};

/// Searches begun anew in one read because the floor passed by.
const OVERTAKEN_MAX: usize = 8;

/// Consecutive events with one append time and one schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset of the first event.
    pub first: Offset,
    /// When they were appended.
    pub time: Timestamp,
    /// What they fitted; 0 = no schema governed them.
    pub schema: SchemaId,
    /// The node at which their publisher asked, where one is known.
    pub ingest: Option<NodeId>,
    /// The events as they were published.
    pub events: Vec<Bytes>,
    /// The same, compressed, if they were published so.
    pub packed: Option<v1::PackedEvents>,
}

/// The place of one reader in one partition.
#[derive(Debug)]
pub struct Tape {
    group: DataGroup,
    partition: PartitionUid,
    history: History,
    next: Offset,
    at: Option<At>,
    applied: watch::Receiver<AppliedUpto>,
    shown: watch::Receiver<()>,
    /// The last read found less than was applied.
    is_hidden: bool,
}

/// Where in the log the search goes on.
#[derive(Clone, Copy, Debug)]
struct At {
    /// The next entry to look at.
    index: u64,
    /// The end of the partition before that entry. Whether a batch is void follows from it.
    end: Offset,
}

impl Tape {
    /// A reader that starts at an offset.
    pub fn new(group: DataGroup, partition: PartitionUid, history: History, from: Offset) -> Self {
        let (applied, shown) = (group.applied(), group.log.shown());
        let missed = u64::from(planted::is(Bug::SeamOffByOne) && from > Offset(0));
        let next = Offset(from.0.saturating_add(missed));
        Self { group, partition, history, next, at: None, applied, shown, is_hidden: false }
    }

    /// The offset of the next event to be read.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Goes on elsewhere.
    pub fn seek(&mut self, offset: Offset) {
        if offset != self.next {
            self.next = offset;
            self.at = None;
        }
    }

    /// Reads on, below `to` and until `bytes_max` is passed; nothing when nothing more is there
    /// at present.
    ///
    /// # Errors
    ///
    /// `OffsetOutOfRange` below the first stored offset, with that one in the message;
    /// `DataLoss` for damaged entries.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future skips nothing.
    pub async fn read(&mut self, to: Offset, bytes_max: usize) -> Result<Vec<Run>> {
        let to = to.min(self.check_floor()?.end);
        self.shown.mark_unchanged();
        self.is_hidden = false;
        let mut runs = Vec::new();
        let mut bytes = 0_usize;
        let mut overtaken = 0;
        while self.next < to && bytes < bytes_max {
            let at = match self.at {
                Some(at) => at,
                None => self.find().await?,
            };
            let entries = match self.entries(at.index, bytes_max).await {
                Ok(entries) => entries,
                // The floor passed by meanwhile: above it the search begins anew. What was found
                // before must not be lost by an error.
                Err(StoreError::Purged { .. }) if !runs.is_empty() => {
                    self.at = None;
                    break;
                }
                Err(StoreError::Purged { .. }) if overtaken < OVERTAKEN_MAX => {
                    overtaken += 1;
                    self.at = None;
                    self.check_floor()?;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            if entries.is_empty() {
                // Applied, but the log does not show it as committed: after a restart it may take a
                // leader to know.
                self.is_hidden = true;
                break;
            }
            let mut place = At { end: at.end, index: at.index };
            for entry in entries {
                if place.end >= to {
                    break;
                }
                place.index = entry.index.saturating_add(1);
                bytes = bytes.saturating_add(self.collect(&entry, &mut place, to, &mut runs)?);
            }
            // Where a range ends inside an entry, the next read starts from the index again.
            self.at = (place.end <= self.next).then_some(place);
        }
        Ok(runs)
    }

    fn check_floor(&self) -> Result<Bounds> {
        let bounds = self.group.bounds(self.partition);
        if self.next >= bounds.floor {
            return Ok(bounds);
        }
        let message =
            format!("offset {} is no longer stored; the earliest is {}", self.next, bounds.floor);
        Err(Error::new(Reason::OffsetOutOfRange, message).with_offset(bounds.floor.get()))
    }

    /// Waits until there may be more to read than the last read found.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(&mut self) -> Result<()> {
        let stopped = |_closed| Error::unavailable("the group stopped on this node");
        if self.is_hidden {
            self.shown.changed().await.map_err(stopped)?;
        }
        while self.group.bounds(self.partition).end <= self.next {
            self.applied.changed().await.map_err(stopped)?;
        }
        Ok(())
    }

    /// Finds where to begin: at the last indexed batch that does not begin after the offset.
    async fn find(&self) -> Result<At> {
        let (engine, group) = (Arc::clone(&self.group.engine), self.group.id);
        let (partition, next) = (self.partition, self.next);
        let search = move || {
            let from = index::key(group, partition, Offset(0));
            let to = index::key(group, partition, next);
            let found = engine.last_in(Family::Meta, &from, &to)?;
            let Some((key, value)) = found else { return Ok(None) };
            let (_, _, base) = index::decode_key(&key)?;
            Ok(Some((base, index::decode(&value)?)))
        };
        let found = self.history.run(search).await?.map_err(failed)?;
        let (first, end) = self.group.beginning(partition);
        Ok(match found {
            Some((base, record)) if record.index >= first => At { index: record.index, end: base },
            // Its record may still be on its way, or the entry of an older one is gone.
            _ => At { index: first, end },
        })
    }

    async fn entries(&self, from: u64, bytes_max: usize) -> Result<Vec<StoredEntry>, StoreError> {
        if let Some(entries) = self.group.log.tail(from, bytes_max) {
            return Ok(entries);
        }
        let log = self.group.log.clone();
        let scan = move || {
            let mut entries = Vec::new();
            log.scan(from, u64::MAX - 1, bytes_max, &mut |entry| {
                entries.push(entry);
                ControlFlow::Continue(())
            })
            .map(|()| entries)
        };
        self.history.run(scan).await.unwrap_or_else(|_stopping| Err(StoreError::Closed))
    }

    /// Takes the events of an entry that belong here; returns their bytes.
    fn collect(
        &mut self,
        stored: &StoredEntry,
        at: &mut At,
        to: Offset,
        runs: &mut Vec<Run>,
    ) -> Result<usize> {
        let Some(payload) = &stored.payload else { return Ok(0) };
        let unreadable = |error| {
            let message = format!("entry {} cannot be read", stored.index);
            Error::new(Reason::DataLoss, message).with_source(error)
        };
        let entry = Entry::decode(payload).map_err(unreadable)?;
        let Content::Batches(batches) = entry.content else { return Ok(0) };
        let mut bytes = 0;
        let own = self.partition;
        for batch in batches.iter().filter(|batch| batch.header.partition == own) {
            let base = at.end;
            let Some(end) = place(base, batch.header.expected, batch.header.count) else {
                continue;
            };
            at.end = end;
            if end <= self.next || base >= to {
                continue;
            }
            let time = Timestamp::from_micros(stored.time);
            bytes += self.split(batch, base, to, time, runs)?;
        }
        Ok(bytes)
    }

    fn split(
        &mut self,
        batch: &Batch,
        base: Offset,
        to: Offset,
        time: Timestamp,
        runs: &mut Vec<Run>,
    ) -> Result<usize> {
        let damaged =
            |error| Error::new(Reason::DataLoss, "a batch cannot be read").with_source(error);
        let mut bytes = 0;
        let mut last: Option<Run> = None;
        let before = runs.len();
        for (number, event) in (0_u32..).zip(batch.events().map_err(damaged)?) {
            let event = event.map_err(damaged)?;
            let offset = Offset(base.0.saturating_add(number.into()));
            if offset < self.next {
                continue;
            }
            if offset >= to {
                break;
            }
            bytes += event.len();
            let schema = batch.header.schema_of(number);
            match &mut last {
                Some(run) if run.schema == schema => run.events.push(event),
                _ => {
                    runs.extend(last.take());
                    let events = vec![event];
                    let ingest = batch.header.ingest;
                    let packed = None;
                    last = Some(Run { first: offset, time, schema, ingest, events, packed });
                }
            }
            self.next = Offset(offset.0.saturating_add(1));
        }
        if let Some((codec, raw_bytes)) = batch.header.packed
            && let Some(run) = &mut last
            && runs.len() == before
            && run.events.len() as u64 == u64::from(batch.header.count.get())
        {
            // The whole batch in one run.
            run.packed = Some(v1::PackedEvents {
                codec: codec.to_wire().into(),
                count: batch.header.count.get(),
                raw_bytes,
                body: batch.body.clone(),
            });
        }
        runs.extend(last);
        Ok(bytes)
    }
}

fn failed(error: StoreError) -> Error {
    let reason = if error.is_suspect() { Reason::DataLoss } else { Reason::Internal };
    Error::new(reason, "stored events cannot be read").with_source(error)
}
