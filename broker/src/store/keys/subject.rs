//! `s` group partition subject: the offset of the last event with a subject, by the subject's hash.
//! For streams with an index of subjects only; written once an entry is applied, behind no
//! checkpoint of it, and so rebuilt from the newest checkpoint after a crash.

use crate::store::StoreError;
use weft_proto::{GroupId, Offset, PartitionUid};

const TAG: u8 = b's';
/// Bytes of the hash of a subject.
const HASH_LEN: usize = 16;
/// Bytes of a key.
pub const LEN: usize = 13 + HASH_LEN;

/// Builds the key of a subject.
pub fn key(group: GroupId, partition: PartitionUid, hash: [u8; HASH_LEN]) -> [u8; LEN] {
    let mut key = [0; LEN];
    key[..13].copy_from_slice(&super::group_number_key(TAG, group, partition.0));
    key[13..].copy_from_slice(&hash);
    key
}

/// Reads group, partition and the hash of the subject out of a key.
pub fn decode_key(key: &[u8]) -> Result<(GroupId, PartitionUid, [u8; HASH_LEN]), StoreError> {
    let malformed = || StoreError::Record { what: "subject", detail: format!("key {key:02x?}") };
    let (prefix, hash) = key.split_at_checked(13).ok_or_else(malformed)?;
    let hash = hash.try_into().map_err(|_length| malformed())?;
    super::decode_group_key::<1>("subject", TAG, prefix)
        .map(|(group, [partition])| (group, PartitionUid(partition), hash))
}

/// Encodes an offset.
pub fn encode(offset: Offset) -> Vec<u8> {
    super::join([offset.0])
}

/// Decodes an offset.
pub fn decode(value: &[u8]) -> Result<Offset, StoreError> {
    super::fixed::<1>("subject", value).map(|[offset]| Offset(offset))
}
