//! Batches in which some events are to be delivered later: what goes where, and the answer to the
//! whole. Pure.

use bytes::Bytes;

use crate::data::{Appended, Placed, SchemaIds};
use crate::subjects::SubjectHash;

/// The events of a batch that go to one place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) events: Vec<Bytes>,
    pub(super) schemas: Vec<weft_proto::SchemaId>,
    pub(super) ids: Vec<u64>,
    pub(super) subjects: Vec<SubjectHash>,
}

/// Sorts accepted events by whether they are to be delivered later, and under which identity. `ids` and
/// `subjects` are as long as `events`, or empty.
pub(super) fn split(
    delayed: &[Option<u64>],
    events: Vec<Bytes>,
    schemas: &SchemaIds,
    ids: &[u64],
    subjects: &[SubjectHash],
) -> (Part, Part) {
    let (mut now, mut later) = (Part::default(), Part::default());
    for (place, event) in events.into_iter().enumerate() {
        let own = delayed.get(place).copied().flatten();
        let part = if own.is_some() { &mut later } else { &mut now };
        part.events.push(event);
        part.schemas.push(match schemas {
            SchemaIds::All(id) => *id,
            SchemaIds::Each(all) => all.get(place).copied().unwrap_or_default(),
        });
        part.ids.extend(own.as_ref().or_else(|| ids.get(place)));
        // Its subject counts once it is delivered.
        if own.is_none() {
            part.subjects.extend(subjects.get(place));
        }
    }
    (now, later)
}

/// The answer to the whole from those to its parts.
pub(super) fn merge(delayed: &[Option<u64>], now: &Appended, later: &Appended) -> Appended {
    let mut whole = Appended::default();
    let (mut now, mut later) = (Walk::new(now, false), Walk::new(later, true));
    for (place, own) in (0_u32..).zip(delayed) {
        let part = if own.is_some() { &mut later } else { &mut now };
        match part.next() {
            Some(Fate::Placed(placed)) => whole.add(placed),
            Some(Fate::Conflict(offset)) => whole.conflicts.push((place, offset)),
            None => {}
        }
    }
    whole
}

enum Fate {
    Placed(Placed),
    Conflict(weft_proto::Offset),
}

/// The events of a part, one after the other.
struct Walk<'a> {
    appended: &'a Appended,
    is_delayed: bool,
    event: u32,
    run: usize,
    in_run: u32,
}

impl<'a> Walk<'a> {
    fn new(appended: &'a Appended, is_delayed: bool) -> Self {
        Self { appended, is_delayed, event: 0, run: 0, in_run: 0 }
    }

    fn next(&mut self) -> Option<Fate> {
        let event = self.event;
        self.event += 1;
        let mut conflicts = self.appended.conflicts.iter();
        if let Some((_, offset)) = conflicts.find(|(place, _)| *place == event) {
            return Some(Fate::Conflict(*offset));
        }
        let run = self.appended.runs.get(self.run)?;
        let first = weft_proto::Offset(run.first.get().saturating_add(self.in_run.into()));
        self.in_run += 1;
        if self.in_run >= run.count {
            (self.run, self.in_run) = (self.run + 1, 0);
        }
        Some(Fate::Placed(Placed { first, count: 1, delayed: self.is_delayed, ..*run }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_proto::{Offset, SchemaId, Timestamp};

    use super::*;

    fn run(first: u64, count: u32, duplicate: bool) -> Placed {
        let time = Timestamp::from_micros(5);
        Placed { first: Offset(first), count, time, duplicate, delayed: false }
    }

    fn shown(appended: &Appended) -> Vec<(u64, u32, bool, bool)> {
        let show = |run: &Placed| (run.first.get(), run.count, run.duplicate, run.delayed);
        appended.runs.iter().map(show).collect()
    }

    #[test]
    fn each_event_finds_its_own_place_again() {
        let delayed = [None, Some(1), Some(2), None, None, Some(3)];
        let now = Appended { runs: vec![run(10, 2, false)], conflicts: vec![(1, Offset(3))] };
        let later = Appended { runs: vec![run(7, 2, false), run(2, 1, true)], conflicts: vec![] };

        let whole = merge(&delayed, &now, &later);

        let wanted =
            [(10, 1, false, false), (7, 2, false, true), (11, 1, false, false), (2, 1, true, true)];
        assert_eq!(shown(&whole), wanted);
        assert_eq!(whole.conflicts, [(3, Offset(3))]);
    }

    proptest! {
        /// Whatever is delayed: nothing is lost, and each event is told the place of its own part.
        #[test]
        fn parts_are_the_whole(
            delayed in proptest::collection::vec(any::<bool>(), 1..60),
            has_ids in any::<bool>(),
        ) {
            let count = delayed.len();
            let own = |(place, is_delayed): (u64, &bool)| is_delayed.then_some(5_000 + place);
            let hashes: Vec<Option<u64>> = (0..).zip(&delayed).map(own).collect();
            let event = |place: usize| Bytes::from(place.to_string());
            let schemas = (0..count).map(|place| SchemaId(u32::try_from(place).unwrap())).collect();
            let ids: Vec<u64> = if has_ids { (0..count as u64).collect() } else { Vec::new() };
            let events = (0..count).map(event).collect();

            let (now, later) = split(&hashes, events, &SchemaIds::Each(schemas), &ids, &[]);

            let appended = |part: &Part, base: u64| Appended {
                runs: if part.events.is_empty() {
                    Vec::new()
                } else {
                    vec![run(base, u32::try_from(part.events.len()).unwrap(), false)]
                },
                conflicts: Vec::new(),
            };
            let whole = merge(&hashes, &appended(&now, 1_000), &appended(&later, 2_000));
            let places = whole.runs.iter().flat_map(|run| {
                (0..u64::from(run.count)).map(|number| (run.first.get() + number, run.delayed))
            });
            let places: Vec<_> = places.collect();
            prop_assert_eq!(places.len(), count);
            for (place, (offset, is_delayed)) in places.into_iter().enumerate() {
                prop_assert_eq!(is_delayed, delayed[place]);
                let (part, base) = if is_delayed { (&later, 2_000) } else { (&now, 1_000) };
                let at = usize::try_from(offset - base).unwrap();
                prop_assert_eq!(&part.events[at], &event(place));
                let id = hashes[place].or_else(|| ids.get(place).copied());
                prop_assert_eq!(part.ids.get(at).copied(), id);
                prop_assert_eq!(part.schemas[at], SchemaId(u32::try_from(place).unwrap()));
            }
        }
    }
}
