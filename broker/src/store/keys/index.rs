//! `i` group partition base: where in the log a batch lies. Sparse; written once an entry is
//! committed, and rebuilt from the newest checkpoint after a crash.

use crate::store::{GroupId, StoreError};

const TAG: u8 = b'i';

/// Where the batch that begins at an offset lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// The entry that holds the batch.
    pub index: u64,
    /// The bytes of the group's log up to and with that entry.
    pub pos: u64,
    /// The log time of that entry, in microseconds.
    pub time: u64,
}

/// Builds the key of the record for the batch that begins at offset `base`.
pub fn key(group: GroupId, partition: u64, base: u64) -> [u8; 25] {
    let mut key = [0; 25];
    key[..17].copy_from_slice(&super::group_number_key(TAG, group.0, partition));
    key[17..].copy_from_slice(&base.to_be_bytes());
    key
}

/// Reads group, partition and base offset out of a key.
pub fn decode_key(key: &[u8]) -> Result<(GroupId, u64, u64), StoreError> {
    super::numbers::<3>("index", TAG, key)
        .map(|[group, partition, base]| (GroupId(group), partition, base))
}

/// Encodes a record.
pub fn encode(record: &IndexRecord) -> Vec<u8> {
    super::join([record.index, record.pos, record.time])
}

/// Decodes a record.
pub fn decode(value: &[u8]) -> Result<IndexRecord, StoreError> {
    super::fixed::<3>("index", value).map(|[index, pos, time]| IndexRecord { index, pos, time })
}
