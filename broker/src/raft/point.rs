//! How a log grows: bytes, log time and hash chain, folded the same way by every replica.

use xxhash_rust::xxh3::xxh3_64;

pub use crate::store::keys::point::LogPoint;

use super::record::Record;
use super::types::{Entry, leader_time_micros};

/// What an entry is to consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing; a new leader begins with it.
    Blank,
    /// A replicated payload.
    Normal,
    /// A membership, encoded by `raft::codec`.
    Membership,
}

impl EntryKind {
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Blank => 0,
            Self::Normal => 1,
            Self::Membership => 2,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blank),
            1 => Some(Self::Normal),
            2 => Some(Self::Membership),
            _ => None,
        }
    }
}

impl LogPoint {
    /// Returns the point after an entry that follows `previous`; `None` is an empty log.
    ///
    /// `crc` is the CRC32C of the payload. Equal index means equal chain on every replica.
    pub fn after(
        previous: Option<&Self>,
        (term, index): (u64, u64),
        kind: EntryKind,
        payload: &[u8],
        crc: u32,
    ) -> Self {
        let start = previous.copied().unwrap_or_default();
        let (time, grown) = match kind {
            EntryKind::Normal => (leader_time_micros(payload), payload.len()),
            EntryKind::Blank | EntryKind::Membership => (0, 0),
        };
        let crc_and_kind = u64::from(crc) | u64::from(kind.to_byte()) << 32;
        let mut link = [0; 40];
        let parts = [start.chain, index, term, crc_and_kind, payload.len() as u64];
        for (bytes, part) in link.chunks_exact_mut(8).zip(parts) {
            bytes.copy_from_slice(&part.to_le_bytes());
        }
        Self {
            index,
            term,
            pos: start.pos.saturating_add(grown as u64),
            time: start.time.max(time),
            chain: xxh3_64(&link),
        }
    }
}

/// Returns the point after an entry that follows `previous`; `None` is an empty log.
pub fn point_after(previous: Option<&LogPoint>, entry: &Entry) -> LogPoint {
    Record::of_entry(previous, entry.clone()).point
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_keeps_its_bytes() {
        let first = LogPoint::after(None, (1, 0), EntryKind::Blank, b"", 0);
        let second = LogPoint::after(Some(&first), (1, 1), EntryKind::Normal, b"abc", 7);

        assert_eq!(first.chain, GOLDEN_FIRST);
        assert_eq!(second.chain, GOLDEN_SECOND);
        assert_eq!((first.pos, second.pos), (0, 3));
    }

    const GOLDEN_FIRST: u64 = 15_195_292_701_847_474_192;
    const GOLDEN_SECOND: u64 = 15_475_517_687_365_847_269;

    #[test]
    fn time_never_goes_back() {
        let payload = |time: u64| [&[0; 4][..], &time.to_le_bytes()].concat();

        let late = LogPoint::after(None, (1, 0), EntryKind::Normal, &payload(9), 0);
        let early = LogPoint::after(Some(&late), (1, 1), EntryKind::Normal, &payload(5), 0);

        assert_eq!((late.time, early.time), (9, 9));
    }

    #[test]
    fn every_part_of_an_entry_changes_the_chain() {
        let base = LogPoint::after(None, (1, 1), EntryKind::Normal, b"abc", 7).chain;
        let previous = LogPoint { chain: 1, ..LogPoint::default() };

        for other in [
            LogPoint::after(Some(&previous), (1, 1), EntryKind::Normal, b"abc", 7),
            LogPoint::after(None, (2, 1), EntryKind::Normal, b"abc", 7),
            LogPoint::after(None, (1, 2), EntryKind::Normal, b"abc", 7),
            LogPoint::after(None, (1, 1), EntryKind::Membership, b"abc", 7),
            LogPoint::after(None, (1, 1), EntryKind::Normal, b"abcd", 7),
            LogPoint::after(None, (1, 1), EntryKind::Normal, b"abc", 8),
        ] {
            assert_ne!(other.chain, base);
        }
    }
}
