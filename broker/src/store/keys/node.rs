//! `n`: who this node is, as its owner encodes it.

/// The key of the node record.
pub const KEY: &[u8] = b"n";
