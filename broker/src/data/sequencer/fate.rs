//! What becomes of each event of a batch of which some may be there already.

use weft_proto::{Offset, Timestamp};

use super::{Append, Appended, Placed, SchemaIds};

/// What becomes of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is appended.
    New,
    /// It is there already.
    Repeat { offset: Offset, time: Timestamp },
    /// It repeats another event of its batch, this one.
    RepeatOf(u32),
    /// Another event there has its source and id.
    Conflict { offset: Offset },
    /// Another event of its batch has its source and id, this one.
    ConflictWith(u32),
}

/// Fates of all events of a batch as it was submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan(pub(super) Vec<Fate>);

impl Plan {
    /// All new but these.
    pub(super) fn new(events: usize, known: &[(u32, Fate)]) -> Self {
        let mut fates = vec![Fate::New; events];
        for &(index, fate) in known {
            if let Some(place) = usize::try_from(index).ok().and_then(|at| fates.get_mut(at)) {
                *place = fate;
            }
        }
        // A repeat of a repeat, or of what is refused, shares its fate.
        for at in 0..fates.len() {
            if let Fate::RepeatOf(index) = fates[at]
                && let Some(&first) = usize::try_from(index).ok().and_then(|first| fates.get(first))
                && first != Fate::New
            {
                fates[at] = first;
            }
        }
        Self(fates)
    }

    fn is_new(&self, index: usize) -> bool {
        self.0.get(index) == Some(&Fate::New)
    }

    /// The first event that is refused, and where the event is that it collides with, if stored.
    pub(super) fn first_conflict(&self) -> Option<(usize, Option<Offset>)> {
        self.0.iter().enumerate().find_map(|(index, fate)| match fate {
            Fate::Conflict { offset } => Some((index, Some(*offset))),
            Fate::ConflictWith(_) => Some((index, None)),
            _ => None,
        })
    }

    /// Whether nothing is new.
    pub(super) fn is_all_known(&self) -> bool {
        !self.0.contains(&Fate::New)
    }

    /// How many events are there already.
    pub(super) fn repeats(&self) -> u64 {
        let repeat = |fate: &&Fate| matches!(fate, Fate::Repeat { .. } | Fate::RepeatOf(_));
        self.0.iter().filter(repeat).count() as u64
    }

    /// Leaves only what is new in a batch; returns how many events that are.
    pub(super) fn thin(&self, append: &mut Append) -> usize {
        fn keep<T>(plan: &Plan, items: &mut Vec<T>) {
            let mut index = 0;
            items.retain(|_| {
                index += 1;
                plan.is_new(index - 1)
            });
        }
        let batch = &mut append.batch;
        if !self.0.iter().all(|fate| *fate == Fate::New) {
            batch.packed = None;
        }
        keep(self, &mut batch.events);
        keep(self, &mut batch.ids);
        keep(self, &mut batch.subjects);
        if let SchemaIds::Each(schemas) = &mut batch.schemas {
            keep(self, schemas);
        }
        batch.events.len()
    }

    /// The answer, once what is new was appended from `first` on.
    pub(super) fn answer(&self, first: Offset, time: Timestamp) -> Appended {
        let mut appended = Appended::default();
        // Where each new event went, for those that repeat it.
        let mut next = first;
        let mut places = Vec::with_capacity(self.0.len());
        for (index, &fate) in (0_u32..).zip(&self.0) {
            let (offset, time, duplicate) = match fate {
                Fate::New => {
                    let own = next;
                    next = Offset(next.0.saturating_add(1));
                    (own, time, false)
                }
                Fate::Repeat { offset, time } => (offset, time, true),
                Fate::RepeatOf(other) => {
                    let place = usize::try_from(other).ok().and_then(|at| places.get(at));
                    (place.copied().unwrap_or(first), time, true)
                }
                Fate::Conflict { offset } => {
                    appended.conflicts.push((index, offset));
                    places.push(offset);
                    continue;
                }
                Fate::ConflictWith(other) => {
                    let place = usize::try_from(other).ok().and_then(|at| places.get(at));
                    let offset = place.copied().unwrap_or(first);
                    appended.conflicts.push((index, offset));
                    places.push(offset);
                    continue;
                }
            };
            places.push(offset);
            appended.add(Placed { first: offset, count: 1, time, duplicate, delayed: false });
        }
        appended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(9);

    #[test]
    fn answer_names_the_place_of_each_event() {
        let then = Timestamp::from_micros(5);
        let repeat = |offset| Fate::Repeat { offset: Offset(offset), time: then };
        let known = [
            (1, repeat(7)),
            (2, repeat(8)),
            (4, Fate::RepeatOf(0)),
            (5, Fate::Conflict { offset: Offset(3) }),
            (6, Fate::ConflictWith(3)),
        ];
        let plan = Plan::new(8, &known);

        let answer = plan.answer(Offset(20), NOW);

        let placed = |first, count, time, duplicate| Placed {
            first: Offset(first),
            count,
            time,
            duplicate,
            delayed: false,
        };
        let runs = [
            placed(20, 1, NOW, false),
            placed(7, 2, then, true),
            placed(21, 1, NOW, false),
            placed(20, 1, NOW, true),
            placed(22, 1, NOW, false),
        ];
        assert_eq!(answer.runs, runs);
        assert_eq!(answer.conflicts, [(5, Offset(3)), (6, Offset(21))]);
        assert_eq!(plan.first_conflict(), Some((5, Some(Offset(3)))));
    }

    #[test]
    fn repeats_of_repeats_share_their_place() {
        let known = [(0, Fate::Repeat { offset: Offset(4), time: NOW }), (1, Fate::RepeatOf(0))];

        let answer = Plan::new(2, &known).answer(Offset(9), NOW);

        let offsets: Vec<_> = answer.runs.iter().map(|run| (run.first.0, run.count)).collect();
        assert_eq!(offsets, [(4, 1), (4, 1)]);
    }
}
