//! openraft's own suite, on both engines.

use std::io;
use std::sync::{Arc, Mutex};

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{OptionalSend, StorageError};
use tempfile::TempDir;

use super::support::Node;
use crate::raft::log::GroupLog;
use crate::raft::types::{EntryPayload, LogId, Reply, StoredMembership, TypeConfig};
use crate::store::MemoryEngine;

/// Remembers what was applied, and snapshots right there: what the suite expects.
#[derive(Debug, Clone, Default)]
struct Machine {
    state: Arc<Mutex<Applied>>,
}

#[derive(Debug, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMetaOf<TypeConfig>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        let mut state = self.state.lock().unwrap();
        let last_membership = state.membership.clone();
        let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: state.last, last_membership };
        state.snapshot = Some(meta.clone());
        Ok(SnapshotOf::<TypeConfig, ()> { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state.lock().unwrap();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut state = self.state.lock().unwrap();
            state.last = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                state.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Reply::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        (): (),
    ) -> Result<(), io::Error> {
        let mut state = self.state.lock().unwrap();
        state.last = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        let meta = self.state.lock().unwrap().snapshot.clone();
        Ok(meta.map(|meta| SnapshotOf::<TypeConfig, ()> { meta, snapshot: () }))
    }
}

struct OnMemory;

impl StoreBuilder<TypeConfig, GroupLog, Machine, Node> for OnMemory {
    async fn build(&self) -> Result<(Node, GroupLog, Machine), StorageError<TypeConfig>> {
        let node = Node::memory(&MemoryEngine::new());
        let log = node.open();
        Ok((node, log, Machine::default()))
    }
}

struct OnRocks;

impl StoreBuilder<TypeConfig, GroupLog, Machine, (Node, TempDir)> for OnRocks {
    async fn build(
        &self,
    ) -> Result<((Node, TempDir), GroupLog, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::rocks(dir.path());
        let log = node.open();
        Ok(((node, dir), log, Machine::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_engine_passes() {
    Suite::test_all(OnMemory).await.unwrap();
}

#[tokio::test]
async fn rocksdb_passes() {
    Suite::test_all(OnRocks).await.unwrap();
}
