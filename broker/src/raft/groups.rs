//! All groups of this node: started together, found by id, stopped in order.
//!
//! *Owns* the way of other nodes' messages to the right group. Group 0 is the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt as _, stream};
use openraft::errors::RaftError;
use openraft::raft::AppendEntriesRequest;
use openraft::storage::RaftLogStorage;
use tokio::time::Instant;
use tracing::{info, warn};
use weft_proto::internal as wire;
use weft_proto::{GroupId, NodeId};

use super::group::{Error, Group, Parts, Timers};
use super::types::TypeConfig;
use super::wire::{
    Malformed, append_in, append_result_out, append_unavailable, log_id_in, receipt_out,
    stored_membership_in, transfer_in, transfer_result_out, vote_in, vote_out, vote_request_in,
    vote_response_out,
};
use crate::peer::{self, Directory, Handler, Messages, Peer, Transport};
use crate::tasks::Tasks;

/// What all groups of a node have in common.
#[derive(Clone)]
pub struct Settings {
    /// The id of this node.
    pub node: NodeId,
    /// Heartbeats and elections.
    pub timers: Timers,
    /// The way to the other nodes.
    pub transport: Arc<dyn Transport>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The groups of this node; clones are handles to the same ones.
#[expect(clippy::struct_field_names, reason = "what else are they")]
#[derive(Debug, Clone)]
pub struct Groups {
    groups: Arc<BTreeMap<GroupId, Group>>,
    node: NodeId,
    /// While set, entries of other leaders are not taken: there is no room for them.
    closed: Arc<AtomicBool>,
}

impl Groups {
    /// Opens all groups and lets them take part.
    pub async fn start<L: RaftLogStorage<TypeConfig>>(
        settings: &Settings,
        parts: Vec<Parts<L>>,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let mut groups = BTreeMap::new();
        for parts in parts {
            let transport = Arc::clone(&settings.transport);
            let group = Group::open(settings.node, settings.timers, transport, parts).await?;
            let supervised = group.clone();
            tasks.spawn("group", move |stop| supervised.supervise(stop));
            groups.insert(group.id(), group);
        }
        info!(node = settings.node.get(), groups = groups.len(), "groups started");
        Ok(Self { groups: Arc::new(groups), node: settings.node, closed: Arc::default() })
    }

    /// Gives every fresh group its voters.
    pub async fn initialize(&self, voters: &[Peer]) -> Result<(), Error> {
        for group in self.groups.values() {
            group.initialize(voters).await?;
        }
        Ok(())
    }

    /// Takes no entries of other leaders while the flag is set; heartbeats and votes go on.
    #[must_use]
    pub fn closed_while(mut self, closed: Arc<AtomicBool>) -> Self {
        self.closed = closed;
        self
    }

    /// Returns the group with this id, if this node has it.
    pub fn get(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    /// Iterates over the groups by id.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// Hands the leadership of every group to the replica that has most of its log; returns how
    /// many groups this node still leads at the deadline though they have other voters.
    pub async fn drain(&self, deadline: Duration) -> usize {
        let until = Instant::now() + deadline;
        let handovers = self.groups.values().map(|group| self.hand_over(group, until));
        let kept = futures::future::join_all(handovers).await;
        kept.into_iter().filter(|kept| *kept).count()
    }

    /// True if the leadership could not be handed over.
    async fn hand_over(&self, group: &Group, until: Instant) -> bool {
        group.retire();
        while group.leader() == Some(self.node) {
            if group.is_alone() {
                return false;
            }
            let Some(heir) = group.heir() else { return true };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                warn!(group = group.id().get(), "still leads at the deadline");
                return true;
            }
            // A transfer is lost when the heir lags or is down; then the next one is asked.
            let patience = left.min(Duration::from_millis(500));
            if let Err(error) = group.transfer_leader(heir, patience).await {
                warn!(group = group.id().get(), heir = heir.get(), %error, "leadership was not taken over");
            }
        }
        false
    }

    /// Stops all groups, data before the catalog.
    pub async fn shutdown(&self) {
        for group in self.groups.values().rev() {
            group.shutdown().await;
        }
    }

    fn has_no_room_for(&self, request: &wire::AppendRequest) -> bool {
        !request.entries.is_empty() && self.closed.load(Ordering::Relaxed)
    }

    fn find(&self, group: u32) -> Result<Group, peer::Error> {
        let unknown =
            || peer::Error::Unreachable(format!("node {} has no group {group}", self.node));
        self.groups.get(&GroupId(group)).cloned().ok_or_else(unknown)
    }
}

impl Directory for Groups {
    fn address_of(&self, node: NodeId) -> Option<String> {
        self.iter().find_map(|group| group.address_of(node))
    }
}

impl Handler for Groups {
    fn append(&self, requests: Messages<wire::AppendRequest>) -> Messages<wire::AppendResponse> {
        let groups = self.clone();
        let opened = async move {
            let mut requests = requests;
            let Some(first) = requests.next().await else { return stream::empty().boxed() };
            if groups.has_no_room_for(&first) {
                let node = groups.node;
                return only(append_unavailable(format!(
                    "the disk of node {node} is all but full"
                )));
            }
            match groups.find(first.group) {
                Ok(group) => {
                    // Ends without a word; the next attempt of the leader is told why.
                    let has_room = move |request: &wire::AppendRequest| {
                        std::future::ready(!groups.has_no_room_for(request))
                    };
                    append_to(&group, first, requests.take_while(has_room).boxed())
                }
                Err(error) => only(append_unavailable(error.to_string())),
            }
        };
        Box::pin(stream::once(opened).flatten())
    }

