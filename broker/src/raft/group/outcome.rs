//! What a group answers: who leads, how it does, what became of a proposal.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use openraft::errors::ClientWriteError;
use tokio::sync::oneshot;
use weft_proto::NodeId;

use crate::raft::types::{Reply, WriteResult};

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
    /// The first entry that the log on this node still has.
    pub first: u64,
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

/// A queued entry; resolves once it is applied, or once its fate is known or unknowable.
///
/// It can take as long as a majority is missing: bound the wait, and take a timeout as `Unknown`.
#[derive(Debug)]
pub struct Pending {
    pub(super) answer: oneshot::Receiver<WriteResult>,
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
