//! The checkpoints of one group, kept beside its log.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::raft::point::LogPoint;
use crate::store::keys::{checkpoint, point};
use crate::store::{Changes, Family, StoreError};

use super::state::Shared;

/// Stores and finds the checkpoints of one group. Clones share it.
///
/// INVARIANT: a checkpoint is queued behind the entries it covers, so it is never on disk
/// without them, unless a snapshot put it there.
#[derive(Debug, Clone)]
pub struct LogCheckpoints {
    pub(super) shared: Arc<Shared>,
}

impl LogCheckpoints {
    /// Queues a checkpoint that a crash may lose: the entries behind it are still there.
    pub async fn put(&self, at: &LogPoint, state: &[u8]) -> Result<(), StoreError> {
        self.shared.writer.put_behind_deferred(self.changes(at, state)).await
    }

    /// Stores a checkpoint that replaces entries, and returns when it is on disk. Its chain is
    /// the one of the node that sent it: the log goes on from there once it is purged.
    pub async fn put_synced(&self, at: &LogPoint, state: &[u8]) -> Result<(), StoreError> {
        self.shared.writer.put_synced(self.changes(at, state)).await
    }

    /// Returns the newest checkpoint at or below an index. Reads the disk.
    pub fn newest(&self, upto: u64) -> Result<Option<(LogPoint, Bytes)>, StoreError> {
        let group = self.shared.group;
        let keys = (checkpoint::key(group, 0), checkpoint::key(group, upto));
        let Some((_, value)) = self.shared.engine.last_in(Family::Meta, &keys.0, &keys.1)? else {
            return Ok(None);
        };
        let (at, _) = checkpoint::decode(&value)?;
        Ok(Some((at, value.slice(point::LEN..))))
    }

    fn changes(&self, at: &LogPoint, state: &[u8]) -> Changes {
        let key = checkpoint::key(self.shared.group, at.index);
        let mut changes = Changes::new();
        changes.put(Family::Meta, &key, &checkpoint::encode(at, state));
        changes
    }
}

impl Shared {
    /// Lists the checkpoints that nobody needs once the log begins after `purged`: all below the
    /// newest one at or below it. Reads the disk.
    pub(super) fn useless_checkpoints(&self, purged: u64) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        let mut outcome = Ok(());
        let keys =
            (checkpoint::key(self.group, 0), checkpoint::key(self.group, purged.saturating_add(1)));
        self.engine.scan(
            Family::Meta,
            &keys.0,
            &keys.1,
            &mut |key, _| match checkpoint::decode_key(key) {
                Ok((_, index)) => {
                    found.push(index);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        found.pop();
        outcome.map(|()| found)
    }
}
