//! Makes the voters of each group those that the catalog has: nodes that joined become learners and
//! then voters, removed ones leave.
//!
//! Each leader works on its own groups, and goes on where the one before it stopped: what is to be
//! follows from the catalog, what is from the group itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use weft_proto::internal::{CatalogAdmit, CatalogExpel, catalog_command::Change};
use weft_proto::{Error, NodeId, Principal, Result};

use crate::ingest::Forwarder;
use crate::peer::{self, Peer};
use crate::raft::group::{self, Group};
use crate::raft::groups::Groups;
use crate::resources::Resources;

/// Between two looks, besides those when the catalog changes.
const PERIOD: Duration = Duration::from_secs(1);
/// For a learner to catch up; if it takes longer, the next look goes on waiting.
const CATCH_UP: Duration = Duration::from_secs(30);

/// Who belongs to the cluster, as the catalog has it.
#[derive(Clone, Debug)]
pub struct Members {
    resources: Resources,
    forwarder: Forwarder,
    /// Ids up to this one belong to founders.
    founders: u64,
}

impl Members {
    /// The members of a cluster that had so many founders.
    pub fn new(resources: Resources, forwarder: Forwarder, founders: usize) -> Self {
        Self { resources, forwarder, founders: founders as u64 }
    }

    /// Takes a node out for good.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Conflict` when too few nodes would be left; `Unavailable`.
    pub async fn remove(&self, caller: &Principal, id: NodeId) -> Result<()> {
        let expel = CatalogExpel { id: id.get(), above: self.founders };
        let reply = self.resources.change(caller, Change::Expel(expel)).await?;
        reply.outcome.map_err(Error::from_refusal)?;
        info!(node = id.get(), "the node was removed from the cluster");
        Ok(())
    }

    async fn give_id(self, node_uid: String, address: String) -> Result<NodeId, peer::Error> {
        let admit = CatalogAdmit {
            node_uid: node_uid.clone(),
            peer_address: address,
            above: self.founders,
        };
        let changed = self.resources.change(&Principal::system(), Change::Admit(admit)).await;
        let unreachable = |error: Error| peer::Error::Unreachable(error.to_string());
        let reply = changed.map_err(unreachable)?;
        reply.outcome.map_err(|refusal| peer::Error::Refused(refusal.message))?;
        let catalog = self.resources.snapshot();
        let own = catalog.nodes().find(|node| node.node_uid == node_uid);
        let lags = || peer::Error::Unreachable("it does not know the new id yet".to_owned());
        own.map(|node| NodeId(node.id)).ok_or_else(lags)
    }

    /// Keeps voters as the catalog wants them until the node stops.
    pub async fn run(
        self,
        groups: Groups,
        stop: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        let mut changes = self.resources.changes();
        loop {
            let working = async {
                let wanted = Wanted::of(&self.resources, &self.forwarder);
                join_all(groups.iter().map(|group| wanted.settle(group))).await;
                // A closed watch means that the node stops.
                _ = tokio::time::timeout(PERIOD, changes.changed()).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = working => {}
            }
        }
    }
}

impl peer::Admit for Members {
    fn admit(
        &self,
        node_uid: String,
        address: String,
    ) -> BoxFuture<'static, Result<NodeId, peer::Error>> {
        Box::pin(self.clone().give_id(node_uid, address))
    }
}

/// What the catalog says of nodes.
#[derive(Debug)]
struct Wanted {
    joined: BTreeMap<NodeId, String>,
    expelled: BTreeSet<NodeId>,
}

impl Wanted {
    fn of(resources: &Resources, forwarder: &Forwarder) -> Self {
        let catalog = resources.snapshot();
        let mut wanted = Self { joined: BTreeMap::new(), expelled: BTreeSet::new() };
        for node in catalog.nodes() {
            let id = NodeId(node.id);
            if node.expelled {
                wanted.expelled.insert(id);
            } else if !node.node_uid.is_empty() {
                forwarder.learn(id, &node.peer_address);
                wanted.joined.insert(id, node.peer_address.clone());
            }
        }
        wanted
    }

    fn voters(&self, now: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut voters: BTreeSet<NodeId> = now.difference(&self.expelled).copied().collect();
        voters.extend(self.joined.keys());
        voters
    }

    async fn settle(&self, group: &Group) {
        if !group.leader_watch().borrow().is_self_ready {
            return;
        }
        let now: BTreeSet<NodeId> = group.status().voters.into_iter().collect();
        let voters = self.voters(&now);
        if voters == now {
            return;
        }
        if let Err(error) = self.change(group, &now, &voters).await {
            // The next look tries again, or the next leader.
            let error = &error as &dyn std::error::Error;
            error!(group = group.id().get(), error, "the voters are not as they should be yet");
        }
    }

    async fn change(
        &self,
        group: &Group,
        now: &BTreeSet<NodeId>,
        voters: &BTreeSet<NodeId>,
    ) -> Result<(), group::Error> {
        for node in voters.difference(now) {
            let Some(address) = self.joined.get(node) else { continue };
            let peer = Peer { node: *node, address: address.clone() };
            info!(group = group.id().get(), node = node.get(), "a node joins the group");
            let caught_up = tokio::time::timeout(CATCH_UP, group.add_learner(&peer)).await;
            caught_up.unwrap_or(Err(group::Error::Late))?;
        }
        group.change_voters(voters.iter().copied()).await?;
        let voters: Vec<u64> = voters.iter().map(|node| node.get()).collect();
        info!(group = group.id().get(), ?voters, "the voters changed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_nodes_leave_and_joined_ones_enter() {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let joined = [(NodeId(4), "h:4".to_owned())].into();
        let wanted = Wanted { joined, expelled: ids(&[3]) };

        assert_eq!(wanted.voters(&ids(&[1, 2, 3])), ids(&[1, 2, 4]));
        assert_eq!(wanted.voters(&ids(&[1, 2, 4])), ids(&[1, 2, 4]));
        // A founder that never told where it is stays a voter.
        let nothing = Wanted { joined: BTreeMap::new(), expelled: BTreeSet::new() };
        assert_eq!(nothing.voters(&ids(&[1, 2, 3])), ids(&[1, 2, 3]));
    }
}