    fn heartbeat(&self, request: wire::AppendRequest) -> BoxFuture<'static, wire::AppendResponse> {
        let group = self.find(request.group);
        Box::pin(async move {
            let answered = async {
                let group = group.map_err(|error| error.to_string())?;
                let previous = request.previous.map(log_id_in);
                let request = append_in(request).map_err(|error| error.to_string())?;
                let response = group.core().append_entries(request).await;
                let response = response.map_err(|error| error.to_string())?;
                Ok::<_, String>(response.into_stream_result(previous, previous))
            };
            match answered.await {
                Ok(result) => append_result_out(&result),
                Err(reason) => append_unavailable(reason),
            }
        })
    }

    fn vote(
        &self,
        request: wire::VoteRequest,
    ) -> BoxFuture<'static, Result<wire::VoteResponse, peer::Error>> {
        let group = self.find(request.group);
        Box::pin(async move {
            let core = group?.core();
            let pre_vote = request.pre_vote;
            let request = vote_request_in(request).map_err(refused)?;
            let voted =
                if pre_vote { core.pre_vote(request).await } else { core.vote(request).await };
            voted.map(|response| vote_response_out(&response)).map_err(stopped)
        })
    }

    fn transfer_leader(
        &self,
        request: wire::TransferLeaderRequest,
    ) -> BoxFuture<'static, Result<wire::TransferLeaderResponse, peer::Error>> {
        let group = self.find(request.group);
        Box::pin(async move {
            let request = transfer_in(request).map_err(refused)?;
            let taken = group?.core().handle_transfer_leader(request).await;
            taken.map(|result| transfer_result_out(&result)).map_err(unreachable)
        })
    }

    fn install_snapshot(
        &self,
        head: wire::SnapshotHead,
        data: Bytes,
    ) -> BoxFuture<'static, Result<wire::SnapshotResponse, peer::Error>> {
        let group = self.find(head.group);
        Box::pin(async move {
            let vote = vote_in(head.vote).map_err(refused)?;
            let membership = stored_membership_in(head.membership_log_id, head.membership);
            let meta = openraft::type_config::alias::SnapshotMetaOf::<TypeConfig> {
                last_log_id: head.last.map(log_id_in),
                last_membership: membership.map_err(refused)?,
            };
            let snapshot = openraft::Snapshot { meta, snapshot: data };
            let group = group?;
            let installed = group.core().install_full_snapshot(vote, snapshot).await;
            let response = installed.map_err(unreachable)?;
            // The leader takes this answer for "has all of it on disk". A replica that had applied
            // as much already installs nothing, and its own log may not be there yet.
            group.sync().await.map_err(unreachable)?;
            Ok(wire::SnapshotResponse { vote: Some(vote_out(&response.vote)) })
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it can be passed to map_err")]
fn refused(malformed: Malformed) -> peer::Error {
    peer::Error::Refused(malformed.to_string())
}

fn stopped(error: RaftError<TypeConfig>) -> peer::Error {
    unreachable(error)
}

#[expect(clippy::needless_pass_by_value, reason = "so that it can be passed to map_err")]
fn unreachable(error: impl ToString) -> peer::Error {
    peer::Error::Unreachable(error.to_string())
}

fn only(response: wire::AppendResponse) -> Messages<wire::AppendResponse> {
    stream::once(std::future::ready(response)).boxed()
}

/// Passes entries to the core. The first unreadable one ends the stream; the leader sees that its
/// requests stay unanswered, and backs off.
fn append_to(
    group: &Group,
    first: wire::AppendRequest,
    rest: Messages<wire::AppendRequest>,
) -> Messages<wire::AppendResponse> {
    let id = group.id().get();
    let receipts = Arc::clone(group.receipts());
    let newest = receipts.newest();
    let requests = stream::once(std::future::ready(first)).chain(rest).map(move |request| {
        if request.group != id {
            return Err(Malformed::Group { expected: id, got: request.group });
        }
        receipts.ask(request.receipts);
        append_in(request)
    });
    let readable = requests.scan((), move |(), request: Result<AppendEntriesRequest<_>, _>| {
        if let Err(error) = &request {
            warn!(group = id, %error, "cannot read entries of the leader");
        }
        std::future::ready(request.ok())
    });
    let answers = group.core().stream_append(readable).map(|answer| match answer {
        Ok(result) => append_result_out(&result),
        Err(fatal) => append_unavailable(fatal.to_string()),
    });
    // Whatever comes first; but the end of the answers is the end.
    let told = stream::unfold(newest, |mut newest| async move {
        newest.changed().await.ok()?;
        let receipt = *newest.borrow_and_update();
        Some((receipt_out(receipt), newest))
    });
    let ends = answers.map(Some).chain(stream::once(std::future::ready(None)));
    let first_answers = |(): &mut ()| stream::PollNext::Left;
    let both = stream::select_with_strategy(ends, told.map(Some), first_answers);
    both.take_while(|next| std::future::ready(next.is_some()))
        .filter_map(std::future::ready)
        .boxed()
}
