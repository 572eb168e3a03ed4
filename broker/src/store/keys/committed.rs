//! `c` group: the last committed log id known here, a hint for the next start.

use crate::store::StoreError;
use weft_proto::GroupId;

const TAG: u8 = b'c';

/// Builds the key of a group's committed log id.
pub fn key(group: GroupId) -> [u8; 5] {
    super::group_key(TAG, group)
}

/// Reads the group out of a key.
pub fn decode_key(key: &[u8]) -> Result<GroupId, StoreError> {
    super::decode_group_key::<0>("committed", TAG, key).map(|(group, [])| group)
}

/// Encodes term and index.
pub fn encode(term: u64, index: u64) -> Vec<u8> {
    super::join([term, index])
}

/// Decodes term and index.
pub fn decode(value: &[u8]) -> Result<(u64, u64), StoreError> {
    super::fixed::<2>("committed", value).map(|[term, index]| (term, index))
}
