//! Entries that carry no events: partitions, trimming, leases, settling.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use weft_proto::{Epoch, Offset, PartitionUid, ResourceUid, Timestamp};

use super::batch::{ProducerBatch, decode_producer, put_producer};
use super::codec::{DecodeError, Reader, put_list};
use super::{Kind, put_prefix};
use crate::subscription::{PARKED_BYTES_MIN, Parked};

/// Longest name of a member, in bytes.
const MEMBER_LEN_MAX: usize = 256;

/// A change of a group's state other than an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Makes partitions that accept batches.
    Open(Vec<Opening>),
    /// Partitions accept no further batch, for good.
    Seal(Vec<PartitionUid>),
    /// Raises floors.
    Trim(Trim),
    /// Members take cursors over.
    Lease(Vec<Lease>),
    /// Events are settled for good.
    Settle(Vec<Settlement>),
    /// Cursors go elsewhere.
    Seek(Vec<Seek>),
    /// Partitions are gone, with the cursors on them.
    Drop(Vec<PartitionUid>),
    /// A subscription is gone, with its cursors.
    Forget(ResourceUid),
    /// A batch of a producer brought nothing new: all its events were there already.
    Pass(PartitionUid, ProducerBatch),
}

/// A partition to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its identity.
    pub partition: PartitionUid,
    /// Its first offset.
    pub start: Offset,
}

/// New floors.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trim {
    /// No replica needs log entries up to and with this index; 0 = nothing is said.
    pub floor_index: u64,
    /// Offsets below are no longer readable.
    pub floors: Vec<(PartitionUid, Offset)>,
}

/// A cursor and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The subscription.
    pub subscription: ResourceUid,
    /// The partition.
    pub partition: PartitionUid,
    /// Where a new cursor starts; a known one keeps its place.
    pub start: Offset,
    /// Who takes it.
    pub member: Member,
    /// Events are lent under the new epoch at once: what older ones lent is not taken on after it.
    pub lends: bool,
}

/// Ranges that a member settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The subscription.
    pub subscription: ResourceUid,
    /// The partition.
    pub partition: PartitionUid,
    /// The epoch under which the events were delivered.
    pub epoch: Epoch,
    /// What was settled.
    pub ranges: Vec<OffsetRange>,
    /// What was given back, with all that is to be remembered of it; settled events are left out.
    pub parked: Vec<(Offset, Parked)>,
    /// Events are lent under this epoch from now on: what older ones lent is not taken on after it.
    pub lends: bool,
}

/// A cursor and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    /// The subscription.
    pub subscription: ResourceUid,
    /// The partition.
    pub partition: PartitionUid,
    /// Everything below counts as settled, nothing from there on.
    pub to: Offset,
}

/// Name of a member of a subscription, at most 256 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member(String);

