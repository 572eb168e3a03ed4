//! The Weft broker: log, replication, subscriptions, catalog.

pub mod access;
pub mod audit;
pub mod birth;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod data;
pub mod dedup;
pub mod delay;
pub mod entry;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod identity;
pub mod ingest;
pub mod lend;
pub mod listen;
pub mod members;
pub mod metrics;
mod node;
pub mod partition;
pub mod peer;
pub mod planted;
pub mod pledge;
mod presence;
pub mod raft;
pub mod read;
pub mod resources;
pub mod retention;
pub mod room;
pub mod rpc;
pub mod security;
#[cfg(test)]
mod sim;
pub mod state;
pub mod store;
pub mod subjects;
pub mod subscription;
pub mod tasks;

pub use node::{Process, RunError, run};
