//! `weft.v1.Cluster`: nodes, groups, and where streams live.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use weft_proto::resource::Kind;
use weft_proto::v1::cluster_server::Cluster;
use weft_proto::{GroupId, NodeId, Result, internal, v1};

use crate::identity::FORMAT;
use crate::ingest::Ingest;
use crate::peer::Transport;
use crate::raft::groups::Groups;
use crate::resources::Placement;

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

/// The service.
#[derive(Clone)]
pub struct Service {
    facts: Facts,
    groups: Groups,
    ingest: Ingest,
    transport: Arc<dyn Transport>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Service {
    /// The service over this node's groups.
    pub fn new(
        facts: Facts,
        groups: Groups,
        ingest: Ingest,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self { facts, groups, ingest, transport }
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

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.groups.get(group)?.leader()
    }

    fn partition(&self, placement: &Placement) -> v1::PartitionStatus {
        let bounds =
            self.ingest.group(placement.group).ok().map(|group| group.bounds(placement.uid));
        v1::PartitionStatus {
            partition: placement.partition.get(),
            group: placement.group.get(),
            leader: self.leader(placement.group).map(NodeId::get),
            earliest: bounds.map_or(0, |bounds| bounds.floor.get()),
            end: bounds.map_or(0, |bounds| bounds.end.get()),
        }
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let catalog = self.ingest.resources().snapshot();
        let mut groups = Vec::new();
        for group in self.groups.iter() {
            let status = group.status();
            groups.push(v1::GroupStatus {
                id: group.id().get(),
                leader: status.leader.map(NodeId::get),
                term: status.term,
                last_index: status.last.unwrap_or_default(),
                committed_index: status.committed.unwrap_or_default(),
                applied_index: status.applied.unwrap_or_default(),
                voters: status.voters.iter().map(|voter| voter.get()).collect(),
            });
        }
        let answers = join_all(catalog.nodes().map(|node| self.answers(node))).await;
        let nodes = catalog.nodes().zip(answers).map(|(node, reachable)| v1::NodeStatus {
            id: node.id,
            grpc_address: node.grpc_address.clone(),
            http_address: node.http_address.clone(),
            peer_address: node.peer_address.clone(),
            reachable,
        });
        let nodes = nodes.collect();
        let streams = catalog.of_kind(Kind::Stream).filter_map(|(name, _)| {
            let view = self.ingest.resources().stream_named(&name.to_string()).ok()?;
            let partitions = view.placements.iter().map(|placement| self.partition(placement));
            Some(v1::StreamStatus { stream: name.to_string(), partitions: partitions.collect() })
        });
        let streams = streams.collect();
        Ok(Response::new(v1::StatusResponse {
            node_id: self.facts.node.get(),
            cluster_uid: self.facts.cluster_uid.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes,
            groups,
            streams,
            catalog_generation: catalog.generation(),
        }))
    }

    async fn route(
        &self,
        request: Request<v1::RouteRequest>,
    ) -> Result<Response<v1::RouteResponse>, Status> {
        let request = request.into_inner();
        let resources = self.ingest.resources();
        resources.wait_for(request.min_generation).await?;
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
