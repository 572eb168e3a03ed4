//! What schedules that are written by hand share: a calm cluster, and waiting in simulated time.

use std::time::Duration;

use tokio::time::Instant;
use weft_proto::{GroupId, PartitionUid};

use super::checks;
use super::cluster::Cluster;
use super::network::Network;
use super::node::Site;
use super::observer::Observer;
use super::plan::Plan;
use super::plant::Plant;
use super::random::Random;
use super::trace::Trace;
use crate::data::DataGroup;

pub(super) const GROUP: GroupId = GroupId(1);
pub(super) const PARTITION: PartitionUid = PartitionUid(10);
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Three nodes without faults, one of which leads.
pub(super) async fn calm_cluster(plant: Option<Plant>) -> (Cluster, u64) {
    let born = Instant::now();
    let mut random = Random::new(7);
    let mut plan = Plan::new(&mut random);
    (plan.nodes, plan.groups, plan.delay_millis, plan.sync_millis) = (3, 1, 0..2, 0..2);
    plan.events_max = None;
    let observer = Observer::new(3, plant, Trace::new(born, false));
    let network = Network::new(random.fork(), plan.delay_millis.clone());
    let cluster = Cluster::start(Site { plan, network, observer, born }, random.fork()).await;
    until(|| cluster.leader().is_some()).await;
    // Its partitions are open.
    let leader = cluster.leader().unwrap();
    until(|| end(&data(&cluster, leader)) == Some(0)).await;
    (cluster, leader)
}

pub(super) async fn until(reached: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "it did not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn data(cluster: &Cluster, node: u64) -> DataGroup {
    cluster.running(node).unwrap().data[0].clone()
}

pub(super) fn end(data: &DataGroup) -> Option<u64> {
    let machine = crate::data::lock(&data.machine);
    machine.state().partitions().get(PARTITION).map(|partition| partition.end().get())
}

pub(super) async fn within<T>(answer: tokio::sync::oneshot::Receiver<T>) -> T {
    tokio::time::timeout(DEADLINE, answer).await.expect("an answer").expect("no lost answer")
}

pub(super) fn in_simulation(test: impl Future<Output = ()>) {
    super::panics::install();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(test);
}

pub(super) fn check(cluster: &Cluster) {
    checks::replicas_are_whole(cluster);
    assert_eq!(cluster.site.observer.violation(), None);
}
