//! Groups of three nodes in one process: elections, order, transfer, restart, snapshots, panics.

mod balance;
mod cluster;

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;

use self::cluster::{Cluster, DEADLINE, Net, payload};
use super::group::{Error, ProposeError};
use super::snapshot::{Durability, SnapshotPolicy};
use weft_proto::GroupId;

use crate::peer::router::Router;

const CATALOG: GroupId = GroupId::CATALOG;
const DATA: GroupId = GroupId(1);

fn routed() -> Net {
    Net::Router(Router::new())
}

async fn survive_the_loss_of_the_leader(net: Net) {
    let mut cluster = Cluster::start(net, SnapshotPolicy::AtFloor).await;
    for number in 0..50 {
        cluster.must_propose(CATALOG, &payload(number)).await;
    }
    let (first, group) = cluster.leader(CATALOG).await;
    propose_pipelined(&group, 50..1_000).await;
    let before = group.status().committed;

    cluster.kill(first).await;
    for number in 1_000..1_050 {
        cluster.must_propose(CATALOG, &payload(number)).await;
    }
    cluster.boot(first, None).await;
    let last = cluster.must_propose(CATALOG, &payload(1_050)).await;

    assert!(before.is_some_and(|before| before < last));
    let states = cluster.states(CATALOG, last).await;
    assert_eq!(states.len(), 3);
    let payloads: Vec<_> = states[0].0.iter().map(|(_, payload)| payload.clone()).collect();
    assert_eq!(payloads, (0..=1_050).map(payload).collect::<Vec<_>>());
    assert!(states.iter().all(|state| *state == states[0]));
    cluster.stop().await;
}

