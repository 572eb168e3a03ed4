//! What the replicated log carries: format 0 of a group's payload.
//!
//! An entry starts with 12 fixed bytes: format, kind, flags, the leader's time. Batches follow as a
//! table of all headers, then all bodies, so that the rules are applied without touching events.
//!
//! Owns: the bytes. Never: decides what they do; skips what it does not know.

mod batch;
mod builder;
pub(crate) mod codec;
mod command;
mod error;
mod frame;
#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};
use weft_proto::Timestamp;

pub use batch::{Batch, Header, ProducerBatch, Settles};
pub use builder::{EntryBuilder, NewBatch, Payload};
pub use codec::DecodeError;
pub use command::{Command, Lease, Member, OffsetRange, Opening, Seek, Settlement, Trim};
pub use error::{BuildError, EntryError};
pub use frame::{Events, framed_len};

use codec::Reader;

const FORMAT: u8 = 0;
/// Bytes before what the kind defines.
const PREFIX_LEN: usize = 12;
/// Place of the leader's time.
const TIME_AT: usize = 4;
/// Reserved for hiding one offset; this release refuses it.
const KIND_TOMBSTONE: u8 = 9;

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Batches = 1,
    Open = 2,
    Seal = 3,
    Trim = 4,
    Lease = 5,
    Settle = 6,
    Drop = 7,
    Forget = 8,
    Pass = 10,
    Seek = 11,
}

impl TryFrom<u8> for Kind {
    type Error = EntryError;

    fn try_from(kind: u8) -> Result<Self, EntryError> {
        Ok(match kind {
            1 => Self::Batches,
            2 => Self::Open,
            3 => Self::Seal,
            4 => Self::Trim,
            5 => Self::Lease,
            6 => Self::Settle,
            7 => Self::Drop,
            8 => Self::Forget,
            10 => Self::Pass,
            11 => Self::Seek,
            KIND_TOMBSTONE => return Err(EntryError::Unsupported("a tombstone")),
            _ => return Err(EntryError::UnknownKind(kind)),
        })
    }
}

/// One payload of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The clock of the leader that proposed it; may be behind that of an earlier entry.
    pub time: Timestamp,
    /// What it does.
    pub content: Content,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Appends events.
    Batches(Vec<Batch>),
    /// Changes anything else.
    Command(Command),
}

impl Entry {
    /// Reads a payload; bodies are slices of it.
    pub fn decode(payload: &Bytes) -> Result<Self, EntryError> {
        let mut reader = Reader::new(payload);
        let format = reader.u8()?;
        if format != FORMAT {
            return Err(EntryError::UnknownFormat(format));
        }
        let kind = Kind::try_from(reader.u8()?)?;
        let flags = reader.u16()?;
        if flags != 0 {
            return Err(EntryError::UnknownFlags(flags));
        }
        let time = Timestamp::from_micros(reader.u64()?);
        let content = match kind {
            Kind::Batches => {
                return Ok(Self { time, content: Content::Batches(batches(reader, payload)?) });
            }
            Kind::Open => Command::decode_open(&mut reader)?,
            Kind::Seal => Command::Seal(Command::decode_partitions(&mut reader)?),
            Kind::Trim => Command::decode_trim(&mut reader)?,
            Kind::Lease => Command::decode_lease(&mut reader)?,
            Kind::Settle => Command::decode_settle(&mut reader)?,
            Kind::Drop => Command::Drop(Command::decode_partitions(&mut reader)?),
            Kind::Forget => Command::Forget(weft_proto::ResourceUid(reader.u64()?)),
            Kind::Pass => Command::decode_pass(&mut reader)?,
            Kind::Seek => Command::decode_seek(&mut reader)?,
        };
        reader.finish()?;
        Ok(Self { time, content: Content::Command(content) })
    }
}

fn batches(mut reader: Reader<'_>, payload: &Bytes) -> Result<Vec<Batch>, EntryError> {
    let table_len = reader.len()?;
    let table = payload.slice_ref(reader.take(table_len)?);
    let mut headers = Reader::new(&table);
    let mut batches = Vec::new();
    while headers.remaining() > 0 {
        let header = Header::decode(&mut headers, &table)?;
        let body_len = codec::to_len(header.body_len);
        let body = payload.slice_ref(reader.take(body_len)?);
        batches.push(Batch { header, body });
    }
    reader.finish()?;
    Ok(batches)
}

/// The same entry with another leader's time; copies only if somebody else holds the payload.
pub fn with_time(payload: Bytes, time: Timestamp) -> Result<Bytes, EntryError> {
    let mut payload = payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let place = payload.get_mut(TIME_AT..PREFIX_LEN).ok_or(DecodeError::Truncated)?;
    place.copy_from_slice(&time.as_micros().to_le_bytes());
    Ok(payload.freeze())
}

fn put_prefix(out: &mut BytesMut, kind: Kind, time: Timestamp) {
    out.put_u8(FORMAT);
    out.put_u8(kind as u8);
    out.put_u16_le(0);
    out.put_u64_le(time.as_micros());
}
