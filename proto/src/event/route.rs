//! Which partition an event belongs to: a pure function of the event, so a retry meets its
//! original.

use std::borrow::Cow;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::view::EventView;
use crate::PartitionId;

/// The key whose events keep their order: `partitionkey`, else `subject`.
pub fn ordering_key<'a>(event: &EventView<'a>) -> Option<Cow<'a, str>> {
    event.attribute("partitionkey").or_else(|| event.attribute("subject"))
}

/// The partition of events with this ordering key, in a stream of `partitions` partitions.
pub fn partition_of_key(key: &str, partitions: u32) -> PartitionId {
    place(xxh3_64(key.as_bytes()), partitions)
}

/// The partition of an event in a stream of `partitions` partitions.
///
/// Events without a key are spread by (source, id). The hash is part of the stored format:
/// changing it would move keys.
pub fn partition_of(event: &EventView<'_>, partitions: u32) -> PartitionId {
    if partitions <= 1 {
        return PartitionId(0);
    }
    place(ordering_hash(event), partitions)
}

/// The hash of what keeps events in order: the ordering key, else source and id.
pub fn ordering_hash(event: &EventView<'_>) -> u64 {
    match ordering_key(event) {
        Some(key) => xxh3_64(key.as_bytes()),
        None => identity_hash(event),
    }
}

/// The hash of an attribute of the event; without it, of source and id.
pub fn attribute_hash(event: &EventView<'_>, name: &str) -> u64 {
    match event.attribute(name) {
        Some(value) => xxh3_64(value.as_bytes()),
        None => identity_hash(event),
    }
}

fn identity_hash(event: &EventView<'_>) -> u64 {
    let (source, id) = (event.source.as_bytes(), event.id.as_bytes());
    // In one piece, where it is short: the hash is the same, and setting a hasher up costs more.
    let mut whole = [0; 256];
    let len = source.len() + 1 + id.len();
    if let Some(whole) = whole.get_mut(..len)
        && let Some((head, tail)) = whole.split_at_mut_checked(source.len())
        && let Some(tail) = tail.get_mut(1..)
    {
        head.copy_from_slice(source);
        tail.copy_from_slice(id);
        return xxh3_64(whole);
    }
    let mut hasher = Xxh3::new();
    hasher.update(source);
    hasher.update(&[0]);
    hasher.update(id);
    hasher.digest()
}

fn place(hash: u64, partitions: u32) -> PartitionId {
    let partition = hash % u64::from(partitions.max(1));
    PartitionId(u32::try_from(partition).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::cloudevents::CloudEvent;

    #[test]
    fn routing_never_changes_between_versions() {
        let place = |id: &str| {
            let event =
                CloudEvent { id: id.to_owned(), source: "/s".to_owned(), ..CloudEvent::default() };
            let bytes = event.encode_to_vec();
            partition_of(&EventView::parse(&bytes).unwrap(), 16).get()
        };

        assert_eq!([place("1"), place("2"), place("3"), place("4")], GOLDEN);
    }

    #[test]
    fn a_key_goes_where_its_events_go() {
        use crate::cloudevents::cloud_event::CloudEventAttributeValue;
        use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
        for number in 0..50 {
            let subject = format!("cart/{number}");
            let attr = Some(Attr::CeString(subject.clone()));
            let attributes = [("subject".to_owned(), CloudEventAttributeValue { attr })].into();
            let event = CloudEvent { attributes, ..CloudEvent::default() }.encode_to_vec();
            let view = EventView::parse(&event).unwrap();
            for partitions in [1, 2, 7] {
                let place = partition_of_key(&subject, partitions);
                assert_eq!(partition_of(&view, partitions), place);
            }
        }
    }

    #[test]
    fn source_and_id_are_hashed_as_one_text_whatever_their_length() {
        for len in [0, 1, 100, 253, 254, 255, 256, 257, 1_000] {
            let (source, id) = ("/s".to_owned(), "i".repeat(len));
            let whole = format!("{source}\0{id}");
            let event = CloudEvent { source, id, ..CloudEvent::default() }.encode_to_vec();
            let hash = ordering_hash(&EventView::parse(&event).unwrap());
            assert_eq!(hash, xxh3_64(whole.as_bytes()), "{len}");
        }
    }

    const GOLDEN: [u32; 4] = [0, 9, 12, 3];
}
