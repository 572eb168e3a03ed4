//! Events of leases from this node's own replica: the leader says which, the payload need not come from
//! there.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::timeout;
use weft_proto::{Error, Offset, Reason, Result, v1};

use crate::data::DataGroup;
use crate::lend;
use crate::read::{History, Run, Tape};
use crate::resources::{Placement, Resources};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Below this distance it is cheaper to read on than to look for the place.
const NEAR: u64 = 256;
/// How long this replica may be behind the leader.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads the events of one partition.
pub(super) struct Filler {
    group: DataGroup,
    placement: Placement,
    resources: Resources,
    tape: Tape,
}

/// Leases with their events.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub(super) deliveries: Vec<v1::Delivery>,
    /// Leases of events that retention took meanwhile.
    pub(super) gone: Vec<u64>,
}

/// A lease without its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    offset: u64,
    lease: u64,
    attempt: u32,
}

/// How many leases a frame without events is about.
pub(super) fn count(delivery: &v1::Delivery) -> usize {
    delivery.batch.as_ref().map_or(0, |batch| batch.offset_deltas.len())
}

fn wanted(delivery: &v1::Delivery) -> VecDeque<Wanted> {
    let (Some(batch), Some(first)) = (&delivery.batch, delivery.first_lease) else {
        return VecDeque::new();
    };
    let deltas = batch.offset_deltas.iter().enumerate();
    deltas
        .map(|(place, &delta)| Wanted {
            offset: batch.first_offset.saturating_add(delta.into()),
            lease: first.saturating_add(place as u64),
            attempt: delivery.attempts.get(place).copied().unwrap_or(1),
        })
        .collect()
}

impl Filler {
    pub(super) fn new(
        group: DataGroup,
        placement: Placement,
        resources: Resources,
        history: History,
    ) -> Self {
        let tape = Tape::new(group.clone(), placement.uid, history, Offset(0));
        Self { group, placement, resources, tape }
    }

    /// Finds the events of leases.
    ///
    /// # Errors
    ///
    /// `Unavailable` when this replica does not have them in time.
    pub(super) async fn fill(&mut self, granted: &v1::Delivery) -> Result<Filled> {
        let mut wanted = wanted(granted);
        let mut filled = Filled::default();
        while let Some(&Wanted { offset, lease, .. }) = wanted.front() {
            if offset < self.group.bounds(self.placement.uid).floor.get() {
                filled.gone.push(lease);
                wanted.pop_front();
                continue;
            }
            let next = self.tape.next().get();
            if next > offset || offset - next > NEAR {
                self.tape.seek(Offset(offset));
            }
            let runs = match self.tape.read(Offset(end_of_first(&wanted)), READ_BYTES).await {
                Ok(runs) => runs,
                // The way to the first of them leads over what retention took.
                Err(error) if error.reason() == Reason::OffsetOutOfRange => {
                    self.tape.seek(Offset(offset));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if runs.is_empty() {
                let late = |_elapsed| Error::unavailable("this replica is behind its leader");
                timeout(PATIENCE, self.tape.wait()).await.map_err(late)??;
            }
            for run in runs {
                self.take(run, granted.epoch, &mut wanted, &mut filled);
            }
        }
        filled.deliveries.iter_mut().for_each(lend::tidy);
        Ok(filled)
    }

    /// Puts the wanted events of a run into a delivery of their own.
    fn take(&self, run: Run, epoch: u64, wanted: &mut VecDeque<Wanted>, filled: &mut Filled) {
        let schema = self.resources.schema_ref(run.schema);
        let mut open: Option<v1::Delivery> = None;
        for (number, event) in (0_u64..).zip(run.events) {
            let offset = run.first.get().saturating_add(number);
            let Some(&lease) = wanted.front() else { break };
            if lease.offset != offset {
                continue;
            }
            wanted.pop_front();
            let delivery = open.get_or_insert_with(|| v1::Delivery {
                epoch,
                batch: Some(v1::EventBatch {
                    partition: self.placement.partition.get(),
                    first_offset: offset,
                    append_time_us: run.time.as_micros(),
                    schema: schema.clone(),
                    ..v1::EventBatch::default()
                }),
                first_lease: Some(lease.lease),
                ..v1::Delivery::default()
            });
            delivery.attempts.push(lease.attempt);
            if let Some(batch) = &mut delivery.batch {
                let delta = u32::try_from(offset - batch.first_offset).unwrap_or(u32::MAX);
                batch.offset_deltas.push(delta);
                batch.events.push(event);
            }
        }
        filled.deliveries.extend(open);
    }
}

/// One past the last of the leases that lie near each other.
fn end_of_first(wanted: &VecDeque<Wanted>) -> u64 {
    let mut last = wanted.front().map_or(0, |first| first.offset);
    for next in wanted {
        if next.offset < last || next.offset - last > NEAR {
            break;
        }
        last = next.offset;
    }
    last.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(first: u64, deltas: &[u32], attempts: &[u32]) -> v1::Delivery {
        let batch = v1::EventBatch {
            first_offset: first,
            offset_deltas: deltas.to_vec(),
            ..v1::EventBatch::default()
        };
        v1::Delivery {
            epoch: 3,
            batch: Some(batch),
            first_lease: Some(70),
            attempts: attempts.to_vec(),
            redriven: false,
            replay_job: 0,
        }
    }

    #[test]
    fn a_frame_without_events_names_them() {
        let delivery = granted(10, &[0, 1, 5], &[]);

        let found: Vec<_> = wanted(&delivery).into();

        let one = |offset, lease| Wanted { offset, lease, attempt: 1 };
        assert_eq!(found, [one(10, 70), one(11, 71), one(15, 72)]);
        assert_eq!(count(&delivery), 3);
        assert_eq!(wanted(&granted(10, &[0], &[4]))[0].attempt, 4);
    }

    #[test]
    fn what_lies_near_each_other_is_read_at_once() {
        let end = |deltas: &[u32]| end_of_first(&wanted(&granted(10, deltas, &[])));

        assert_eq!(end(&[0]), 11);
        assert_eq!(end(&[0, 1, 2]), 13);
        assert_eq!(end(&[0, 200, 400, 1_000]), 411);
        assert_eq!(end_of_first(&VecDeque::new()), 1);
    }
}
