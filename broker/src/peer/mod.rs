//! Traffic between nodes: what Raft asks of a transport, over gRPC or within a process.
//!
//! *Owns* connections. *Never* decides anything about consensus: it carries messages.

mod acquainted;
mod dial;
pub mod grpc;
mod heartbeat;
pub mod router;
pub mod server;

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use weft_proto::NodeId;
use weft_proto::internal as wire;

pub use acquainted::Acquainted;

/// A stream of messages that somebody else drives.
pub type Messages<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// A node as the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its id in this cluster.
    pub node: NodeId,
    /// Host and port of its peer listener.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} at {}", self.node, self.address)
    }
}

/// Why a peer did not answer; says when to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody answers there, or not yet: wait before the next attempt.
    #[error("cannot reach the peer: {0}")]
    Unreachable(String),
    /// The connection broke while in use: try again at once.
    #[error("the connection to the peer broke: {0}")]
    Broken(String),
    /// The peer answered that it will not deal with this node.
    #[error("the peer refuses: {0}")]
    Refused(String),
}

/// Carries messages to other nodes. Two implementations: gRPC, and a router within the process.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream of entries; answers come in order, and dropping them ends the stream.
    fn append(
        &self,
        to: &Peer,
        requests: Messages<wire::AppendRequest>,
    ) -> BoxFuture<'static, Result<Messages<Result<wire::AppendResponse, Error>>, Error>>;

    /// Sends one heartbeat, apart from entries.
    fn heartbeat(
        &self,
        to: &Peer,
        request: wire::AppendRequest,
    ) -> BoxFuture<'static, Result<wire::AppendResponse, Error>>;

    /// Asks for a vote, or whether it would be granted.
    fn vote(
        &self,
        to: &Peer,
        request: wire::VoteRequest,
    ) -> BoxFuture<'static, Result<wire::VoteResponse, Error>>;

    /// Asks a node to take over leadership.
    fn transfer_leader(
        &self,
        to: &Peer,
        request: wire::TransferLeaderRequest,
    ) -> BoxFuture<'static, Result<wire::TransferLeaderResponse, Error>>;

    /// Sends a snapshot and waits until it is installed.
    fn install_snapshot(
        &self,
        to: &Peer,
        head: wire::SnapshotHead,
        data: Bytes,
    ) -> BoxFuture<'static, Result<wire::SnapshotResponse, Error>>;

    /// Asks whoever listens at an address who it is.
    fn identify(
        &self,
        address: &str,
        request: wire::IdentifyRequest,
    ) -> BoxFuture<'static, Result<wire::IdentifyResponse, Error>>;
}

/// Answers the Raft messages of other nodes.
pub trait Handler: Send + Sync + 'static {
    /// Takes entries of one group; the answers end with the first refusal.
    fn append(&self, requests: Messages<wire::AppendRequest>) -> Messages<wire::AppendResponse>;

    /// Takes one heartbeat.
    fn heartbeat(&self, request: wire::AppendRequest) -> BoxFuture<'static, wire::AppendResponse>;

    /// Grants or denies a vote.
    fn vote(
        &self,
        request: wire::VoteRequest,
    ) -> BoxFuture<'static, Result<wire::VoteResponse, Error>>;

    /// Takes over leadership, or says why not.
    fn transfer_leader(
        &self,
        request: wire::TransferLeaderRequest,
    ) -> BoxFuture<'static, Result<wire::TransferLeaderResponse, Error>>;

    /// Installs a snapshot.
    fn install_snapshot(
        &self,
        head: wire::SnapshotHead,
        data: Bytes,
    ) -> BoxFuture<'static, Result<wire::SnapshotResponse, Error>>;
}

/// Gives nodes that join an id.
pub trait Admit: Send + Sync + 'static {
    /// The id of a data folder whose node listens at an address; always the same one.
    fn admit(&self, node_uid: String, address: String)
    -> BoxFuture<'static, Result<NodeId, Error>>;
}

/// Knows where nodes are: what a node's certificate must be for.
pub trait Directory: Send + Sync + 'static {
    /// The peer address of a member of the cluster.
    fn address_of(&self, node: NodeId) -> Option<String>;
}

/// Tells other nodes who this one is, before and after its cluster is born.
pub trait Introduce: Send + Sync + 'static {
    /// Answers a node, or refuses it.
    fn identify(&self, request: wire::IdentifyRequest) -> Result<wire::IdentifyResponse, Error>;
}

#[cfg(test)]
mod pin_tests;
#[cfg(test)]
mod tests;
