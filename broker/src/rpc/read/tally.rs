//! What a read has sent so far, and how it sums up.

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_proto::checksum::{PartitionChecksum, of_range};
use weft_proto::{Offset, PartitionId, v1};

use super::frame;
use super::part::Batches;
use crate::metrics as names;

/// Counts what is sent.
pub(super) struct Tally {
    events: u64,
    bytes: u64,
    events_max: u64,
    /// Signals until the client has all that was there when the read began.
    behind: usize,
    partitions: BTreeMap<PartitionId, Sum>,
}

#[derive(Default)]
struct Sum {
    events: u64,
    bytes: u64,
    first: Option<u64>,
    last: Option<u64>,
    holes: u64,
    checksum: Option<PartitionChecksum>,
}

impl Tally {
    pub(super) fn new(
        partitions: impl IntoIterator<Item = PartitionId>,
        (events_max, behind): (u64, usize),
        checksum: bool,
    ) -> Self {
        let sum = |partition| {
            let checksum = checksum.then(|| PartitionChecksum::new(partition));
            (partition, Sum { checksum, ..Sum::default() })
        };
        let partitions = partitions.into_iter().map(sum).collect();
        Self { events: 0, bytes: 0, events_max, behind, partitions }
    }

    pub(super) fn is_full(&self) -> bool {
        self.events_max > 0 && self.events >= self.events_max
    }

    /// Takes one of the signals; true if it was the last.
    pub(super) fn caught_up(&mut self) -> bool {
        self.behind = self.behind.saturating_sub(1);
        self.behind == 0
    }

    /// Counts events, and makes them frames; those above the limit are left out.
    pub(super) fn take(&mut self, step: Batches) -> Vec<v1::ReadResponse> {
        if let Some(sum) = self.partitions.get_mut(&step.partition) {
            sum.holes = step.holes;
        }
        let batches = step.found.into_iter();
        batches.filter_map(|batch| self.count(step.partition, batch)).collect()
    }

    fn count(
        &mut self,
        partition: PartitionId,
        mut batch: v1::EventBatch,
    ) -> Option<v1::ReadResponse> {
        if self.events_max > 0 {
            let left = usize::try_from(self.events_max - self.events.min(self.events_max));
            batch.events.truncate(left.unwrap_or(usize::MAX));
            batch.offset_deltas.truncate(batch.events.len());
        }
        if batch.events.is_empty() {
            return None;
        }
        let (events, bytes) =
            (batch.events.len() as u64, batch.events.iter().map(Bytes::len).sum::<usize>() as u64);
        self.events += events;
        self.bytes += bytes;
        if let Some(sum) = self.partitions.get_mut(&partition) {
            sum.add(&batch, bytes);
        }
        // Counted as they are; sent as they were published, if that is still the whole batch.
        match &batch.packed {
            Some(packed) if u64::from(packed.count) == events => batch.events.clear(),
            _ => batch.packed = None,
        }
        metrics::counter!(names::READ_EVENTS).increment(events);
        metrics::counter!(names::READ_BYTES).increment(bytes);
        Some(frame(v1::read_response::Frame::Batch(batch)))
    }

    pub(super) fn end(&self) -> v1::ReadResponse {
        let partitions: Vec<_> = self.partitions.iter().map(Sum::end).collect();
        let sums = self.partitions.keys().copied().zip(&partitions);
        let all: Vec<_> = sums.map(|(partition, end)| (partition, end.sha256.as_ref())).collect();
        let asked = self.partitions.values().any(|sum| sum.checksum.is_some());
        let sha256 = if asked { Bytes::copy_from_slice(&of_range(all)) } else { Bytes::default() };
        let end = v1::ReadEnd { events: self.events, bytes: self.bytes, partitions, sha256 };
        frame(v1::read_response::Frame::End(end))
    }
}

impl Sum {
    fn add(&mut self, batch: &v1::EventBatch, bytes: u64) {
        self.events += batch.events.len() as u64;
        self.bytes += bytes;
        for (place, event) in (0_u32..).zip(&batch.events) {
            let delta = batch.offset_deltas.get(place as usize).copied().unwrap_or(place);
            let offset = batch.first_offset.saturating_add(delta.into());
            self.first.get_or_insert(offset);
            self.last = Some(offset);
            if let Some(checksum) = &mut self.checksum {
                checksum.add(Offset(offset), event);
            }
        }
    }

    fn end((partition, sum): (&PartitionId, &Self)) -> v1::PartitionEnd {
        let checksum = sum.checksum.as_ref().map(PartitionChecksum::value);
        v1::PartitionEnd {
            partition: partition.get(),
            events: sum.events,
            bytes: sum.bytes,
            first: sum.first,
            last: sum.last,
            holes: sum.holes,
            sha256: checksum.map_or_else(Bytes::default, |sum| Bytes::copy_from_slice(&sum)),
        }
    }
}
