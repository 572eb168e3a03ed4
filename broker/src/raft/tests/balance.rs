//! Leadership goes where it shall be, and comes back after a node was away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use weft_proto::{GroupId, NodeId};

use super::cluster::{Cluster, DEADLINE, payload};
use super::routed;
use crate::raft::balance::{Balance, preferred};
use crate::raft::snapshot::SnapshotPolicy;

const PERIOD: Duration = Duration::from_millis(500);

fn nodes(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

fn groups(count: u32, voters: &BTreeSet<NodeId>) -> BTreeMap<GroupId, BTreeSet<NodeId>> {
    (0..count).map(|group| (GroupId(group), voters.clone())).collect()
}

proptest! {
    #[test]
    fn groups_are_spread_evenly_over_those_who_are_able(
        count in 0..60_u32, size in 1..8_u64, able in prop::collection::btree_set(1..8_u64, 0..8),
    ) {
        let able = nodes(able);
        let voters = nodes(1..=size);
        let spread = preferred(&groups(count, &voters), &able);

        let loads: Vec<usize> = voters
            .intersection(&able)
            .map(|node| spread.values().filter(|leader| *leader == node).count())
            .collect();
        prop_assert_eq!(spread.len(), if loads.is_empty() { 0 } else { count as usize });
        let (least, most) = (loads.iter().min(), loads.iter().max());
        prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1), "{:?}", loads);
    }

    #[test]
    fn the_loss_of_a_node_moves_no_group_of_another(count in 0..60_u32, lost in 1..=5_u64) {
        let groups = groups(count, &nodes(1..=5));
        let before = preferred(&groups, &nodes(1..=5));
        let after = preferred(&groups, &nodes((1..=5).filter(|node| *node != lost)));

        for (group, leader) in before {
            prop_assert!(leader == NodeId(lost) || after[&group] == leader);
        }
    }

    #[test]
    fn only_voters_lead(voters in prop::collection::vec(prop::collection::btree_set(1..6_u64, 1..4), 0..20)) {
        let groups: BTreeMap<_, _> =
            (0..).map(GroupId).zip(voters.into_iter().map(nodes)).collect();

        for (group, leader) in preferred(&groups, &nodes(1..6)) {
            prop_assert!(groups[&group].contains(&leader));
        }
    }
}

/// Lets the running nodes balance, but for those that drain.
fn balance(cluster: &Cluster, draining: &Arc<Mutex<BTreeSet<NodeId>>>, only: Option<usize>) {
    for (index, running) in cluster.running() {
        if only.is_some_and(|only| only != index) {
            continue;
        }
        let draining = Arc::clone(draining);
        let draining = Arc::new(move || draining.lock().unwrap().clone());
        let rules = Balance { period: PERIOD, draining };
        let groups = running.groups.clone();
        running.tasks.spawn("balance", move |stop| groups.balance(rules, stop));
    }
}

async fn settled(cluster: &Cluster, wanted: [usize; 2]) {
    let reached = async {
        loop {
            let catalog = cluster.leader(GroupId(0)).await.0;
            let data = cluster.leader(GroupId(1)).await.0;
            if [catalog, data] == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.expect("leaders are where they shall be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_home_and_leaves_a_node_that_drains() {
    let mut cluster = Cluster::start(routed(), SnapshotPolicy::AtFloor).await;
    let draining = Arc::new(Mutex::new(BTreeSet::new()));
    balance(&cluster, &draining, None);
    settled(&cluster, [0, 1]).await;

    draining.lock().unwrap().insert(cluster.nodes[1].id);
    // Group 1 is given to whom has the fewest: node 1 leads the catalog.
    settled(&cluster, [0, 2]).await;
    draining.lock().unwrap().clear();
    settled(&cluster, [0, 1]).await;

    cluster.kill(0).await;
    settled(&cluster, [2, 1]).await;
    for number in 0..10 {
        cluster.must_propose(GroupId(0), &payload(number)).await;
    }
    cluster.boot(0, None).await;
    balance(&cluster, &draining, Some(0));
    settled(&cluster, [0, 1]).await;
    cluster.stop().await;
}
