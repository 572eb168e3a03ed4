//! How long publishers waited while a fault went on. Measured, not judged.

use std::collections::BTreeMap;

use super::history::{Injected, Key, Micros, Record};
use super::sends::Sends;

/// For each kind of fault the longest time without an acknowledgement in any partition, in
/// milliseconds, of each time that it was done.
pub(super) type Waits = BTreeMap<String, Vec<u64>>;

pub(super) fn waits(history: &[Record], sends: &Sends) -> Waits {
    let mut acks: BTreeMap<Key, Vec<Micros>> = BTreeMap::new();
    for op in &sends.ops {
        if let Some((t, key, _)) = &op.acked {
            acks.entry(*key).or_default().push(*t);
        }
    }
    for times in acks.values_mut() {
        times.sort_unstable();
    }
    let mut waits = Waits::new();
    let mut begun = BTreeMap::new();
    for record in history {
        let Record::Fault { t, name, state, .. } = record else { continue };
        match state {
            Injected::Begun => _ = begun.insert(name, *t),
            Injected::Healed => {
                if let Some(from) = begun.remove(name) {
                    let longest = acks.values().map(|times| longest(times, from, *t)).max();
                    waits.entry(name.clone()).or_default().push(longest.unwrap_or(0) / 1_000);
                }
            }
            _ => {}
        }
    }
    waits
}

/// The longest time between two of these that overlaps a span.
fn longest(times: &[Micros], from: Micros, to: Micros) -> Micros {
    let first = times.partition_point(|t| *t < from).saturating_sub(1);
    let last = (times.partition_point(|t| *t <= to) + 1).min(times.len());
    let span = times.get(first..last).unwrap_or_default();
    span.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}
