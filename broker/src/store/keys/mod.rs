//! The disk format on one screen: one file per family of keys.
//!
//! | Key | Family | Value |
//! |---|---|---|
//! | index | log of the group | entry, see `raft::record` |
//! | `n` | meta | node |
//! | `v` group | meta | vote |
//! | `c` group | meta | committed log id |
//! | `p` group | meta | last purged point |
//! | `l` group term | meta | first index of the term |
//! | `k` group index | meta | checkpoint: point, then the state machine's own bytes |
//! | `i` group partition base | meta | index record |
//! | `s` group partition subject | meta | offset of the last event with this subject |
//!
//! Numbers in keys are big endian, so that they sort; numbers in values are little endian.

pub mod checkpoint;
pub mod committed;
pub mod entry;
pub mod index;
pub mod node;
pub mod point;
pub mod purged;
pub mod subject;
pub mod term;
pub mod vote;

use weft_proto::GroupId;

use super::StoreError;

/// Builds `tag`, group.
const fn group_key(tag: u8, group: GroupId) -> [u8; 5] {
    let g = group.0.to_be_bytes();
    [tag, g[0], g[1], g[2], g[3]]
}

/// Builds `tag`, group, number.
fn group_number_key(tag: u8, group: GroupId, number: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..5].copy_from_slice(&group_key(tag, group));
    key[5..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Takes the group and the numbers after it out of a key of a known tag.
fn decode_group_key<const N: usize>(
    what: &'static str,
    tag: u8,
    key: &[u8],
) -> Result<(GroupId, [u64; N]), StoreError> {
    let malformed = || StoreError::Record { what, detail: format!("key {key:02x?}") };
    let (&[first, ref group @ ..], rest) = key.split_first_chunk::<5>().ok_or_else(malformed)?;
    if first != tag || rest.len() != N * 8 {
        return Err(malformed());
    }
    let mut found = [0; N];
    for (number, bytes) in found.iter_mut().zip(rest.chunks_exact(8)) {
        *number = u64::from_be_bytes(bytes.try_into().map_err(|_short| malformed())?);
    }
    Ok((GroupId(u32::from_be_bytes(*group)), found))
}

/// Takes little-endian numbers out of a value of known length.
fn fixed<const N: usize>(what: &'static str, value: &[u8]) -> Result<[u64; N], StoreError> {
    let malformed = || StoreError::Record {
        what,
        detail: format!("{} bytes, expected {}", value.len(), N * 8),
    };
    if value.len() != N * 8 {
        return Err(malformed());
    }
    let mut found = [0; N];
    for (number, bytes) in found.iter_mut().zip(value.chunks_exact(8)) {
        *number = u64::from_le_bytes(bytes.try_into().map_err(|_short| malformed())?);
    }
    Ok(found)
}

/// Writes little-endian numbers.
fn join<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests;
