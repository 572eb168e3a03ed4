//! `v` group: the last vote, encoded by `raft::codec`.

use crate::store::{GroupId, StoreError};

const TAG: u8 = b'v';

/// Builds the key of a group's vote.
pub fn key(group: GroupId) -> [u8; 9] {
    super::group_key(TAG, group.0)
}

/// Reads the group out of a key.
pub fn decode_key(key: &[u8]) -> Result<GroupId, StoreError> {
    super::numbers::<1>("vote", TAG, key).map(|[group]| GroupId(group))
}
