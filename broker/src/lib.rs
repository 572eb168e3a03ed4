//! The Weft broker: log, replication, subscriptions, catalog.

pub mod birth;
pub mod identity;
pub mod peer;
pub mod raft;
pub mod store;
pub mod tasks;
