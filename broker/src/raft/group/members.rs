//! Who takes part in a group, and who leads it next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use weft_proto::NodeId;

use super::{Error, Group};
use crate::peer::Peer;
use crate::raft::types::{PeerNode, TypeConfig};

/// Who did not answer the leader for so long will hardly take over from it.
const HEIR_SILENCE_MAX: Duration = Duration::from_secs(1);

impl Group {
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

    /// Ends the pause after failures to send to these replicas.
    pub(in crate::raft) async fn send_now(&self, to: &[NodeId]) {
        let reset = self.core().trigger().reset_backoff(to.iter().map(|node| node.get())).await;
        if let Err(fatal) = reset {
            // Whoever supervises the core finds out too.
            tracing::debug!(group = self.inner.group.get(), %fatal, "cannot send at once");
        }
    }

    /// No longer asks for votes itself; before leadership is handed over for good.
    pub(in crate::raft) fn retire(&self) {
        self.core().runtime_config().elect(false);
    }

    /// Whether nobody else votes: nobody could take over.
    pub(in crate::raft) fn is_alone(&self) -> bool {
        self.status().voters.len() <= 1
    }

    /// Returns the voter besides this node that has most of the log, of those that answered this
    /// leader of late: nobody else can take over.
    pub(in crate::raft) fn heir(&self) -> Option<NodeId> {
        let status = self.status();
        let others = self.answering().into_iter().filter(|voter| *voter != self.inner.node);
        others.max_by_key(|voter| status.matched.get(voter).copied().flatten())
    }

    /// Returns the voters that answered this leader of late, and itself.
    pub(in crate::raft) fn answering(&self) -> BTreeSet<NodeId> {
        let core = self.core();
        let metrics = core.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.voter_ids().map(NodeId);
        let answered = |voter: &NodeId| {
            let last = metrics.heartbeat.iter().flatten().find(|(node, _)| **node == voter.get());
            last.and_then(|(_, at)| at.as_ref())
                .is_some_and(|at| openraft::Instant::elapsed(&**at) < HEIR_SILENCE_MAX)
        };
        voters.filter(|voter| *voter == self.inner.node || answered(voter)).collect()
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
