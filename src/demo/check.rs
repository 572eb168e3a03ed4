//! What was acknowledged against what is read.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::event::EventView;

/// An event as it is read, or as its receipt tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its partition.
    pub(super) partition: u32,
    /// Its place there.
    pub(super) offset: u64,
    /// Its id.
    pub(super) id: String,
}

impl Seen {
    /// Takes note of an event that was read; `None` when its bytes are no event.
    pub(super) fn read(record: &weft_client::Record) -> Option<Self> {
        let event = EventView::parse(&record.event)?;
        Some(Self {
            partition: record.partition.get(),
            offset: record.offset.get(),
            id: event.id.to_owned(),
        })
    }
}

/// Problems shown of one kind; the rest is counted.
const SHOWN_MAX: usize = 3;

/// Every way in which `read` is not exactly `expected`: same ids at the same places, each once, in
/// the order in which they were acknowledged.
pub(super) fn differences(what: &str, expected: &[Seen], read: &[Seen]) -> Vec<String> {
    let place = |seen: &Seen| (seen.partition, seen.offset);
    let by_place: BTreeMap<_, _> = read.iter().map(|seen| (place(seen), seen)).collect();
    let mut problems = Vec::new();
    if by_place.len() != read.len() {
        problems.push(format!("{what}: {} events came twice", read.len() - by_place.len()));
    }
    let ids: BTreeSet<&str> = read.iter().map(|seen| seen.id.as_str()).collect();
    if ids.len() != read.len() {
        problems.push(format!("{what}: {} ids came more than once", read.len() - ids.len()));
    }
    let mut wrong = Vec::new();
    for event in expected {
        match by_place.get(&place(event)) {
            Some(seen) if *seen == event => {}
            Some(seen) => wrong.push(format!(
                "{what}: {} was acknowledged at offset {}, where {} is",
                event.id, event.offset, seen.id
            )),
            None => wrong.push(format!(
                "{what}: {} was acknowledged at offset {}, but is not there",
                event.id, event.offset
            )),
        }
    }
    let places: BTreeSet<_> = expected.iter().map(place).collect();
    for seen in read.iter().filter(|seen| !places.contains(&place(seen))) {
        let (id, offset) = (&seen.id, seen.offset);
        wrong.push(format!("{what}: {id} at offset {offset} was never acknowledged"));
    }
    if wrong.is_empty() && problems.is_empty() && read != expected {
        wrong.push(format!("{what}: the order is not that of the acknowledgements"));
    }
    let more = wrong.len().saturating_sub(SHOWN_MAX);
    problems.extend(wrong.into_iter().take(SHOWN_MAX));
    if more > 0 {
        problems.push(format!("{what}: and {more} more differences"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(offset: u64, id: &str) -> Seen {
        Seen { partition: 0, offset, id: id.to_owned() }
    }

    fn problems(expected: &[Seen], read: &[Seen]) -> String {
        differences("replay", expected, read).join("\n")
    }

    #[test]
    fn the_same_is_no_difference() {
        let events = [seen(0, "a"), seen(1, "b")];

        assert_eq!(problems(&events, &events), "");
        assert_eq!(problems(&[], &[]), "");
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let (a, b) = (seen(0, "a"), seen(1, "b"));
        let both = [a.clone(), b.clone()];

        assert!(problems(&both, &both[..1]).contains("b was acknowledged at offset 1, but"));
        assert!(problems(&both[..1], &both).contains("b at offset 1 was never acknowledged"));
        assert!(problems(&both, &[b.clone(), a.clone()]).contains("order"));
        assert!(problems(&both, &[a.clone(), b.clone(), b]).contains("twice"));
        assert!(problems(&both, &[a, seen(1, "a")]).contains("where a is"));
    }

    #[test]
    fn many_differences_are_counted() {
        let many: Vec<_> = (0..10).map(|offset| seen(offset, &offset.to_string())).collect();

        assert_eq!(differences("replay", &many, &[]).len(), SHOWN_MAX + 1);
    }
}
