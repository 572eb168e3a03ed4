//! More is published than can be stored: memory stays bounded, who is refused is told so, and what
//! was acknowledged stays.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weft_client::{Client, Error, ErrorKind, Options, PublisherOptions, Timeouts};
use weft_proto::resource::Kind;
use weft_proto::v1;
use weft_proto::v1::publish_client::PublishClient;

use super::checker::{Attempt, EventId, Fate, Partition, faults};
use super::harness::{Cluster, put, within};
use super::load::{digest, padded};
use super::replicas;

const STREAMS: [&str; 1] = ["orders"];
const EVENT_BYTES: usize = 16 << 10;
/// Each of these keeps as much on its way as the library lets it.
const PUBLISHERS: u32 = 8;
const QUEUE_BYTES: usize = 12 << 20;
/// Each of these sends calls of 512 KiB, one after the other, and goes on to the next when refused.
const CALLERS: u32 = 96;
const CALL_EVENTS: u64 = 32;
const LOAD_TIME: Duration = Duration::from_secs(8);
/// The log that the tests may write; afterwards it is read from each replica.
const EVENTS_MAX: u64 = 24_000;
const END_MAX: Duration = Duration::from_mins(3);
/// What a broker with the small profile may take: the bounded rooms, the store's memory, and what
/// connections hold.
const RESIDENT_KIB_MAX: u64 = 1 << 20;

/// What all share.
#[derive(Clone, Debug)]
struct Run {
    until: Instant,
    events: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Run {
    fn goes_on(&self, events: u64) -> bool {
        Instant::now() < self.until
            && self.events.fetch_add(events, Ordering::Relaxed) + events <= EVENTS_MAX
    }
}

fn attempt(id: EventId, told: Result<(u32, u64), Error>) -> Attempt {
    let fate = match told {
        Ok((partition, offset)) => Fate::Acked(Partition { stream: 0, partition }, offset),
        Err(error) if error.not_applied() => Fate::Refused,
        Err(_) => Fate::Unknown,
    };
    Attempt { id, digest: digest(&padded(id, EVENT_BYTES)), fate }
}

async fn publisher(client: Client, publisher: u32, run: Run) -> Vec<Attempt> {
    let options = PublisherOptions { queue_bytes: QUEUE_BYTES, ..PublisherOptions::default() };
    let open = client.publisher(STREAMS[0], options).await.unwrap();
    let mut pending = Vec::new();
    for number in 0.. {
        if !run.goes_on(1) {
            break;
        }
        let id = EventId { publisher, number };
        pending.push((id, open.send(padded(id, EVENT_BYTES)).await.unwrap()));
    }
    let mut attempts = Vec::new();
    for (id, told) in pending {
        let told = told.await.map(|receipt| (receipt.partition.get(), receipt.offset.get()));
        attempts.push(attempt(id, told));
    }
    attempts
}

/// Without the library, which would come back for whoever is refused.
async fn caller(node: String, publisher: u32, run: Run) -> Vec<Attempt> {
    let mut client = PublishClient::connect(node).await.unwrap();
    let mut attempts = Vec::new();
    let mut first = 0;
    while run.goes_on(CALL_EVENTS) {
        let ids: Vec<_> =
            (first..first + CALL_EVENTS).map(|number| EventId { publisher, number }).collect();
        first += CALL_EVENTS;
        let request = v1::PublishRequest {
            stream: STREAMS[0].to_owned(),
            events: ids.iter().map(|id| padded(*id, EVENT_BYTES)).collect(),
            partition: Some(publisher % 2),
            ..v1::PublishRequest::default()
        };
        match client.publish(request).await {
            Ok(answer) => {
                for (id, result) in ids.into_iter().zip(answer.into_inner().results) {
                    let Some(v1::publish_result::Outcome::Receipt(receipt)) = result.outcome else {
                        panic!("{id}: {:?}", result.outcome);
                    };
                    attempts.push(attempt(id, Ok((receipt.partition, receipt.offset))));
                }
            }
            Err(status) => {
                let error = Error::from(status);
                if error.kind() == ErrorKind::Overloaded {
                    run.refused.fetch_add(1, Ordering::Relaxed);
                    assert!(error.not_applied(), "{error}");
                    assert!(error.retry_after().is_some(), "{error}");
                }
                let fate = if error.not_applied() { Fate::Refused } else { Fate::Unknown };
                attempts.extend(ids.into_iter().map(|id| {
                    let digest = digest(&padded(id, EVENT_BYTES));
                    Attempt { id, digest, fate }
                }));
            }
        }
    }
    attempts
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_more_load_than_can_be_stored_memory_is_bounded_and_acknowledged_events_stay() {
    let mut cluster = Cluster::start(3).await;
    put(&cluster.client(), Kind::Stream, STREAMS[0], &json!({ "partitions": 2 })).await;
    let pids: Vec<u32> = cluster.nodes.iter_mut().map(|node| node.running().id()).collect();
    let over = Arc::new(AtomicBool::new(false));
    let watching = {
        let over = Arc::clone(&over);
        async move {
            let mut most = vec![0; pids.len()];
            while !over.load(Ordering::Relaxed) {
                for (most, pid) in most.iter_mut().zip(&pids) {
                    *most = resident(*pid).max(*most);
                }
                sleep(Duration::from_millis(50)).await;
            }
            most
        }
    };
    let run =
        Run { until: Instant::now() + LOAD_TIME, events: Arc::default(), refused: Arc::default() };
    let mut running = JoinSet::new();
    for number in 0..PUBLISHERS + CALLERS {
        if number < PUBLISHERS {
            // Nobody gives up because this machine is slow.
            let timeouts = Timeouts { publish: END_MAX, ..Timeouts::default() };
            let client = Client::connect(&Options { timeouts, ..cluster.options() }).unwrap();
            running.spawn(publisher(client, number, run.clone()));
        } else {
            let node = &cluster.nodes[number as usize % 3];
            running.spawn(caller(node.endpoint(), number, run.clone()));
        }
    }

    let working = async {
        let attempts = within(END_MAX, "the end of the load", running.join_all()).await;
        over.store(true, Ordering::Relaxed);
        attempts
    };
    let (attempts, most) = tokio::join!(working, watching);

    let attempts: Vec<Attempt> = attempts.into_iter().flatten().collect();
    let acked = attempts.iter().filter(|attempt| matches!(attempt.fate, Fate::Acked(..))).count();
    println!(
        "{} events, {acked} acknowledged; {} calls refused; most memory {most:?} KiB",
        attempts.len(),
        run.refused.load(Ordering::Relaxed),
    );
    assert!(acked > 1_000, "{acked}");
    assert!(most.iter().all(|most| *most < RESIDENT_KIB_MAX), "{most:?}");
    // Whoever uses a publisher of the library is never refused for load: it waits.
    let publishers = attempts.iter().filter(|attempt| attempt.id.publisher < PUBLISHERS);
    let failed: Vec<_> =
        publishers.filter(|attempt| !matches!(attempt.fate, Fate::Acked(..))).take(10).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let replicas = replicas::read_all(&cluster, &STREAMS).await;
    let faults = faults(&attempts, &replicas);
    assert!(faults.is_empty(), "{} faults: {:?}", faults.len(), faults.iter().take(10));
}
