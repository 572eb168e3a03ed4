//! Assembles batches into one entry; each payload is copied once.

use std::num::NonZeroU32;

use bytes::{BufMut, Bytes, BytesMut};
use weft_proto::packed::Codec;
use weft_proto::{NodeId, Offset, PartitionUid, SchemaId, Timestamp};

use super::batch::{
    self, FixedPart, ID_LEN, INGEST_LEN, KEY_LEN, OFFSET_LEN, PRODUCER_LEN, ProducerBatch,
    SCHEMA_LEN, SETTLES_LEN, Settles, flag,
};
use super::error::BuildError;
use super::{Kind, PREFIX_LEN, frame, put_prefix};
use crate::subjects::SubjectHash;

/// The events of a batch to be written.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// One after another, not framed.
    Events(&'a [Bytes]),
    /// As they lie in the body of another batch.
    Framed {
        /// How many they are.
        count: NonZeroU32,
        /// The framed events.
        body: &'a Bytes,
    },
    /// Framed events, compressed; whoever writes them has decompressed and counted them.
    Packed {
        /// How many they are.
        count: NonZeroU32,
        /// How they are compressed.
        codec: Codec,
        /// Bytes of the framed events.
        raw_len: u32,
        /// The compressed bytes.
        body: &'a Bytes,
    },
}

/// A batch to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewBatch<'a> {
    /// Where it goes.
    pub partition: PartitionUid,
    /// Where its first event shall be.
    pub expected: Offset,
    /// Schema of all events; 0 = none.
    pub schema: SchemaId,
    /// A schema for each event, or none.
    pub event_schemas: &'a [SchemaId],
    /// Hash of (source, id) for each event, or none.
    pub id_hashes: &'a [u64],
    /// Hash of the subject of each event, or none.
    pub subject_hashes: &'a [SubjectHash],
    /// Who publishes.
    pub producer: Option<ProducerBatch>,
    /// Chosen by whoever publishes without being a producer.
    pub idempotency_key: Option<[u8; KEY_LEN]>,
    /// What it settles elsewhere, one offset for each event.
    pub settles: Option<&'a Settles>,
    /// The node at which its publisher asked.
    pub ingest: Option<NodeId>,
    /// The events.
    pub payload: Payload<'a>,
}

impl<'a> NewBatch<'a> {
    /// A batch without schema, producer and hashes.
    pub fn new(partition: PartitionUid, expected: Offset, payload: Payload<'a>) -> Self {
        Self {
            partition,
            expected,
            schema: SchemaId(0),
            event_schemas: &[],
            id_hashes: &[],
            subject_hashes: &[],
            producer: None,
            idempotency_key: None,
            settles: None,
            ingest: None,
            payload,
        }
    }

    fn count(&self) -> Result<NonZeroU32, BuildError> {
        match self.payload {
            Payload::Events(events) => {
                let count = u32::try_from(events.len()).ok().ok_or(BuildError::TooLarge)?;
                NonZeroU32::new(count).ok_or(BuildError::Empty)
            }
            Payload::Framed { count, body } => {
                check_count(count, frame::count(body)?, "framed events")?;
                Ok(count)
            }
            Payload::Packed { count, .. } => Ok(count),
        }
    }

    const fn packed(&self) -> Option<(Codec, u32)> {
        match self.payload {
            Payload::Packed { codec, raw_len, .. } => Some((codec, raw_len)),
            Payload::Events(_) | Payload::Framed { .. } => None,
        }
    }

    fn body_len(&self) -> usize {
        match self.payload {
            Payload::Events(events) => events
                .iter()
                .fold(0, |sum: usize, event| sum.saturating_add(frame::framed_len(event.len()))),
            Payload::Framed { body, .. } | Payload::Packed { body, .. } => body.len(),
        }
    }

    fn flags(&self) -> u16 {
        let flag = |present: bool, flag: u16| if present { flag } else { 0 };
        flag(self.producer.is_some(), flag::PRODUCER)
            | flag(!self.event_schemas.is_empty(), flag::EVENT_SCHEMAS)
            | flag(!self.id_hashes.is_empty(), flag::ID_HASHES)
            | flag(self.idempotency_key.is_some(), flag::IDEMPOTENCY_KEY)
            | flag(!self.subject_hashes.is_empty(), flag::SUBJECT_HASHES)
            | flag(self.settles.is_some(), flag::SETTLES)
            | flag(self.ingest.is_some(), flag::INGEST)
    }

