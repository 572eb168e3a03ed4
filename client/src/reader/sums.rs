//! What was read of each partition, and whether the node saw the same.

use std::collections::BTreeMap;

use weft_proto::checksum::{PartitionChecksum, of_range};
use weft_proto::{Error, PartitionId, Reason, Result, v1};

use super::PartitionSummary;
use crate::batch::Batch;

/// Sums of one read.
pub(super) struct Sums {
    partitions: BTreeMap<PartitionId, (PartitionSummary, Option<PartitionChecksum>)>,
}

impl Sums {
    pub(super) fn new(partitions: &[u32], checksum: bool) -> Self {
        let sum = |partition| {
            let summary = PartitionSummary {
                partition,
                events: 0,
                bytes: 0,
                offsets: None,
                holes: None,
                sha256: None,
            };
            (partition, (summary, checksum.then(|| PartitionChecksum::new(partition))))
        };
        Self { partitions: partitions.iter().copied().map(PartitionId).map(sum).collect() }
    }

    pub(super) fn add(&mut self, batch: &Batch) {
        let Some((sum, checksum)) = self.partitions.get_mut(&batch.partition) else { return };
        let (Some((first, _)), Some((last, _))) = (batch.events.first(), batch.events.last())
        else {
            return;
        };
        sum.events += batch.events.len() as u64;
        sum.bytes += batch.bytes() as u64;
        sum.offsets = Some((sum.offsets.map_or(*first, |(first, _)| first), *last));
        if let Some(checksum) = checksum {
            batch.events.iter().for_each(|(offset, event)| checksum.add(*offset, event));
        }
    }

    /// Takes the sums of the node at the end of a range.
    ///
    /// # Errors
    ///
    /// `DataLoss` when the same events came over one connection, and their checksum differs.
    pub(super) fn end(&mut self, ends: &[v1::PartitionEnd], whole: bool) -> Result<()> {
        for end in ends.iter().filter(|_| whole) {
            let Some((sum, checksum)) = self.partitions.get_mut(&PartitionId(end.partition)) else {
                continue;
            };
            sum.holes = Some(end.holes);
            let own = checksum.as_ref().map(PartitionChecksum::value);
            // A limit on the number of events may have cut off what the node has counted.
            let comparable = sum.events == end.events && !end.sha256.is_empty();
            if comparable && own.is_some_and(|own| own[..] != end.sha256[..]) {
                let message = format!(
                    "the events of partition {} are not those that the node read",
                    end.partition
                );
                return Err(Error::new(Reason::DataLoss, message));
            }
        }
        Ok(())
    }

    pub(super) fn partitions(&self) -> Vec<PartitionSummary> {
        let sum = |(sum, checksum): &(PartitionSummary, Option<PartitionChecksum>)| {
            let sha256 = checksum.as_ref().map(PartitionChecksum::value);
            PartitionSummary { sha256, ..*sum }
        };
        self.partitions.values().map(sum).collect()
    }

    pub(super) fn checksum(&self) -> Option<[u8; 32]> {
        let value =
            |(partition, (_, checksum)): (&PartitionId, &(_, Option<PartitionChecksum>))| {
                Some((*partition, checksum.as_ref()?.value()))
            };
        let values: Vec<_> = self.partitions.iter().map(value).collect::<Option<_>>()?;
        Some(of_range(values.iter().map(|(partition, value)| (*partition, &value[..]))))
    }
}
