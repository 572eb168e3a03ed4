//! The Weft broker: log, replication, subscriptions, catalog.

pub mod raft;
pub mod store;
