//! Reading stored events: from memory near the end, from disk further back.
//!
//! *Owns* the threads that read the disk for readers. *Never* shows an event above the commit.

mod history;
mod locate;
mod tape;

pub use history::History;
pub use locate::{locate, resolve};
pub use tape::{Run, Tape};
