//! Where the founders are, for a node that joins.
//!
//! *Never* speaks when the members are known: a founder may have left, or have gone elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use weft_proto::NodeId;

use super::Directory;

/// A directory of members that is empty at first: until a leader has told who they are, those count
/// that the record of the birth names. Without them, the first call of a leader could not be let in.
pub struct Acquainted {
    members: Arc<dyn Directory>,
    founders: BTreeMap<NodeId, String>,
}

impl fmt::Debug for Acquainted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquainted").field("founders", &self.founders).finish_non_exhaustive()
    }
}

impl Acquainted {
    /// Members, and the founders by the record.
    pub fn new(members: Arc<dyn Directory>, founders: BTreeMap<NodeId, String>) -> Self {
        Self { members, founders }
    }
}

impl Directory for Acquainted {
    fn address_of(&self, node: NodeId) -> Option<String> {
        let is_told = || self.founders.keys().any(|&node| self.members.address_of(node).is_some());
        let member = self.members.address_of(node);
        if member.is_some() || is_told() {
            return member;
        }
        self.founders.get(&node).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Members(BTreeMap<NodeId, String>);

    impl Directory for Members {
        fn address_of(&self, node: NodeId) -> Option<String> {
            self.0.get(&node).cloned()
        }
    }

    fn addresses(pairs: &[(u64, &str)]) -> BTreeMap<NodeId, String> {
        pairs.iter().map(|&(node, address)| (NodeId(node), address.to_owned())).collect()
    }

    #[test]
    fn founders_count_until_members_are_known() {
        let founders = [(1, "a"), (2, "b")];
        let found = |members: &[(u64, &str)], node| {
            let members = Arc::new(Members(addresses(members)));
            Acquainted::new(members, addresses(&founders)).address_of(NodeId(node))
        };

        assert_eq!(found(&[], 2).as_deref(), Some("b"));
        assert_eq!(found(&[], 3), None);
        // Node 2 has left, node 1 has moved, node 4 has come.
        let now = [(1, "c"), (4, "d")];
        assert_eq!(found(&now, 1).as_deref(), Some("c"));
        assert_eq!(found(&now, 2), None);
        assert_eq!(found(&now, 4).as_deref(), Some("d"));
    }
}
