//! The handle to one Raft group on this node, and the task that keeps it alive.
//!
//! *Owns* the consensus core: when it panics, it is built anew over the same store and state; when
//! the store failed, the process must end. *Never* shows a type of openraft.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{
    ClientWriteError, Fatal, InitializeError, LinearizableReadError, RaftError,
};
use openraft::storage::RaftLogStorage;
use openraft::{ChangeMembers, Raft, ReadPolicy, ServerState};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weft_proto::{GroupId, NodeId};

use super::log::{GroupLog, LogReader, Logs};
use super::machine::{AppliedUpto, Driver, SharedMachine, State};
use super::network::Connect;
use super::snapshot::{Checkpoints, SnapshotPolicy, StoredCheckpoints};
use super::types::{Ack, Payload, PeerNode, Reply, TypeConfig, WriteResult};
use crate::peer::{Peer, Transport};
use crate::store::StoreError;

pub(super) type Core = Raft<TypeConfig, Driver>;

/// Who did not answer the leader for so long will hardly take over from it.
const HEIR_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Rebuilds within a minute after which a core is given up: it would only panic again.
const REBUILDS_MAX: usize = 3;
const REBUILDS_WINDOW: Duration = Duration::from_mins(1);

/// How long leaders stay silent and followers stay patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// After this much silence a replica asks for votes, at the earliest.
    pub election_min: Duration,
    /// The other end of the random range.
    pub election_max: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_millis(700),
            election_max: Duration::from_millis(1_200),
        }
    }
}

/// Why a proposal came to nothing, or may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node cannot propose now; the entry exists nowhere.
    #[error("this node does not lead the group (leader: {leader:?})")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Leadership or the core was lost meanwhile: the entry may be applied, now or later.
    #[error("nobody knows whether the entry was agreed on")]
    Unknown,
    /// The group has stopped on this node.
    #[error("the group has stopped on this node")]
    Fatal,
}

/// Why something asked of a group did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another node has to be asked.
    #[error("this node does not lead the group (leader: {leader:?})")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// A majority could not be reached.
    #[error("no majority of the group answers")]
    NoQuorum,
    /// It did not happen in time; it may still.
    #[error("the group did not do it in time")]
    Late,
    /// The change itself was refused.
    #[error("the group refuses: {0}")]
    Refused(String),
    /// The group has stopped on this node.
    #[error("the group has stopped on this node: {0}")]
    Stopped(String),
    /// Log or state cannot be used.
    #[error("the store of the group failed")]
    Store(#[from] io::Error),
    /// The core panicked too often.
    #[error("the consensus core panicked {0} times within a minute")]
    Panics(usize),
}

/// Who leads a group, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// The leader of this term.
    pub leader: Option<NodeId>,
    /// True once this node leads and has applied an entry of its own term: only then does its
    /// state contain all that earlier leaders agreed on.
    pub is_self_ready: bool,
}

/// How a group is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The current term.
    pub term: u64,
    /// The leader of this term.
    pub leader: Option<NodeId>,
    /// The last entry of the log on this node.
    pub last: Option<u64>,
    /// The last entry that is agreed on, as far as this node knows.
    pub committed: Option<u64>,
    /// The last applied entry.
    pub applied: Option<u64>,
    /// On the leader: up to where each replica has the same log.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// Those who vote.
    pub voters: Vec<NodeId>,
}

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
        let open_log = Box::new(move || log.again());
        let checkpoints = Arc::new(checkpoints);
        Ok((Self { group, machine, checkpoints, policy, open_log }, reader))
    }
}

type Build = Box<dyn Fn() -> BoxFuture<'static, Result<Core, Error>> + Send + Sync>;

