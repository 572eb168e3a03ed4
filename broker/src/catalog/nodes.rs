//! Nodes: where they are, who joined, and who was taken out. An id is never given twice.

use weft_proto::{Error, Reason, internal, v1};

use super::{Applied, Changed, Outcome, State};

/// A cluster that shrinks below this could not lose another node.
const NODES_MIN: usize = 2;

impl State {
    /// A node tells where it can be reached.
    pub(super) fn register(&mut self, mut node: internal::CatalogNode) -> Outcome {
        if node.id == 0 {
            return Err(Error::invalid("a node needs an id").with_field("id"));
        }
        if let Some(known) = self.nodes.get(&node.id) {
            if known.expelled {
                let message = format!("node {} was removed from the cluster", node.id);
                return Err(Error::new(Reason::FailedPrecondition, message));
            }
            node.node_uid.clone_from(&known.node_uid);
        }
        node.expelled = false;
        Ok(self.put_node(node))
    }

    /// Gives a data folder an id of its own; the same folder always the same.
    pub(super) fn admit(&mut self, admit: internal::CatalogAdmit) -> Outcome {
        if admit.node_uid.is_empty() || admit.peer_address.is_empty() {
            return Err(Error::invalid("a node that joins needs an identity and an address"));
        }
        if let Some(known) = self.nodes.values().find(|node| node.node_uid == admit.node_uid) {
            if known.expelled {
                let message = format!(
                    "this data folder is that of node {}, which was removed from the cluster: \
                     start with an empty one",
                    known.id
                );
                return Err(Error::new(Reason::FailedPrecondition, message));
            }
            let moved = internal::CatalogNode { peer_address: admit.peer_address, ..known.clone() };
            return Ok(self.put_node(moved));
        }
        let holder = |node: &&internal::CatalogNode| {
            !node.expelled && node.peer_address == admit.peer_address
        };
        if let Some(holder) = self.nodes.values().find(holder) {
            let message = format!(
                "{} is the address of node {}: if that one is gone for good, remove it first: \
                 weft node remove {}",
                admit.peer_address, holder.id, holder.id
            );
            return Err(Error::new(Reason::FailedPrecondition, message));
        }
        let last = self.nodes.keys().next_back().copied().unwrap_or(0).max(admit.above);
        let id = last.checked_add(1).ok_or_else(|| Error::internal("there is no node id left"))?;
        Ok(self.put_node(internal::CatalogNode {
            id,
            peer_address: admit.peer_address,
            node_uid: admit.node_uid,
            ..internal::CatalogNode::default()
        }))
    }

    /// Takes a node out. It stays known, so that nobody gets its id.
    pub(super) fn expel(&mut self, expel: &internal::CatalogExpel) -> Outcome {
        let known = self.nodes.get(&expel.id).cloned();
        let Some(known) = known.or_else(|| {
            // A founder that never came up.
            (1..=expel.above)
                .contains(&expel.id)
                .then(|| internal::CatalogNode { id: expel.id, ..internal::CatalogNode::default() })
        }) else {
            let message = format!("there is no node {}", expel.id);
            return Err(Error::new(Reason::UnknownResource, message).with_field("node_id"));
        };
        let is_expelled = |id: u64| self.nodes.get(&id).is_some_and(|node| node.expelled);
        let joined = self.nodes.keys().copied().filter(|id| *id > expel.above);
        let all = (1..=expel.above).chain(joined);
        let left = all.filter(|id| *id != expel.id && !is_expelled(*id)).count();
        if left < NODES_MIN && !known.expelled {
            let message = format!(
                "without node {} the cluster would have {left} node: add another one first",
                expel.id
            );
            return Err(Error::new(Reason::FailedPrecondition, message).with_field("node_id"));
        }
        Ok(self.put_node(internal::CatalogNode { expelled: true, ..known }))
    }

    fn put_node(&mut self, node: internal::CatalogNode) -> Applied {
        if self.nodes.get(&node.id) == Some(&node) {
            return Applied::unchanged(None);
        }
        self.nodes.insert(node.id, node);
        let changed = Some(Changed::Node);
        Applied { change: v1::Change::Updated, changed, ..Applied::unchanged(None) }
    }
}
