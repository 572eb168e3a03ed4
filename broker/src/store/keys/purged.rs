//! `p` group: the last purged point. Entries up to there are never read again, and the chain
//! goes on from it.

use crate::store::{GroupId, StoreError};

pub use super::point::{decode, encode};

const TAG: u8 = b'p';

/// Builds the key of a group's purged point.
pub fn key(group: GroupId) -> [u8; 9] {
    super::group_key(TAG, group.0)
}

/// Reads the group out of a key.
pub fn decode_key(key: &[u8]) -> Result<GroupId, StoreError> {
    super::numbers::<1>("purged", TAG, key).map(|[group]| GroupId(group))
}
