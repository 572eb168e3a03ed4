//! One batch: what the rules see (its header) and what they never open (its body).

use std::num::NonZeroU32;

use bytes::{BufMut, Bytes, BytesMut};
use weft_proto::packed::{Codec, PACKED_BYTES_MAX};
use weft_proto::{
    Epoch, NodeId, Offset, PartitionUid, ProducerId, ResourceUid, SchemaId, Sequence,
};

use super::codec::{DecodeError, Reader, to_len};
use super::error::EntryError;
use super::frame::{Events, FRAME_BYTES_MIN};
use crate::subjects::SubjectHash;

/// Bytes of a header without optional sections.
pub(super) const FIXED_LEN: usize = 35;
/// Place of the checksum in a header.
pub(super) const CRC_AT: usize = 24;
/// Bytes of the hash of an identity.
pub(super) const ID_LEN: usize = 8;
/// Bytes of an idempotency key, a key id.
pub(super) const KEY_LEN: usize = 16;
/// Bytes of the producer section.
pub(super) const PRODUCER_LEN: usize = 40;
/// Bytes of a schema id.
pub(super) const SCHEMA_LEN: usize = 4;
/// Bytes of the section about a settlement, without its offsets.
pub(super) const SETTLES_LEN: usize = 24;
/// Bytes of the node that took a batch in.
pub(super) const INGEST_LEN: usize = 8;
/// Bytes of an offset.
pub(super) const OFFSET_LEN: usize = 8;

const CODEC_NONE: u8 = 0;
const CODEC_LZ4: u8 = 1;
const CODEC_ZSTD: u8 = 2;
/// Bytes of the section that a compressed batch has: the length of its body once decompressed.
pub(super) const RAW_LEN: usize = 4;

pub(super) const fn codec_byte(codec: Option<Codec>) -> u8 {
    match codec {
        None => CODEC_NONE,
        Some(Codec::Lz4) => CODEC_LZ4,
        Some(Codec::Zstd) => CODEC_ZSTD,
    }
}

/// Which optional sections follow, in this order.
pub(super) mod flag {
    pub(crate) const PRODUCER: u16 = 1;
    pub(crate) const EVENT_SCHEMAS: u16 = 1 << 1;
    pub(crate) const ID_HASHES: u16 = 1 << 2;
    pub(crate) const IDEMPOTENCY_KEY: u16 = 1 << 3;
    /// A 16-byte key id follows; this release refuses it.
    pub(crate) const ENCRYPTED: u16 = 1 << 4;
    pub(crate) const SUBJECT_HASHES: u16 = 1 << 5;
    pub(crate) const SETTLES: u16 = 1 << 6;
    pub(crate) const INGEST: u16 = 1 << 7;
    pub(crate) const ALL: u16 = (1 << 8) - 1;
}

/// Identity of a batch among those of one producer in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Who publishes.
    pub id: ProducerId,
    /// Which run of it.
    pub epoch: Epoch,
    /// Which batch.
    pub sequence: Sequence,
    /// The batch before it in this partition; 0 for the first.
    pub previous: Sequence,
}

/// What a batch settles in another partition of its group, if it is appended: each of its events
/// takes the place of one there.
///
/// The move is one step: after a crash at any moment an event is in one place or the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settles {
    /// Whose cursor.
    pub subscription: ResourceUid,
    /// Where the events were.
    pub partition: PartitionUid,
    /// The epoch under which they were delivered.
    pub epoch: Epoch,
    /// One for each event.
    pub offsets: Vec<Offset>,
}

/// What the rules see of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where it goes.
    pub partition: PartitionUid,
    /// Number of events.
    pub count: NonZeroU32,
    /// The end of the partition that its proposer saw. Elsewhere in the log the batch is void.
    pub expected: Offset,
    /// Bytes of the body as it is stored.
    pub body_len: u32,
    /// CRC32C of the same.
    pub crc: u32,
    /// How the body is compressed, and its length without that.
    pub packed: Option<(Codec, u32)>,
    /// Schema of all events; 0 = none, or one for each event.
    pub schema: SchemaId,
    /// Who published it, if retries shall be recognised.
    pub producer: Option<ProducerBatch>,
    /// Chosen by whoever publishes without being a producer: replies, dead letters.
    pub idempotency_key: Option<[u8; KEY_LEN]>,
    /// What it settles elsewhere.
    pub settles: Option<Settles>,
    /// The node at which its publisher asked; none where no publisher did, or several nodes were.
    pub ingest: Option<NodeId>,
    event_schemas: Bytes,
    id_hashes: Bytes,
    subject_hashes: Bytes,
}

