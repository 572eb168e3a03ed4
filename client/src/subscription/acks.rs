//! Acknowledgements on their way: joined into ranges, repeated after a broken connection. Pure.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::v1;

/// Acknowledgements joined into one frame.
const JOINED_MAX: usize = 4_096;

/// Events that a member holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) redriven: bool,
    /// 0 for none.
    pub(super) replay_job: u64,
    pub(super) first: u64,
    /// Inclusive.
    pub(super) last: u64,
}

impl Held {
    /// The event of one lease, for who was told of it otherwise than by a
    /// [`Delivery`](super::Delivery).
    pub const fn of_lease(partition: u32, epoch: u64, lease: u64) -> Self {
        Self { partition, epoch, redriven: false, replay_job: 0, first: lease, last: lease }
    }

    /// The first lease; where nothing is lent, the first offset.
    pub const fn first(&self) -> u64 {
        self.first
    }

    fn to_wire(self) -> v1::SettledRange {
        let Self { partition, epoch, redriven, replay_job, first, last } = self;
        v1::SettledRange { partition, epoch, first, last, redriven, replay_job }
    }

    fn meets(&self, range: &v1::SettledRange) -> bool {
        (self.partition, self.epoch, self.redriven, self.replay_job)
            == (range.partition, range.epoch, range.redriven, range.replay_job)
            && self.first <= range.last
            && range.first <= self.last
    }
}

/// What is done with events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Ack,
    Nack { delay_ms: Option<u64>, reason: String, uncounted: bool },
    Reject { reason: String },
    Extend { by_ms: Option<u64> },
}

/// What one call does; `W` waits for the answer.
#[derive(Debug)]
pub(super) struct Ack<W> {
    pub(super) held: Held,
    pub(super) act: Act,
    pub(super) waiter: W,
}

/// What an answer means to one waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Done,
    /// The event was settled before, by this lease or a later one.
    Before,
    /// A newer member, or a newer connection of this one, holds the partition.
    Fenced,
    /// The lease ended before.
    Expired,
    /// Nobody knows of the lease any more.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Acks<W> {
    waiting: Vec<Ack<W>>,
    /// Sent and not answered, by tag.
    sent: BTreeMap<u64, Vec<Ack<W>>>,
    next_tag: u64,
}

impl<W> Acks<W> {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), sent: BTreeMap::new(), next_tag: 1 }
    }

    pub(super) fn add(&mut self, ack: Ack<W>) {
        self.waiting.push(ack);
    }

    /// Number of acknowledgements that are not sent.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits, neither for sending nor for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    /// Whether answers are due.
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }

    /// The next frame to send.
    pub(super) fn poll_settle(&mut self) -> Option<v1::Settle> {
        if self.waiting.is_empty() {
            return None;
        }
        let rest = self.waiting.split_off(self.waiting.len().min(JOINED_MAX));
        let mut joined = std::mem::replace(&mut self.waiting, rest);
        joined.sort_by_key(|ack| ack.held);
        let tag = self.next_tag;
        self.next_tag += 1;
        let mut settle = v1::Settle { tag, ..v1::Settle::default() };
        for Ack { held, act, .. } in &joined {
            let leases = Some(held.to_wire());
            match act {
                Act::Ack => join(&mut settle.acks, *held),
                Act::Nack { delay_ms, reason, uncounted } => settle.nacks.push(v1::Nack {
                    leases,
                    delay_ms: *delay_ms,
                    reason: reason.clone(),
                    uncounted: *uncounted,
                }),
                Act::Reject { reason } => {
                    settle.rejects.push(v1::Reject { leases, reason: reason.clone() });
                }
                Act::Extend { by_ms } => {
                    settle.extends.push(v1::Extend { leases, by_ms: *by_ms });
                }
            }
        }
        self.sent.insert(tag, joined);
        Some(settle)
    }

    /// Who waited for this answer, and what it says to each.
    pub(super) fn handle_settled(
        &mut self,
        settled: &v1::Settled,
    ) -> impl Iterator<Item = (W, Settled)> + use<W> {
        let fenced: BTreeSet<u32> = settled.fenced.iter().copied().collect();
        let refused = settled.refused.clone();
        let acks = self.sent.remove(&settled.tag).unwrap_or_default();
        acks.into_iter().map(move |ack| {
            let own = refused
                .iter()
                .find(|refused| refused.leases.is_some_and(|range| ack.held.meets(&range)));
            let fate = match own.map(v1::RefusedLeases::why) {
                Some(v1::Refused::Expired) => Settled::Expired,
                Some(v1::Refused::Fenced) => Settled::Fenced,
                Some(v1::Refused::SettledBefore) => Settled::Before,
                Some(_) => Settled::Unknown,
                None if fenced.contains(&ack.held.partition) => Settled::Fenced,
                None => Settled::Done,
            };
            (ack.waiter, fate)
        })
    }

    /// The connection broke: what has no answer goes again. Repeating a settle is harmless.
    pub(super) fn handle_broken(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        let again: Vec<_> = sent.into_values().flatten().collect();
        self.waiting.splice(0..0, again);
    }

    /// Everyone who waits.
    pub(super) fn into_waiters(self) -> impl Iterator<Item = W> {
        let sent = self.sent.into_values().flatten();
        sent.chain(self.waiting).map(|ack| ack.waiter)
    }
}

