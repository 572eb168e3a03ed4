//! Which event is at which offset, as far as anybody was told or has seen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::history::{Key, Record, Seen, Value};
use super::sends::{Fate, Sends};
use super::{Class, Found};

/// The version order: offsets of each partition with the events that were found there.
#[derive(Debug, Default)]
pub(super) struct Places {
    keys: BTreeMap<Key, Vec<(u64, Value)>>,
    /// Offsets of each partition in order, unused ones squeezed out.
    offsets: BTreeMap<Key, Vec<u64>>,
    seen: HashSet<Value>,
    altered: BTreeMap<Value, (Key, u64)>,
    floors: BTreeMap<Key, u64>,
}

impl Places {
    pub(super) fn new(history: &[Record], sends: &Sends) -> Self {
        let mut places = Self::default();
        for record in history {
            match record {
                Record::Poll { key, seen, .. } => places.read(*key, seen, sends),
                Record::Final { key, seen, floor, .. } => {
                    places.read(*key, seen, sends);
                    let known = places.floors.entry(*key).or_default();
                    *known = (*known).max(*floor);
                }
                _ => {}
            }
        }
        for (value, key, offset) in sends.acked() {
            places.keys.entry(key).or_default().push((offset, value));
        }
        for (key, found) in &mut places.keys {
            found.sort_unstable();
            found.dedup();
            let mut offsets: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
            offsets.dedup();
            places.offsets.insert(*key, offsets);
        }
        places
    }

    fn read(&mut self, key: Key, seen: &[Seen], sends: &Sends) {
        let found = self.keys.entry(key).or_default();
        for event in seen {
            found.push((event.offset, event.value));
            self.seen.insert(event.value);
            if sends.digest(event.value).is_some_and(|digest| digest != event.digest) {
                self.altered.insert(event.value, (key, event.offset));
            }
        }
    }

    /// The place of an offset among those that are in use.
    pub(super) fn index(&self, key: Key, offset: u64) -> usize {
        self.offsets.get(&key).map_or(0, |offsets| offsets.partition_point(|used| *used < offset))
    }

    /// Whether anybody read it, ever.
    pub(super) fn is_seen(&self, value: Value) -> bool {
        self.seen.contains(&value)
    }

    /// The lowest offset from which all replicas must have all.
    pub(super) fn floor(&self, key: Key) -> u64 {
        self.floors.get(&key).copied().unwrap_or_default()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (Key, &[(u64, Value)])> {
        self.keys.iter().map(|(key, found)| (*key, found.as_slice()))
    }

    /// Offsets at which two events were found.
    pub(super) fn inconsistent(&self) -> BTreeSet<(Key, u64)> {
        let mut wrong = BTreeSet::new();
        for (key, found) in &self.keys {
            let pairs = found.windows(2).filter(|pair| pair[0].0 == pair[1].0);
            wrong.extend(pairs.map(|pair| (*key, pair[0].0)));
        }
        wrong
    }

    pub(super) fn check(&self, sends: &Sends, found: &mut Found) {
        for (key, offset) in self.inconsistent() {
            found.add(Class::InconsistentOffsets, Some(key), format!("two events at {offset}"));
        }
        let mut first: HashMap<Value, (Key, u64)> = HashMap::new();
        for (key, places) in &self.keys {
            for &(offset, value) in places {
                let before = *first.entry(value).or_insert((*key, offset));
                if before != (*key, offset) {
                    let what =
                        format!("event {value:x} at {offset}, and at {} in {}", before.1, before.0);
                    found.add(Class::Duplicate, Some(*key), what);
                    continue;
                }
                self.check_event(*key, offset, value, sends, found);
            }
        }
        for (value, (key, offset)) in &self.altered {
            let what = format!("event {value:x} at {offset} has other bytes");
            found.add(Class::Altered, Some(*key), what);
        }
        for (key, offsets) in &self.offsets {
            self.check_dense(*key, offsets, found);
        }
    }

    fn check_event(&self, key: Key, offset: u64, value: Value, sends: &Sends, found: &mut Found) {
        match sends.fate(value) {
            None => {
                let what = format!("event {value:x} at {offset} was never published");
                found.add(Class::Unexpected, Some(key), what);
            }
            Some(Fate::Refused) if self.is_seen(value) => {
                let what = format!("event {value:x} at {offset} was refused");
                found.add(Class::G1a, Some(key), what);
            }
            Some(_) => {}
        }
    }

    fn check_dense(&self, key: Key, offsets: &[u64], found: &mut Found) {
        let mut next = self.floor(key);
        for &offset in offsets {
            if offset > next {
                found.add(Class::OffsetGap, Some(key), format!("nothing from {next} to {offset}"));
            }
            next = next.max(offset + 1);
        }
    }
}