struct Inner {
    group: GroupId,
    node: NodeId,
    core: Mutex<Core>,
    state: Arc<State>,
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
    pub(super) async fn open<L: RaftLogStorage<TypeConfig>>(
        node: NodeId,
        timers: Timers,
        transport: Arc<dyn Transport>,
        parts: Parts<L>,
    ) -> Result<Self, Error> {
        let config = Arc::new(config(timers)?);
        let group = parts.group;
        let mut log = (parts.open_log)();
        let purged = log.get_log_state().await?.last_purged_log_id;
        let floor = purged.map_or(0, |id| id.index);
        let state = State::open(parts.machine, parts.checkpoints, parts.policy, floor)?;
        let state = Arc::new(state);
        let open_log = parts.open_log;
        let shared = Arc::clone(&state);
        let build: Build = Box::new(move || {
            let connect = Connect { group, node, transport: Arc::clone(&transport) };
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
        let inner = Inner { group, node, core, state, leadership, build, stopping };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the id of the group.
    pub fn id(&self) -> GroupId {
        self.inner.group
    }

    pub(super) fn core(&self) -> Core {
        // The lock only guards a handle.
        self.inner.core.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Hands leadership to another replica and waits until it has it.
    pub async fn transfer_leader(&self, to: NodeId, deadline: Duration) -> Result<(), Error> {
        let mut leadership = self.leader_watch();
        let asked = self.core().trigger().transfer_leader(to.get()).await;
        asked.map_err(|fatal| Error::Stopped(fatal.to_string()))?;
        let taken = leadership.wait_for(|now| now.leader == Some(to));
        match tokio::time::timeout(deadline, taken).await {
            Ok(Ok(_leadership)) => Ok(()),
            Ok(Err(_closed)) => Err(Error::Stopped("its handle is gone".to_owned())),
            Err(_elapsed) => Err(Error::Late),
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
            last: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            matched: matched.map(|(node, id)| (NodeId(*node), id.map(|id| id.index))).collect(),
            voters: metrics.membership_config.voter_ids().map(NodeId).collect(),
        }
    }

    /// Gives a fresh group its voters. Harmless when it has some already, and when every voter
    /// calls it with the same ones.
    pub async fn initialize(&self, voters: &[Peer]) -> Result<(), Error> {
        let nodes: BTreeMap<u64, PeerNode> = voters
            .iter()
            .map(|peer| (peer.node.get(), PeerNode { address: peer.address.clone() }))
            .collect();
        match self.core().initialize(nodes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(Error::Refused(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(Error::Stopped(fatal.to_string())),
        }
    }

    /// Adds a replica that does not vote, and waits until it has caught up.
    pub async fn add_learner(&self, peer: &Peer) -> Result<(), Error> {
        let node = PeerNode { address: peer.address.clone() };
        written(self.core().add_learner(peer.node.get(), node, true).await)
    }

    /// Makes exactly these replicas the voters; each must be a learner or a voter before.
    pub async fn change_voters(
        &self,
        voters: impl IntoIterator<Item = NodeId>,
    ) -> Result<(), Error> {
        let voters = voters.into_iter().map(NodeId::get).collect();
        let change = ChangeMembers::ReplaceAllVoters(voters);
        written(self.core().change_membership(change, false).await)
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

    /// No longer asks for votes itself; before leadership is handed over for good.
    pub(super) fn retire(&self) {
        self.core().runtime_config().elect(false);
    }

    /// Returns the voter besides this node that has most of the log, of those that answered this
    /// leader of late: nobody else can take over.
    pub(super) fn heir(&self) -> Option<NodeId> {
        let status = self.status();
        let core = self.core();
        let metrics = core.metrics();
        let metrics = metrics.borrow_watched();
        let answered = |voter: &NodeId| {
            let last = metrics.heartbeat.iter().flatten().find(|(node, _)| **node == voter.get());
            last.and_then(|(_, at)| at.as_ref())
                .is_some_and(|at| openraft::Instant::elapsed(&**at) < HEIR_SILENCE_MAX)
        };
        let others = status.voters.iter().filter(|voter| **voter != self.inner.node);
        let others = others.filter(|voter| answered(voter));
        others.max_by_key(|voter| status.matched.get(voter).copied().flatten()).copied()
    }

    /// Stops taking part.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        if let Err(error) = self.core().shutdown().await {
            warn!(group = self.inner.group.get(), %error, "the consensus core did not stop cleanly");
        }
    }

    /// Watches the core until `stop`: publishes who leads, and rebuilds the core if it panics.
    ///
    /// # Errors
    ///
    /// The group cannot go on in this process: its store failed, or its core panics again and
    /// again.
    pub(super) async fn supervise(self, stop: CancellationToken) -> Result<(), Error> {
        let mut rebuilds: Vec<Instant> = Vec::new();
        loop {
            let fatal = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                fatal = self.watch_core() => fatal,
            };
            if self.inner.stopping.load(Ordering::Acquire) {
                // A task that ends stops all others; that is for the node to decide.
                stop.cancelled().await;
                return Ok(());
            }
            self.inner.leadership.send_modify(|now| {
                now.leader = None;
                now.is_self_ready = false;
            });
            if !matches!(fatal, Fatal::Panicked) {
                return Err(Error::Stopped(fatal.to_string()));
            }
            rebuilds.retain(|at| at.elapsed() < REBUILDS_WINDOW);
            if rebuilds.len() >= REBUILDS_MAX {
                return Err(Error::Panics(rebuilds.len() + 1));
            }
            rebuilds.push(Instant::now());
            error!(group = self.inner.group.get(), "the consensus core panicked; building it anew");
            let core = (self.inner.build)().await?;
            *self.inner.core.lock().unwrap_or_else(PoisonError::into_inner) = core;
        }
    }

    /// Publishes leadership until the core dies; returns what it died of.
    async fn watch_core(&self) -> Fatal<TypeConfig> {
        let core = self.core();
        let mut server = core.server_metrics();
        let mut applied = self.applied_watch();
        loop {
            let now = {
                let server = server.borrow_watched();
                let leads = server.state == ServerState::Leader;
                let term = server.vote.leader_id.term;
                let applied_term = applied.borrow_and_update().term;
                Leadership {
                    term,
                    leader: server.current_leader.map(NodeId),
                    is_self_ready: leads && applied_term == term,
                }
            };
            let was = self.inner.leadership.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
            if was {
                info!(
                    group = self.inner.group.get(),
                    term = now.term,
                    leader = now.leader.map(NodeId::get),
                    ready = now.is_self_ready,
                    "leadership"
                );
            }
            let waits_for_own_entry = now.leader == Some(self.inner.node) && !now.is_self_ready;
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { break },
                changed = applied.changed(), if waits_for_own_entry => if changed.is_err() { break },
            }
        }
        // Not by asking the core: openraft panics itself when somebody asked a dead core before
        // and gave up. A core that ends says why in its metrics; only a panic leaves them as is.
        match core.metrics().borrow_watched().running_state.clone() {
            Err(fatal) => fatal,
            Ok(()) => Fatal::Panicked,
        }
    }

    #[cfg(test)]
    pub(super) fn membership(&self) -> super::types::StoredMembership {
        (*self.core().metrics().borrow_watched().membership_config).clone()
    }

    #[cfg(test)]
    pub(super) fn snapshot_index(&self) -> Option<u64> {
        self.core().metrics().borrow_watched().snapshot.map(|id| id.index)
    }

    #[cfg(test)]
    pub(super) async fn ask_snapshot(&self) {
        self.core().trigger().snapshot().await.unwrap();
    }

    /// Makes the core panic, as a defect in it would.
    #[cfg(test)]
    pub(super) async fn break_core(&self) {
        let broken = self.core().with_raft_state(|_state| -> () { panic!("injected") }).await;
        assert!(matches!(broken, Err(Fatal::Panicked)));
    }
}

fn written(
    result: Result<
        openraft::raft::ClientWriteResponse<TypeConfig>,
        RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    >,
) -> Result<(), Error> {
    match result {
        Ok(_response) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Err(Error::NotLeader { leader: forward.leader_id.map(NodeId) })
        }
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Err(Error::Late),
        Err(RaftError::APIError(error)) => Err(Error::Refused(error.to_string())),
        Err(RaftError::Fatal(fatal)) => Err(Error::Stopped(fatal.to_string())),
    }
}

/// A queued entry; resolves once it is applied, or once its fate is known or unknowable.
///
/// It can take as long as a majority is missing: bound the wait, and take a timeout as `Unknown`.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<WriteResult>,
}

impl Future for Pending {
    type Output = Result<(u64, Reply), ProposeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(match answer {
            Ok(Ok(response)) => Ok((response.log_id.index, response.data)),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_id.map(NodeId) })
            }
            // Discarded here, but another replica may have it; the others cannot happen to an
            // ordinary entry. A dropped answer means that the core died with the entry.
            Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn config(timers: Timers) -> Result<openraft::Config, Error> {
    let config = openraft::Config {
        cluster_name: "weft".to_owned(),
        heartbeat_interval: millis(timers.heartbeat),
        // Entries prove that the leader lives just as well.
        heartbeat_min_interval: Some(millis(timers.heartbeat)),
        election_timeout_min: millis(timers.election_min),
        election_timeout_max: millis(timers.election_max),
        enable_pre_vote: Some(true),
        // A restarted leader may have forgotten what it promised: it asks like everybody else.
        enable_leader_restore: Some(false),
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: 32,
        max_append_entries: Some(64),
        replication_lag_threshold: 8,
        install_snapshot_timeout: 10_000,
        // openraft counts messages; these counts keep the bytes bounded.
        api_channel_size: Some(256),
        api_batch_capacity: 64,
        api_batch_linger_ms: 0,
        broadcast_submitted_on_append: Some(true),
        backoff: "50ms 100ms 200ms ...2s".to_owned(),
        ..openraft::Config::default()
    };
    config.validate().map_err(|error| Error::Refused(error.to_string()))
}
