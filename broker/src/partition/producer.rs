//! What a partition remembers of its producers, so that retries are recognised.
//!
//! Forgets by log time and count only: every replica forgets the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use weft_proto::{Epoch, Offset, ProducerId, Sequence, Timestamp};

use crate::entry::ProducerBatch;
use crate::entry::codec::{DecodeError, Reader, put_list};

/// Batches of one producer whose offsets are remembered.
pub const RECENT_LEN: usize = 64;
/// Producers remembered by one partition; beyond it the longest idle is forgotten.
pub const PRODUCERS_LEN: usize = 10_000;
/// A producer that was idle for longer is forgotten.
pub const IDLE_MAX: Duration = Duration::from_hours(24);

const RECENT_BYTES: usize = 28;
const PRODUCER_BYTES_MIN: usize = 44;

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Which batch.
    pub sequence: Sequence,
    /// Offset of its first event.
    pub first: Offset,
    /// Number of events that were appended: fewer than it had where some were there already.
    pub count: u32,
    /// When it was appended.
    pub time: Timestamp,
}

/// One producer in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its newest run.
    pub epoch: Epoch,
    /// Its newest batch in that run.
    pub last: Sequence,
    /// Time of that batch.
    pub last_use: Timestamp,
    /// Its newest batches, oldest first.
    recent: VecDeque<Recent>,
}

impl Producer {
    /// Where the batch of this sequence went, if that is still known.
    pub fn find(&self, sequence: Sequence) -> Option<&Recent> {
        if sequence > self.last {
            return None;
        }
        // From the newest: retries are of what was just sent.
        self.recent.iter().rev().find(|recent| recent.sequence == sequence)
    }
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
    /// The same producers, longest idle first.
    by_use: BTreeSet<(Timestamp, ProducerId)>,
}

impl Producers {
    /// What is known of a producer.
    pub fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.by_id.get(&id)
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Remembers where an accepted batch went.
    pub(super) fn record(
        &mut self,
        batch: &ProducerBatch,
        first: Offset,
        count: u32,
        time: Timestamp,
    ) {
        self.forget_idle(time);
        // Before the newcomer is there, so that it is never the one to go.
        if self.by_id.len() >= PRODUCERS_LEN && !self.by_id.contains_key(&batch.id) {
            self.forget_first();
        }
        let producer = self.by_id.entry(batch.id).or_insert_with(|| Producer {
            epoch: batch.epoch,
            last: batch.sequence,
            last_use: time,
            recent: VecDeque::new(),
        });
        self.by_use.remove(&(producer.last_use, batch.id));
        self.by_use.insert((time, batch.id));
        if producer.epoch != batch.epoch {
            // Another run numbers its batches afresh.
            producer.recent.clear();
        }
        producer.epoch = batch.epoch;
        producer.last = batch.sequence;
        producer.last_use = time;
        if producer.recent.len() >= RECENT_LEN {
            producer.recent.pop_front();
        }
        producer.recent.push_back(Recent { sequence: batch.sequence, first, count, time });
    }

    fn forget_idle(&mut self, now: Timestamp) {
        while let Some(&(last_use, _)) = self.by_use.first()
            && now.since(last_use) > IDLE_MAX
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, id)) = self.by_use.pop_first() {
            self.by_id.remove(&id);
        }
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        put_list(out, self.by_id.iter(), |out, (id, producer)| {
            out.put_slice(&id.to_bytes());
            out.put_u64_le(producer.epoch.get());
            out.put_u64_le(producer.last.get());
            out.put_u64_le(producer.last_use.as_micros());
            put_list(out, producer.recent.iter(), |out, recent| {
                out.put_u64_le(recent.sequence.get());
                out.put_u64_le(recent.first.get());
                out.put_u32_le(recent.count);
                out.put_u64_le(recent.time.as_micros());
            });
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut producers = Self::default();
        for _ in 0..reader.count(PRODUCER_BYTES_MIN)? {
            let id = ProducerId(u128::from_be_bytes(reader.array()?));
            let producer = Producer {
                epoch: Epoch(reader.u64()?),
                last: Sequence(reader.u64()?),
                last_use: Timestamp::from_micros(reader.u64()?),
                recent: reader.list(RECENT_BYTES, decode_recent)?.into(),
            };
            producers.by_use.insert((producer.last_use, id));
            if producers.by_id.insert(id, producer).is_some() {
                return Err(DecodeError::Malformed("a producer is listed twice"));
            }
        }
        Ok(producers)
    }
}

fn decode_recent(reader: &mut Reader<'_>) -> Result<Recent, DecodeError> {
    Ok(Recent {
        sequence: Sequence(reader.u64()?),
        first: Offset(reader.u64()?),
        count: reader.u32()?,
        time: Timestamp::from_micros(reader.u64()?),
    })
}
