//! `weft.v1.Cluster`: nodes, groups, and where streams live.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use weft_proto::internal::catalog_command::Change;
use weft_proto::resource::{Kind, Verb};
use weft_proto::v1::cluster_server::Cluster;
use weft_proto::{
    Error, GroupId, Name, NodeId, QualifiedName, Reason, Result, Timestamp, internal, v1,
};

use super::{caller_of, stream_name};
use crate::access::authorize;
use crate::catalog::State;
use crate::data::DataGroup;
use crate::identity::FORMAT;
use crate::ingest::Ingest;
use crate::members::Members;
use crate::peer::Transport;
use crate::raft::groups::Groups;
use crate::read::History;
use crate::resources::Placement;
use crate::retention;

/// A node that does not say who it is by then counts as away.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// What does not change while a node runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster_uid: String,
}

/// What the service is made of.
#[derive(Clone)]
pub struct Parts {
    /// This node.
    pub facts: Facts,
    /// Its groups.
    pub groups: Groups,
    /// Streams and data groups.
    pub ingest: Ingest,
    /// Who belongs to the cluster.
    pub members: Members,
    /// Where the disk is read.
    pub history: History,
    /// The way to the other nodes.
    pub transport: Arc<dyn Transport>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// The service.
#[derive(Clone)]
pub struct Service {
    facts: Facts,
    groups: Groups,
    ingest: Ingest,
    members: Members,
    history: History,
    transport: Arc<dyn Transport>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Service {
    /// The service over this node's groups.
    pub fn new(parts: Parts) -> Self {
        let Parts { facts, groups, ingest, members, history, transport } = parts;
        Self { facts, groups, ingest, members, history, transport }
    }

    /// Whether a node of this cluster answers at its peer address now.
    async fn answers(&self, node: &internal::CatalogNode) -> bool {
        if node.id == self.facts.node.get() {
            return true;
        }
        let request = internal::IdentifyRequest { format: FORMAT, ..Default::default() };
        let answer = timeout(PROBE_MAX, self.transport.identify(&node.peer_address, request)).await;
        let birth = answer.ok().and_then(std::result::Result::ok).and_then(|answer| answer.birth);
        birth.is_some_and(|birth| birth.cluster_uid == self.facts.cluster_uid)
    }

    /// Refuses to take out a node without which the others would be no majority now.
    async fn check_rest(&self, without: u64) -> Result<()> {
        let catalog = self.ingest.resources().snapshot();
        let rest = catalog.nodes().filter(|node| !node.expelled && node.id != without);
        let answers = join_all(rest.map(|node| self.answers(node))).await;
        let (all, alive) = (answers.len(), answers.iter().filter(|answers| **answers).count());
        if all > 0 && alive * 2 <= all {
            let message = format!(
                "only {alive} of the {all} nodes that would be left answer now: nothing would go on"
            );
            return Err(Error::new(Reason::FailedPrecondition, message).with_field("node_id"));
        }
        Ok(())
    }

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.groups.get(group)?.leader()
    }

    async fn partition(&self, placement: &Placement) -> v1::PartitionStatus {
        let group = self.ingest.group(placement.group).ok();
        let bounds = group.map(|group| group.bounds(placement.uid));
        let bytes = match group {
            Some(group) => retention::stored_bytes(group, placement.uid, &self.history).await,
            None => 0,
        };
        v1::PartitionStatus {
            partition: placement.partition.get(),
            group: placement.group.get(),
            leader: self.leader(placement.group).map(NodeId::get),
            earliest: bounds.map_or(0, |bounds| bounds.floor.get()),
            end: bounds.map_or(0, |bounds| bounds.end.get()),
            bytes,
        }
    }

    async fn streams(&self, catalog: &State) -> Vec<v1::StreamStatus> {
        let mut streams = Vec::new();
        for (name, _) in catalog.of_kind(Kind::Stream) {
            let name = name.to_string();
            let Ok(view) = self.ingest.resources().stream_named(&name) else { continue };
            let mut partitions = Vec::with_capacity(view.placements.len());
            for placement in view.placements.iter() {
                partitions.push(self.partition(placement).await);
            }
            streams.push(v1::StreamStatus { stream: name, partitions });
        }
        streams
    }

