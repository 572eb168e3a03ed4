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

/// The partition of an event in a stream of `partitions` partitions.
///
/// Events without a key are spread by (source, id). The hash is part of the stored format:
/// changing it would move keys.
pub fn partition_of(event: &EventView<'_>, partitions: u32) -> PartitionId {
    if partitions <= 1 {
        return PartitionId(0);
    }
    let hash = if let Some(key) = ordering_key(event) {
        xxh3_64(key.as_bytes())
    } else {
        let mut hasher = Xxh3::new();
        hasher.update(event.source.as_bytes());
        hasher.update(&[0]);
        hasher.update(event.id.as_bytes());
        hasher.digest()
    };
    let partition = hash % u64::from(partitions);
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

    const GOLDEN: [u32; 4] = [0, 9, 12, 3];
}
