//! One newtype for each kind of number and name, so that they cannot be confused.

mod name;
mod number;
mod principal;
mod producer;
mod timestamp;

pub use name::{Name, NameError, QualifiedName};
pub use number::{Epoch, Generation, SchemaId, Sequence};
pub use number::{GroupId, NodeId, Offset, PartitionId, PartitionUid, ResourceUid};
pub use principal::Principal;
pub use producer::ProducerId;
pub use timestamp::Timestamp;
