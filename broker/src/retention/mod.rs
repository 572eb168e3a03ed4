//! Carries retention out: what a stream's policy lets go, first for readers, then from the disk.
//!
//! The leader of a group turns ages, bytes and counts into offsets, and proposes them; every replica
//! raises its floors alike when it applies the entry. The floor of the log itself is always a
//! checkpoint, and each replica frees its disk up to there in its own time. *Never* decides by the
//! age of a file, and never by a clock that jumped.

mod floor;
mod leader;
mod replica;
mod subjects;
mod weigh;

use std::time::Duration;

use weft_proto::PartitionUid;
use weft_proto::resource::Retention;

pub use leader::Leader;
pub use replica::{Replica, base_of};
pub use weigh::stored_bytes;

/// How retention works on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks at what may go.
    pub tick: Duration,
    /// The newest part of the log that stays whatever the streams say: repeats are recognised by it.
    pub log_kept: Duration,
}

/// What a partition may keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The partition.
    pub partition: PartitionUid,
    /// Of its stream.
    pub retention: Retention,
}

/// Knows the policies in force.
pub trait Policies: Send + Sync + 'static {
    /// Those of all partitions of a group.
    fn policies_of(&self, group: weft_proto::GroupId) -> Vec<Policy>;
}
