//! What openraft asks of the network, answered over a peer transport.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use openraft::base::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RPCTypes, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use weft_proto::internal as wire;
use weft_proto::{GroupId, NodeId};

use super::pipeline::{self, Ends, rpc_error};
use super::receipts::Receipts;
use super::types::{PeerNode, TypeConfig, Vote};
use super::wire::{
    append_out, append_result_in, log_id_out, stored_membership_out, transfer_out,
    transfer_result_in, vote_in, vote_out, vote_request_out, vote_response_in,
};
use crate::peer::{self, Peer, Transport};

/// How long a follower may take to answer entries. Far above openraft's suggestion (150 ms): a slow
/// sync is no reason to send everything again, and heartbeats notice a dead peer much earlier.
const ANSWER_PATIENCE_MIN: Duration = Duration::from_secs(2);

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>;

/// Makes connections of one group to its other replicas.
pub(super) struct Connect {
    pub(super) group: GroupId,
    pub(super) node: NodeId,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) receipts: Arc<Receipts>,
}

impl Connect {
    fn link(&self, target: u64, node: &PeerNode, lane: Lane) -> Link {
        Link {
            ends: Ends { group: self.group.get(), from: self.node.get(), to: target },
            peer: Peer { node: NodeId(target), address: node.address.clone() },
            lane,
            transport: Arc::clone(&self.transport),
            receipts: Arc::clone(&self.receipts),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Connect {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Link {
        self.link(target, node, Lane::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Link {
        self.link(target, node, Lane::Heartbeats)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Entries,
    Heartbeats,
}

/// One group's way to one other replica.
pub(super) struct Link {
    ends: Ends,
    peer: Peer,
    lane: Lane,
    transport: Arc<dyn Transport>,
    receipts: Arc<Receipts>,
}

type AppendAnswer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;
type AppendAnswers<'s> = BoxStream<'s, AppendAnswer>;

impl Link {
    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout { action, id: self.ends.from, target: self.ends.to, timeout }
    }

    async fn within<T>(
        &self,
        action: RPCTypes,
        patience: Duration,
        call: impl Future<Output = Result<T, peer::Error>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match tokio::time::timeout(patience, call).await {
            Ok(answer) => answer.map_err(rpc_error),
            Err(_elapsed) => Err(self.timeout(action, patience).into()),
        }
    }

    async fn ask_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = vote_request_out(self.ends.group, request, pre_vote);
        let call = self.transport.vote(&self.peer, request);
        let response = self.within(RPCTypes::Vote, option.soft_ttl(), call).await?;
        vote_response_in(response).map_err(|malformed| NetworkError::new(&malformed).into())
    }

    async fn beat(
        transport: Arc<dyn Transport>,
        peer: Peer,
        request: wire::AppendRequest,
    ) -> AppendAnswer {
        let response = transport.heartbeat(&peer, request).await.map_err(rpc_error)?;
        match append_result_in(response) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(reason)) => Err(Unreachable::from_string(reason).into()),
            Err(malformed) => Err(NetworkError::new(&malformed).into()),
        }
    }
}

impl NetStreamAppend<TypeConfig> for Link {
    fn stream_append<S>(
        &mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'_, Result<AppendAnswers<'_>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.lane == Lane::Heartbeats {
            // openraft bounds the whole heartbeat itself.
            let group = self.ends.group;
            let answers = input.then(move |request| {
                let (transport, peer) = (Arc::clone(&self.transport), self.peer.clone());
                Self::beat(transport, peer, append_out(group, request))
            });
            return Box::pin(async move { Ok(answers.boxed()) });
        }
        Box::pin(async move {
            let patience = option.soft_ttl().max(ANSWER_PATIENCE_MIN);
            // openraft paces its attempts at a peer that is away inside of the first request. A
            // connection that fails before anybody asks for it would be tried again without pause.
            let mut input = input.peekable();
            if Pin::new(&mut input).peek().await.is_none() {
                return Ok(futures::stream::empty().boxed());
            }
            let (requests, waiting) = pipeline::split(self.ends, Arc::clone(&self.receipts), input);
            let call = self.transport.append(&self.peer, Box::pin(requests));
            let responses = self.within(RPCTypes::AppendEntries, patience, call).await?;
            Ok(waiting.answers(responses, patience).boxed())
        })
    }
}

impl NetVote<TypeConfig> for Link {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(&request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(&request, true, &option).await
    }
}

impl NetTransferLeader<TypeConfig> for Link {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = transfer_out(self.ends.group, &request);
        let call = self.transport.transfer_leader(&self.peer, message);
        let response = self.within(RPCTypes::TransferLeader, option.soft_ttl(), call).await?;
        transfer_result_in(response, &request)
            .map_err(|malformed| NetworkError::new(&malformed).into())
    }
}

impl NetSnapshot<TypeConfig> for Link {
    type SnapshotData = Bytes;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let data = snapshot.snapshot;
        let (membership_log_id, membership) = stored_membership_out(&snapshot.meta.last_membership);
        let head = wire::SnapshotHead {
            group: self.ends.group,
            vote: Some(vote_out(&vote)),
            last: snapshot.meta.last_log_id.map(log_id_out),
            membership_log_id,
            membership: Some(membership),
            length: data.len() as u64,
        };
        let call = self.transport.install_snapshot(&self.peer, head, data);
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            response = self.within(RPCTypes::InstallSnapshot, option.soft_ttl(), call) => response?,
        };
        match vote_in(response.vote) {
            Ok(vote) => Ok(SnapshotResponse::new(vote)),
            Err(malformed) => Err(NetworkError::new(&malformed).into()),
        }
    }
}

impl NetBackoff<TypeConfig> for Link {
    fn backoff(&self) -> Option<Backoff> {
        // As configured for the group.
        None
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::peer::router::Router;

    #[test]
    fn a_peer_that_is_away_is_not_tried_before_there_is_a_request() {
        let ends = Ends { group: 1, from: 1, to: 2 };
        let peer = Peer { node: NodeId(2), address: "away".to_owned() };
        let transport = Router::new().transport("here");
        let receipts = Arc::default();
        let mut link = Link { ends, peer, lane: Lane::Entries, transport, receipts };
        let option = RPCOption::new(Duration::from_secs(1));

        let attempt = link.stream_append(futures::stream::pending(), option).now_or_never();

        assert!(attempt.is_none(), "it did not wait");
    }
}
