//! Checkpoints of a group's state: their format, and where they are kept.
//!
//! A checkpoint is also what a snapshot carries. *Never* published for a data group above its
//! floor: the replica that installed it would lose all history in between.

use std::io;
use std::ops::ControlFlow;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use prost::Message as _;
use weft_proto::GroupId;
use weft_proto::internal as wire;

use super::log::{LogReader, Logs};
use super::point::LogPoint;
use super::types::{LogId, StoredMembership};
use super::wire::{Malformed, log_id_in, log_id_out, stored_membership_in, stored_membership_out};
use crate::store::{Changes, Family, LogEngine, keys};

/// Which state a group hands to a replica that needs entries it no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotPolicy {
    /// The checkpoint at the floor; the entries above follow one by one. For groups whose log is
    /// the data.
    AtFloor,
    /// The state at the last applied entry. For groups whose state says it all, as the catalog.
    AtApplied,
}

/// Whether a checkpoint must survive a power cut before its writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It may be lost: the entries behind it are still there.
    Lazy,
    /// It replaces entries.
    Synced,
}

/// Keeps the checkpoints of one group, by index.
pub trait Checkpoints: Send + Sync + 'static {
    /// Stores a checkpoint after all entries queued before it, never ahead of them.
    fn put(
        &self,
        at: LogPoint,
        checkpoint: Bytes,
        durability: Durability,
    ) -> BoxFuture<'_, io::Result<()>>;

    /// Returns the place after an entry as the log computed it, or none if the log lacks it.
    fn point(&self, index: u64) -> io::Result<Option<LogPoint>>;

    /// Returns the newest checkpoint at or below an index.
    fn newest(&self, upto: u64) -> io::Result<Option<(u64, Bytes)>>;

    /// Lists all checkpoints, oldest first: their indexes and positions.
    fn list(&self) -> io::Result<Vec<(u64, u64)>>;

    /// Forgets checkpoints; a crash may bring them back.
    fn remove(&self, indexes: &[u64]) -> BoxFuture<'_, io::Result<()>>;

    /// Waits until all entries and checkpoints that were queued before are on disk.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;
}

/// Checkpoints beside the log of the group.
#[derive(Debug, Clone)]
pub struct StoredCheckpoints {
    group: GroupId,
    logs: Logs,
    reader: LogReader,
}

impl StoredCheckpoints {
    /// Creates the place for the checkpoints of a group.
    pub fn new(group: GroupId, logs: Logs, reader: LogReader) -> Self {
        Self { group, logs, reader }
    }
}

impl Checkpoints for StoredCheckpoints {
    fn put(
        &self,
        at: LogPoint,
        checkpoint: Bytes,
        durability: Durability,
    ) -> BoxFuture<'_, io::Result<()>> {
        let mut changes = Changes::new();
        let key = keys::checkpoint::key(self.group, at.index);
        let head = keys::checkpoint::encode(&at, &[]);
        changes.put_parts(Family::Meta, &key, &head, checkpoint);
        let writer = self.logs.writer();
        Box::pin(async move {
            match durability {
                // What the state machine deferred is not made again for entries that it covers.
                Durability::Lazy => writer.put_behind_deferred(changes).await?,
                Durability::Synced => writer.put_synced(changes).await?,
            }
            Ok(())
        })
    }

    fn point(&self, index: u64) -> io::Result<Option<LogPoint>> {
        Ok(self.reader.point(index)?)
    }

    fn newest(&self, upto: u64) -> io::Result<Option<(u64, Bytes)>> {
        let first = keys::checkpoint::key(self.group, 0);
        let last = keys::checkpoint::key(self.group, upto);
        let Some((key, value)) = self.logs.engine().last_in(Family::Meta, &first, &last)? else {
            return Ok(None);
        };
        let (_group, index) = keys::checkpoint::decode_key(&key)?;
        let (_point, state) = keys::checkpoint::decode(&value)?;
        Ok(Some((index, value.slice_ref(state))))
    }

    fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        let first = keys::checkpoint::key(self.group, 0);
        let end = keys::checkpoint::key(self.group, u64::MAX);
        let (mut found, mut outcome) = (Vec::new(), Ok(()));
        self.logs.engine().scan(Family::Meta, &first, &end, &mut |_, value| {
            match keys::checkpoint::decode(value) {
                Ok((at, _)) => {
                    found.push((at.index, at.pos));
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        Ok(outcome.map(|()| found)?)
    }

    fn remove(&self, indexes: &[u64]) -> BoxFuture<'_, io::Result<()>> {
        let mut changes = Changes::new();
        for &index in indexes {
            changes.delete(Family::Meta, &keys::checkpoint::key(self.group, index));
        }
        Box::pin(async move { Ok(self.logs.writer().put_unsynced(changes).await?) })
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        // The writer keeps the order: when this is on disk, so is what was queued before.
        Box::pin(async move { Ok(self.logs.writer().put_synced(Changes::new()).await?) })
    }
}

/// A stored checkpoint, for those who only want the state of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredState {
    /// The place in the log after which it was taken.
    pub at: LogPoint,
    /// The bytes of the machine.
    pub state: Bytes,
}

impl StoredState {
    /// Returns the newest checkpoint at or below an index. Reads the disk.
    pub fn newest(engine: &dyn LogEngine, group: GroupId, upto: u64) -> io::Result<Option<Self>> {
        let first = keys::checkpoint::key(group, 0);
        let last = keys::checkpoint::key(group, upto);
        let found = engine.last_in(Family::Meta, &first, &last)?;
        found.map(|(_, value)| Self::decode(&value)).transpose()
    }

