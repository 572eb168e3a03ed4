//! `p` group: the last purged point. Entries up to there are never read again, and the chain
//! goes on from it.

use crate::store::StoreError;
use weft_proto::GroupId;

pub use super::point::{decode, encode};

const TAG: u8 = b'p';

/// Builds the key of a group's purged point.
pub fn key(group: GroupId) -> [u8; 5] {
    super::group_key(TAG, group)
}

/// Reads the group out of a key.
pub fn decode_key(key: &[u8]) -> Result<GroupId, StoreError> {
    super::decode_group_key::<0>("purged", TAG, key).map(|(group, [])| group)
}
