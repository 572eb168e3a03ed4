//! Settle frames that are answered once what they changed is committed. Pure.

use std::collections::BTreeMap;

use weft_proto::v1;

use crate::subscription::desk::{ChangeNo, LeaseId, MemberId, Verdict};

/// A change, by the lane it belongs to.
pub(super) type Place = (usize, ChangeNo);

/// Settle frames that wait.
#[derive(Debug, Default)]
pub(super) struct Waits {
    next: u64,
    open: BTreeMap<u64, Wait>,
    by_change: BTreeMap<Place, Vec<u64>>,
}

#[derive(Debug)]
struct Wait {
    member: MemberId,
    settled: v1::Settled,
    left: usize,
}

/// A settle frame as it is worked through.
#[derive(Debug)]
pub(super) struct Frame {
    settled: v1::Settled,
    changes: Vec<Place>,
}

impl Frame {
    pub(super) fn new(tag: u64) -> Self {
        Self { settled: v1::Settled { tag, ..v1::Settled::default() }, changes: Vec::new() }
    }

    /// The answer, whatever is committed.
    pub(super) fn into_settled(self) -> v1::Settled {
        self.settled
    }

    /// Takes the verdicts about leases of one range.
    pub(super) fn take(
        &mut self,
        lane: usize,
        range: &v1::SettledRange,
        verdicts: &[(LeaseId, LeaseId, Verdict)],
    ) {
        for &(first, last, verdict) in verdicts {
            let why = match verdict {
                Verdict::Pending(no) => {
                    if !self.changes.contains(&(lane, no)) {
                        self.changes.push((lane, no));
                    }
                    continue;
                }
                Verdict::Done | Verdict::Extended => continue,
                Verdict::Before => v1::Refused::SettledBefore,
                Verdict::Expired => v1::Refused::Expired,
                Verdict::Fenced => v1::Refused::Fenced,
                Verdict::Unknown => v1::Refused::Unknown,
            };
            let leases = Some(v1::SettledRange { first: first.0, last: last.0, ..*range });
            self.settled.refused.push(v1::RefusedLeases { leases, why: why.into() });
        }
    }
}

impl Waits {
    /// Keeps a frame until its changes are committed; gives the answer if there are none.
    pub(super) fn add(&mut self, member: MemberId, frame: Frame) -> Option<v1::Settled> {
        let Frame { settled, changes } = frame;
        if changes.is_empty() {
            return Some(settled);
        }
        let number = self.next;
        self.next += 1;
        self.open.insert(number, Wait { member, settled, left: changes.len() });
        for place in changes {
            self.by_change.entry(place).or_default().push(number);
        }
        None
    }

    /// Whether somebody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A change is committed; gives what is answered now.
    pub(super) fn committed(&mut self, place: Place) -> Vec<(MemberId, v1::Settled)> {
        let mut answers = Vec::new();
        for number in self.by_change.remove(&place).unwrap_or_default() {
            let Some(wait) = self.open.get_mut(&number) else { continue };
            wait.left -= 1;
            if wait.left == 0
                && let Some(wait) = self.open.remove(&number)
            {
                answers.push((wait.member, wait.settled));
            }
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u64, changes: &[(usize, u64)]) -> Frame {
        let mut frame = Frame::new(tag);
        for &(lane, no) in changes {
            let verdict = (LeaseId(1), LeaseId(1), Verdict::Pending(ChangeNo(no)));
            frame.take(lane, &v1::SettledRange::default(), &[verdict]);
        }
        frame
    }

    #[test]
    fn a_frame_is_answered_after_the_last_of_its_changes() {
        let mut waits = Waits::default();
        assert!(waits.add(MemberId(1), frame(7, &[(0, 1), (0, 2), (0, 1), (1, 1)])).is_none());
        assert!(waits.add(MemberId(2), frame(8, &[(0, 1)])).is_none());
        let tags = |answers: Vec<(MemberId, v1::Settled)>| -> Vec<(u64, u64)> {
            answers.into_iter().map(|(member, settled)| (member.0, settled.tag)).collect()
        };

        assert_eq!(tags(waits.committed((0, ChangeNo(1)))), [(2, 8)]);
        assert_eq!(tags(waits.committed((1, ChangeNo(1)))), []);
        assert_eq!(tags(waits.committed((0, ChangeNo(2)))), [(1, 7)]);
        assert!(waits.is_empty());
    }

    #[test]
    fn refusals_name_their_leases() {
        let mut frame = Frame::new(7);
        let range = v1::SettledRange { partition: 3, epoch: 2, ..v1::SettledRange::default() };
        let verdicts = [
            (LeaseId(1), LeaseId(4), Verdict::Expired),
            (LeaseId(5), LeaseId(5), Verdict::Done),
            (LeaseId(6), LeaseId(6), Verdict::Extended),
            (LeaseId(7), LeaseId(9), Verdict::Unknown),
        ];
        frame.take(0, &range, &verdicts);

        let settled = Waits::default().add(MemberId(1), frame).unwrap();

        let refused: Vec<_> = settled
            .refused
            .iter()
            .map(|refused| {
                let leases = refused.leases.unwrap();
                (leases.partition, leases.epoch, leases.first, leases.last, refused.why())
            })
            .collect();
        let expired = (3, 2, 1, 4, v1::Refused::Expired);
        assert_eq!(refused, [expired, (3, 2, 7, 9, v1::Refused::Unknown)]);
    }
}
