//! What a read promises: the newest, the same from everywhere, in one order, and at nobody's cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use weft_client::{Client, Position, PublisherOptions, ReadItem, ReadOptions};
use weft_proto::event::EventView;
use weft_proto::resource::Kind;
use weft_proto::v1;
use weft_proto::v1::read_client::ReadClient;
use weft_proto::v1::read_response::Frame;

use super::checker::EventId;
use super::harness::node::Node;
use super::harness::process::{finished, weft};
use super::harness::{Cluster, eventually, put, within};
use super::load::{event, padded};

const STREAM: &str = "orders";
const READ_MAX: Duration = Duration::from_mins(1);

fn earliest() -> v1::Position {
    Position::Earliest.into()
}

async fn publish(client: &Client, numbers: std::ops::Range<u64>) {
    let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
    let mut pending = Vec::new();
    for number in numbers {
        let id = EventId { publisher: 0, number };
        pending.push(publisher.send(event(id)).await.unwrap());
    }
    for pending in pending {
        pending.await.unwrap();
    }
}

/// The end of a read as one node gives it.
async fn end(node: String, request: v1::ReadRequest) -> v1::ReadEnd {
    let merged = request.merged;
    let mut client = ReadClient::connect(node).await.unwrap();
    let mut frames = client.read(request).await.unwrap().into_inner();
    let mut events = 0;
    let mut order = Vec::new();
    loop {
        match frames.message().await.unwrap().expect("an end").frame {
            Some(Frame::Batch(batch)) => {
                events += batch.events.len() as u64;
                order.push((batch.append_time_us, batch.partition, batch.first_offset));
            }
            Some(Frame::End(end)) => {
                assert_eq!(end.events, events);
                assert!(!merged || order.is_sorted(), "merged by (time, partition, offset)");
                return end;
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_has_the_same_checksum_from_every_replica() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({ "partitions": 3 })).await;
    publish(&client, 0..3_000).await;

    let request = v1::ReadRequest {
        stream: STREAM.to_owned(),
        from: Some(earliest()),
        to: Some(Position::Latest.into()),
        linearizable: true,
        checksum: true,
        ..v1::ReadRequest::default()
    };
    let mut ends = Vec::new();
    for node in &cluster.nodes {
        let merged = v1::ReadRequest { merged: true, ..request.clone() };
        ends.push(end(node.endpoint(), request.clone()).await);
        ends.push(end(node.endpoint(), merged).await);
    }
    let options = ReadOptions { checksum: true, ..ReadOptions::all(STREAM) };
    let mut reader = client.read(options).await.unwrap();
    while reader.next().await.unwrap().is_some() {}
    let mut replay = weft();
    replay.args(["--endpoint", &cluster.nodes[1].endpoint(), "replay", STREAM, "--checksum"]);
    let replayed = finished(replay, "").await;

    let first = &ends[0];
    assert!(ends.iter().all(|end| end == first), "{ends:#?}");
    assert_eq!(first.events, 3_000);
    assert_eq!(first.sha256.len(), 32);
    assert_eq!(first.partitions.len(), 3);
    for part in &first.partitions {
        assert_eq!((part.first, part.holes), (Some(0), 0));
        assert_eq!(part.last, Some(part.events - 1));
    }
    assert_eq!(reader.checksum().unwrap()[..], first.sha256[..]);
    let sums = reader.partitions();
    assert!(sums.iter().all(|sum| sum.holes == Some(0)), "{sums:?}");
    let hex = first.sha256.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    assert!(replayed.stderr.contains(&format!("sha256 {hex}\n")), "{}", replayed.stderr);
    assert_eq!(replayed.stdout.lines().count(), 3_000);
    // One event less is another range.
    let less = v1::ReadRequest { events_max: 2_999, ..request };
    let less = end(cluster.nodes[0].endpoint(), less).await;
    assert_ne!(less.sha256, first.sha256);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linearizable_read_of_any_node_sees_what_was_acknowledged_before() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({ "partitions": 1 })).await;
    let nodes: Vec<Client> = cluster.nodes.iter().map(Node::client).collect();
    for number in 0..100 {
        publish(&client, number..number + 1).await;
        for (index, node) in nodes.iter().enumerate() {
            let offsets = node.locate_linearizable(STREAM, Position::Latest).await.unwrap();
            assert_eq!(offsets[0].latest, number + 1, "node {index}");
        }
        let place = usize::try_from(number).unwrap() % 3;
        let request = v1::ReadRequest {
            stream: STREAM.to_owned(),
            from: Some(earliest()),
            to: Some(Position::Latest.into()),
            linearizable: true,
            ..v1::ReadRequest::default()
        };
        let end = end(cluster.nodes[place].endpoint(), request).await;
        assert_eq!(end.events, number + 1, "node {place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_a_linearizable_read_says_so_and_others_go_on() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({ "partitions": 1 })).await;
    publish(&client, 0..10).await;
    let one = cluster.nodes[0].client();
    eventually(READ_MAX, "that node 1 has all", async || {
        let offsets = one.locate(STREAM, Position::Latest).await.ok()?;
        (offsets[0].latest == 10).then_some(())
    })
    .await;
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();

    let request = v1::LocateRequest {
        stream: STREAM.to_owned(),
        position: Some(Position::Latest.into()),
        linearizable: true,
        ..v1::LocateRequest::default()
    };
    let mut raw = ReadClient::connect(cluster.nodes[0].endpoint()).await.unwrap();
    let refused = within(READ_MAX, "an answer", raw.locate(request)).await.unwrap_err();
    let plain = one.locate(STREAM, Position::Latest).await.unwrap();

    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert_eq!(plain[0].latest, 10);
}

/// The group of each partition.
async fn groups(client: &Client) -> BTreeMap<u32, u32> {
    let status = client.status().await.unwrap();
    let name = format!("default/{STREAM}");
    let stream = status.streams.iter().find(|stream| stream.stream == name).unwrap();
    stream.partitions.iter().map(|partition| (partition.partition, partition.group)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merged_follower_gets_one_order_and_waits_for_no_idle_partition() {
    const EVENTS: u64 = 300;
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    // More partitions than keys: most are idle all the time, the others most of it.
    put(&client, Kind::Stream, STREAM, &json!({ "partitions": 16 })).await;
    let groups = groups(&client).await;
    assert!(groups.values().collect::<BTreeSet<_>>().len() > 1, "{groups:?}");
    publish(&client, 0..100).await;
    let options = ReadOptions {
        from: Position::Earliest,
        merged: true,
        linearizable: true,
        ..ReadOptions::follow(STREAM)
    };
    let mut reader = client.read(options).await.unwrap();
    let publishing = async {
        let mut sent = BTreeMap::new();
        let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
        for number in 100..EVENTS {
            publisher.publish(event(EventId { publisher: 0, number })).await.unwrap();
            sent.insert(number, Instant::now());
            sleep(Duration::from_millis(3)).await;
        }
        sent
    };
    let reading = async {
        let (mut arrived, mut order, mut caught_up_after) = (BTreeMap::new(), Vec::new(), None);
        while arrived.len() < usize::try_from(EVENTS).unwrap() {
            match reader.next().await.unwrap().expect("no end") {
                ReadItem::CaughtUp => caught_up_after = Some(arrived.len()),
                ReadItem::Batch(batch) => {
                    for record in batch.into_records() {
                        let view = EventView::parse(&record.event).unwrap();
                        arrived.insert(EventId::parse(view.id).unwrap().number, Instant::now());
                        order.push((record.append_time, record.partition, record.offset));
                    }
                }
            }
        }
        (arrived, order, caught_up_after)
    };
    let both = async { tokio::join!(publishing, reading) };
    let (published, (arrived, order, caught_up_after)) =
        within(READ_MAX, "reading all events", both).await;

    let delays =
        published.iter().map(|(number, at)| arrived[number].saturating_duration_since(*at));
    let inversions = order.windows(2).filter(|pair| pair[0] > pair[1]).count();
    println!("longest delay {:?}, {inversions} inversions between groups", delays.max());
    assert!(caught_up_after.is_some_and(|events| events >= 100), "{caught_up_after:?}");
    for group in groups.values().collect::<BTreeSet<_>>() {
        let own: Vec<_> = order.iter().filter(|key| groups[&key.1.get()] == *group).collect();
        assert!(own.is_sorted(), "group {group}");
    }
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_reading_slow_nobody_and_cost_little_memory() {
    const STALLED: usize = 16;
    const BYTES: usize = 48 << 20;
    const SIZE: usize = 16 << 10;
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({ "partitions": 2 })).await;
    let load = async |first: u64| {
        let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
        let mut last = Vec::new();
        for number in first..first + (BYTES / SIZE) as u64 {
            let id = EventId { publisher: 0, number };
            last.push(publisher.send(padded(id, SIZE)).await.unwrap());
        }
        for pending in last {
            pending.await.unwrap();
        }
    };
    within(READ_MAX, "publishing", load(0)).await;
    let before = resident(cluster.nodes[0].running().id());

    // Each on a connection of its own, and none ever looks at what came.
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut raw = ReadClient::connect(cluster.nodes[0].endpoint()).await.unwrap();
        let request = v1::ReadRequest {
            stream: STREAM.to_owned(),
            from: Some(earliest()),
            ..v1::ReadRequest::default()
        };
        stalled.push(raw.read(request).await.unwrap());
    }
    let mut reader = client.read(ReadOptions::follow(STREAM)).await.unwrap();
    while !matches!(reader.next().await.unwrap(), Some(ReadItem::CaughtUp)) {}
    let wanted = BYTES / SIZE;
    let reading = async {
        let mut events = 0;
        while events < wanted {
            if let Some(ReadItem::Batch(batch)) = reader.next().await.unwrap() {
                events += batch.events.len();
            }
        }
    };
    let both = async { tokio::join!(reading, load(BYTES as u64)) };
    within(READ_MAX, "publishing and reading beside stalled readers", both).await;

    let after = resident(cluster.nodes[0].running().id());
    println!("resident before {before} KiB, after {after} KiB");
    drop(stalled);
    // What they did not read are 16 times 48 to 96 MiB.
    assert!(after.saturating_sub(before) < 160 << 10, "{before} -> {after} KiB");
}
