//! What a member holds of one partition, so that the next leader can leave it to it. Pure.

use std::collections::BTreeMap;

use weft_proto::{internal, v1};

use crate::lend::LaneKey;

/// Runs of leases that are remembered; beyond it the oldest are left to their deadline.
const RUNS_LEN: usize = 8_192;

/// Leases of one partition, as runs of events that follow each other.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By what they were lent from, epoch and first lease.
    runs: BTreeMap<(LaneKey, u64, u64), Run>,
    /// Epochs of the last desks that knew of them.
    last: BTreeMap<LaneKey, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first_offset: u64,
    count: u32,
    attempt: u32,
}

impl Held {
    /// Events were lent.
    pub(super) fn deliver(&mut self, delivery: &v1::Delivery) {
        let (Some(batch), Some(first_lease)) = (&delivery.batch, delivery.first_lease) else {
            return;
        };
        let lane = LaneKey::from(delivery);
        // One that was opened since the desk was knows them, too.
        self.last.insert(lane, delivery.epoch);
        let mut open: Option<((LaneKey, u64, u64), Run)> = None;
        // Without its events, a batch has the place of each.
        for place in 0..batch.events.len().max(batch.offset_deltas.len()) {
            let delta = batch.offset_deltas.get(place).map_or(place as u64, |&delta| delta.into());
            let offset = batch.first_offset.saturating_add(delta);
            let attempt = delivery.attempts.get(place).copied().unwrap_or(1);
            match &mut open {
                Some((_, run))
                    if run.attempt == attempt
                        && run.first_offset.saturating_add(run.count.into()) == offset =>
                {
                    run.count = run.count.saturating_add(1);
                }
                _ => {
                    self.runs.extend(open.take());
                    let lease = first_lease.saturating_add(place as u64);
                    let run = Run { first_offset: offset, count: 1, attempt };
                    open = Some(((lane, delivery.epoch, lease), run));
                }
            }
        }
        self.runs.extend(open);
        while self.runs.len() > RUNS_LEN {
            self.runs.pop_first();
        }
    }

    /// A desk took them on, but for those.
    pub(super) fn taken(&mut self, opened: &internal::Opened) {
        for void in &opened.void {
            let last = void.first_lease.saturating_add(void.count.saturating_sub(1).into());
            self.remove((LaneKey::from(void), void.epoch), (void.first_lease, last));
        }
        let epoch = opened.assigned.map_or(0, |assigned| assigned.epoch);
        let beside = opened.beside.iter().map(|lane| {
            let internal::BesideLane { redriven, replay_job, epoch } = *lane;
            (LaneKey { redriven, replay_job }, epoch)
        });
        self.last = beside.chain([(LaneKey::default(), epoch)]).collect();
    }

    /// Leases end with this, whatever the answer.
    pub(super) fn settle(&mut self, settle: &v1::Settle) {
        let nacks = settle.nacks.iter().filter_map(|nack| nack.leases.as_ref());
        let rejects = settle.rejects.iter().filter_map(|reject| reject.leases.as_ref());
        for range in settle.acks.iter().chain(nacks).chain(rejects) {
            self.remove((LaneKey::from(range), range.epoch), (range.first, range.last));
        }
    }

    fn remove(&mut self, (lane, epoch): (LaneKey, u64), (first, last): (u64, u64)) {
        let key = |lease: u64| (lane, epoch, lease);
        let before = self.runs.range(..key(first)).next_back();
        let mut cut: Vec<(LaneKey, u64, u64)> = before
            .filter(|((own, under, begin), run)| {
                (*own, *under) == (lane, epoch) && begin.saturating_add(run.count.into()) > first
            })
            .map(|(key, _)| *key)
            .into_iter()
            .collect();
        if first <= last {
            cut.extend(self.runs.range(key(first)..=key(last)).map(|(key, _)| *key));
        }
        for place in cut {
            let Some(run) = self.runs.remove(&place) else { continue };
            let end = place.2.saturating_add(run.count.into());
            let mut put = |from: u64, to: u64| {
                if let Ok(count) = u32::try_from(to.saturating_sub(from))
                    && count > 0
                {
                    let first_offset = run.first_offset.saturating_add(from - place.2);
                    self.runs.insert(key(from), Run { first_offset, count, ..run });
                }
            };
            put(place.2, first.min(end));
            put(last.saturating_add(1).max(place.2), end);
        }
    }

    /// As another leader is told.
    pub(super) fn to_wire(&self) -> Vec<internal::HeldLeases> {
        let held = |(&(lane, epoch, first_lease), run): (&(LaneKey, u64, u64), &Run)| {
            let Run { first_offset, count, attempt } = *run;
            let LaneKey { redriven, replay_job } = lane;
            let last = self.last.get(&lane).copied().unwrap_or_default();
            internal::HeldLeases {
                epoch,
                first_lease,
                first_offset,
                count,
                attempt,
                redriven,
                last,
                replay_job,
            }
        };
        self.runs.iter().map(held).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(first_lease: u64, offsets: &[u64], attempts: &[u32]) -> v1::Delivery {
        let deltas = offsets.iter().map(|offset| u32::try_from(offset - offsets[0]).unwrap());
        let batch = v1::EventBatch {
            first_offset: offsets[0],
            offset_deltas: deltas.collect(),
            events: offsets.iter().map(|_| bytes::Bytes::new()).collect(),
            ..v1::EventBatch::default()
        };
        v1::Delivery {
            epoch: 1,
            batch: Some(batch),
            first_lease: Some(first_lease),
            attempts: attempts.to_vec(),
            redriven: false,
            replay_job: 0,
        }
    }

    fn acked(held: &mut Held, first: u64, last: u64) {
        let range = v1::SettledRange { epoch: 1, first, last, ..v1::SettledRange::default() };
        held.settle(&v1::Settle { acks: vec![range], ..v1::Settle::default() });
    }

    fn runs(held: &Held) -> Vec<(u64, u64, u32, u32)> {
        let run = |held: internal::HeldLeases| {
            (held.first_lease, held.first_offset, held.count, held.attempt)
        };
        held.to_wire().into_iter().map(run).collect()
    }

    #[test]
    fn neighbours_share_a_run_until_they_are_settled() {
        let mut held = Held::default();
        held.deliver(&delivery(10, &[5, 6, 7, 9, 10], &[]));
        held.deliver(&delivery(15, &[20, 21], &[1, 2]));
        assert_eq!(runs(&held), [(10, 5, 3, 1), (13, 9, 2, 1), (15, 20, 1, 1), (16, 21, 1, 2)]);

        acked(&mut held, 11, 11);
        assert_eq!(runs(&held)[..2], [(10, 5, 1, 1), (12, 7, 1, 1)]);
        acked(&mut held, 12, 15);
        assert_eq!(runs(&held), [(10, 5, 1, 1), (16, 21, 1, 2)]);
        acked(&mut held, 0, u64::MAX);
        assert_eq!(runs(&held), []);
        acked(&mut held, 5, 3);
    }
}
