//! The lease gap: one leader, in one term, takes one entry, refuses the next because its lease is
//! over, and takes the one after it. Offsets must stay dense and a producer's batches in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weft_proto::{AckLevel, Epoch, Offset, ProducerId, Sequence};

use super::checks;
use super::clients::plain;
use super::cluster::Cluster;
use super::node::Running;
use super::plant::Plant;
use super::scripted::{
    GROUP, PARTITION, calm_cluster, check, data, end, in_simulation, until, within,
};
use super::violation::Class;
use crate::data::{Appended, DataGroup, NewAppend};
use crate::entry::{EntryBuilder, NewBatch, Payload, ProducerBatch};
use crate::partition::BatchReply;
use crate::raft::group::ProposeError;
use crate::state::Reply;

/// Holds back what the followers answer until the lease of the leader is over. They still hear of
/// it, so none of them wants to lead.
pub(super) async fn let_the_lease_end(cluster: &Cluster, leader: u64) {
    for follower in (1..=3).filter(|node| *node != leader) {
        cluster.site.network.block((follower, leader));
    }
    tokio::time::sleep(cluster.site.plan.timers.election_max + Duration::from_millis(20)).await;
}

fn entry(expected: u64) -> Bytes {
    let event = [Bytes::from(format!("k{expected}"))];
    let mut builder = EntryBuilder::new();
    builder.push(NewBatch::new(PARTITION, Offset(expected), Payload::Events(&event))).unwrap();
    builder.finish(crate::clock::now())
}

/// What became of three entries, the second of which the leader refused.
struct Gap {
    cluster: Cluster,
    first: Vec<BatchReply>,
    refused: Result<(), ProposeError>,
    third: Vec<BatchReply>,
}

async fn gap(plant: Option<Plant>) -> Gap {
    let (cluster, leader) = calm_cluster(plant).await;
    let group = data(&cluster, leader).raft;
    let term = group.status().term;
    let Running { process, .. } = cluster.running(leader).unwrap().clone();
    let propose = |expected| process.run(group.propose_in(term, entry(expected)));

    for follower in (1..=3).filter(|node| *node != leader) {
        cluster.site.network.block((follower, leader));
    }
    let taken = propose(0).await.unwrap();
    let_the_lease_end(&cluster, leader).await;
    let refused = propose(1).await.unwrap().await.map(|_answer| ());
    cluster.site.network.heal();
    let (_, first) = taken.await.unwrap();
    let (_, third) = propose(2).await.unwrap().await.unwrap();

    assert_eq!(group.status().term, term, "another term began, so there was no gap");
    let reply = |reply: crate::raft::types::Reply| match Reply::decode(&reply.0).unwrap() {
        Reply::Batches { batches, .. } => batches,
        other => panic!("{other:?}"),
    };
    Gap { cluster, first: reply(first), refused, third: reply(third) }
}

#[test]
fn what_follows_a_refused_entry_is_void() {
    in_simulation(async {
        let Gap { cluster, first, refused, third } = gap(None).await;

        assert_eq!(first, [BatchReply::Appended { base: Offset(0) }]);
        assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
        assert_eq!(third, [BatchReply::Void { end: Offset(1) }]);
        until(|| checks::has_converged(&cluster)).await;
        assert!((1..=3).all(|node| end(&data(&cluster, node)) == Some(1)));
        check(&cluster);
    });
}

/// Faults by chance rarely make a gap, so this bug has its own schedule.
#[test]
fn offset_stamped_at_receive_is_found() {
    in_simulation(async {
        let Gap { cluster, third, .. } = gap(Some(Plant::StampedOffset)).await;

        assert_eq!(third, [BatchReply::Appended { base: Offset(2) }]);
        let violation = cluster.site.observer.violation().map(|violation| violation.class);
        assert_eq!(violation, Some(Class::OffsetGap));
    });
}

#[test]
fn sequencer_closes_the_gap_in_order() {
    [AckLevel::Durable, AckLevel::Replicated].into_iter().for_each(closes_the_gap);
}

fn closes_the_gap(ack: AckLevel) {
    in_simulation(async move {
        let (cluster, leader) = calm_cluster(None).await;
        let DataGroup { raft, sequencer, .. } = data(&cluster, leader);
        let term = raft.status().term;
        let Running { process, .. } = cluster.running(leader).unwrap().clone();
        let append = |sequence: u64| {
            let producer = ProducerBatch {
                id: ProducerId(1),
                epoch: Epoch(1),
                sequence: Sequence(sequence),
                previous: Sequence(sequence - 1),
            };
            let events = vec![Bytes::from(format!("k{sequence}"))];
            NewAppend { ack, ..plain(PARTITION, events, Some(producer)) }
        };
        let queue = |sequence| {
            let (sequencer, append) = (sequencer.clone(), append(sequence));
            #[expect(clippy::async_yields_async, reason = "it is queued now and answered later")]
            process.run(async move { sequencer.append(append).await.unwrap() })
        };

        for follower in (1..=3).filter(|node| *node != leader) {
            cluster.site.network.block((follower, leader));
        }
        let first = queue(1).await;
        let_the_lease_end(&cluster, leader).await;
        let second = queue(2).await;
        // It is proposed and refused; the sequencer learns that behind the fate of the first.
        tokio::time::sleep(Duration::from_millis(5)).await;
        cluster.site.network.heal();
        let third = queue(3).await;
        let first = within(first).await.unwrap();
        let second = within(second).await;
        let third = within(third).await;
        // What the client library does then: both again, in order.
        let again = (queue(2).await, queue(3).await);
        let (second_again, third_again) = (within(again.0).await, within(again.1).await);

        assert!(second.is_err_and(|error| error.not_applied()));
        assert!(third.is_err_and(|error| error.not_applied()));
        let at = |appended: Appended| (appended.runs[0].first, appended.runs[0].count);
        assert_eq!(at(first), (Offset(0), 1));
        assert_eq!(second_again.ok().map(at), Some((Offset(1), 1)));
        assert_eq!(third_again.ok().map(at), Some((Offset(2), 1)));
        assert_eq!(raft.status().term, term, "another term began, so there was no gap");
        until(|| checks::has_converged(&cluster)).await;
        let observer = Arc::clone(&cluster.site.observer);
        let events = observer.facts().groups[&GROUP].partitions[&PARTITION].clone();
        assert_eq!(events, ["k1", "k2", "k3"]);
        check(&cluster);
    });
}
