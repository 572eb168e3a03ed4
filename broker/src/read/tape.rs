//! One partition as one reader goes through it.

use std::ops::ControlFlow;

use bytes::Bytes;
use tokio::sync::watch;
use weft_proto::{Error, Offset, PartitionUid, Reason, Result, SchemaId, Timestamp};

use super::History;
use crate::data::DataGroup;
use crate::entry::{Batch, Content, Entry};
use crate::partition::place;
use crate::raft::log::StoredEntry;
use crate::raft::machine::AppliedUpto;
use crate::store::keys::index;
use crate::store::{Family, StoreError};

/// Consecutive events with one append time and one schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset of the first event.
    pub first: Offset,
    /// When they were appended.
    pub time: Timestamp,
    /// What they fitted; 0 = no schema governed them.
    pub schema: SchemaId,
    /// The events as they were published.
    pub events: Vec<Bytes>,
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
        let applied = group.applied();
        Self { group, partition, history, next: from, at: None, applied }
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
    /// `NotFound` below the first stored offset, `Internal` for damaged entries.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future skips nothing.
    pub async fn read(&mut self, to: Offset, bytes_max: usize) -> Result<Vec<Run>> {
        let bounds = self.group.bounds(self.partition);
        if self.next < bounds.floor {
            let message = format!(
                "offset {} is no longer stored; the earliest is {}",
                self.next, bounds.floor
            );
            return Err(Error::new(Reason::OffsetOutOfRange, message));
        }
        let to = to.min(bounds.end);
        let mut runs = Vec::new();
        let mut bytes = 0_usize;
        while self.next < to && bytes < bytes_max {
            let at = match self.at {
                Some(at) => at,
                None => self.find().await?,
            };
            let entries = self.entries(at.index, bytes_max).await?;
            if entries.is_empty() {
                // Applied, but the log does not show it as committed yet.
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

    /// Waits until there is something to read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(&mut self) -> Result<()> {
        while self.group.bounds(self.partition).end <= self.next {
            let stopped = |_closed| Error::unavailable("the group stopped on this node");
            self.applied.changed().await.map_err(stopped)?;
        }
        Ok(())
    }

    /// Finds where to begin: at the last indexed batch that does not begin after the offset.
    async fn find(&self) -> Result<At> {
        let (engine, group) = (self.group.engine.clone(), self.group.id);
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
        Ok(match found {
            Some((base, record)) => At { index: record.index, end: base },
            // The first batch is always indexed, but its record may still be on its way.
            None => At { index: self.group.log.first_index(), end: Offset(0) },
        })
    }

    async fn entries(&self, from: u64, bytes_max: usize) -> Result<Vec<StoredEntry>> {
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
        self.history.run(scan).await?.map_err(failed)
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
        let mut bytes = 0;
        let mut last: Option<Run> = None;
        for (number, event) in (0_u32..).zip(batch.events()) {
            let event = event.map_err(|error| {
                Error::new(Reason::DataLoss, "a batch cannot be read").with_source(error)
            })?;
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
                    last = Some(Run { first: offset, time, schema, events: vec![event] });
                }
            }
            self.next = Offset(offset.0.saturating_add(1));
        }
        runs.extend(last);
        Ok(bytes)
    }
}

fn failed(error: StoreError) -> Error {
    let reason = if error.is_suspect() { Reason::DataLoss } else { Reason::Internal };
    Error::new(reason, "stored events cannot be read").with_source(error)
}
