//! Whether who reads from the first event on, and then follows, sees each event once and in order.

use std::collections::BTreeMap;

use super::history::{Key, Micros, Process, Record, Seen};
use super::places::Places;
use super::sends::Sends;
use super::{Class, Found};

/// One reader.
struct Replay {
    begun: Micros,
    stream: u32,
    is_live: bool,
    /// By partition: the index of what must come next.
    next: BTreeMap<Key, usize>,
}

pub(super) fn check(history: &[Record], sends: &Sends, places: &Places, found: &mut Found) {
    let mut replays: BTreeMap<Process, Replay> = BTreeMap::new();
    for record in history {
        match record {
            Record::Replay { t, process, stream } => {
                let next = BTreeMap::new();
                let replay = Replay { begun: *t, stream: *stream, is_live: false, next };
                replays.insert(*process, replay);
            }
            Record::Replayed { process, key, seen, .. } => {
                if let Some(replay) = replays.get_mut(process) {
                    replay.read(*process, *key, seen, places, found);
                }
            }
            Record::CaughtUp { process, .. } => {
                if let Some(replay) = replays.get_mut(process) {
                    replay.catch_up(*process, sends, places, found);
                }
            }
            _ => {}
        }
    }
}

impl Replay {
    fn read(
        &mut self,
        process: Process,
        key: Key,
        seen: &[Seen],
        places: &Places,
        found: &mut Found,
    ) {
        let next = self.next.entry(key).or_default();
        for event in seen {
            let index = places.index(key, event.offset);
            if index != *next {
                let (kind, offset) = (if self.is_live { "new" } else { "stored" }, event.offset);
                let what = format!("process {process} read the {kind} {offset}, {next} was next");
                found.add(Class::ReplayLiveSeam, Some(key), what);
            }
            *next = index + 1;
        }
    }

    /// All that was acknowledged before the read began comes before the seam.
    fn catch_up(&mut self, process: Process, sends: &Sends, places: &Places, found: &mut Found) {
        self.is_live = true;
        let mut ends: BTreeMap<Key, u64> = BTreeMap::new();
        for op in &sends.ops {
            if let Some((acked, key, offsets)) = &op.acked
                && *acked < self.begun
                && key.stream == self.stream
            {
                let end = ends.entry(*key).or_default();
                *end = offsets.iter().map(|offset| offset + 1).fold(*end, u64::max);
            }
        }
        for (key, end) in ends {
            let (next, due) = (self.next.get(&key).copied().unwrap_or(0), places.index(key, end));
            if next < due {
                let what = format!("process {process} caught up at {next}, {due} was acknowledged");
                found.add(Class::ReplayLiveSeam, Some(key), what);
            }
        }
    }
}
