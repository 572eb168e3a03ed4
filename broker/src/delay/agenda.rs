//! Which delayed events of one partition are due when, and what of them may be forgotten. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use weft_proto::{Offset, Timestamp};

/// The delayed events of one partition that were not moved yet.
#[derive(Debug)]
pub(super) struct Agenda {
    /// Everything below was read.
    next: Offset,
    by_due: BTreeSet<(Timestamp, Offset)>,
    by_offset: BTreeMap<Offset, Waiting>,
    /// One past the last event that was appended at a time, both rising.
    ages: VecDeque<(Timestamp, Offset)>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Timestamp,
    appended: Timestamp,
    bytes: usize,
}

/// How much is named at once: so many events, or so many bytes of them; the last may exceed these.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Agenda {
    /// Nothing below `next` waits; when it was appended is not known, only that it is not later than
    /// `now`.
    pub(super) fn new(next: Offset, now: Timestamp) -> Self {
        let (by_due, by_offset) = (BTreeSet::new(), BTreeMap::new());
        Self { next, by_due, by_offset, ages: [(now, next)].into() }
    }

    /// Everything below was read.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.by_offset.len()
    }

    /// An event was read; `due` is absent if it was moved before. Offsets rise.
    pub(super) fn read(
        &mut self,
        offset: Offset,
        appended: Timestamp,
        bytes: usize,
        due: Option<Timestamp>,
    ) {
        if offset < self.next {
            return;
        }
        self.next = Offset(offset.get().saturating_add(1));
        match self.ages.back_mut() {
            Some((time, end)) if *time >= appended => *end = self.next,
            _ => self.ages.push_back((appended, self.next)),
        }
        if let Some(due) = due {
            self.by_due.insert((due, offset));
            self.by_offset.insert(offset, Waiting { due, appended, bytes });
        }
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.by_due.first().map(|&(due, _)| due)
    }

    /// Those that are due now, in the order in which they were to come.
    pub(super) fn due(&self, now: Timestamp, most: Most) -> Vec<Offset> {
        let due = self.by_due.iter().take_while(|(due, _)| *due <= now);
        self.some(due.map(|&(_, offset)| offset), most)
    }

    /// The oldest that were appended before a time.
    pub(super) fn older(&self, than: Timestamp, most: Most) -> Vec<Offset> {
        let old = self.by_offset.iter().take_while(|(_, waiting)| waiting.appended < than);
        self.some(old.map(|(&offset, _)| offset), most)
    }

    /// The oldest.
    pub(super) fn oldest(&self, most: Most) -> Vec<Offset> {
        self.some(self.by_offset.keys().copied(), most)
    }

    fn some(&self, offsets: impl Iterator<Item = Offset>, most: Most) -> Vec<Offset> {
        let mut bytes = 0_usize;
        offsets
            .take(most.events)
            .take_while(|offset| {
                let has_room = bytes < most.bytes;
                let own = self.by_offset.get(offset).map_or(0, |waiting| waiting.bytes);
                bytes = bytes.saturating_add(own);
                has_room
            })
            .collect()
    }

    /// Whether it waits here.
    pub(super) fn waits(&self, offset: Offset) -> bool {
        self.by_offset.contains_key(&offset)
    }

    /// They wait here no more.
    pub(super) fn moved(&mut self, offsets: &[Offset]) {
        for offset in offsets {
            if let Some(waiting) = self.by_offset.remove(offset) {
                self.by_due.remove(&(waiting.due, *offset));
            }
        }
    }

    /// Everything below was moved, and appended so long ago that no repeat of it is recognised any
    /// more.
    pub(super) fn floor(&mut self, now: Timestamp, kept: Duration) -> Offset {
        let unmoved = self.by_offset.first_key_value().map_or(self.next, |(&offset, _)| offset);
        let mut floor = Offset(0);
        while let Some(&(time, end)) = self.ages.front() {
            if time.saturating_add(kept) >= now || end > unmoved {
                if time.saturating_add(kept) < now {
                    floor = floor.max(unmoved);
                }
                break;
            }
            floor = end;
            self.ages.pop_front();
        }
        floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn agenda(events: &[(u64, u64, Option<u64>)]) -> Agenda {
        let mut agenda = Agenda::new(Offset(0), at(0));
        for &(offset, appended, due) in events {
            agenda.read(Offset(offset), at(appended), 100, due.map(at));
        }
        agenda
    }

    fn most(events: usize) -> Most {
        Most { events, bytes: 1 << 20 }
    }

    fn offsets(offsets: &[Offset]) -> Vec<u64> {
        offsets.iter().map(|offset| offset.get()).collect()
    }

    #[test]
    fn events_are_due_by_their_time_and_then_by_their_place() {
        let mut agenda =
            agenda(&[(0, 1, Some(30)), (1, 1, Some(10)), (2, 2, None), (3, 2, Some(10))]);

        assert_eq!(agenda.next_due(), Some(at(10)));
        assert_eq!(offsets(&agenda.due(at(9), most(10))), [] as [u64; 0]);
        assert_eq!(offsets(&agenda.due(at(10), most(10))), [1, 3]);
        assert_eq!(offsets(&agenda.due(at(30), most(2))), [1, 3]);
        agenda.moved(&[Offset(1), Offset(3), Offset(3), Offset(9)]);
        assert_eq!((offsets(&agenda.due(at(30), most(2))), agenda.len()), (vec![0], 1));
        assert_eq!(
            [0, 1, 2, 9].map(|offset| agenda.waits(Offset(offset))),
            [true, false, false, false]
        );
    }

    #[test]
    fn what_was_read_is_not_taken_twice() {
        let mut agenda = agenda(&[(0, 1, Some(30)), (1, 1, Some(10))]);
        agenda.moved(&[Offset(0)]);

        agenda.read(Offset(0), at(1), 100, Some(at(30)));

        assert_eq!((agenda.len(), agenda.next()), (1, Offset(2)));
    }

    #[test]
    fn nothing_is_forgotten_that_waits_or_is_young() {
        let mut agenda =
            agenda(&[(0, 1, Some(50)), (1, 1, None), (2, 5, Some(90)), (3, 8, Some(60))]);
        let kept = Duration::from_secs(10);
        assert_eq!(agenda.floor(at(100), kept), Offset(0));

        agenda.moved(&[Offset(0)]);
        assert_eq!(agenda.floor(at(11), kept), Offset(0));
        assert_eq!(agenda.floor(at(12), kept), Offset(2));
        agenda.moved(&[Offset(2)]);
        assert_eq!(agenda.floor(at(15), kept), Offset(0));
        assert_eq!(agenda.floor(at(16), kept), Offset(3));
        agenda.moved(&[Offset(3)]);
        assert_eq!(agenda.floor(at(19), kept), Offset(4));
    }

    #[test]
    fn what_an_earlier_leader_moved_counts_as_young() {
        let mut agenda = Agenda::new(Offset(7), at(100));
        let kept = Duration::from_secs(10);

        assert_eq!(agenda.floor(at(110), kept), Offset(0));
        assert_eq!(agenda.floor(at(111), kept), Offset(7));
    }

    #[test]
    fn the_oldest_are_named_first() {
        let agenda = agenda(&[(0, 1, Some(50)), (1, 3, Some(40)), (2, 5, Some(30))]);

        assert_eq!(offsets(&agenda.older(at(5), most(9))), [0, 1]);
        assert_eq!(offsets(&agenda.older(at(5), most(1))), [0]);
        assert_eq!(offsets(&agenda.oldest(most(2))), [0, 1]);
        // The one that exceeds the bytes is the last, and never missing.
        for (bytes, wanted) in [(0, 0), (1, 1), (100, 1), (101, 2)] {
            assert_eq!(agenda.oldest(Most { events: 9, bytes }).len(), wanted, "{bytes}");
        }
    }
}