impl Member {
    /// A member of this name, unless it is too long.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        Some(name.into()).filter(|name| name.len() <= MEMBER_LEN_MAX).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        // At most 256, see `new`.
        out.put_u16_le(u16::try_from(self.0.len()).unwrap_or(u16::MAX));
        out.put_slice(self.0.as_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = usize::from(reader.u16()?);
        let name = str::from_utf8(reader.take(len)?)
            .ok()
            .ok_or(DecodeError::Malformed("a member's name is not UTF-8"))?;
        Self::new(name).ok_or(DecodeError::Malformed("a member's name is too long"))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Offsets from `first` to `last`, both included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetRange {
    first: Offset,
    last: Offset,
}

impl OffsetRange {
    /// The range, unless `last` is below `first`.
    pub fn new(first: Offset, last: Offset) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first offset.
    pub const fn first(self) -> Offset {
        self.first
    }

    /// The last offset.
    pub const fn last(self) -> Offset {
        self.last
    }

    /// How many offsets these are, at most the largest number.
    pub const fn count(self) -> u64 {
        (self.last.0 - self.first.0).saturating_add(1)
    }

    /// The smallest range around both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    pub(crate) fn put(self, out: &mut BytesMut) {
        out.put_u64_le(self.first.get());
        out.put_u64_le(self.last.get());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (first, last) = (Offset(reader.u64()?), Offset(reader.u64()?));
        Self::new(first, last).ok_or(DecodeError::Malformed("a range ends before it starts"))
    }
}

impl Command {
    /// Writes the entry.
    pub fn encode(&self, time: Timestamp) -> Bytes {
        let mut out = BytesMut::new();
        let uid = |out: &mut BytesMut, uid: &PartitionUid| out.put_u64_le(uid.get());
        put_prefix(&mut out, self.kind(), time);
        match self {
            Self::Open(openings) => put_list(&mut out, openings.iter(), |out, opening| {
                out.put_u64_le(opening.partition.get());
                out.put_u64_le(opening.start.get());
            }),
            Self::Seal(partitions) | Self::Drop(partitions) => {
                put_list(&mut out, partitions.iter(), uid);
            }
            Self::Trim(trim) => {
                out.put_u64_le(trim.floor_index);
                put_list(&mut out, trim.floors.iter(), |out, (partition, floor)| {
                    out.put_u64_le(partition.get());
                    out.put_u64_le(floor.get());
                });
            }
            Self::Lease(leases) => put_list(&mut out, leases.iter(), |out, lease| {
                out.put_u64_le(lease.subscription.get());
                out.put_u64_le(lease.partition.get());
                out.put_u64_le(lease.start.get());
                lease.member.put(out);
                out.put_u8(lease.lends.into());
            }),
            Self::Settle(settlements) => put_list(&mut out, settlements.iter(), |out, settled| {
                out.put_u64_le(settled.subscription.get());
                out.put_u64_le(settled.partition.get());
                out.put_u64_le(settled.epoch.get());
                put_list(out, settled.ranges.iter(), |out, range| range.put(out));
                put_list(out, settled.parked.iter(), |out, (offset, parked)| {
                    out.put_u64_le(offset.get());
                    parked.put(out);
                });
                out.put_u8(settled.lends.into());
            }),
            Self::Seek(seeks) => put_list(&mut out, seeks.iter(), |out, seek| {
                out.put_u64_le(seek.subscription.get());
                out.put_u64_le(seek.partition.get());
                out.put_u64_le(seek.to.get());
            }),
            Self::Forget(subscription) => out.put_u64_le(subscription.get()),
            Self::Pass(partition, producer) => {
                out.put_u64_le(partition.get());
                put_producer(&mut out, producer);
            }
        }
        out.freeze()
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
            Self::Seal(_) => Kind::Seal,
            Self::Trim(_) => Kind::Trim,
            Self::Lease(_) => Kind::Lease,
            Self::Settle(_) => Kind::Settle,
            Self::Seek(_) => Kind::Seek,
            Self::Drop(_) => Kind::Drop,
            Self::Forget(_) => Kind::Forget,
            Self::Pass(..) => Kind::Pass,
        }
    }

    pub(super) fn decode_pass(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let partition = PartitionUid(reader.u64()?);
        decode_producer(reader).map(|producer| Self::Pass(partition, producer))
    }

    pub(super) fn decode_open(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let opening = |reader: &mut Reader<'_>| {
            Ok(Opening { partition: PartitionUid(reader.u64()?), start: Offset(reader.u64()?) })
        };
        reader.list(16, opening).map(Self::Open)
    }

    pub(super) fn decode_partitions(
        reader: &mut Reader<'_>,
    ) -> Result<Vec<PartitionUid>, DecodeError> {
        reader.list(8, |reader| reader.u64().map(PartitionUid))
    }

    pub(super) fn decode_trim(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let floor_index = reader.u64()?;
        let floors =
            reader.list(16, |reader| Ok((PartitionUid(reader.u64()?), Offset(reader.u64()?))))?;
        Ok(Self::Trim(Trim { floor_index, floors }))
    }

    pub(super) fn decode_lease(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let lease = |reader: &mut Reader<'_>| {
            Ok(Lease {
                subscription: ResourceUid(reader.u64()?),
                partition: PartitionUid(reader.u64()?),
                start: Offset(reader.u64()?),
                member: Member::decode(reader)?,
                lends: reader.bool()?,
            })
        };
        reader.list(27, lease).map(Self::Lease)
    }

    pub(super) fn decode_settle(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let settlement = |reader: &mut Reader<'_>| {
            Ok(Settlement {
                subscription: ResourceUid(reader.u64()?),
                partition: PartitionUid(reader.u64()?),
                epoch: Epoch(reader.u64()?),
                ranges: reader.list(16, OffsetRange::decode)?,
                parked: reader.list(8 + PARKED_BYTES_MIN, |reader| {
                    Ok((Offset(reader.u64()?), Parked::decode(reader)?))
                })?,
                lends: reader.bool()?,
            })
        };
        reader.list(33, settlement).map(Self::Settle)
    }

    pub(super) fn decode_seek(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let seek = |reader: &mut Reader<'_>| {
            Ok(Seek {
                subscription: ResourceUid(reader.u64()?),
                partition: PartitionUid(reader.u64()?),
                to: Offset(reader.u64()?),
            })
        };
        reader.list(24, seek).map(Self::Seek)
    }
}
