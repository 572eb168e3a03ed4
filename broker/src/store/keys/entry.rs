//! `index`: an entry, in the log of its group. The value belongs to `raft::record`.

use crate::store::StoreError;

/// Builds the key of an entry.
pub fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// Reads the index out of a key.
pub fn decode_key(key: &[u8]) -> Result<u64, StoreError> {
    key.try_into()
        .map(u64::from_be_bytes)
        .map_err(|_short| StoreError::Record { what: "entry", detail: format!("key {key:02x?}") })
}
