//! `k` group index: the state after an entry. The value begins with the point of that entry,
//! so that the log can be verified from there; the rest belongs to the state machine.

use super::point::{self, LogPoint};
use crate::store::StoreError;
use weft_proto::GroupId;

const TAG: u8 = b'k';

/// Builds the key of a checkpoint.
pub fn key(group: GroupId, index: u64) -> [u8; 13] {
    super::group_number_key(TAG, group, index)
}

/// Reads group and index out of a key.
pub fn decode_key(key: &[u8]) -> Result<(GroupId, u64), StoreError> {
    super::decode_group_key::<1>("checkpoint", TAG, key).map(|(group, [index])| (group, index))
}

/// Encodes a checkpoint: the point, then the state.
pub fn encode(at: &LogPoint, state: &[u8]) -> Vec<u8> {
    let mut value = point::encode(at);
    value.extend_from_slice(state);
    value
}

/// Decodes a checkpoint into the point and the state.
pub fn decode(value: &[u8]) -> Result<(LogPoint, &[u8]), StoreError> {
    let (head, state) = value.split_at_checked(point::LEN).ok_or_else(|| StoreError::Record {
        what: "checkpoint",
        detail: format!("{} bytes", value.len()),
    })?;
    Ok((point::decode(head)?, state))
}