/// Adds to ranges that rise, joining what touches.
fn join(ranges: &mut Vec<v1::SettledRange>, held: Held) {
    match ranges.last_mut() {
        Some(range)
            if (range.partition, range.epoch, range.redriven, range.replay_job)
                == (held.partition, held.epoch, held.redriven, held.replay_job)
                && held.first <= range.last.saturating_add(1) =>
        {
            range.last = range.last.max(held.last);
        }
        _ => ranges.push(held.to_wire()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(acks: &mut Acks<u64>, partition: u32, epoch: u64, offset: u64) {
        act(acks, (partition, epoch, offset), Act::Ack);
    }

    fn act(acks: &mut Acks<u64>, (partition, epoch, number): (u32, u64, u64), act: Act) {
        let held =
            Held { partition, epoch, redriven: false, replay_job: 0, first: number, last: number };
        acks.add(Ack { held, act, waiter: number });
    }

    #[test]
    fn each_act_goes_its_own_way_and_refusals_find_theirs() {
        let mut acks = Acks::new();
        add(&mut acks, 0, 1, 1);
        act(
            &mut acks,
            (0, 1, 2),
            Act::Nack { delay_ms: Some(5), reason: "no".into(), uncounted: true },
        );
        act(&mut acks, (0, 1, 3), Act::Reject { reason: "bad".into() });
        act(&mut acks, (0, 1, 4), Act::Extend { by_ms: None });
        add(&mut acks, 0, 1, 5);
        add(&mut acks, 0, 1, 7);

        let settle = acks.poll_settle().unwrap();
        let ranges: Vec<_> = settle.acks.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(ranges, [(1, 1), (5, 5), (7, 7)]);
        assert!(settle.nacks[0].uncounted && settle.nacks[0].delay_ms == Some(5));
        assert_eq!((settle.rejects[0].reason.as_str(), settle.extends.len()), ("bad", 1));

        let refused = |first, last, why: v1::Refused| v1::RefusedLeases {
            leases: Some(v1::SettledRange { epoch: 1, first, last, ..v1::SettledRange::default() }),
            why: why.into(),
        };
        let refused = vec![
            refused(2, 3, v1::Refused::Expired),
            refused(5, 5, v1::Refused::Unknown),
            refused(7, 7, v1::Refused::SettledBefore),
        ];
        let settled = v1::Settled { tag: settle.tag, refused, ..v1::Settled::default() };
        let fates: Vec<_> = acks.handle_settled(&settled).collect();
        let expired = Settled::Expired;
        let wanted = [
            (1, Settled::Done),
            (2, expired),
            (3, expired),
            (4, Settled::Done),
            (5, Settled::Unknown),
            (7, Settled::Before),
        ];
        assert_eq!(fates, wanted);
    }

    #[test]
    fn neighbours_are_joined_whatever_their_order() {
        let mut acks = Acks::new();
        for offset in [7, 5, 6, 9, 5] {
            add(&mut acks, 0, 1, offset);
        }
        add(&mut acks, 0, 2, 8);
        add(&mut acks, 1, 1, 10);

        let settle = acks.poll_settle().unwrap();

        let ranges: Vec<_> =
            settle.acks.iter().map(|r| (r.partition, r.epoch, r.first, r.last)).collect();
        assert_eq!(ranges, [(0, 1, 5, 7), (0, 1, 9, 9), (0, 2, 8, 8), (1, 1, 10, 10)]);
        assert!(acks.poll_settle().is_none());
    }

    #[test]
    fn each_waiter_learns_its_own_fate_once() {
        let mut acks = Acks::new();
        add(&mut acks, 0, 1, 5);
        add(&mut acks, 1, 1, 6);
        let tag = acks.poll_settle().unwrap().tag;
        let settled = v1::Settled { tag, fenced: vec![1], ..v1::Settled::default() };

        let fates: Vec<_> = acks.handle_settled(&settled).collect();

        assert_eq!(fates, [(5, Settled::Done), (6, Settled::Fenced)]);
        assert_eq!(acks.handle_settled(&settled).count(), 0);
        assert!(acks.is_empty());
    }

    #[test]
    fn what_has_no_answer_is_sent_again() {
        let mut acks = Acks::new();
        add(&mut acks, 0, 1, 5);
        let first = acks.poll_settle().unwrap();
        add(&mut acks, 0, 1, 6);

        acks.handle_broken();
        let again = acks.poll_settle().unwrap();

        assert_ne!(again.tag, first.tag);
        assert_eq!((again.acks[0].first, again.acks[0].last), (5, 6));
    }
}
