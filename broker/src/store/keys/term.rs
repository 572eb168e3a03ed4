//! `l` group term: the first index a term has in the log.

use crate::store::{GroupId, StoreError};

const TAG: u8 = b'l';

/// Builds the key of a term.
pub fn key(group: GroupId, term: u64) -> [u8; 17] {
    super::group_number_key(TAG, group.0, term)
}

/// Reads group and term out of a key.
pub fn decode_key(key: &[u8]) -> Result<(GroupId, u64), StoreError> {
    super::numbers::<2>("term", TAG, key).map(|[group, term]| (GroupId(group), term))
}

/// Encodes the first index.
pub fn encode(first: u64) -> Vec<u8> {
    super::join([first])
}

/// Decodes the first index.
pub fn decode(value: &[u8]) -> Result<u64, StoreError> {
    super::fixed::<1>("term", value).map(|[first]| first)
}
