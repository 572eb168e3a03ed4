//! `l` group term: the first index a term has in the log.

use crate::store::StoreError;
use weft_proto::GroupId;

const TAG: u8 = b'l';

/// Builds the key of a term.
pub fn key(group: GroupId, term: u64) -> [u8; 13] {
    super::group_number_key(TAG, group, term)
}

/// Reads group and term out of a key.
pub fn decode_key(key: &[u8]) -> Result<(GroupId, u64), StoreError> {
    super::decode_group_key::<1>("term", TAG, key).map(|(group, [term])| (group, term))
}

/// Encodes the first index.
pub fn encode(first: u64) -> Vec<u8> {
    super::join([first])
}

/// Decodes the first index.
pub fn decode(value: &[u8]) -> Result<u64, StoreError> {
    super::fixed::<1>("term", value).map(|[first]| first)
}
