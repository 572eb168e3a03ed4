//! The Weft broker: log, replication, subscriptions, catalog.

pub mod entry;
pub mod partition;
pub mod state;
pub mod subscription;
