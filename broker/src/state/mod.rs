//! The replicated state of one data group: partitions and cursors.
//!
//! A function of the payloads of the group's log and nothing else: all replicas that applied the
//! same payloads have the same state, the same positions and cut the same checkpoints.
//!
//! Owns: [`GroupState`]. Never: reads a clock; fails, except on an entry that cannot be read, at
//! which the node stops.

mod reply;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use weft_proto::{Offset, PartitionUid, ResourceUid, Timestamp};

use crate::entry::codec::{DecodeError, Reader};
use crate::entry::{Batch, Command, Content, Entry, EntryError, Header, Seek, Trim};
use crate::partition::{BatchReply, IndexRecord, Partitions, Place};
use crate::subjects::{self, SubjectHash};
use crate::subscription::Cursors;

pub use reply::Reply;

const VERSION: u8 = 0;

/// What follows from an entry, for the replica that applied it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Index records to be written.
    pub index: Vec<IndexRecord>,
    /// Partitions with new events, and their ends.
    pub readable: Vec<(PartitionUid, Offset)>,
    /// Floors that rose.
    pub floors: Vec<(PartitionUid, Offset)>,
    /// No replica needs log entries up to and with this index any more.
    pub floor_index: Option<u64>,
    /// Identities of appended events.
    pub identities: Vec<Identities>,
    /// Where the last events of subjects are now: the last one of each batch.
    pub subjects: Vec<LastOfSubject>,
    /// Cursors that a floor overtook, and how many events nobody settled before.
    pub overtaken: Vec<(ResourceUid, PartitionUid, u64)>,
    /// Partitions on which a cursor changed hands or place, or got events back.
    pub moved: Vec<PartitionUid>,
    /// Partitions that are gone.
    pub dropped: Vec<PartitionUid>,
}

/// Who the events of an appended batch are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identities {
    /// Where the batch went.
    pub partition: PartitionUid,
    /// Offset of its first event.
    pub base: Offset,
    /// The batch; its hashes are in the order of its events.
    pub header: Header,
}

/// Where the last event of a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOfSubject {
    /// Its partition.
    pub partition: PartitionUid,
    /// Hash of its subject.
    pub subject: SubjectHash,
    /// Its offset.
    pub offset: Offset,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For whoever proposed it.
    pub reply: Reply,
    /// For the replica.
    pub effects: Effects,
}

/// Why a checkpoint cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A newer release wrote it.
    #[error("checkpoint has version {0}, this release reads version 0")]
    UnknownVersion(u8),
    /// It was damaged, or never was a checkpoint.
    #[error("cannot read checkpoint")]
    Damaged(#[from] DecodeError),
}

/// The state of one data group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    time: Timestamp,
    pos: u64,
    /// Where the newest checkpoint was due; told by whoever keeps the schedule.
    checkpoint_pos: u64,
    floor_index: u64,
    partitions: Partitions,
    cursors: Cursors,
}

impl GroupState {
    /// The state before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Log time: the largest leader time applied.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Bytes of all payloads applied.
    pub fn pos(&self) -> u64 {
        self.pos
    }

    /// No replica needs log entries up to and with this index; 0 = nothing was said.
    pub fn floor_index(&self) -> u64 {
        self.floor_index
    }

    /// For a planted bug.
    #[cfg(debug_assertions)]
    pub(crate) fn forget_producers(&mut self) {
        self.partitions.forget_producers();
    }

    /// The partitions.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// The cursors.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// Tells where the newest checkpoint was due, in bytes of the log: index records begin anew
    /// there.
    pub fn checkpoint_was_at(&mut self, pos: u64) {
        self.checkpoint_pos = pos;
    }

    /// Applies the payload of the entry at `index`. Raft's own entries have none and are not
    /// applied here.
    pub fn apply(&mut self, payload: &Bytes, index: u64) -> Result<Outcome, EntryError> {
        let entry = Entry::decode(payload)?;
        self.time = self.time.max(entry.time);
        let mut effects = Effects::default();
        let reply = match &entry.content {
            Content::Batches(batches) => self.append(batches, index, &mut effects),
            Content::Command(command) => self.command(command, &mut effects),
        };
        self.pos = self.pos.saturating_add(u64::try_from(payload.len()).unwrap_or(u64::MAX));
        Ok(Outcome { reply, effects })
    }

