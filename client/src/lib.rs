//! The Rust client of Weft.
#![deny(missing_docs)]
mod channels;
mod options;
mod publisher;
mod retry;
pub use options::{Options, Secret, Timeouts, Tls};
