//! What became of an entry, for whoever proposed it; and its bytes on the way there.

use bytes::{BufMut, Bytes, BytesMut};
use weft_proto::{Epoch, Offset, Timestamp};

use crate::entry::DecodeError;
use crate::entry::codec::{Reader, put_list};
use crate::partition::{BatchReply, PartitionReply};
use crate::subscription::{LeaseReply, OffsetSet, SettleReply, decode_parked};

/// The answer to an entry. Lists are in the order of the entry.
///
/// It travels within one process, so its bytes have no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To batches.
    Batches {
        /// Log time of the append.
        time: Timestamp,
        /// What became of each.
        batches: Vec<BatchReply>,
    },
    /// To opening and sealing.
    Partitions(Vec<PartitionReply>),
    /// To leases.
    Leases(Vec<LeaseReply>),
    /// To settlements.
    Settlements(Vec<SettleReply>),
    /// To what always succeeds.
    Done,
}

impl Reply {
    /// The bytes of the reply.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Batches { time, batches } => {
                out.put_u8(0);
                out.put_u64_le(time.as_micros());
                put_list(&mut out, batches.iter(), |out, reply| {
                    let (tag, offset) = match reply {
                        BatchReply::Appended { base } => (0, *base),
                        BatchReply::Void { end } => (1, *end),
                        BatchReply::Closed => (2, Offset(0)),
                    };
                    put_pair(out, tag, offset.get());
                });
            }
            Self::Partitions(replies) => {
                out.put_u8(1);
                put_list(&mut out, replies.iter(), |out, reply| {
                    let (tag, offset) = match reply {
                        PartitionReply::Open { end } => (0, *end),
                        PartitionReply::Sealed { end } => (1, *end),
                        PartitionReply::Unknown => (2, Offset(0)),
                    };
                    put_pair(out, tag, offset.get());
                });
            }
            Self::Leases(replies) => {
                out.put_u8(2);
                put_list(&mut out, replies.iter(), put_lease);
            }
            Self::Settlements(replies) => {
                out.put_u8(3);
                put_list(&mut out, replies.iter(), |out, reply| {
                    let (tag, number) = match reply {
                        SettleReply::Settled { watermark } => (0, watermark.get()),
                        SettleReply::Fenced { epoch } => (1, epoch.get()),
                        SettleReply::BeyondEnd { end } => (2, end.get()),
                        SettleReply::TooFragmented => (3, 0),
                        SettleReply::UnknownCursor => (4, 0),
                    };
                    put_pair(out, tag, number);
                });
            }
            Self::Done => out.put_u8(4),
        }
        out.freeze()
    }

    /// Reads the bytes of a reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let reply = match reader.u8()? {
            0 => Self::Batches {
                time: Timestamp::from_micros(reader.u64()?),
                batches: reader.list(PAIR_BYTES, decode_batch)?,
            },
            1 => Self::Partitions(reader.list(PAIR_BYTES, decode_partition)?),
            2 => Self::Leases(reader.list(1, decode_lease)?),
            3 => Self::Settlements(reader.list(PAIR_BYTES, decode_settlement)?),
            4 => Self::Done,
            _ => return Err(UNKNOWN),
        };
        reader.finish()?;
        Ok(reply)
    }
}

const PAIR_BYTES: usize = 9;
const UNKNOWN: DecodeError = DecodeError::Malformed("an unknown reply");

fn put_pair(out: &mut BytesMut, tag: u8, number: u64) {
    out.put_u8(tag);
    out.put_u64_le(number);
}

fn put_lease(out: &mut BytesMut, reply: &LeaseReply) {
    match reply {
        LeaseReply::Leased { epoch, previous, watermark, settled, parked } => {
            out.put_u8(0);
            out.put_u64_le(epoch.get());
            out.put_u64_le(previous.get());
            out.put_u64_le(watermark.get());
            settled.put(out);
            put_list(out, parked.iter(), |out, (offset, parked)| {
                out.put_u64_le(offset.get());
                parked.put(out);
            });
        }
        LeaseReply::UnknownPartition => out.put_u8(1),
    }
}

fn decode_batch(reader: &mut Reader<'_>) -> Result<BatchReply, DecodeError> {
    match (reader.u8()?, Offset(reader.u64()?)) {
        (0, base) => Ok(BatchReply::Appended { base }),
        (1, end) => Ok(BatchReply::Void { end }),
        (2, _) => Ok(BatchReply::Closed),
        _ => Err(UNKNOWN),
    }
}

fn decode_partition(reader: &mut Reader<'_>) -> Result<PartitionReply, DecodeError> {
    match (reader.u8()?, Offset(reader.u64()?)) {
        (0, end) => Ok(PartitionReply::Open { end }),
        (1, end) => Ok(PartitionReply::Sealed { end }),
        (2, _) => Ok(PartitionReply::Unknown),
        _ => Err(UNKNOWN),
    }
}

fn decode_lease(reader: &mut Reader<'_>) -> Result<LeaseReply, DecodeError> {
    match reader.u8()? {
        0 => Ok(LeaseReply::Leased {
            epoch: Epoch(reader.u64()?),
            previous: Epoch(reader.u64()?),
            watermark: Offset(reader.u64()?),
            settled: OffsetSet::decode(reader)?,
            parked: decode_parked(reader)?,
        }),
        1 => Ok(LeaseReply::UnknownPartition),
        _ => Err(UNKNOWN),
    }
}

fn decode_settlement(reader: &mut Reader<'_>) -> Result<SettleReply, DecodeError> {
    match (reader.u8()?, reader.u64()?) {
        (0, watermark) => Ok(SettleReply::Settled { watermark: Offset(watermark) }),
        (1, epoch) => Ok(SettleReply::Fenced { epoch: Epoch(epoch) }),
        (2, end) => Ok(SettleReply::BeyondEnd { end: Offset(end) }),
        (3, _) => Ok(SettleReply::TooFragmented),
        (4, _) => Ok(SettleReply::UnknownCursor),
        _ => Err(UNKNOWN),
    }
}
