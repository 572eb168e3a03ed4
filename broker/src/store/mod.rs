//! Storage of one node: one engine, one writer thread, and the keys of everything stored.
//!
//! *Owns* what is on disk: the logs of all groups and the small records beside them.
//! *Never* knows what an entry means, and is the only place that names RocksDB.

mod changes;
mod engine;
mod error;
pub mod keys;
mod memory;
mod rocks;
mod writer;

pub use changes::{Change, Changes};
pub use engine::{Family, LogEngine, Visit};
pub use error::StoreError;
pub use memory::MemoryEngine;
pub use rocks::{Profile, RocksEngine};
pub use writer::{Done, Queued, Writer, WriterLoop, WriterOptions, WriterStats};

#[cfg(test)]
mod tests;
