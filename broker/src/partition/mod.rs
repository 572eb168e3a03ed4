//! Rules about events in partitions: offsets, retries, floors.
//!
//! A batch is accepted iff its partition is open and the base it expects is the partition's end at
//! that place of the log; else it is void and takes no offsets. Whoever knows the end before a
//! batch can derive the same ([`place`]). What is a duplicate, fenced or out of order, the leader
//! decides before it proposes ([`Admission`]); here is only recorded what came of it.
//!
//! Owns: ends, floors, producers. Never: sees the body of a batch; reads a clock; fails.

mod admission;
#[cfg(test)]
mod model;
mod producer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use bytes::{BufMut, BytesMut};
use weft_proto::{Offset, PartitionUid, Timestamp};

use crate::entry::codec::{DecodeError, Reader, put_list};
use crate::entry::{Header, Opening, ProducerBatch};

pub use admission::{Admission, Decision};
pub use producer::{IDLE_MAX, PRODUCERS_LEN, Producer, Producers, RECENT_LEN, Recent};

/// An index record is written when this much of the group's log passed since the last one.
pub const INDEX_BYTES: u64 = 64 * 1024;

const PARTITION_BYTES_MIN: usize = 55;

/// Where in the group's log a command lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of its entry.
    pub index: u64,
    /// Bytes of all payloads before its entry.
    pub pos: u64,
    /// Log time: the largest leader time up to its entry.
    pub time: Timestamp,
    /// The `pos` of the newest checkpoint.
    pub checkpoint_pos: u64,
}

/// Finds a batch of a partition: from here a reader scans [`INDEX_BYTES`] at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRecord {
    /// The partition.
    pub partition: PartitionUid,
    /// Offset of the first event of the batch.
    pub base: Offset,
    /// Index of its entry.
    pub index: u64,
    /// Bytes of all payloads before its entry.
    pub pos: u64,
    /// Log time of its entry.
    pub time: Timestamp,
    /// Bytes of all bodies of the partition before the batch.
    pub bytes: u64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchReply {
    /// It has offsets.
    Appended {
        /// Offset of its first event.
        base: Offset,
    },
    /// It expected another end.
    Void {
        /// The end of the partition.
        end: Offset,
    },
    /// It is void too: its partition is sealed, gone, or was never opened.
    Closed,
}

/// State of a partition as its catalog entry needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionReply {
    /// It accepts batches.
    Open {
        /// One past its last event.
        end: Offset,
    },
    /// It accepts no batch any more.
    Sealed {
        /// One past its last event.
        end: Offset,
    },
    /// This group does not have it.
    Unknown,
}

/// The one rule of acceptance: the end after the batch, or nothing if it is void.
pub fn place(end: Offset, expected: Offset, count: NonZeroU32) -> Option<Offset> {
    if expected == end { end.checked_add(count.get().into()) } else { None }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    open: bool,
    end: Offset,
    floor: Offset,
    bytes: u64,
    last_time: Timestamp,
    last_index_pos: Option<u64>,
    producers: Producers,
}

impl Partition {
    fn new(start: Offset) -> Self {
        Self {
            open: true,
            end: start,
            floor: start,
            bytes: 0,
            last_time: Timestamp::default(),
            last_index_pos: None,
            producers: Producers::default(),
        }
    }

    /// Whether it accepts batches.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// One past its last event.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Its first readable offset.
    pub fn floor(&self) -> Offset {
        self.floor
    }

    /// Bytes of all bodies ever appended.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Log time of the last append.
    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Who published to it.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    fn reply(&self) -> PartitionReply {
        let end = self.end;
        if self.open { PartitionReply::Open { end } } else { PartitionReply::Sealed { end } }
    }

    fn append(&mut self, batch: &Header, at: Place) -> (BatchReply, Option<IndexRecord>) {
        if !self.open {
            return (BatchReply::Closed, None);
        }
        let base = self.end;
        let Some(end) = place(base, batch.expected, batch.count) else {
            return (BatchReply::Void { end: base }, None);
        };
        self.end = end;
        let bytes = self.bytes;
        self.bytes = self.bytes.saturating_add(batch.body_len.into());
        self.last_time = at.time;
        if let Some(producer) = &batch.producer {
            self.producers.record(producer, base, batch.count.get(), at.time);
        }
        let record = self.needs_record(at).then(|| {
            self.last_index_pos = Some(at.pos);
            IndexRecord {
                partition: batch.partition,
                base,
                index: at.index,
                pos: at.pos,
                time: at.time,
                bytes,
            }
        });
        (BatchReply::Appended { base }, record)
    }

