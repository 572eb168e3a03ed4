//! The handle to one Raft group on this node, and the task that keeps it alive.
//!
//! *Owns* the consensus core: when it panics, it is built anew over the same store and state; when
//! the store failed, the process must end. *Never* shows a type of openraft.

mod life;
mod members;
mod outcome;
mod timers;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{Fatal, LinearizableReadError, RaftError};
use openraft::storage::RaftLogStorage;
use openraft::{Raft, ReadPolicy};
use tokio::sync::watch;
use weft_proto::{GroupId, NodeId};

use crate::peer::Transport;
use crate::raft::log::{GroupLog, LogReader, Logs};
use crate::raft::machine::{AppliedUpto, CHECKPOINT_BYTES, Driver, SharedMachine, State};
use crate::raft::network::Connect;
use crate::raft::receipts::Receipts;
use crate::raft::snapshot::{Checkpoints, SnapshotPolicy, StoredCheckpoints};
use crate::raft::types::{Ack, Payload, TypeConfig};
use crate::store::StoreError;

pub use outcome::{Error, Leadership, Pending, ProposeError, Status};
pub use timers::Timers;

pub(in crate::raft) type Core = Raft<TypeConfig, Driver>;

/// What a group is made of. `open_log` is called again when its core is rebuilt.
pub struct Parts<L> {
    /// Its id.
    pub group: GroupId,
    /// Its state machine.
    pub machine: Arc<dyn SharedMachine>,
    /// Where its checkpoints are kept.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// Which state it hands to replicas that need one.
    pub policy: SnapshotPolicy,
    /// Bytes of its log between two checkpoints; the same on all replicas.
    pub checkpoint_bytes: u64,
    /// What its log, and those of its peers, have in memory.
    pub receipts: Arc<Receipts>,
    /// Opens its log.
    pub open_log: Box<dyn Fn() -> L + Send + Sync>,
}

impl<L> fmt::Debug for Parts<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Parts<GroupLog> {
    /// Opens the log of a group in the store of this node; reads the disk. Returns a reader of it
    /// too.
    pub fn stored(
        logs: &Logs,
        group: GroupId,
        machine: Arc<dyn SharedMachine>,
        policy: SnapshotPolicy,
    ) -> Result<(Self, LogReader), StoreError> {
        let log = logs.open(group)?;
        let reader = log.reader();
        let checkpoints = StoredCheckpoints::new(group, logs.clone(), reader.clone());
        let receipts = log.receipts();
        let open_log = Box::new(move || log.again());
        let checkpoints = Arc::new(checkpoints);
        let checkpoint_bytes = CHECKPOINT_BYTES;
        let parts =
            Self { group, machine, checkpoints, policy, checkpoint_bytes, receipts, open_log };
        Ok((parts, reader))
    }
}

type Build = Box<dyn Fn() -> BoxFuture<'static, Result<Core, Error>> + Send + Sync>;

struct Inner {
    group: GroupId,
    node: NodeId,
    core: Mutex<Core>,
    state: Arc<State>,
    receipts: Arc<Receipts>,
    leadership: watch::Sender<Leadership>,
    build: Build,
    stopping: AtomicBool,
}

/// A group on this node; clones are handles to the same one.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("group", &self.inner.group)
            .field("leadership", &*self.inner.leadership.borrow())
            .finish_non_exhaustive()
    }
}

