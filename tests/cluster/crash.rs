//! kill -9 under load: of each node in turn, then of all at once.
//!
//! The processes are killed, not the machine: what they wrote stays in the page cache. That a
//! write is synced before it is acknowledged is what the storage tests show.

use serde_json::json;
use weft_client::{AckLevel, PublisherOptions};
use weft_proto::resource::Kind;

use super::checker::{Attempt, EventId, Fate, faults};
use super::harness::node::Node;
use super::harness::{Cluster, put};
use super::load::{Load, is_patient};
use super::replicas;

const STREAMS: [&str; 2] = ["orders", "payments"];
/// Acknowledgements of each publisher between two faults.
const SOME: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_events_survive_kill_9_of_each_node_and_of_all() {
    let mut cluster = Cluster::start(3).await;
    for stream in STREAMS {
        put(&cluster.client(), Kind::Stream, stream, &json!({ "partitions": 2 })).await;
    }
    let load = Load::start(&cluster.options(), &STREAMS);
    load.progress(SOME).await;

    kill_each_in_turn(&mut cluster, &load).await;
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.start_all().await;
    load.progress(SOME).await;

    nothing_is_lost(&cluster, load).await;
}

/// What a majority has in memory outlives any one node, whichever that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_acknowledged_from_memory_survive_kill_9_of_each_node() {
    let mut cluster = Cluster::start(3).await;
    for stream in STREAMS {
        put(&cluster.client(), Kind::Stream, stream, &json!({ "partitions": 2 })).await;
    }
    let publishing = PublisherOptions { ack: AckLevel::Replicated, ..PublisherOptions::default() };
    let load = Load::start_with(&cluster.options(), &STREAMS, publishing);
    load.progress(SOME).await;

    kill_each_in_turn(&mut cluster, &load).await;

    nothing_is_lost(&cluster, load).await;
}

async fn kill_each_in_turn(cluster: &mut Cluster, load: &Load) {
    for node in 0..cluster.nodes.len() {
        cluster.nodes[node].kill();
        load.progress(SOME).await;
        cluster.nodes[node].start();
        cluster.nodes[node].ready().await;
        load.progress(SOME).await;
    }
}

async fn nothing_is_lost(cluster: &Cluster, load: Load) {
    let attempts = load.stop().await;
    let replicas = replicas::read_all(cluster, &STREAMS).await;
    let faults = faults(&attempts, &replicas);
    assert!(replicas.iter().all(|replica| replica.len() == 4), "each partition has events");
    let shown = &faults[..faults.len().min(10)];
    let (all, count) = (attempts.len(), faults.len());
    assert!(faults.is_empty(), "{count} faults in {all} events, the first: {shown:#?}");
    assert_eq!(given_up(&attempts), []);
}

/// Events that were not acknowledged to somebody who waits: a cluster that comes back in time owes
/// an acknowledgement for each event.
fn given_up(attempts: &[Attempt]) -> Vec<(EventId, Fate)> {
    let failed = attempts.iter().filter(|attempt| {
        is_patient(attempt.id.publisher) && !matches!(attempt.fate, Fate::Acked(..))
    });
    failed.map(|attempt| (attempt.id, attempt.fate)).take(10).collect()
}
