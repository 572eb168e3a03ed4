//! Which events a group has seen lately, by the hash of their (source, id).
//!
//! The entry's header carries the hashes, and every replica keeps them for a while ([`Window`]). The
//! leader makes a table of them ([`Table`]) and looks every event up before it proposes. What it
//! finds there is a suspicion only: whoever decides compares with the stored event. So a hash that
//! two events share costs a look into the log and nothing else, and a hash of 8 bytes is enough.
//!
//! Neither is part of the replicated state: whether a batch is accepted follows from its expected
//! base alone. A replica that starts reads the window from its log again.
//!
//! Never: decides; reads a clock; iterates a hash map in an order that anybody can see.

mod table;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

pub use table::{Suspect, Table};
pub use window::{Seen, Window};

/// Identities are kept at least this long, by log time, unless there are more than [`IDS_MAX`].
pub const WINDOW_TIME: Duration = Duration::from_mins(2);
/// So many identities of one group are kept at least, unless they are older than [`WINDOW_TIME`].
pub const IDS_MAX: usize = 1_000_000;
