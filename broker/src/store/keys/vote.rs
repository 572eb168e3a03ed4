//! `v` group: the last vote, encoded by `raft::codec`.

use crate::store::StoreError;
use weft_proto::GroupId;

const TAG: u8 = b'v';

/// Builds the key of a group's vote.
pub fn key(group: GroupId) -> [u8; 5] {
    super::group_key(TAG, group)
}

/// Reads the group out of a key.
pub fn decode_key(key: &[u8]) -> Result<GroupId, StoreError> {
    super::decode_group_key::<0>("vote", TAG, key).map(|(group, [])| group)
}
