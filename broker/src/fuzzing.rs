//! Private decoders for `tests/fuzz`, which is a crate of its own.
//!
//! Owns: nothing. Never: compiled into what is shipped; see the feature `fuzzing`.

pub use crate::http::{cursor_again, lock_again};
pub use crate::ingest::entry_of;
pub use crate::pledge::reread as pledge;
pub use crate::raft::fuzzing::{checkpoint, peer_message, record, stored_value};
pub use crate::rpc::check_batch;
