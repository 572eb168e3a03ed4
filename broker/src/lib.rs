//! The Weft broker: log, replication, subscriptions, catalog.

pub mod entry;
