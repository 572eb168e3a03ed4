//! The seam under storage: what a log engine must do, whichever it is.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use futures::future::BoxFuture;
use weft_proto::GroupId;

use super::{Changes, StoreError};

/// A space of keys. Each group's log has its own, so that it can be cut off file by file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Small records of all groups.
    Meta,
    /// The entries of one group, keyed by their index.
    Log(GroupId),
}

/// Sees key and value of each record of a scan, and says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Ordered, durable keys and values.
///
/// Writes are atomic. After an error of a write nobody knows what is on disk: the engine
/// refuses all later writes, and the process must end.
pub trait LogEngine: fmt::Debug + Send + Sync + 'static {
    /// Makes the log of a group ready; creates it when it is new.
    fn open_group(&self, group: GroupId) -> Result<(), StoreError>;

    /// Deletes the log of a group, at once and for good. Its records in meta are not touched.
    fn drop_group(&self, group: GroupId) -> Result<(), StoreError>;

    /// Lists the groups that have a log, in order.
    fn groups(&self) -> Vec<GroupId>;

    /// Writes all changes as one, and returns when they are on disk.
    fn write_synced(&self, changes: &[Changes]) -> Result<(), StoreError>;

    /// Returns what to wait for until the last `write_synced` is on disk: nothing where that call
    /// itself waits, as an engine must that has a thread to block. A simulated disk has none.
    fn syncing(&self) -> Option<BoxFuture<'static, Result<(), StoreError>>> {
        None
    }

    /// Writes all changes as one. A crash may lose them, but only with everything written
    /// after them, and not once a later `write_synced` returned.
    fn write_unsynced(&self, changes: &[Changes]) -> Result<(), StoreError>;

    /// Returns the value of a key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the records from `from` up to but without `to`, in key order.
    ///
    /// An early end without an error is a complete scan: the engine checks for damage.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// Returns the greatest record between `from` and `to`, both included.
    fn last_in(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, StoreError>;

    /// Frees files that hold nothing above `index`. Entries up to there may stay or even return
    /// in older versions, so the caller must never read them again.
    fn drop_files(&self, group: GroupId, index: u64) -> Result<(), StoreError>;

    /// Says whether a read may wait for a disk; if so it does not belong on an async worker.
    fn is_blocking(&self) -> bool;
}