impl Header {
    /// The schema of one event.
    pub fn schema_of(&self, event: u32) -> SchemaId {
        let mut schemas = self.event_schemas.chunks_exact(SCHEMA_LEN);
        let own = usize::try_from(event).ok().and_then(|i| schemas.nth(i));
        match own.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => SchemaId(u32::from_le_bytes(bytes)),
            None => self.schema,
        }
    }

    /// Whether events may have different schemas.
    pub fn has_event_schemas(&self) -> bool {
        !self.event_schemas.is_empty()
    }

    /// The hash of (source, id) of each event; none at all if they are not kept.
    pub fn id_hashes(&self) -> impl ExactSizeIterator<Item = u64> {
        let chunks = self.id_hashes.as_chunks::<ID_LEN>().0;
        chunks.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The hash of the subject of each event; none at all if the stream has no index of subjects.
    pub fn subject_hashes(&self) -> impl ExactSizeIterator<Item = SubjectHash> {
        self.subject_hashes.as_chunks::<{ SubjectHash::LEN }>().0.iter().copied().map(SubjectHash)
    }

    /// Reads the header at the front of a table; `table` must be what `reader` reads.
    pub(super) fn decode(reader: &mut Reader<'_>, table: &Bytes) -> Result<Self, EntryError> {
        let partition = PartitionUid(reader.u64()?);
        let count = NonZeroU32::new(reader.u32()?)
            .ok_or(DecodeError::Malformed("a batch without events"))?;
        let expected = Offset(reader.u64()?);
        let body_len = reader.u32()?;
        let crc = reader.u32()?;
        let flags = reader.u16()?;
        if flags & !flag::ALL != 0 {
            return Err(EntryError::UnknownBatchFlags(flags));
        }
        let codec = match reader.u8()? {
            CODEC_NONE => None,
            CODEC_LZ4 => Some(Codec::Lz4),
            CODEC_ZSTD => Some(Codec::Zstd),
            unknown => return Err(EntryError::UnknownCodec(unknown)),
        };
        let schema = SchemaId(reader.u32()?);
        let packed = codec.map(|codec| reader.u32().map(|len| (codec, len))).transpose()?;
        let raw_len = packed.map_or(body_len, |(_, len)| len);
        if u64::from(raw_len) < FRAME_BYTES_MIN * u64::from(count.get()) {
            return Err(DecodeError::Malformed("a body is too short for its events").into());
        }
        let has = |flag: u16| flags & flag != 0;
        let producer = has(flag::PRODUCER).then(|| decode_producer(reader)).transpose()?;
        let mut section = |flag: u16, item_len: usize| {
            let items = if has(flag) { to_len(count.get()) } else { 0 };
            let len = items.checked_mul(item_len).ok_or(DecodeError::Truncated)?;
            Ok::<_, DecodeError>(table.slice_ref(reader.take(len)?))
        };
        let event_schemas = section(flag::EVENT_SCHEMAS, SCHEMA_LEN)?;
        let id_hashes = section(flag::ID_HASHES, ID_LEN)?;
        let idempotency_key = has(flag::IDEMPOTENCY_KEY).then(|| reader.array()).transpose()?;
        if has(flag::ENCRYPTED) {
            reader.take(KEY_LEN)?;
            return Err(EntryError::Unsupported("an encrypted batch"));
        }
        let len = if has(flag::SUBJECT_HASHES) { to_len(count.get()) } else { 0 };
        let len = len.checked_mul(SubjectHash::LEN).ok_or(DecodeError::Truncated)?;
        let subject_hashes = table.slice_ref(reader.take(len)?);
        let settles = has(flag::SETTLES).then(|| decode_settles(reader, count)).transpose()?;
        let ingest = has(flag::INGEST).then(|| reader.u64().map(NodeId)).transpose()?;
        Ok(Self {
            partition,
            count,
            expected,
            body_len,
            crc,
            packed,
            schema,
            producer,
            idempotency_key,
            settles,
            ingest,
            event_schemas,
            id_hashes,
            subject_hashes,
        })
    }
}

