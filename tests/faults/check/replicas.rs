//! What each replica has in the end: all that was acknowledged or read, and all the same.

use std::collections::{BTreeMap, HashSet};

use super::history::{Key, Record, Value};
use super::places::Places;
use super::sends::{Fate, Sends};
use super::{Class, Found};

/// One node's final read of a partition.
struct Copy {
    node: usize,
    events: HashSet<(u64, Value)>,
}

pub(super) fn check(history: &[Record], sends: &Sends, places: &Places, found: &mut Found) {
    let mut copies: BTreeMap<Key, Vec<Copy>> = BTreeMap::new();
    for record in history {
        let Record::Final { node, key, seen, .. } = record else { continue };
        let events = seen.iter().map(|event| (event.offset, event.value)).collect();
        copies.entry(*key).or_default().push(Copy { node: *node, events });
    }
    let inconsistent = places.inconsistent();
    for (key, known) in places.keys() {
        let Some(copies) = copies.get(&key) else { continue };
        let values: HashSet<Value> =
            copies.iter().flat_map(|copy| copy.events.iter().map(|(_, value)| *value)).collect();
        let last_seen = known.iter().rfind(|(_, value)| places.is_seen(*value));
        let end = last_seen.map_or(0, |(offset, _)| offset + 1);
        let floor = places.floor(key);
        for &(offset, value) in known {
            let place = (offset, value);
            // Two events at one offset, or one that is elsewhere, were told already.
            if offset < floor || inconsistent.contains(&(key, offset)) {
                continue;
            }
            let holders = copies.iter().filter(|copy| copy.events.contains(&place)).count();
            if holders == copies.len() {
                continue;
            }
            if holders > 0 {
                let lacking = copies.iter().filter(|copy| !copy.events.contains(&place));
                let nodes: Vec<_> = lacking.map(|copy| copy.node).collect();
                let what = format!("nodes {nodes:?} lack event {value:x} at {offset}");
                found.add(Class::ReplicaDivergence, Some(key), what);
            } else if !values.contains(&value) {
                missing(key, place, end, sends, found);
            }
        }
    }
}

/// An event that no replica has.
fn missing(key: Key, place: (u64, Value), end: u64, sends: &Sends, found: &mut Found) {
    let (offset, value) = place;
    let what = match sends.fate(value) {
        Some(Fate::Acked(..)) => format!("event {value:x} was acknowledged at {offset}"),
        Some(Fate::Unknown) => format!("event {value:x} was read at {offset}, and is gone"),
        // Told already.
        Some(Fate::Refused) | None => return,
    };
    let class = if offset < end { Class::LostWrite } else { Class::Unseen };
    found.add(class, Some(key), what);
}