    fn append(&mut self, batches: &[Batch], index: u64, effects: &mut Effects) -> Reply {
        let at =
            Place { index, pos: self.pos, time: self.time, checkpoint_pos: self.checkpoint_pos };
        let mut replies = Vec::with_capacity(batches.len());
        for Batch { header, .. } in batches {
            let (reply, record) = self.partitions.append(header, at);
            if let BatchReply::Appended { base } = reply {
                let end = base.checked_add(header.count.get().into()).unwrap_or(base);
                effects.readable.push((header.partition, end));
                let partition = header.partition;
                let last: BTreeMap<_, _> =
                    subjects::places(header.subject_hashes(), base).collect();
                effects.subjects.extend(last.into_iter().map(|(subject, offset)| LastOfSubject {
                    partition,
                    subject,
                    offset,
                }));
                if let Some(settles) = &header.settles {
                    self.cursors.moved(settles, self.partitions.get(settles.partition));
                }
                if header.id_hashes().len() > 0 {
                    let (partition, header) = (header.partition, header.clone());
                    effects.identities.push(Identities { partition, base, header });
                }
            }
            effects.index.extend(record);
            replies.push(reply);
        }
        Reply::Batches { time: self.time, batches: replies }
    }

    fn command(&mut self, command: &Command, effects: &mut Effects) -> Reply {
        let Self { time, partitions, cursors, .. } = self;
        match command {
            Command::Open(openings) => {
                Reply::Partitions(openings.iter().map(|&one| partitions.open(one)).collect())
            }
            Command::Seal(uids) => {
                Reply::Partitions(uids.iter().map(|&uid| partitions.seal(uid)).collect())
            }
            Command::Trim(trim) => self.trim(trim, effects),
            Command::Lease(leases) => {
                effects.moved.extend(leases.iter().map(|lease| lease.partition));
                let lease = |lease| cursors.lease(lease, partitions.get(lease.partition));
                Reply::Leases(leases.iter().map(lease).collect())
            }
            Command::Seek(seeks) => {
                effects.moved.extend(seeks.iter().map(|seek| seek.partition));
                let seek = |seek: &Seek| cursors.seek(seek, partitions.get(seek.partition));
                Reply::Leases(seeks.iter().map(seek).collect())
            }
            Command::Settle(settlements) => {
                let parks = settlements.iter().filter(|settled| !settled.parked.is_empty());
                effects.moved.extend(parks.map(|settled| settled.partition));
                let settle = |settled| cursors.settle(settled, partitions.get(settled.partition));
                Reply::Settlements(settlements.iter().map(settle).collect())
            }
            Command::Drop(uids) => {
                for &uid in uids {
                    if partitions.remove(uid) {
                        cursors.forget_partition(uid);
                        effects.dropped.push(uid);
                    }
                }
                Reply::Done
            }
            Command::Pass(uid, producer) => {
                Reply::Partitions(vec![partitions.pass(*uid, producer, *time)])
            }
            Command::Forget(subscription) => {
                cursors.forget(*subscription);
                Reply::Done
            }
        }
    }

    fn trim(&mut self, trim: &Trim, effects: &mut Effects) -> Reply {
        for &(uid, floor) in &trim.floors {
            let risen = self.partitions.trim(uid, floor);
            let Some(floor) = risen else { continue };
            effects.floors.push((uid, floor));
            let overtaken = self.cursors.raise(uid, floor);
            effects
                .overtaken
                .extend(overtaken.map(|(subscription, lost)| (subscription, uid, lost)));
        }
        if trim.floor_index > self.floor_index {
            self.floor_index = trim.floor_index;
            effects.floor_index = Some(trim.floor_index);
        }
        Reply::Done
    }

    /// The bytes of the state. The caller keeps a checksum with them.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u64_le(self.time.as_micros());
        out.put_u64_le(self.pos);
        out.put_u64_le(self.checkpoint_pos);
        out.put_u64_le(self.floor_index);
        self.partitions.put(&mut out);
        self.cursors.put(&mut out);
        out.freeze()
    }

    /// Reads the bytes of a state.
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(CheckpointError::UnknownVersion(version));
        }
        let state = Self {
            time: Timestamp::from_micros(reader.u64()?),
            pos: reader.u64()?,
            checkpoint_pos: reader.u64()?,
            floor_index: reader.u64()?,
            partitions: Partitions::decode(&mut reader)?,
            cursors: Cursors::decode(&mut reader)?,
        };
        reader.finish()?;
        Ok(state)
    }

    /// A hash of the whole state, equal on all replicas at equal index.
    pub fn state_hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.encode())
    }
}
