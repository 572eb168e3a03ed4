//! Consensus: everything that names openraft lives here.
//!
//! *Owns* the Raft groups of this node: their logs, state machines and connections.
//! *Never* lets a type of openraft reach an API, the wire or the disk.

pub mod balance;
pub mod codec;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod group;
pub mod groups;
pub mod log;
pub mod machine;
mod network;
mod pipeline;
pub mod point;
pub mod receipts;
pub(crate) mod record;
#[cfg(test)]
mod seeded;
pub mod snapshot;
mod tail;
mod thin;
pub mod types;
mod wire;

#[cfg(test)]
mod tests;