fn decode_settles(reader: &mut Reader<'_>, count: NonZeroU32) -> Result<Settles, DecodeError> {
    let subscription = ResourceUid(reader.u64()?);
    let partition = PartitionUid(reader.u64()?);
    let epoch = Epoch(reader.u64()?);
    let len = to_len(count.get()).checked_mul(OFFSET_LEN).ok_or(DecodeError::Truncated)?;
    let offsets = reader.take(len)?.as_chunks::<OFFSET_LEN>().0;
    let offsets = offsets.iter().map(|bytes| Offset(u64::from_le_bytes(*bytes))).collect();
    Ok(Settles { subscription, partition, epoch, offsets })
}

pub(super) fn put_settles(out: &mut BytesMut, settles: &Settles) {
    out.put_u64_le(settles.subscription.get());
    out.put_u64_le(settles.partition.get());
    out.put_u64_le(settles.epoch.get());
    settles.offsets.iter().for_each(|offset| out.put_u64_le(offset.get()));
}

pub(super) fn decode_producer(reader: &mut Reader<'_>) -> Result<ProducerBatch, DecodeError> {
    Ok(ProducerBatch {
        id: ProducerId(u128::from_be_bytes(reader.array()?)),
        epoch: Epoch(reader.u64()?),
        sequence: Sequence(reader.u64()?),
        previous: Sequence(reader.u64()?),
    })
}

pub(super) fn put_producer(out: &mut BytesMut, producer: &ProducerBatch) {
    out.put_slice(&producer.id.to_bytes());
    out.put_u64_le(producer.epoch.get());
    out.put_u64_le(producer.sequence.get());
    out.put_u64_le(producer.previous.get());
}

/// Writes the fixed part of a header, with a checksum of 0 to be patched.
pub(super) fn put_fixed(out: &mut BytesMut, fixed: &FixedPart) {
    out.put_u64_le(fixed.partition.get());
    out.put_u32_le(fixed.count.get());
    out.put_u64_le(fixed.expected.get());
    out.put_u32_le(fixed.body_len);
    out.put_u32_le(0);
    out.put_u16_le(fixed.flags);
    out.put_u8(codec_byte(fixed.packed.map(|(codec, _)| codec)));
    out.put_u32_le(fixed.schema.get());
    if let Some((_, raw_len)) = fixed.packed {
        out.put_u32_le(raw_len);
    }
}

/// The fixed part of a header, without its checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct FixedPart {
    pub(super) partition: PartitionUid,
    pub(super) count: NonZeroU32,
    pub(super) expected: Offset,
    pub(super) body_len: u32,
    pub(super) flags: u16,
    pub(super) packed: Option<(Codec, u32)>,
    pub(super) schema: SchemaId,
}

/// A batch as it lies in the log. The body shares the entry's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What the rules see.
    pub header: Header,
    /// The framed events.
    pub body: Bytes,
}

impl Batch {
    /// Compares the body with its checksum.
    pub fn verify(&self) -> Result<(), EntryError> {
        let actual = crc32c::crc32c(&self.body);
        if actual == self.header.crc {
            Ok(())
        } else {
            Err(EntryError::Checksum { expected: self.header.crc, actual })
        }
    }

    /// The events, each a slice of the body, or of what it is once decompressed.
    ///
    /// # Errors
    ///
    /// When a compressed body cannot be decompressed.
    pub fn events(&self) -> Result<Events, DecodeError> {
        let Some((codec, raw_len)) = self.header.packed else {
            return Ok(Events::new(self.body.clone()));
        };
        let damaged = |_error| DecodeError::Malformed("a compressed body cannot be decompressed");
        // Memory is taken for what the header claims; no leader takes a batch that claims more.
        if to_len(raw_len) > PACKED_BYTES_MAX {
            return Err(DecodeError::Malformed("a compressed body claims to be too long"));
        }
        let raw = codec.decompress(&self.body, to_len(raw_len)).map_err(damaged)?;
        Ok(Events::new(raw.into()))
    }
}
