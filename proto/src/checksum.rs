//! The checksum of a range of events: who reads the same range gets the same, wherever and in
//! whatever interleaving of partitions it is read.

use sha2::{Digest as _, Sha256};

use crate::{Offset, PartitionId};

/// A SHA-256.
pub type Sha256Bytes = [u8; 32];

/// The checksum of one partition's part of a range: SHA-256 of, for each event by offset, the
/// partition as 4 bytes, the offset as 8 and the length as 8, all big-endian, and the event as it
/// is stored.
#[derive(Clone, Debug)]
pub struct PartitionChecksum {
    partition: PartitionId,
    hasher: Sha256,
}

impl PartitionChecksum {
    /// Of no events yet.
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, hasher: Sha256::new() }
    }

    /// Adds the next event.
    pub fn add(&mut self, offset: Offset, event: &[u8]) {
        self.hasher.update(self.partition.get().to_be_bytes());
        self.hasher.update(offset.get().to_be_bytes());
        self.hasher.update((event.len() as u64).to_be_bytes());
        self.hasher.update(event);
    }

    /// The checksum of what was added until now.
    pub fn value(&self) -> Sha256Bytes {
        self.hasher.clone().finalize().into()
    }
}

/// The checksum of a range over several partitions, given by number: SHA-256 of, for each, its
/// number as 4 bytes big-endian and its checksum.
pub fn of_range<'a>(partitions: impl IntoIterator<Item = (PartitionId, &'a [u8])>) -> Sha256Bytes {
    let mut hasher = Sha256::new();
    for (partition, checksum) in partitions {
        hasher.update(partition.get().to_be_bytes());
        hasher.update(checksum);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    #[test]
    fn the_canonical_form_is_what_is_documented() {
        let mut checksum = PartitionChecksum::new(PartitionId(1));
        checksum.add(Offset(5), b"abc");
        checksum.add(Offset(6), b"");
        let empty = PartitionChecksum::new(PartitionId(0)).value();
        let range = [(PartitionId(0), &empty[..]), (PartitionId(1), &checksum.value()[..])];

        assert_eq!(
            hex(&checksum.value()),
            "11dcb3f57dfcdc5fec693f75f2b7bd4e15076d6e7fc67bfdd5558e7f5f946647"
        );
        assert_eq!(
            hex(&of_range(range)),
            "8b9a757e78a6ac5ee2835be67e7b47f66f923f9fdec5d37a686acbdf0dc6cf6e"
        );
    }

    #[test]
    fn borders_between_events_count() {
        let of = |events: &[&[u8]]| {
            let mut checksum = PartitionChecksum::new(PartitionId(0));
            (0..).zip(events).for_each(|(offset, event)| checksum.add(Offset(offset), event));
            checksum.value()
        };

        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
    }
}
