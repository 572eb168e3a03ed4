//! Vocabulary of Weft: ids, events, errors, filters, resources and the wire. No I/O.

mod generated;
mod types;

pub use generated::{cloudevents, v1};
pub use types::{
    Epoch, Generation, GroupId, Name, NameError, NodeId, Offset, PartitionId, PartitionUid,
    Principal, ProducerId, QualifiedName, ResourceUid, SchemaId, Sequence, Timestamp,
};
