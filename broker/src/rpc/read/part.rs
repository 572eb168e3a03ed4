//! One partition of a read.

use bytes::Bytes;
use weft_proto::event::EventView;
use weft_proto::filter::{Candidate, Compiled};
use weft_proto::{Offset, PartitionId, PartitionUid, Result, v1};

use crate::access::Decision;
use crate::data::DataGroup;
use crate::planted::{self, Bug};
use crate::read::{Run, Tape};
use crate::resources::Resources;

/// The end of an open range.
pub(super) const END: Offset = Offset(u64::MAX);

/// One partition of a read.
pub(super) struct Part {
    pub(super) tape: Tape,
    pub(super) group: DataGroup,
    pub(super) uid: PartitionUid,
    pub(super) partition: PartitionId,
    pub(super) from: Offset,
    pub(super) to: Offset,
    /// The end when the read began.
    pub(super) caught_up: Offset,
    /// The client knows that this partition reached it, or does not care.
    pub(super) announced: bool,
    /// Events that were found so far, whether a filter lets them pass or not.
    pub(super) found: u64,
}

/// What all partitions of a read have in common.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) resources: Resources,
    pub(super) filters: Compiled,
    /// Which events the caller may see.
    pub(super) visible: Decision,
    /// Ways of compression that the reader understands, by their number on the wire.
    pub(super) accept: Vec<i32>,
}

/// What a read gives next.
pub(super) enum Step {
    Batches(Batches),
    CaughtUp,
}

/// Events of one partition.
pub(super) struct Batches {
    pub(super) partition: PartitionId,
    pub(super) found: Vec<v1::EventBatch>,
    /// Offsets without event up to here.
    pub(super) holes: u64,
}

impl Part {
    /// Reads on; nothing when nothing is there at present.
    pub(super) async fn read(&mut self, bytes_max: usize) -> Result<Vec<Run>> {
        let runs = self.tape.read(self.to, bytes_max).await?;
        self.found += runs.iter().map(|run| run.events.len() as u64).sum::<u64>();
        Ok(runs)
    }

    /// One past the last event that this node knows.
    pub(super) fn end(&self) -> Offset {
        self.group.bounds(self.uid).end
    }

    /// Offsets without event among those that were passed.
    pub(super) fn holes(&self) -> u64 {
        let passed = self.tape.next().get().saturating_sub(self.from.get());
        passed.saturating_sub(self.found)
    }

    /// The next step, or nothing at the end of the range.
    pub(super) async fn step(&mut self, shared: &Shared, bytes_max: usize) -> Result<Option<Step>> {
        loop {
            if self.tape.next() >= self.to {
                return Ok(None);
            }
            if !self.announced && self.tape.next() >= self.caught_up {
                self.announced = true;
                if planted::is(Bug::LiveEdgeSkipped) {
                    self.tape.seek(Offset(self.tape.next().get().saturating_add(1)));
                }
                return Ok(Some(Step::CaughtUp));
            }
            let runs = self.read(bytes_max).await?;
            if runs.is_empty() {
                self.tape.wait().await?;
                continue;
            }
            let found: Vec<_> =
                runs.into_iter().filter_map(|run| batch(self.partition, run, shared)).collect();
            if !found.is_empty() {
                let (partition, holes) = (self.partition, self.holes());
                return Ok(Some(Step::Batches(Batches { partition, found, holes })));
            }
        }
    }
}

/// A run as it goes over the wire, without what the filters leave out.
pub(super) fn batch(partition: PartitionId, run: Run, shared: &Shared) -> Option<v1::EventBatch> {
    let mut batch = v1::EventBatch {
        partition: partition.get(),
        first_offset: run.first.get(),
        append_time_us: run.time.as_micros(),
        schema: shared.resources.schema_ref(run.schema),
        ..v1::EventBatch::default()
    };
    if shared.filters.is_empty() && !shared.visible.is_by_event() {
        batch.packed = run.packed.filter(|packed| shared.accept.contains(&packed.codec));
        batch.events = run.events;
        return Some(batch);
    }
    let all = run.events.len();
    let passes = |event: &Bytes| {
        // Attributes are read in place; a payload is decoded only for a filter that asks for it.
        EventView::parse(event)
            .map(Candidate::new)
            .is_some_and(|event| shared.filters.passes(&event) && shared.visible.passes(&event))
    };
    let mut deltas = Vec::new();
    for (delta, event) in (0_u32..).zip(run.events) {
        if passes(&event) {
            deltas.push(delta);
            batch.events.push(event);
        }
    }
    if batch.events.is_empty() {
        return None;
    }
    if batch.events.len() < all {
        batch.offset_deltas = deltas;
    }
    Some(batch)
}