    /// Busy partitions are indexed sparsely, rare ones densely; none across a checkpoint, because
    /// records are rebuilt from there.
    fn needs_record(&self, at: Place) -> bool {
        self.last_index_pos.is_none_or(|last| {
            last < at.checkpoint_pos || at.pos.saturating_sub(last) >= INDEX_BYTES
        })
    }
}

/// The partitions of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partitions {
    by_uid: BTreeMap<PartitionUid, Partition>,
}

impl Partitions {
    /// For a planted bug.
    #[cfg(debug_assertions)]
    pub(crate) fn forget_producers(&mut self) {
        for partition in self.by_uid.values_mut() {
            partition.producers = Producers::default();
        }
    }

    /// The partition, if this group has it.
    pub fn get(&self, partition: PartitionUid) -> Option<&Partition> {
        self.by_uid.get(&partition)
    }

    /// All partitions, by uid.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PartitionUid, &Partition)> {
        self.by_uid.iter().map(|(&uid, partition)| (uid, partition))
    }

    /// Makes a partition; a known one stays as it is, sealed if it is sealed.
    pub(crate) fn open(&mut self, opening: Opening) -> PartitionReply {
        self.by_uid
            .entry(opening.partition)
            .or_insert_with(|| Partition::new(opening.start))
            .reply()
    }

    /// Closes a partition for good.
    pub(crate) fn seal(&mut self, partition: PartitionUid) -> PartitionReply {
        let Some(partition) = self.by_uid.get_mut(&partition) else {
            return PartitionReply::Unknown;
        };
        partition.open = false;
        partition.reply()
    }

    /// Forgets a partition.
    pub(crate) fn remove(&mut self, partition: PartitionUid) -> bool {
        self.by_uid.remove(&partition).is_some()
    }

    /// Raises a floor, at most to the end; gives the new one if it rose.
    pub(crate) fn trim(&mut self, partition: PartitionUid, floor: Offset) -> Option<Offset> {
        let partition = self.by_uid.get_mut(&partition)?;
        let floor = floor.min(partition.end);
        (floor > partition.floor).then(|| {
            partition.floor = floor;
            floor
        })
    }

    /// Appends a batch or leaves it void.
    pub(crate) fn append(
        &mut self,
        batch: &Header,
        at: Place,
    ) -> (BatchReply, Option<IndexRecord>) {
        match self.by_uid.get_mut(&batch.partition) {
            Some(partition) => partition.append(batch, at),
            None => (BatchReply::Closed, None),
        }
    }

    /// Remembers a batch whose events were all there already.
    pub(crate) fn pass(
        &mut self,
        partition: PartitionUid,
        producer: &ProducerBatch,
        time: Timestamp,
    ) -> PartitionReply {
        let Some(partition) = self.by_uid.get_mut(&partition) else {
            return PartitionReply::Unknown;
        };
        partition.producers.record(producer, partition.end, 0, time);
        partition.reply()
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        put_list(out, self.by_uid.iter(), |out, (uid, partition)| {
            out.put_u64_le(uid.get());
            out.put_u8(partition.open.into());
            out.put_u64_le(partition.end.get());
            out.put_u64_le(partition.floor.get());
            out.put_u64_le(partition.bytes);
            out.put_u64_le(partition.last_time.as_micros());
            out.put_u8(partition.last_index_pos.is_some().into());
            out.put_u64_le(partition.last_index_pos.unwrap_or(0));
            partition.producers.put(out);
        });
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut partitions = Self::default();
        for _ in 0..reader.count(PARTITION_BYTES_MIN)? {
            let uid = PartitionUid(reader.u64()?);
            let partition = Partition {
                open: reader.bool()?,
                end: Offset(reader.u64()?),
                floor: Offset(reader.u64()?),
                bytes: reader.u64()?,
                last_time: Timestamp::from_micros(reader.u64()?),
                last_index_pos: match (reader.bool()?, reader.u64()?) {
                    (true, pos) => Some(pos),
                    (false, 0) => None,
                    (false, _) => return Err(DecodeError::Malformed("a position of no record")),
                },
                producers: Producers::decode(reader)?,
            };
            if partition.floor > partition.end {
                return Err(DecodeError::Malformed("a floor lies beyond the end"));
            }
            if partitions.by_uid.insert(uid, partition).is_some() {
                return Err(DecodeError::Malformed("a partition is listed twice"));
            }
        }
        Ok(partitions)
    }
}
