//! A planned restart of each node in turn: nobody who publishes by the client library notices more
//! than a pause.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weft_client::{Client, PublisherOptions};
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::checker::{Attempt, EventId, Fate, Partition, faults};
use super::harness::{Cluster, eventually, put, within};
use super::load::{digest, event};
use super::replicas;

pub(crate) const STREAMS: [&str; 1] = ["orders"];
/// Acknowledgements of each publisher between two steps.
const SOME: u64 = 50;
/// Unacknowledged events of a publisher that batches.
const WINDOW: usize = 32;
/// This is no benchmark; and a publisher that never pauses would leave no time to restart.
const PAUSE: Duration = Duration::from_millis(2);
const PROGRESS_MAX: Duration = Duration::from_mins(1);
const END_MAX: Duration = Duration::from_mins(2);

/// What a publisher saw.
#[derive(Debug, Default)]
struct Seen {
    attempts: Vec<Attempt>,
    failures: Vec<String>,
    longest: Duration,
}

/// One that publishes without end.
#[derive(Clone, Debug)]
struct Source {
    client: Client,
    publisher: u32,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
}

impl Source {
    fn ids(&self) -> impl Iterator<Item = EventId> + use<> {
        let (publisher, stop) = (self.publisher, Arc::clone(&self.stop));
        (0..)
            .map(move |number| EventId { publisher, number })
            .take_while(move |_| !stop.load(Ordering::Relaxed))
    }

    fn note(&self, seen: &mut Seen, id: EventId, began: Instant, told: Result<(u32, u64), String>) {
        seen.longest = seen.longest.max(began.elapsed());
        let fate = match told {
            Ok((partition, offset)) => {
                self.acked.fetch_add(1, Ordering::Relaxed);
                Fate::Acked(Partition { stream: 0, partition }, offset)
            }
            Err(error) => {
                seen.failures.push(format!("{id} after {:?}: {error}", began.elapsed()));
                Fate::Unknown
            }
        };
        seen.attempts.push(Attempt { id, digest: digest(&event(id)), fate });
    }

    /// With a publisher of the library: batches, and numbers that tell retries apart.
    async fn batches(self) -> Seen {
        let mut seen = Seen::default();
        let publisher =
            self.client.publisher(STREAMS[0], PublisherOptions::default()).await.unwrap();
        let mut pending = VecDeque::new();
        let settle = async |seen: &mut Seen, pending: &mut VecDeque<_>| {
            let Some((id, began, told)) = pending.pop_front() else { return };
            let told: weft_client::Pending = told;
            let told = told.await.map(|receipt| (receipt.partition.get(), receipt.offset.get()));
            self.note(seen, id, began, told.map_err(|error| error.to_string()));
        };
        for id in self.ids() {
            pending.push_back((id, Instant::now(), publisher.send(event(id)).await.unwrap()));
            if pending.len() > WINDOW {
                settle(&mut seen, &mut pending).await;
            }
            sleep(PAUSE).await;
        }
        while !pending.is_empty() {
            settle(&mut seen, &mut pending).await;
        }
        seen
    }

    /// With one call for each event, and nothing to tell a retry by.
    async fn calls(self) -> Seen {
        let mut seen = Seen::default();
        for id in self.ids() {
            let began = Instant::now();
            let request = v1::PublishRequest {
                stream: STREAMS[0].to_owned(),
                events: vec![event(id)],
                ..v1::PublishRequest::default()
            };
            let told = self.client.publish_once(request).await;
            let told =
                told.map_err(|error| error.to_string()).and_then(|mut results| {
                    match results.pop().and_then(|result| result.outcome) {
                        Some(v1::publish_result::Outcome::Receipt(receipt)) => {
                            Ok((receipt.partition, receipt.offset))
                        }
                        other => Err(format!("{other:?}")),
                    }
                });
            self.note(&mut seen, id, began, told);
            sleep(PAUSE).await;
        }
        seen
    }
}

/// Publishers that may not fail, each by another node first.
pub(crate) struct Publishers {
    stop: Arc<AtomicBool>,
    acked: Vec<Arc<AtomicU64>>,
    running: JoinSet<Seen>,
}

impl Publishers {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        put(&cluster.client(), Kind::Stream, STREAMS[0], &json!({ "partitions": 4 })).await;
        let mut all = Self { stop: Arc::default(), acked: Vec::new(), running: JoinSet::new() };
        for publisher in 0..6_u32 {
            let acked = Arc::new(AtomicU64::new(0));
            all.acked.push(Arc::clone(&acked));
            let mut options = cluster.options();
            // Every node is somebody's only connection.
            options.endpoints.rotate_left(publisher as usize % 3);
            let client = Client::connect(&options).unwrap();
            let source = Source { client, publisher, stop: Arc::clone(&all.stop), acked };
            if publisher < 3 {
                all.running.spawn(source.batches());
            } else {
                all.running.spawn(source.calls());
            }
        }
        all.progress().await;
        all
    }

    /// Waits until each publisher has got on.
    pub(crate) async fn progress(&self) {
        let now = || self.acked.iter().map(|acked| acked.load(Ordering::Relaxed));
        let begin: Vec<u64> = now().collect();
        let all =
            async || begin.iter().zip(now()).all(|(old, new)| new >= old + SOME).then_some(());
        eventually(PROGRESS_MAX, "that every publisher gets on", all).await;
    }

    /// Stops them. None may have failed, and every replica has what they were told.
    #[expect(clippy::print_stdout, reason = "how long somebody had to wait is worth a look")]
    pub(crate) async fn finish(self, cluster: &Cluster) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.running.join_all();
        let seen = within(END_MAX, "the end of the publishers", ended).await;
        let attempts: Vec<Attempt> = seen.iter().flat_map(|seen| seen.attempts.clone()).collect();
        let longest: Vec<Duration> = seen.iter().map(|seen| seen.longest).collect();
        println!("{} publishes; the longest of each publisher: {longest:?}", attempts.len());
        let failures: Vec<_> = seen.iter().flat_map(|seen| &seen.failures).collect();
        assert!(failures.is_empty(), "{} failed: {:#?}", failures.len(), failures.iter().take(20));
        let replicas = replicas::read_all(cluster, &STREAMS).await;
        assert_eq!(faults(&attempts, &replicas), []);
        attempts
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_restart_of_each_node_fails_no_publish() {
    let mut cluster = Cluster::start(3).await;
    let publishers = Publishers::start(&cluster).await;

    let mut ends = Vec::new();
    for node in &mut cluster.nodes {
        ends.push(node.stop().await.code());
        publishers.progress().await;
        node.start();
        node.ready().await;
        publishers.progress().await;
    }

    publishers.finish(&cluster).await;
    assert_eq!(ends, [Some(0); 3]);
}
