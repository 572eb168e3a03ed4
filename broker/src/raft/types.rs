//! The Raft type configuration: what an entry carries, who a node is, how an answer returns.

use std::fmt;

use bytes::Bytes;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId as _;
use tokio::sync::oneshot;

/// The async runtime under consensus; one place, so that a simulation can bring its own.
#[cfg(not(test))]
pub type Runtime = openraft::impls::TokioRuntime;
#[cfg(test)]
pub type Runtime = super::seeded::Runtime;

/// The types of every Raft group.
// By hand: the macro of openraft 0.10 cannot name a generic responder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = Reply;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    // One leader a term, so that a log id is term and index: 16 bytes.
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload;
    type Entry = openraft::impls::Entry<
        <Self::LeaderId as openraft::vote::RaftLeaderId>::Committed,
        Self::Payload,
    >;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Ack<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Who leads, or wants to, in a term.
pub type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
/// The id of an entry: term and index.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// Who may lead, and whether a majority agreed.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// An entry of a group's log as consensus sees it.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// What an entry carries: nothing, a payload, or a membership.
pub type EntryPayload = openraft::EntryPayload<Payload, u64, PeerNode>;
/// Voters and learners of a group.
pub type Membership = openraft::Membership<u64, PeerNode>;
/// A membership and the entry that set it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What the proposer of an entry learns.
pub type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;

/// Builds a log id.
pub fn log_id(term: u64, index: u64) -> LogId {
    // The committed leader of a term is the term alone, whoever it was.
    LogId::new(LeaderId::new(term, 0).to_committed(), index)
}

/// The replicated bytes of a normal entry; opaque to consensus, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload(pub Bytes);

/// Where the leader's time lies in a payload: format, kind and flags come before it.
const LEADER_TIME: std::ops::Range<usize> = 4..12;

impl Payload {
    /// Returns the leader's time in microseconds, or 0 where the payload has no header.
    pub fn leader_time_micros(&self) -> u64 {
        leader_time_micros(&self.0)
    }
}

/// Returns the leader's time of a replicated payload, or 0 where it has no header.
pub(crate) fn leader_time_micros(payload: &[u8]) -> u64 {
    payload.get(LEADER_TIME).and_then(|time| time.try_into().ok()).map_or(0, u64::from_le_bytes)
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: this ends up in logs.
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the state machine answers to one entry, encoded by the machine of that group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply(pub Bytes);

/// Where the other nodes of a group listen for this one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerNode {
    /// Host and port of the peer listener.
    pub address: String,
}

/// Carries the answer to a proposal back over a tokio channel.
///
/// The receiver may be gone: whoever proposed gave up, the entry stays.
#[derive(Debug)]
pub struct Ack<T>(oneshot::Sender<T>);

impl<T> Ack<T> {
    /// Creates an acknowledgement and the receiver of its answer.
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (tx, rx) = oneshot::channel();
        (Self(tx), rx)
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Ack<T> {
    fn on_complete(self, result: T) {
        // A proposer that stopped waiting is no error.
        drop(self.0.send(result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_time_is_read_from_the_header() {
        let mut bytes = vec![0, 7, 0, 0];
        bytes.extend(123_456_u64.to_le_bytes());
        bytes.extend(b"body");

        assert_eq!(Payload(bytes.into()).leader_time_micros(), 123_456);
        assert_eq!(Payload(Bytes::from_static(b"short")).leader_time_micros(), 0);
    }

    #[test]
    fn display_shows_the_length_only() {
        assert_eq!(Payload(Bytes::from_static(b"secret")).to_string(), "6 bytes");
    }
}
