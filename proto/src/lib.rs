//! Vocabulary of Weft: ids, events, errors, filters, resources and the wire. No I/O.

#![deny(missing_docs)]

mod ack;
pub mod checksum;
mod error;
pub mod event;
pub mod filter;
mod generated;
mod method;
pub mod packed;
mod pattern;
pub mod resource;
pub mod trace;
mod types;

pub use ack::AckLevel;
pub use error::{Error, ErrorKind, Reason};
pub use generated::{cloudevents, internal, v1};
pub use method::Method;
pub use pattern::{Pattern, PatternError};
pub use types::{
    Epoch, Generation, GroupId, Name, NameError, NodeId, Offset, PartitionId, PartitionUid,
    Principal, ProducerId, QualifiedName, ResourceUid, SchemaId, Sequence, Timestamp,
};

/// Descriptors of all public services with `CloudEvent` messages, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A `Result` with the caller's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
