//! Data groups: logs that carry the partitions of many streams.
//!
//! *Owns* the handles of one group: its consensus, its state, its log and its sequencer.

mod machine;
mod reread;
pub mod sequencer;
mod subjects;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use machine::{Base, DataMachine};
pub use reread::reread_window;
pub use sequencer::{Appended, NewAppend, Packed, Placed, SchemaIds, Sequencer, identity_reused};
pub use subjects::Recent;
use tokio::sync::watch;
use weft_proto::{GroupId, Offset, PartitionUid, Timestamp};

use crate::raft::group::Group;
use crate::raft::log::LogReader;
use crate::raft::machine::AppliedUpto;
use crate::state::GroupState;
use crate::store::{LogEngine, Writer};

/// One data group on this node; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct DataGroup {
    /// Its id.
    pub id: GroupId,
    /// Its consensus.
    pub raft: Group,
    /// Its log, up to the commit.
    pub log: LogReader,
    /// Where index records and those of subjects are.
    pub engine: Arc<dyn LogEngine>,
    /// Where they are before.
    pub writer: Writer,
    /// The way to append while this node leads.
    pub sequencer: Sequencer,
    /// Its state.
    pub machine: Arc<Mutex<DataMachine>>,
}

/// Which offsets of a partition this node can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first stored offset.
    pub floor: Offset,
    /// One past the last committed event that this node knows.
    pub end: Offset,
}

impl DataGroup {
    /// Looks at the state; keep it short, appends wait meanwhile.
    pub fn with_state<T>(&self, look: impl FnOnce(&GroupState) -> T) -> T {
        look(lock(&self.machine).state())
    }

    /// Readable offsets of a partition; nothing is readable before it was opened.
    pub fn bounds(&self, partition: PartitionUid) -> Bounds {
        let machine = lock(&self.machine);
        let known = machine.state().partitions().get(partition);
        let floor = known.map_or(Offset(0), crate::partition::Partition::floor);
        let end = known.map_or(Offset(0), crate::partition::Partition::end);
        // What this replica never had, or has no more, it cannot read.
        Bounds { floor: floor.max(machine.base().end(partition)), end }
    }

    /// The entry at which the log of this replica can be read first, and which offset of the
    /// partition is the next one there.
    pub fn beginning(&self, partition: PartitionUid) -> (u64, Offset) {
        let machine = lock(&self.machine);
        let base = machine.base();
        let index = base.index().map_or_else(|| self.log.first_index(), |last| last + 1);
        (index, base.end(partition))
    }

    /// How many events' repeats would be recognised by source and id, and since when.
    pub fn remembered(&self) -> (u64, Option<Timestamp>) {
        let machine = lock(&self.machine);
        (machine.window().len() as u64, machine.window().since())
    }

    /// Where an identity was seen last, as far back as repeats are recognised. It goes through all of
    /// them: for a question now and then.
    pub fn seen(&self, identity: u64) -> Option<Offset> {
        lock(&self.machine).window().find(identity)
    }

    /// Rings when the partition has new events.
    pub fn bell(&self, partition: PartitionUid) -> watch::Receiver<()> {
        lock(&self.machine).bell(partition)
    }

    /// Follows what is applied.
    pub fn applied(&self) -> watch::Receiver<AppliedUpto> {
        self.raft.applied_watch()
    }
}

/// A panic while the lock was held has stopped the group already; reading on is harmless.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