impl Group {
    /// Opens a group over its log and state and lets it take part. Run `supervise` beside it.
    pub(in crate::raft) async fn open<L: RaftLogStorage<TypeConfig>>(
        node: NodeId,
        timers: Timers,
        transport: Arc<dyn Transport>,
        parts: Parts<L>,
    ) -> Result<Self, Error> {
        let config = Arc::new(timers::config(timers)?);
        let group = parts.group;
        let mut log = (parts.open_log)();
        let purged = log.get_log_state().await?.last_purged_log_id;
        let floor = purged.map_or(0, |id| id.index);
        let policy = (parts.policy, parts.checkpoint_bytes);
        let state = State::open(parts.machine, parts.checkpoints, policy, floor)?;
        let state = Arc::new(state);
        let open_log = parts.open_log;
        let shared = Arc::clone(&state);
        let receipts = parts.receipts;
        let told = Arc::clone(&receipts);
        let build: Build = Box::new(move || {
            let (transport, receipts) = (Arc::clone(&transport), Arc::clone(&told));
            let connect = Connect { group, node, transport, receipts };
            let log = open_log();
            let driver = shared.drive();
            let config = Arc::clone(&config);
            Box::pin(async move {
                Raft::new(node.get(), config, connect, log, driver?)
                    .await
                    .map_err(|fatal| Error::Stopped(fatal.to_string()))
            })
        });
        let core = Mutex::new(build().await?);
        let leadership = watch::Sender::new(Leadership::default());
        let stopping = AtomicBool::new(false);
        let inner = Inner { group, node, core, state, receipts, leadership, build, stopping };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the id of the group.
    pub fn id(&self) -> GroupId {
        self.inner.group
    }

    pub(in crate::raft) fn core(&self) -> Core {
        // The lock only guards a handle.
        self.inner.core.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all entries that this replica has by now are on disk.
    pub(in crate::raft) async fn sync(&self) -> std::io::Result<()> {
        self.inner.state.sync().await
    }

    /// Queues an entry; entries of one caller are agreed on in the order of these calls.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready queues nothing. Dropping the `Pending` does not take
    /// the entry back.
    pub async fn propose(&self, payload: Bytes) -> Result<Pending, ProposeError> {
        let (ack, answer) = Ack::channel();
        let core = self.core();
        let queued = core.client_write_ff(Payload(payload), Some(ack));
        // openraft (alpha.37) panics in `get_core_stop_error` when the core is dead and another
        // caller stopped waiting for the reason; the proposer must not die of that.
        match AssertUnwindSafe(queued).catch_unwind().await {
            Ok(Ok(())) => Ok(Pending { answer }),
            // Its queue was closed: the core never saw the entry.
            Ok(Err(Fatal::Panicked)) | Err(_) => Err(ProposeError::NotLeader { leader: None }),
            Ok(Err(_fatal)) => Err(ProposeError::Fatal),
        }
    }

    /// The same, only while this node leads in this term: an entry that comes late, under another
    /// term, is refused instead of being agreed on where nobody expects it.
    ///
    /// # Cancel safety
    ///
    /// As for `propose`.
    pub async fn propose_in(&self, term: u64, payload: Bytes) -> Result<Pending, ProposeError> {
        let (ack, answer) = Ack::channel();
        let core = self.core();
        let request = core.write(Payload(payload)).with_leader(term).responder(ack);
        // openraft panics when it asks a dead core why it died, see `propose`.
        match AssertUnwindSafe(async move { request.await }).catch_unwind().await {
            Ok(Ok(())) => Ok(Pending { answer }),
            Ok(Err(Fatal::Panicked)) | Err(_) => Err(ProposeError::NotLeader { leader: None }),
            Ok(Err(_fatal)) => Err(ProposeError::Fatal),
        }
    }

    /// Returns what the replicas have in memory.
    pub fn receipts(&self) -> &Arc<Receipts> {
        &self.inner.receipts
    }

    /// Returns up to which time a majority has the entries of this node's own term in memory.
    /// Entries may be missing among them that this node's log did not take; see
    /// [`Receipts::has_own`].
    pub fn in_memory_upto(&self, term: u64) -> u64 {
        let core = self.core();
        let metrics = core.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().get_joint_config();
        self.inner.receipts.upto(term, self.inner.node.get(), voters)
    }

    /// Returns the node this handle is on.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// Returns who leads, if known.
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.leadership.borrow().leader
    }

    /// Follows who leads, and when this node is ready to.
    pub fn leader_watch(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// Follows what is applied to the state.
    pub fn applied_watch(&self) -> watch::Receiver<AppliedUpto> {
        self.inner.state.applied()
    }

    /// Returns the last entry known to be agreed on; readers of the log stop there.
    pub fn committed(&self) -> Option<u64> {
        self.core().metrics().borrow_watched().local_committed.map(|id| id.index)
    }

    /// Confirms leadership with a majority and waits until all that was agreed on before this
    /// call is applied.
    pub async fn ensure_linearizable(&self) -> Result<(), Error> {
        match self.core().ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_upto) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(Error::NotLeader { leader: forward.leader_id.map(NodeId) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(Error::NoQuorum)
            }
            Err(RaftError::Fatal(fatal)) => Err(Error::Stopped(fatal.to_string())),
        }
    }

    /// Returns how the group is doing.
    pub fn status(&self) -> Status {
        let core = self.core();
        let metrics = core.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.iter().flatten();
        Status {
            term: metrics.current_term,
            leader: metrics.current_leader.map(NodeId),
            first: metrics.purged.map_or(0, |id| id.index.saturating_add(1)),
            last: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            matched: matched.map(|(node, id)| (NodeId(*node), id.map(|id| id.index))).collect(),
            voters: metrics.membership_config.voter_ids().map(NodeId).collect(),
        }
    }

    /// Takes the checkpoint at `index` as the new floor of an `AtFloor` group.
    pub fn raise_floor(&self, index: u64) {
        self.inner.state.raise_floor(index);
    }

    /// Publishes a snapshot by the policy of the group, then forgets the entries up to `index`.
    pub async fn trim_log(&self, index: u64) -> Result<(), Error> {
        let core = self.core();
        let stopped = |fatal: Fatal<TypeConfig>| Error::Stopped(fatal.to_string());
        core.trigger().snapshot().await.map_err(stopped)?;
        let published = core.wait(Some(Duration::from_secs(10)));
        let covered = |snapshot: Option<u64>| snapshot.is_some_and(|at| at >= index);
        published
            .metrics(
                |now| covered(now.snapshot.map(|id| id.index)),
                "a snapshot covers the entries",
            )
            .await
            .map_err(|_late| Error::Late)?;
        core.trigger().purge_log(index).await.map_err(stopped)
    }

    /// The peer address of a voter or learner, as the newest membership of the log has it.
    pub fn address_of(&self, node: NodeId) -> Option<String> {
        let core = self.core();
        let metrics = core.metrics();
        let metrics = metrics.borrow_watched();
        let known = metrics.membership_config.get_node(&node.get());
        known.map(|known| known.address.clone())
    }

    #[cfg(test)]
    pub(in crate::raft) fn membership(&self) -> crate::raft::types::StoredMembership {
        (*self.core().metrics().borrow_watched().membership_config).clone()
    }

    #[cfg(test)]
    pub(in crate::raft) fn snapshot_index(&self) -> Option<u64> {
        self.core().metrics().borrow_watched().snapshot.map(|id| id.index)
    }

    #[cfg(test)]
    pub(in crate::raft) async fn ask_snapshot(&self) {
        self.core().trigger().snapshot().await.unwrap();
    }
}
