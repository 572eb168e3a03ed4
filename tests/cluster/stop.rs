//! SIGTERM: a rolling restart loses nothing, refuses nobody for long, and ends cleanly.

use serde_json::json;
use weft_proto::resource::Kind;

use super::checker::{Attempt, Fate, faults};
use super::harness::{Cluster, put};
use super::load::{Load, is_patient};
use super::replicas;

const STREAMS: [&str; 1] = ["orders"];
/// Acknowledgements of each publisher between two steps.
const SOME: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_ends_each_broker_cleanly_and_loses_nothing() {
    let mut cluster = Cluster::start(3).await;
    put(&cluster.client(), Kind::Stream, STREAMS[0], &json!({ "partitions": 2 })).await;
    let load = Load::start(&cluster.options(), &STREAMS);
    load.progress(SOME).await;

    let mut ends = Vec::new();
    for node in &mut cluster.nodes {
        ends.push(node.stop().await);
        load.progress(SOME).await;
        node.start();
        node.ready().await;
        load.progress(SOME).await;
    }

    let attempts = load.stop().await;
    assert!(ends.iter().all(|end| end.code() == Some(0)), "{ends:?}");
    let replicas = replicas::read_all(&cluster, &STREAMS).await;
    assert_eq!(faults(&attempts, &replicas), []);
    let patient = attempts.iter().filter(|attempt| is_patient(attempt.id.publisher));
    let acked = |attempt: &Attempt| matches!(attempt.fate, Fate::Acked(..));
    assert!(patient.clone().count() > 500 && patient.clone().all(acked), "nobody is refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_stopped_finds_all_its_data_again() {
    let mut cluster = Cluster::start(3).await;
    put(&cluster.client(), Kind::Stream, STREAMS[0], &json!({ "partitions": 2 })).await;
    let load = Load::start(&cluster.options(), &STREAMS);
    load.progress(SOME).await;
    let attempts = load.stop().await;
    let before = replicas::read_all(&cluster, &STREAMS).await;
    assert_eq!(faults(&attempts, &before), []);

    let mut ends = Vec::new();
    for node in &mut cluster.nodes {
        ends.push(node.stop().await);
    }
    cluster.start_all().await;

    assert!(ends.iter().all(|end| end.code() == Some(0)), "{ends:?}");
    assert_eq!(replicas::read_all(&cluster, &STREAMS).await, before);
}
