//! The Weft broker: log, replication, subscriptions, catalog.
