//! The acknowledgement level `replicated`: sooner than the disks, and never of a place where the
//! event does not end up.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use weft_proto::{AckLevel, Offset, Result};

use super::checks;
use super::clients::plain;
use super::cluster::Cluster;
use super::node::Running;
use super::scripted::{
    GROUP, PARTITION, calm_cluster, check, data, end, in_simulation, until, within,
};
use crate::data::{Appended, DataGroup, NewAppend};

/// Far longer than a round trip, far shorter than the patience of a leader with its followers.
const STALL: Duration = Duration::from_millis(300);
/// In which a round trip is over.
const SOON: Duration = Duration::from_millis(50);

type Answer = oneshot::Receiver<Result<Appended>>;

fn batch(name: &str, ack: AckLevel) -> NewAppend {
    NewAppend { ack, ..plain(PARTITION, vec![Bytes::from(name.to_owned())], None) }
}

async fn queue(cluster: &Cluster, leader: u64, append: NewAppend) -> Answer {
    let DataGroup { sequencer, .. } = data(cluster, leader);
    let Running { process, .. } = cluster.running(leader).unwrap().clone();
    process.run(async move { sequencer.append(append).await }).await.unwrap()
}

fn stall(cluster: &Cluster) {
    (1..=3).for_each(|node| cluster.disk(node).stall(STALL));
}

async fn soon(answer: &mut Answer) -> Option<Offset> {
    let answer = tokio::time::timeout(SOON, answer).await.ok()?;
    Some(answer.unwrap().unwrap().runs[0].first)
}

#[test]
fn replicated_is_answered_while_the_disks_are_slow_and_durable_is_not() {
    in_simulation(async {
        let (cluster, leader) = calm_cluster(None).await;
        stall(&cluster);

        let mut durable = queue(&cluster, leader, batch("d0", AckLevel::Durable)).await;
        let mut replicated = queue(&cluster, leader, batch("r1", AckLevel::Replicated)).await;
        let mut later = queue(&cluster, leader, batch("r2", AckLevel::Replicated)).await;

        // Nothing was asked for when the first was proposed, and others go by what is before them.
        let early = (soon(&mut replicated).await, soon(&mut later).await);
        assert_eq!(soon(&mut durable).await, None);
        assert_eq!(within(durable).await.unwrap().runs[0].first, Offset(0));
        let mut third = queue(&cluster, leader, batch("r3", AckLevel::Replicated)).await;
        assert_eq!(soon(&mut third).await, Some(Offset(3)));
        stall(&cluster);
        let mut fourth = queue(&cluster, leader, batch("r4", AckLevel::Replicated)).await;
        let mut fifth = queue(&cluster, leader, batch("d5", AckLevel::Durable)).await;
        assert_eq!(soon(&mut fourth).await, Some(Offset(4)));
        assert_eq!(soon(&mut fifth).await, None);
        assert_eq!(within(fifth).await.unwrap().runs[0].first, Offset(5));

        assert!([None, Some(Offset(1))].contains(&early.0), "{early:?}");
        until(|| checks::has_converged(&cluster)).await;
        let events = cluster.site.observer.facts().groups[&GROUP].partitions[&PARTITION].clone();
        assert_eq!(events, ["d0", "r1", "r2", "r3", "r4", "d5"]);
        check(&cluster);
    });
}

#[test]
fn replicated_needs_a_majority() {
    in_simulation(async {
        let (cluster, leader) = calm_cluster(None).await;
        for follower in (1..=3).filter(|node| *node != leader) {
            cluster.site.network.block((follower, leader));
        }

        let mut answer = queue(&cluster, leader, batch("r0", AckLevel::Replicated)).await;

        assert_eq!(soon(&mut answer).await, None);
        cluster.site.network.heal();
        assert_eq!(within(answer).await.unwrap().runs[0].first, Offset(0));
        until(|| checks::has_converged(&cluster)).await;
        check(&cluster);
    });
}

#[test]
fn replicated_survives_the_end_of_its_leader_before_any_disk_has_it() {
    in_simulation(async {
        let (mut cluster, leader) = calm_cluster(None).await;
        stall(&cluster);
        let mut answer = queue(&cluster, leader, batch("r0", AckLevel::Replicated)).await;
        assert_eq!(soon(&mut answer).await, Some(Offset(0)));

        cluster.kill(leader);
        until(|| cluster.leader().is_some()).await;
        cluster.heal().await;

        until(|| (1..=3).all(|node| end(&data(&cluster, node)) == Some(1))).await;
        until(|| checks::has_converged(&cluster)).await;
        let events = cluster.site.observer.facts().groups[&GROUP].partitions[&PARTITION].clone();
        assert_eq!(events, ["r0"]);
        check(&cluster);
    });
}
