//! Acknowledgements on their way: joined into ranges, repeated after a broken connection. Pure.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::v1;

/// Acknowledgements joined into one frame.
const JOINED_MAX: usize = 4_096;

/// Events that one call acknowledges; `W` waits for the answer.
#[derive(Debug)]
pub(super) struct Ack<W> {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) first: u64,
    /// Inclusive.
    pub(super) last: u64,
    pub(super) waiter: W,
}

/// What an answer means to one waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Done,
    /// A newer member, or a newer connection of this one, holds the partition.
    Fenced,
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
        joined.sort_by_key(|ack| (ack.partition, ack.epoch, ack.first));
        let mut ranges: Vec<v1::SettledRange> = Vec::new();
        for ack in &joined {
            match ranges.last_mut() {
                Some(range)
                    if (range.partition, range.epoch) == (ack.partition, ack.epoch)
                        && ack.first <= range.last.saturating_add(1) =>
                {
                    range.last = range.last.max(ack.last);
                }
                _ => ranges.push(v1::SettledRange {
                    partition: ack.partition,
                    epoch: ack.epoch,
                    first: ack.first,
                    last: ack.last,
                }),
            }
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        self.sent.insert(tag, joined);
        Some(v1::Settle { tag, acks: ranges })
    }

    /// Who waited for this answer, and what it says to each.
    pub(super) fn handle_settled(
        &mut self,
        settled: &v1::Settled,
    ) -> impl Iterator<Item = (W, Settled)> + use<W> {
        let fenced: BTreeSet<u32> = settled.fenced.iter().copied().collect();
        let acks = self.sent.remove(&settled.tag).unwrap_or_default();
        acks.into_iter().map(move |ack| {
            let fate =
                if fenced.contains(&ack.partition) { Settled::Fenced } else { Settled::Done };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn add(acks: &mut Acks<u64>, partition: u32, epoch: u64, offset: u64) {
        acks.add(Ack { partition, epoch, first: offset, last: offset, waiter: offset });
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
        let settled = v1::Settled { tag, fenced: vec![1] };

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