    fn subscription(&self, name: &str) -> Option<v1::SubscriptionStatus> {
        let view = self.ingest.resources().subscription_named(name).ok()?;
        let cursors = view.stream.placements.iter().filter_map(|placement| {
            let group = self.ingest.group(placement.group).ok()?;
            let end = group.bounds(placement.uid).end.get();
            group.with_state(|state| {
                let cursor = state.cursors().get(view.uid, placement.uid)?;
                Some(v1::CursorStatus {
                    partition: placement.partition.get(),
                    watermark: cursor.watermark().get(),
                    end,
                    overtaken: cursor.overtaken(),
                })
            })
        });
        Some(v1::SubscriptionStatus { subscription: name.to_owned(), cursors: cursors.collect() })
    }
}

/// What those are granted who look after the cluster: any name in its namespace.
pub fn cluster_name() -> QualifiedName {
    let namespace = Name::system_namespace();
    QualifiedName { name: namespace.clone(), namespace }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        authorize(&caller_of(&request)?, Verb::Operate, &cluster_name())?;
        let catalog = self.ingest.resources().snapshot();
        let mut groups = Vec::new();
        for group in self.groups.iter() {
            let status = group.status();
            let data = self.ingest.group(group.id()).ok();
            let (dedup_events, since) = data.map_or((0, None), DataGroup::remembered);
            groups.push(v1::GroupStatus {
                id: group.id().get(),
                leader: status.leader.map(NodeId::get),
                term: status.term,
                last_index: status.last.unwrap_or_default(),
                committed_index: status.committed.unwrap_or_default(),
                applied_index: status.applied.unwrap_or_default(),
                voters: status.voters.iter().map(|voter| voter.get()).collect(),
                first_index: status.first,
                log_bytes: data.map_or(0, |data| data.log.bytes()),
                dedup_events,
                dedup_since_us: since.map_or(0, Timestamp::as_micros),
            });
        }
        let members = || catalog.nodes().filter(|node| !node.expelled);
        let answers = join_all(members().map(|node| self.answers(node))).await;
        let nodes = members().zip(answers).map(|(node, reachable)| v1::NodeStatus {
            id: node.id,
            grpc_address: node.grpc_address.clone(),
            http_address: node.http_address.clone(),
            peer_address: node.peer_address.clone(),
            reachable,
            draining: node.draining,
        });
        let nodes = nodes.collect();
        let streams = self.streams(&catalog).await;
        let subscriptions = catalog.of_kind(Kind::Subscription);
        let subscriptions =
            subscriptions.filter_map(|(name, _)| self.subscription(&name.to_string())).collect();
        Ok(Response::new(v1::StatusResponse {
            node_id: self.facts.node.get(),
            cluster_uid: self.facts.cluster_uid.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes,
            groups,
            streams,
            subscriptions,
            catalog_generation: catalog.generation(),
        }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let caller = caller_of(&request)?;
        authorize(&caller, Verb::Operate, &cluster_name())?;
        let node = NodeId(request.into_inner().node_id);
        self.check_rest(node.get()).await?;
        caller.act("remove-node", format!("node {node}")).await?;
        self.members.remove(caller.principal(), node).await?;
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let caller = caller_of(&request)?;
        authorize(&caller, Verb::Operate, &cluster_name())?;
        let v1::DrainRequest { node_id, undo } = request.into_inner();
        let resources = self.ingest.resources();
        let known = resources.snapshot().nodes().find(|node| node.id == node_id).cloned();
        let unknown = || {
            let message = format!("the cluster has no node {node_id}");
            Error::invalid(message).with_field("node_id")
        };
        let node = internal::CatalogNode { draining: !undo, ..known.ok_or_else(unknown)? };
        let act = if undo { "undrain-node" } else { "drain-node" };
        caller.act(act, format!("node {node_id}")).await?;
        resources.change(caller.principal(), Change::Node(node)).await?;
        Ok(Response::new(v1::DrainResponse {}))
    }

    async fn route(
        &self,
        request: Request<v1::RouteRequest>,
    ) -> Result<Response<v1::RouteResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let resources = self.ingest.resources();
        resources.wait_for(request.min_generation).await?;
        let name = stream_name(&request.stream)?;
        // Whoever may do something with a stream may know where.
        if ![Verb::Publish, Verb::Read].iter().any(|verb| caller.may(*verb, &name)) {
            authorize(&caller, Verb::View, &name)?;
        }
        let stream = resources.stream_named(&request.stream)?;
        let catalog = resources.snapshot();
        let partitions = stream.placements.iter().map(|placement| {
            let leader = self.leader(placement.group);
            let address = leader.and_then(|leader| {
                let node = catalog.nodes().find(|node| node.id == leader.get())?;
                Some(node.grpc_address.clone())
            });
            v1::PartitionRoute {
                partition: placement.partition.get(),
                leader_address: address,
                leader: leader.map(NodeId::get),
            }
        });
        Ok(Response::new(v1::RouteResponse { partitions: partitions.collect() }))
    }
}
