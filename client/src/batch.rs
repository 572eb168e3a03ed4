//! Events as they are read: in batches, or one by one.

use bytes::Bytes;
use weft_proto::packed::{self, PACKED_BYTES_MAX};
use weft_proto::{Error, Offset, PartitionId, Result, Timestamp, v1};

/// Consecutive events of one partition with one append time and one schema version.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Their partition.
    pub partition: PartitionId,
    /// When the partition's leader took them.
    pub append_time: Timestamp,
    /// The schema version that they fitted when they were accepted, if one governed them.
    pub schema: Option<v1::SchemaRef>,
    /// Offset and encoded `CloudEvent`, by rising offset.
    pub events: Vec<(Offset, Bytes)>,
}

/// One event as it is read.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its partition.
    pub partition: PartitionId,
    /// Its place in the partition.
    pub offset: Offset,
    /// When the partition's leader took it.
    pub append_time: Timestamp,
    /// The schema version that it fitted when it was accepted, if one governed it.
    pub schema: Option<v1::SchemaRef>,
    /// The encoded `CloudEvent`, as it was published.
    pub event: Bytes,
}

impl Batch {
    /// The events one by one.
    pub fn into_records(self) -> impl Iterator<Item = Record> {
        let Self { partition, append_time, schema, events } = self;
        events.into_iter().map(move |(offset, event)| Record {
            partition,
            offset,
            append_time,
            schema: schema.clone(),
            event,
        })
    }

    /// Bytes of all events.
    pub fn bytes(&self) -> usize {
        self.events.iter().map(|(_, event)| event.len()).sum()
    }

    /// Reads the wire form; leaves out what lies below `from`.
    pub(crate) fn from_wire(mut batch: v1::EventBatch, from: u64) -> Result<Self> {
        if let Some(packed) = batch.packed.take() {
            batch.events = packed::unpack(&packed, PACKED_BYTES_MAX)?;
        }
        let wrong = || Error::internal("a node sent a batch with wrong offsets");
        let dense = batch.offset_deltas.is_empty();
        if !dense && batch.offset_deltas.len() != batch.events.len() {
            return Err(wrong());
        }
        let mut events = Vec::with_capacity(batch.events.len());
        let mut next = from;
        for (place, event) in (0_u64..).zip(batch.events) {
            let delta = match usize::try_from(place).ok().and_then(|at| batch.offset_deltas.get(at))
            {
                Some(&delta) => u64::from(delta),
                None => place,
            };
            let offset = batch.first_offset.checked_add(delta).ok_or_else(wrong)?;
            if offset < from {
                continue;
            }
            if offset < next {
                return Err(wrong());
            }
            next = offset.checked_add(1).ok_or_else(wrong)?;
            events.push((Offset(offset), event));
        }
        Ok(Self {
            partition: PartitionId(batch.partition),
            append_time: Timestamp::from_micros(batch.append_time_us),
            schema: batch.schema,
            events,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(first_offset: u64, count: usize, offset_deltas: &[u32]) -> v1::EventBatch {
        v1::EventBatch {
            events: vec![Bytes::from_static(b"e"); count],
            first_offset,
            offset_deltas: offset_deltas.to_vec(),
            ..v1::EventBatch::default()
        }
    }

    fn offsets(batch: v1::EventBatch, from: u64) -> Option<Vec<u64>> {
        let batch = Batch::from_wire(batch, from).ok()?;
        Some(batch.events.iter().map(|(offset, _)| offset.get()).collect())
    }

    #[test]
    fn what_was_seen_is_left_out() {
        assert_eq!(offsets(wire(5, 3, &[]), 0), Some(vec![5, 6, 7]));
        assert_eq!(offsets(wire(5, 3, &[]), 6), Some(vec![6, 7]));
        assert_eq!(offsets(wire(5, 2, &[0, 9]), 6), Some(vec![14]));
        assert_eq!(offsets(wire(5, 1, &[]), 6), Some(vec![]));
    }

    #[test]
    fn wrong_offsets_are_errors() {
        assert_eq!(offsets(wire(5, 2, &[1]), 0), None);
        assert_eq!(offsets(wire(5, 2, &[3, 3]), 0), None);
        assert_eq!(offsets(wire(u64::MAX, 2, &[]), 0), None);
    }
}
