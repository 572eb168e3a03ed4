//! The Weft broker: log, replication, subscriptions, catalog.

pub mod entry;
pub mod partition;
pub mod raft;
pub mod state;
pub mod store;
pub mod subscription;