    fn header_len(&self) -> usize {
        batch::FIXED_LEN
            + self.packed().map_or(0, |_| batch::RAW_LEN)
            + self.producer.map_or(0, |_| PRODUCER_LEN)
            + self.event_schemas.len() * SCHEMA_LEN
            + self.id_hashes.len() * ID_LEN
            + self.idempotency_key.map_or(0, |_| KEY_LEN)
            + self.subject_hashes.len() * SubjectHash::LEN
            + self.settles.map_or(0, |settles| SETTLES_LEN + settles.offsets.len() * OFFSET_LEN)
            + self.ingest.map_or(0, |_| INGEST_LEN)
    }

    fn put_header(&self, out: &mut BytesMut, fixed: &FixedPart) {
        batch::put_fixed(out, fixed);
        if let Some(producer) = &self.producer {
            batch::put_producer(out, producer);
        }
        for schema in self.event_schemas {
            out.put_u32_le(schema.get());
        }
        for hash in self.id_hashes {
            out.put_u64_le(*hash);
        }
        if let Some(key) = &self.idempotency_key {
            out.put_slice(key);
        }
        for SubjectHash(bytes) in self.subject_hashes {
            out.put_slice(bytes);
        }
        if let Some(settles) = self.settles {
            batch::put_settles(out, settles);
        }
        if let Some(node) = self.ingest {
            out.put_u64_le(node.get());
        }
    }

    fn put_body(&self, out: &mut BytesMut) {
        match self.payload {
            Payload::Events(events) => events.iter().for_each(|event| frame::put(out, event)),
            Payload::Framed { body, .. } | Payload::Packed { body, .. } => out.put_slice(body),
        }
    }
}

/// Collects batches, then writes the entry.
#[derive(Debug, Default)]
pub struct EntryBuilder<'a> {
    batches: Vec<(NewBatch<'a>, FixedPart)>,
    table_len: usize,
    bodies_len: usize,
}

impl<'a> EntryBuilder<'a> {
    /// An entry without batches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a batch. After an error the builder is as before.
    pub fn push(&mut self, batch: NewBatch<'a>) -> Result<(), BuildError> {
        let count = batch.count()?;
        if !batch.event_schemas.is_empty() {
            check_count(count, batch.event_schemas.len(), "schemas")?;
        }
        if !batch.id_hashes.is_empty() {
            check_count(count, batch.id_hashes.len(), "id hashes")?;
        }
        if !batch.subject_hashes.is_empty() {
            check_count(count, batch.subject_hashes.len(), "subject hashes")?;
        }
        if let Some(settles) = batch.settles {
            check_count(count, settles.offsets.len(), "settled offsets")?;
        }
        let table_len = self.table_len.saturating_add(batch.header_len());
        let bodies_len = self.bodies_len.saturating_add(batch.body_len());
        let bytes = entry_len(table_len, bodies_len);
        if u32::try_from(bytes).is_err() {
            return Err(BuildError::TooLarge);
        }
        let fixed = FixedPart {
            partition: batch.partition,
            count,
            expected: batch.expected,
            body_len: u32::try_from(batch.body_len()).ok().ok_or(BuildError::TooLarge)?,
            flags: batch.flags(),
            packed: batch.packed(),
            schema: batch.schema,
        };
        (self.table_len, self.bodies_len) = (table_len, bodies_len);
        self.batches.push((batch, fixed));
        Ok(())
    }

    /// Number of batches.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether there is no batch yet.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes of the entry if it were finished now.
    pub fn bytes(&self) -> usize {
        entry_len(self.table_len, self.bodies_len)
    }

    /// Writes the entry.
    pub fn finish(self, time: Timestamp) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes());
        put_prefix(&mut out, Kind::Batches, time);
        // `push` kept the whole entry below 4 GiB.
        out.put_u32_le(u32::try_from(self.table_len).unwrap_or(u32::MAX));
        let mut header_ats = Vec::with_capacity(self.batches.len());
        for (batch, fixed) in &self.batches {
            header_ats.push(out.len());
            batch.put_header(&mut out, fixed);
        }
        for ((batch, _), header_at) in self.batches.iter().zip(header_ats) {
            let body_at = out.len();
            batch.put_body(&mut out);
            let crc = crc32c::crc32c(&out[body_at..]);
            let crc_at = header_at + batch::CRC_AT;
            out[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        }
        out.freeze()
    }
}

fn entry_len(table_len: usize, bodies_len: usize) -> usize {
    (PREFIX_LEN + 4).saturating_add(table_len).saturating_add(bodies_len)
}

fn check_count(events: NonZeroU32, found: usize, what: &'static str) -> Result<(), BuildError> {
    if usize::try_from(events.get()) == Ok(found) {
        Ok(())
    } else {
        Err(BuildError::CountMismatch { events: events.get(), found, what })
    }
}
