//! An entry as this replica stores it: a fixed local head, then the replicated payload.
//!
//! | Bytes | Content |
//! |---|---|
//! | 0 | format, 0 |
//! | 1 | kind: 0 blank, 1 normal, 2 membership |
//! | 2..4 | 0 |
//! | 4..8 | CRC32C of the payload |
//! | 8..48 | term, index, pos, time, chain |
//! | 48..52 | CRC32C of bytes 0..48 |
//!
//! All numbers are little endian.

use bytes::Bytes;

use crate::store::StoreError;
use crate::store::keys::entry;
use weft_proto::GroupId;

use super::codec;
use super::point::{EntryKind, LogPoint};
use super::types::{Entry, EntryPayload, Payload, log_id};

/// How long the local head is.
pub(crate) const HEAD_LEN: usize = 52;

const FORMAT: u8 = 0;

/// An entry of a group's log, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) point: LogPoint,
    pub(crate) kind: EntryKind,
    pub(crate) crc: u32,
    /// The payload, the encoded membership, or nothing.
    pub(crate) body: Bytes,
}

impl Record {
    /// Builds the record of an entry that follows `previous`.
    pub(crate) fn of_entry(previous: Option<&LogPoint>, entry: Entry) -> Self {
        let (kind, body) = match entry.payload {
            EntryPayload::Blank => (EntryKind::Blank, Bytes::new()),
            EntryPayload::Normal(Payload(bytes)) => (EntryKind::Normal, bytes),
            EntryPayload::Membership(membership) => {
                (EntryKind::Membership, codec::encode_membership(&membership).into())
            }
        };
        let crc = crc32c::crc32c(&body);
        let at = (entry.log_id.leader_id.term, entry.log_id.index);
        Self { point: LogPoint::after(previous, at, kind, &body, crc), kind, crc, body }
    }

    /// Returns the entry as consensus knows it.
    pub(crate) fn to_entry(&self) -> Result<Entry, StoreError> {
        let payload = match self.kind {
            EntryKind::Blank => EntryPayload::Blank,
            EntryKind::Normal => EntryPayload::Normal(Payload(self.body.clone())),
            EntryKind::Membership => {
                EntryPayload::Membership(codec::decode_membership(&self.body)?)
            }
        };
        Ok(Entry { log_id: log_id(self.point.term, self.point.index), payload })
    }

    /// Returns how much memory and disk the record takes.
    pub(crate) fn bytes(&self) -> usize {
        HEAD_LEN + self.body.len()
    }

    /// Encodes the local head; the body follows it on disk.
    pub(crate) fn head(&self) -> [u8; HEAD_LEN] {
        let mut head = [0; HEAD_LEN];
        head[0] = FORMAT;
        head[1] = self.kind.to_byte();
        head[4..8].copy_from_slice(&self.crc.to_le_bytes());
        let LogPoint { index, term, pos, time, chain } = self.point;
        for (bytes, part) in head[8..48].chunks_exact_mut(8).zip([term, index, pos, time, chain]) {
            bytes.copy_from_slice(&part.to_le_bytes());
        }
        let crc = crc32c::crc32c(&head[..48]);
        head[48..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// Decodes a stored record and checks that it is what was written under this key. The body
    /// is copied once.
    pub(crate) fn decode(group: GroupId, key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let index = entry::decode_key(key)?;
        let damaged =
            |detail: &str| StoreError::DataLoss { group, index, detail: detail.to_owned() };
        let (head, body) =
            value.split_at_checked(HEAD_LEN).ok_or_else(|| damaged("it is too short"))?;
        let u32_at = |at: usize| {
            head[at..at + 4].try_into().map(u32::from_le_bytes).map_err(|_short| damaged("head"))
        };
        let u64_at = |at: usize| {
            head[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_short| damaged("head"))
        };
        if u32_at(48)? != crc32c::crc32c(&head[..48]) {
            return Err(damaged("its head does not match its checksum"));
        }
        if head[0] != FORMAT {
            let detail = format!("format {} of entry {index} of group {group}", head[0]);
            return Err(StoreError::Record { what: "entry", detail });
        }
        let kind = EntryKind::from_byte(head[1]).ok_or_else(|| StoreError::Record {
            what: "entry",
            detail: format!("kind {} of entry {index} of group {group}", head[1]),
        })?;
        let crc = u32_at(4)?;
        if crc != crc32c::crc32c(body) {
            return Err(damaged("its payload does not match its checksum"));
        }
        let point = LogPoint {
            term: u64_at(8)?,
            index: u64_at(16)?,
            pos: u64_at(24)?,
            time: u64_at(32)?,
            chain: u64_at(40)?,
        };
        if point.index != index {
            return Err(damaged("another entry lies in its place"));
        }
        Ok(Self { point, kind, crc, body: Bytes::copy_from_slice(body) })
    }

    /// Checks that this record follows `previous` without a gap or a change in between.
    pub(crate) fn follows(&self, previous: Option<&LogPoint>) -> bool {
        let at = (self.point.term, self.point.index);
        LogPoint::after(previous, at, self.kind, &self.body, self.crc) == self.point
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(body: &[u8]) -> Record {
        let body = Bytes::copy_from_slice(body);
        let crc = crc32c::crc32c(&body);
        let previous = LogPoint { index: 6, term: 2, pos: 100, time: 5, chain: 9 };
        let point = LogPoint::after(Some(&previous), (3, 7), EntryKind::Normal, &body, crc);
        Record { point, kind: EntryKind::Normal, crc, body }
    }

    fn stored(record: &Record) -> Vec<u8> {
        [record.head().as_slice(), &record.body].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn records_round_trip(body: Vec<u8>) {
            let record = record(&body);
            let decoded = Record::decode(GroupId(1), &7_u64.to_be_bytes(), &stored(&record));
            prop_assert_eq!(decoded.unwrap(), record);
        }

        #[test]
        fn every_flipped_bit_is_found(body in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
            let mut bytes = stored(&record(&body));
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Record::decode(GroupId(1), &7_u64.to_be_bytes(), &bytes).is_err());
        }

        #[test]
        fn foreign_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            prop_assert!(Record::decode(GroupId(1), &7_u64.to_be_bytes(), &bytes).is_err());
        }
    }

    #[test]
    fn a_record_under_another_key_is_refused() {
        let bytes = stored(&record(b"abc"));

        assert!(Record::decode(GroupId(1), &8_u64.to_be_bytes(), &bytes).is_err());
    }
}
