//! How much the server may still send: what is unacknowledged stays below a limit. Pure.

use std::collections::BTreeMap;

use weft_proto::v1;

use super::acks::Held;

/// Partition, epoch, whether dead letters come again, and replay job: what numbers of events belong to.
pub(super) type Holding = (u32, u64, bool, u64);

/// A limit on delivered and unacknowledged events.
#[derive(Debug)]
pub(super) struct Credit {
    events_max: u32,
    bytes_max: u64,
    /// Size of each unacknowledged event, by holding and number.
    held: BTreeMap<Holding, BTreeMap<u64, u64>>,
    /// Freed and not yet given back to the server.
    free: v1::Credit,
}

impl Credit {
    pub(super) fn new(events_max: u32, bytes_max: u64) -> Self {
        let free = v1::Credit { events: events_max, bytes: bytes_max };
        Self { events_max, bytes_max, held: BTreeMap::new(), free }
    }

    pub(super) fn handle_delivery(
        &mut self,
        holding: Holding,
        events: impl Iterator<Item = (u64, usize)>,
    ) {
        let held = self.held.entry(holding).or_default();
        held.extend(events.map(|(offset, bytes)| (offset, bytes as u64)));
    }

    pub(super) fn handle_ack(&mut self, acked: &Held) {
        let Held { partition, epoch, redriven, replay_job, first, last } = *acked;
        let holding = (partition, epoch, redriven, replay_job);
        let Some(held) = self.held.get_mut(&holding) else { return };
        if first > last {
            return;
        }
        while let Some((&offset, &bytes)) = held.range(first..=last).next() {
            held.remove(&offset);
            self.free.events = self.free.events.saturating_add(1);
            self.free.bytes = self.free.bytes.saturating_add(bytes);
        }
    }

    /// The partition is gone; its events will be delivered to whoever holds it next.
    pub(super) fn handle_revoked(&mut self, partition: u32, epoch: u64) {
        for bytes in
            self.held.remove(&(partition, epoch, false, 0)).unwrap_or_default().into_values()
        {
            self.free.events = self.free.events.saturating_add(1);
            self.free.bytes = self.free.bytes.saturating_add(bytes);
        }
    }

    /// A new connection knows of no credit.
    pub(super) fn handle_broken(&mut self) {
        self.held.clear();
        self.free = v1::Credit { events: self.events_max, bytes: self.bytes_max };
    }

    /// What to give back now: a quarter of the limit at least, so that few frames do.
    pub(super) fn poll_credit(&mut self) -> Option<v1::Credit> {
        let enough = self.free.events >= self.events_max.div_ceil(4)
            || self.free.bytes >= self.bytes_max.div_ceil(4)
            || (self.free.events > 0 && self.held.values().all(BTreeMap::is_empty));
        enough.then(|| std::mem::take(&mut self.free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(partition: u32, epoch: u64, first: u64, last: u64) -> Held {
        Held { partition, epoch, redriven: false, replay_job: 0, first, last }
    }

    #[test]
    fn credit_comes_back_with_acknowledgements_and_only_once() {
        let mut credit = Credit::new(8, 800);
        assert_eq!(credit.poll_credit(), Some(v1::Credit { events: 8, bytes: 800 }));
        credit.handle_delivery((0, 1, false, 0), (10..14).map(|offset| (offset, 100)));

        credit.handle_ack(&held(0, 1, 10, 10));
        assert_eq!(credit.poll_credit(), None);
        credit.handle_ack(&held(0, 1, 10, 11));
        assert_eq!(credit.poll_credit(), Some(v1::Credit { events: 2, bytes: 200 }));
        credit.handle_ack(&held(0, 1, 10, 11));
        credit.handle_ack(&held(0, 2, 12, 13));
        assert_eq!(credit.poll_credit(), None);
    }

    #[test]
    fn a_lost_partition_frees_its_share_and_a_new_connection_starts_full() {
        let mut credit = Credit::new(8, 800);
        credit.poll_credit();
        credit.handle_delivery((3, 1, false, 0), (0..4).map(|offset| (offset, 1)));

        credit.handle_revoked(3, 1);
        assert_eq!(credit.poll_credit(), Some(v1::Credit { events: 4, bytes: 4 }));
        credit.handle_broken();
        assert_eq!(credit.poll_credit(), Some(v1::Credit { events: 8, bytes: 800 }));
    }
}
