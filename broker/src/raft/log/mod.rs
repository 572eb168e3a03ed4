//! The logs of all groups of this node, as consensus wants them.
//!
//! *Owns* what is in memory of each log: its end, its newest entries, vote and commit.
//! *Never* calls an entry durable before the writer has synced it.

mod checkpoints;
mod open;
mod reader;
mod state;
mod storage;

use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::pledge::Pledge;
use crate::store::{LogEngine, StoreError, Writer};
use weft_proto::GroupId;

use super::receipts::Receipts;
use super::tail::Budget;
use state::Shared;

pub use checkpoints::LogCheckpoints;
pub use reader::{LogReader, StoredEntry};

/// The most bytes one read for a replica or for apply returns, but for a single greater entry.
const READ_BYTES_MAX: usize = 4 << 20;

/// Opens the logs of a node.
#[derive(Debug, Clone)]
pub struct Logs {
    engine: Arc<dyn LogEngine>,
    writer: Writer,
    budget: Arc<Budget>,
    pledge: Option<Arc<Pledge>>,
}

impl Logs {
    /// The memory for the newest entries of all groups on a machine of its own.
    pub const TAIL_BYTES_NORMAL: usize = 256 << 20;
    /// The same for several nodes on a laptop.
    pub const TAIL_BYTES_SMALL: usize = 32 << 20;

    /// Creates the place where logs are opened.
    pub fn new(engine: Arc<dyn LogEngine>, writer: Writer, tail_bytes_max: usize) -> Self {
        Self { engine, writer, budget: Arc::new(Budget::new(tail_bytes_max)), pledge: None }
    }

    /// Checks each log against what this node has promised, and keeps its promises up to date.
    #[must_use]
    pub fn pledged(mut self, pledge: Arc<Pledge>) -> Self {
        self.pledge = Some(pledge);
        self
    }

    /// Opens the log of a group and verifies it from its newest checkpoint to its end. Reads the
    /// disk: call it where that is allowed, once per group.
    ///
    /// # Errors
    ///
    /// `StoreError::is_suspect` says that the log may have forgotten something: the node must
    /// then neither vote nor lead in this group.
    pub fn open(&self, group: GroupId) -> Result<GroupLog, StoreError> {
        let state = open::recover(&*self.engine, group, &self.budget)?;
        let shared = Arc::new(Shared::new(
            group,
            Arc::clone(&self.engine),
            self.writer.clone(),
            (Arc::clone(&self.budget), self.pledge.clone()),
            state,
        ));
        if let Some(pledge) = &self.pledge {
            if !planted::is(Bug::OldCopyTrusted) {
                open::check_pledge(&pledge.claim(group), &shared)?;
            }
            pledge.watch(&shared);
        }
        let tail = Arc::downgrade(&shared);
        self.budget.register(tail);
        Ok(GroupLog { shared })
    }

    /// Returns the engine, for the records beside the logs.
    pub fn engine(&self) -> &Arc<dyn LogEngine> {
        &self.engine
    }

    /// Returns the writer, for the records beside the logs.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Returns how many bytes of entries are in memory.
    pub fn tail_bytes(&self) -> usize {
        self.budget.used()
    }
}

/// The log of one group: what openraft appends to. There is one per group, inside its core.
#[derive(Debug)]
pub struct GroupLog {
    shared: Arc<Shared>,
}

impl GroupLog {
    /// Returns a handle that reads the log.
    pub fn reader(&self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    /// Returns what this log, and those of its peers, have in memory.
    pub(crate) fn receipts(&self) -> Arc<Receipts> {
        Arc::clone(&self.shared.receipts)
    }

    /// Returns the checkpoints of this group.
    pub fn checkpoints(&self) -> LogCheckpoints {
        LogCheckpoints { shared: Arc::clone(&self.shared) }
    }

    /// Returns the log for a core that takes the place of one that panicked. What is in memory
    /// stays valid, and so do all readers.
    pub(crate) fn again(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[cfg(test)]
mod tests;
