//! `i` group partition base: where in the log a batch lies. Sparse; written once an entry is
//! committed, and rebuilt from the newest checkpoint after a crash.

use crate::store::StoreError;
use weft_proto::{GroupId, Offset, PartitionUid};

const TAG: u8 = b'i';

/// Where the batch that begins at an offset lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// The entry that holds the batch.
    pub index: u64,
    /// The bytes of all payloads of the group up to and with that entry's own.
    pub pos: u64,
    /// The log time of that entry, in microseconds.
    pub time: u64,
    /// The bytes of all bodies of the partition before the batch.
    pub bytes: u64,
}

/// Builds the key of the record for the batch that begins at offset `base`.
pub fn key(group: GroupId, partition: PartitionUid, base: Offset) -> [u8; 21] {
    let mut key = [0; 21];
    key[..13].copy_from_slice(&super::group_number_key(TAG, group, partition.0));
    key[13..].copy_from_slice(&base.0.to_be_bytes());
    key
}

/// Reads group, partition and base offset out of a key.
pub fn decode_key(key: &[u8]) -> Result<(GroupId, PartitionUid, Offset), StoreError> {
    super::decode_group_key::<2>("index", TAG, key)
        .map(|(group, [partition, base])| (group, PartitionUid(partition), Offset(base)))
}

/// Encodes a record.
pub fn encode(record: &IndexRecord) -> Vec<u8> {
    super::join([record.index, record.pos, record.time, record.bytes])
}

/// Decodes a record.
pub fn decode(value: &[u8]) -> Result<IndexRecord, StoreError> {
    super::fixed::<4>("index", value).map(|[index, pos, time, bytes]| IndexRecord {
        index,
        pos,
        time,
        bytes,
    })
}
