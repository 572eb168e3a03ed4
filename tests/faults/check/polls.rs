//! Whether each reader saw each partition front to back.

use std::collections::BTreeMap;

use super::history::{Key, Process, Record, Seen};
use super::places::Places;
use super::{Class, Found};

/// Where a reader is: the index of what must come next.
type Positions = BTreeMap<(Process, Key), usize>;

pub(super) fn check(history: &[Record], places: &Places, found: &mut Found) {
    let mut positions = Positions::new();
    for record in history {
        match record {
            Record::Assign { process, key, from, .. } => {
                positions.insert((*process, *key), places.index(*key, *from));
            }
            Record::Poll { process, key, seen, .. } => {
                check_poll(*process, *key, seen, places, &mut positions, found);
            }
            _ => {}
        }
    }
}

fn check_poll(
    process: Process,
    key: Key,
    seen: &[Seen],
    places: &Places,
    positions: &mut Positions,
    found: &mut Found,
) {
    let mut expected = positions.get(&(process, key)).copied();
    for (place, event) in seen.iter().enumerate() {
        let index = places.index(key, event.offset);
        let inside = place > 0;
        if let Some(expected) = expected
            && expected != index
        {
            let class = match (index > expected, inside) {
                (true, false) => Class::PollSkip,
                (true, true) => Class::IntPollSkip,
                (false, false) => Class::NonmonotonicPoll,
                (false, true) => Class::IntNonmonotonicPoll,
            };
            let what = format!("process {process} read {}, {expected} was next", event.offset);
            found.add(class, Some(key), what);
        }
        expected = Some(index + 1);
    }
    if let Some(expected) = expected {
        positions.insert((process, key), expected);
    }
}