    fn decode(value: &Bytes) -> io::Result<Self> {
        let (at, bytes) = keys::checkpoint::decode(value)?;
        let checkpoint = Checkpoint::decode(&value.slice_ref(bytes))?;
        Ok(Self { at, state: checkpoint.state })
    }

    /// Returns the oldest checkpoint between two indexes, both included. Reads the disk.
    pub fn oldest(
        engine: &dyn LogEngine,
        group: GroupId,
        from: u64,
        upto: u64,
    ) -> io::Result<Option<Self>> {
        let first = keys::checkpoint::key(group, from);
        let end = keys::checkpoint::key(group, upto.saturating_add(1));
        let mut found = None;
        engine.scan(Family::Meta, &first, &end, &mut |_, value| {
            found = Some(Bytes::copy_from_slice(value));
            ControlFlow::Break(())
        })?;
        found.map(|value| Self::decode(&value)).transpose()
    }
}

/// A place in the log, as every replica computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) time_micros: u64,
    /// Bytes of the group up to here.
    pub(super) position: u64,
}

/// A decoded checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) last: LogId,
    pub(super) membership: StoredMembership,
    pub(super) at: Place,
    pub(super) cut: Place,
    pub(super) chain: u64,
    pub(super) state: Bytes,
}

/// What makes a checkpoint unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("the checkpoint is {0} bytes long, too short to be one")]
    Short(usize),
    #[error("the checkpoint does not begin as one of format 0")]
    Format,
    #[error("the checksum of the checkpoint is {stored:08x}, its bytes give {computed:08x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("the head of the checkpoint cannot be read")]
    Head(#[from] prost::DecodeError),
    #[error("the head of the checkpoint makes no sense")]
    Content(#[from] Malformed),
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damage)
    }
}

/// Format 0: these four bytes, the length of the head, the head, the state, a CRC32C of it all.
const MAGIC: [u8; 4] = *b"WFC0";
const PREFIX_LEN: usize = 8;
const CHECKSUM_LEN: usize = 4;

impl Checkpoint {
    /// The place in the log that this state belongs to.
    pub(super) fn point(&self) -> LogPoint {
        LogPoint {
            index: self.last.index,
            term: self.last.leader_id.term,
            pos: self.at.position,
            time: self.at.time_micros,
            chain: self.chain,
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let (membership_log_id, membership) = stored_membership_out(&self.membership);
        let head = wire::CheckpointHead {
            last: Some(log_id_out(self.last)),
            membership_log_id,
            membership: Some(membership),
            time_micros: self.at.time_micros,
            position: self.at.position,
            chain: self.chain,
            cut_time_micros: self.cut.time_micros,
            cut_position: self.cut.position,
        };
        let head = head.encode_to_vec();
        let len = PREFIX_LEN + head.len() + self.state.len() + CHECKSUM_LEN;
        let mut bytes = BytesMut::with_capacity(len);
        bytes.put_slice(&MAGIC);
        bytes.put_u32_le(u32::try_from(head.len()).unwrap_or(u32::MAX));
        bytes.put_slice(&head);
        bytes.put_slice(&self.state);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes.freeze()
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self, Damage> {
        let short = || Damage::Short(bytes.len());
        let body_len = bytes.len().checked_sub(CHECKSUM_LEN).ok_or_else(short)?;
        let (body, checksum) = bytes.split_at_checked(body_len).ok_or_else(short)?;
        let stored = u32::from_le_bytes(checksum.try_into().map_err(|_error| short())?);
        let computed = crc32c::crc32c(body);
        let (magic, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
        if *magic != MAGIC {
            return Err(Damage::Format);
        }
        if stored != computed {
            return Err(Damage::Checksum { stored, computed });
        }
        let (head_len, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let head_len = u32::from_le_bytes(*head_len) as usize;
        let head = rest.get(..head_len).ok_or_else(short)?;
        let head = wire::CheckpointHead::decode(head)?;
        Ok(Self {
            last: head.last.map(log_id_in).ok_or(Malformed::Missing("last log id"))?,
            membership: stored_membership_in(head.membership_log_id, head.membership)?,
            at: Place { time_micros: head.time_micros, position: head.position },
            cut: Place { time_micros: head.cut_time_micros, position: head.cut_position },
            chain: head.chain,
            state: bytes.slice(PREFIX_LEN + head_len..body_len),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            last: log_id(4, 2_000),
            membership: StoredMembership::default(),
            at: Place { time_micros: 77, position: 1 << 40 },
            cut: Place { time_micros: 60, position: 1 << 39 },
            chain: 0xfeed,
            state: Bytes::from_static(b"what the machine remembers"),
        }
    }

    #[test]
    fn checkpoint_survives_its_encoding() {
        assert_eq!(Checkpoint::decode(&checkpoint().encode()).unwrap(), checkpoint());
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = checkpoint().encode();
        for at in 0..good.len() {
            let mut bytes = good.to_vec();
            bytes[at] ^= 0x10;

            assert!(Checkpoint::decode(&bytes.into()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = checkpoint().encode();
        for len in 0..good.len() {
            assert!(Checkpoint::decode(&good.slice(..len)).is_err(), "{len} bytes");
        }
    }
}
