//! The Weft broker: log, replication, subscriptions, catalog.

pub mod birth;
pub mod catalog;
pub mod entry;
pub mod identity;
pub mod partition;
pub mod peer;
pub mod raft;
pub mod state;
pub mod store;
pub mod subscription;
pub mod tasks;