async fn propose_pipelined(group: &super::group::Group, numbers: std::ops::Range<u64>) {
    let mut pending = FuturesOrdered::new();
    let mut expected = numbers.clone();
    let mut last = 0;
    let mut check = |(index, reply): (u64, super::types::Reply)| {
        assert_eq!(Some(reply.0), expected.next().map(payload));
        assert!(index > last);
        last = index;
    };
    for number in numbers {
        pending.push_back(group.propose(payload(number)).await.unwrap());
        if pending.len() >= 64 {
            check(pending.next().await.unwrap().unwrap());
        }
    }
    while let Some(answer) = pending.next().await {
        check(answer.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_survive_the_loss_of_the_leader() {
    survive_the_loss_of_the_leader(routed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_survive_the_loss_of_the_leader_over_grpc() {
    survive_the_loss_of_the_leader(Net::Grpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_stay_in_order_over_grpc() {
    let cluster = Cluster::start(Net::Grpc, SnapshotPolicy::AtFloor).await;
    let (_, group) = cluster.leader(DATA).await;

    // 40 MB: more than the window of one follower holds.
    let mut pending = FuturesOrdered::new();
    for number in 0..160_u8 {
        // The head stays zero: its time would ask for a checkpoint after each entry.
        let mut body = vec![number; 256 << 10];
        body[..16].fill(0);
        pending.push_back(group.propose(body.into()).await.unwrap());
    }
    let answers: Vec<_> = tokio::time::timeout(DEADLINE, pending.collect()).await.unwrap();

    let indexes: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().0).collect();
    assert!(indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    let states = cluster.states(DATA, indexes[159]).await;
    for state in &states {
        let order: Vec<u8> = state.0.iter().map(|(_, body)| body[16]).collect();
        assert_eq!(order, (0..160).collect::<Vec<u8>>());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_where_it_is_asked_to() {
    let cluster = Cluster::start(routed(), SnapshotPolicy::AtFloor).await;
    cluster.must_propose(CATALOG, &payload(0)).await;
    let (from, group) = cluster.leader(CATALOG).await;
    let to = (from + 1) % 3;

    group.transfer_leader(cluster.nodes[to].id, DEADLINE).await.unwrap();

    let (now, _) = cluster.leader(CATALOG).await;
    assert_eq!(now, to);
    cluster.must_propose(CATALOG, &payload(1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_node_leads_nothing() {
    let cluster = Cluster::start(Net::Grpc, SnapshotPolicy::AtFloor).await;
    let (node, _) = cluster.leader(CATALOG).await;
    cluster.leader(DATA).await;
    let groups = cluster.nodes[node].running.as_ref().unwrap().groups.clone();

    let kept = groups.drain(DEADLINE).await;

    assert_eq!(kept, 0);
    for group in groups.iter() {
        let (now, _) = cluster.leader(group.id()).await;
        assert_ne!(now, node);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follower_takes_no_entries_and_names_the_leader() {
    let cluster = Cluster::start(routed(), SnapshotPolicy::AtFloor).await;
    cluster.must_propose(CATALOG, &payload(0)).await;
    let (leader, _) = cluster.leader(CATALOG).await;
    let leader_id = cluster.nodes[leader].id;
    let follower = cluster.nodes[(leader + 1) % 3].running.as_ref().unwrap();
    let group = follower.groups.get(CATALOG).unwrap();
    group.leader_watch().wait_for(|now| now.leader == Some(leader_id)).await.unwrap();

    let refused = group.propose(payload(1)).await.unwrap().await;

    assert_eq!(refused.unwrap_err(), ProposeError::NotLeader { leader: Some(leader_id) });
    let read = group.ensure_linearizable().await;
    assert!(matches!(read, Err(Error::NotLeader { leader: Some(id) }) if id == leader_id));
    cluster.leader(CATALOG).await.1.ensure_linearizable().await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_cluster_restarts_from_its_store() {
    let mut cluster = Cluster::start(routed(), SnapshotPolicy::AtFloor).await;
    for number in 0..100 {
        cluster.must_propose(DATA, &payload(number)).await;
    }

    for node in 0..3 {
        cluster.kill(node).await;
    }
    for node in 0..3 {
        cluster.boot(node, None).await;
    }

    let last = cluster.must_propose(DATA, &payload(100)).await;
    let states = cluster.states(DATA, last).await;
    assert!(states.iter().all(|state| state.0.len() == 101 && *state == states[0]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_core_is_built_anew_and_loses_nothing() {
    let cluster = Cluster::start(routed(), SnapshotPolicy::AtFloor).await;
    for number in 0..100 {
        cluster.must_propose(CATALOG, &payload(number)).await;
    }
    let (leader, group) = cluster.leader(CATALOG).await;

    group.break_core().await;

    let last = cluster.must_propose(CATALOG, &payload(100)).await;
    let states = cluster.states(CATALOG, last).await;
    assert_eq!(states.len(), 3, "node {leader} must still take part");
    assert!(states.iter().all(|state| state.0.len() == 101 && *state == states[0]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_that_always_breaks_ends_the_process() {
    let cluster = Cluster::start(routed(), SnapshotPolicy::AtFloor).await;
    let (node, _) = cluster.leader(CATALOG).await;
    let running = cluster.nodes[node].running.as_ref().unwrap();
    let group = running.groups.get(CATALOG).unwrap();

    let breaking = async {
        loop {
            if running.tasks.token().is_cancelled() {
                return;
            }
            _ = futures::FutureExt::now_or_never(group.break_core());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, breaking).await.unwrap();

    running.tasks.stop(DEADLINE).await;
    assert_eq!(
        running.tasks.failure(),
        Some("group: the consensus core panicked 4 times within a minute")
    );
}

/// A follower that missed entries which are trimmed meanwhile.
async fn lagging_follower(policy: SnapshotPolicy) -> (Cluster, usize, u64) {
    let mut cluster = Cluster::start(routed(), policy).await;
    cluster.must_propose(CATALOG, &payload(0)).await;
    let (leader, _) = cluster.leader(CATALOG).await;
    let follower = (leader + 1) % 3;
    cluster.kill(follower).await;
    let mut last = 0;
    for number in 1..200 {
        last = cluster.must_propose(CATALOG, &payload(number)).await;
    }
    cluster.states(CATALOG, last).await;
    (cluster, follower, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catalog_group_sends_its_state_at_applied() {
    let (mut cluster, follower, last) = lagging_follower(SnapshotPolicy::AtApplied).await;
    for (_, running) in cluster.running() {
        running.groups.get(CATALOG).unwrap().trim_log(last).await.unwrap();
    }

    cluster.boot(follower, None).await;
    let last = cluster.must_propose(CATALOG, &payload(200)).await;

    let states = cluster.states(CATALOG, last).await;
    assert!(states.iter().all(|state| state.0.len() == 201 && *state == states[0]));
    cluster.stop().await;
}

/// Puts the checkpoint of a replica at an entry in the middle, as a due one would be.
async fn checkpoint_at(cluster: &Cluster, floor: u64) {
    use super::machine::Machine as _;
    use super::snapshot::{Checkpoint, Place};
    for (_, running) in cluster.running() {
        let mut list = running.machines[0].lock().unwrap().clone();
        list.0.retain(|(index, _)| *index <= floor);
        let group = running.groups.get(CATALOG).unwrap();
        let point = running.readers[0].point(floor).unwrap().unwrap();
        let checkpoint = Checkpoint {
            last: super::types::log_id(point.term, floor),
            membership: group.membership(),
            at: Place { time_micros: point.time, position: point.pos },
            cut: Place::default(),
            chain: point.chain,
            state: list.checkpoint(),
        };
        let kept = &running.checkpoints[0];
        kept.put(point, checkpoint.encode(), Durability::Synced).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_group_sends_its_floor_and_then_every_entry() {
    let (mut cluster, follower, last) = lagging_follower(SnapshotPolicy::AtFloor).await;
    let floor = last - 50;
    checkpoint_at(&cluster, floor).await;
    for (_, running) in cluster.running() {
        let group = running.groups.get(CATALOG).unwrap();
        group.raise_floor(floor);
        group.trim_log(floor).await.unwrap();
        assert_eq!(group.snapshot_index(), Some(floor));
        // A purge waits until nothing is being sent from below it.
        let purged = async {
            while running.readers[0].first_index() <= floor {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, purged).await.unwrap();
    }

    cluster.boot(follower, None).await;
    let last = cluster.must_propose(CATALOG, &payload(200)).await;

    let states = cluster.states(CATALOG, last).await;
    assert!(states.iter().all(|state| state.0.len() == 201 && *state == states[0]));
    // Not from a snapshot at applied: the entries above the floor are in the follower's own log.
    let reader = &cluster.nodes[follower].running.as_ref().unwrap().readers[0];
    assert_eq!(reader.first_index(), floor + 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_group_without_floor_publishes_no_snapshot() {
    let cluster = Cluster::start(routed(), SnapshotPolicy::AtFloor).await;
    let last = cluster.must_propose(CATALOG, &payload(0)).await;
    let (_, group) = cluster.leader(CATALOG).await;

    group.ask_snapshot().await;
    cluster.must_propose(CATALOG, &payload(1)).await;

    assert!(last > 0);
    assert_eq!(group.snapshot_index(), None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catalog_group_that_applied_nothing_publishes_no_snapshot() {
    let mut cluster = Cluster::start(routed(), SnapshotPolicy::AtApplied).await;
    for node in 0..3 {
        cluster.kill(node).await;
    }
    // Alone it cannot know what was agreed on, not even the first membership.
    cluster.wipe(0);
    cluster.boot(0, None).await;
    let running = cluster.nodes[0].running.as_ref().unwrap();
    let group = running.groups.get(CATALOG).unwrap().clone();

    group.ask_snapshot().await;
    // Behind the snapshot in the queue of the core.
    group.ask_snapshot().await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    assert_eq!(group.snapshot_index(), None);
    assert!(!running.tasks.token().is_cancelled(), "{:?}", running.tasks.failure());
    cluster.stop().await;
}
