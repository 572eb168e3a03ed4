//! Disks that are full, or cannot be written.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde_json::json;
use weft_client::{Client, Error, Options, Reason, Timeouts};
use weft_proto::cloudevents::{CloudEvent, cloud_event};
use weft_proto::resource::Kind;
use weft_proto::v1::PublishRequest;

use super::mount::{Disk, Held};
use super::{refused_start, snapshot, stored};
use crate::harness::node::{Node, broker};
use crate::harness::process::{finished, run};
use crate::harness::{Cluster, eventually, put};

/// The small store keeps 96 MiB free; and takes events again when 64 MiB more are free.
const SMALL: Disk = Disk::Small { mib: 320 };
const LEFT: u64 = 40 << 20;
/// The guard looks twice a second.
const NOTICED_MAX: Duration = Duration::from_secs(30);

/// A client that does not wait for better times.
fn impatient(node: &Node) -> Client {
    let timeouts = Timeouts { call: Duration::from_secs(2), ..Timeouts::default() };
    Client::connect(&Options { timeouts, ..Options::new([node.endpoint()]) }).unwrap()
}

fn event(number: u64) -> Bytes {
    let event = CloudEvent {
        id: number.to_string(),
        source: "/disk".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "com.example.filled".to_owned(),
        ..CloudEvent::default()
    };
    event.encode_to_vec().into()
}

/// Publishes one event, if it can.
async fn publish(client: &Client, number: u64) -> Result<(), Error> {
    let request = PublishRequest {
        stream: "orders".to_owned(),
        events: vec![event(number)],
        ..PublishRequest::default()
    };
    client.publish_once(request).await.map(drop)
}

/// Takes all but so many bytes of the disk.
fn fill(folder: &Path, name: &str, left: u64) {
    let stat = statvfs(folder).unwrap();
    let file = File::create(folder.join(name)).unwrap();
    let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
    fallocate(&file, FallocateFlags::empty(), 0, bytes).unwrap();
}

/// Takes the rest of the disk.
fn fill_up(folder: &Path, name: &str) {
    let mut file = File::create(folder.join(name)).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
}

#[tokio::test]
async fn a_full_disk_refuses_events_keeps_what_it_has_and_recovers() {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    fs::create_dir_all(node.data()).unwrap();
    if !SMALL.is_possible(&node.data()).await {
        return;
    }
    let program = SMALL.give(&node.data(), env!("CARGO_BIN_EXE_weft"));
    node.start_as(broker(program, &node.config_file()));
    node.ready().await;
    let seen = format!("/proc/{}/root{}", node.running().id(), node.data().display());
    let disk = PathBuf::from(seen);
    let client = impatient(node);
    put(&client, Kind::Stream, "orders", &json!({})).await;
    let mut acked = 0;
    while acked < 10 {
        publish(&client, acked).await.unwrap();
        acked += 1;
    }

    fill(&disk, "filler", LEFT);
    let error = eventually(NOTICED_MAX, "a refusal", async || {
        let refused = publish(&client, acked).await.err();
        acked += u64::from(refused.is_none());
        refused
    });
    let error = error.await;

    assert_eq!(error.reason(), Reason::DiskFull, "{error}");
    assert!(error.not_applied() && error.message().contains("nearly full"), "{error}");
    // To the last byte: what is stored stays readable, and the process goes on.
    fill_up(&disk, "last");
    assert_eq!(publish(&client, 1_000).await.unwrap_err().reason(), Reason::DiskFull);
    let args = ["--endpoint", &node.endpoint(), "replay", "orders", "-o", "json"];
    let ended = run(&[&args[..], &["--from", "earliest", "--to", "latest"]].concat(), "").await;
    let ids: Vec<u64> = ended.stdout.lines().map(id_of).collect();
    assert_eq!(ids, (0..acked).collect::<Vec<_>>(), "{}", ended.stderr);

    fs::remove_file(disk.join("last")).unwrap();
    fs::remove_file(disk.join("filler")).unwrap();
    let taken = async || publish(&client, acked).await.ok();
    eventually(NOTICED_MAX, "that events are taken again", taken).await;
    assert_eq!(stored(&client, "orders").await, acked + 1);
    assert_eq!(node.stop().await.code(), Some(0));
}

fn id_of(line: &str) -> u64 {
    let record: serde_json::Value = serde_json::from_str(line).unwrap();
    record["event"]["id"].as_str().unwrap().parse().unwrap()
}

/// Publishes about 1 MiB a call.
async fn publish_much(client: &Client, first: u64, mib: u64) {
    let big = |number: u64| {
        let event = CloudEvent {
            id: number.to_string(),
            source: "/disk".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "com.example.filled".to_owned(),
            data: Some(cloud_event::Data::BinaryData(vec![0x5a; 10_000].into())),
            ..CloudEvent::default()
        };
        Bytes::from(event.encode_to_vec())
    };
    for batch in 0..mib {
        let numbers = first + batch * 100..first + (batch + 1) * 100;
        let request = PublishRequest {
            stream: "orders".to_owned(),
            events: numbers.map(big).collect(),
            ..PublishRequest::default()
        };
        client.publish_once(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_starts_on_a_full_disk_serves_reads_and_recovers() {
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    fs::create_dir_all(node.data()).unwrap();
    if !SMALL.is_possible(&node.data()).await {
        return;
    }
    let disk = Held::small(&node.data(), 384);
    let start = |node: &mut Node| {
        let program = disk.give(env!("CARGO_BIN_EXE_weft"));
        node.start_as(broker(program, &node.config_file()));
    };
    start(node);
    node.ready().await;
    let client = impatient(node);
    put(&client, Kind::Stream, "orders", &json!({})).await;
    // More than one memtable holds: the store has to write files when it opens.
    publish_much(&client, 0, 30).await;
    let ballast = disk.seen().join("ballast");
    assert!(ballast.exists());
    node.kill();
    fill_up(&disk.seen(), "filler");

    start(node);
    node.ready().await;

    assert!(!ballast.exists(), "it was given back so that the store could open");
    assert_eq!(stored(&client, "orders").await, 3_000);
    let error = publish(&client, 3_000).await.unwrap_err();
    assert_eq!(error.reason(), Reason::DiskFull, "{error}");
    // And once more, without a ballast to give back: it is as full as it was left.
    node.kill();
    start(node);
    node.ready().await;
    assert_eq!(stored(&client, "orders").await, 3_000);

    fs::remove_file(disk.seen().join("filler")).unwrap();
    let taken = async || publish(&client, 3_000).await.ok();
    eventually(NOTICED_MAX, "that events are taken again", taken).await;
    let reserved = async || ballast.exists().then_some(());
    eventually(NOTICED_MAX, "that the ballast is reserved again", reserved).await;
    assert_eq!(stored(&client, "orders").await, 3_001);
    assert_eq!(node.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_disk_of_three_stops_neither_the_others_nor_its_own_reads() {
    let mut cluster = Cluster::new(3).await;
    for node in &mut cluster.nodes {
        fs::create_dir_all(node.data()).unwrap();
    }
    if !SMALL.is_possible(&cluster.nodes[2].data()).await {
        return;
    }
    let disk = Held::small(&cluster.nodes[2].data(), 320);
    let program = disk.give(env!("CARGO_BIN_EXE_weft"));
    let command = broker(program, &cluster.nodes[2].config_file());
    cluster.nodes[2].start_as(command);
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    for node in &mut cluster.nodes {
        node.ready().await;
    }
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({})).await;
    publish_much(&client, 0, 1).await;
    let full = cluster.nodes[2].client();
    let caught_up = async || (stored(&full, "orders").await == 100).then_some(());
    eventually(NOTICED_MAX, "that all have the first events", caught_up).await;
    // Whoever leads refuses at its own disk alone, so the full one must only follow.
    let own = full.status().await.unwrap().node_id;
    let led_elsewhere = async || {
        let status = full.status().await.ok()?;
        status.groups.iter().all(|group| group.leader.is_some_and(|id| id != own)).then_some(())
    };
    if led_elsewhere().await.is_none() {
        cluster.nodes[2].stop().await;
        let program = disk.give(env!("CARGO_BIN_EXE_weft"));
        let command = broker(program, &cluster.nodes[2].config_file());
        cluster.nodes[2].start_as(command);
        cluster.nodes[2].ready().await;
        eventually(NOTICED_MAX, "that others lead", led_elsewhere).await;
    }

    fill(&disk.seen(), "filler", 8 << 20);
    let alive = Duration::from_secs(2);
    tokio::time::sleep(alive).await;
    let others = Options::new(cluster.nodes[..2].iter().map(Node::endpoint));
    let others = Client::connect(&others).unwrap();
    publish_much(&others, 100, 40).await;

    // It does not take them, it does not die of them, and what it has can be read.
    assert!(cluster.nodes[2].running().status().is_none());
    assert!(stored(&full, "orders").await >= 100);
    fs::remove_file(disk.seen().join("filler")).unwrap();
    let caught_up = async || (stored(&full, "orders").await == 4_100).then_some(());
    eventually(NOTICED_MAX, "that it catches up", caught_up).await;
}

#[tokio::test]
async fn a_read_only_disk_is_refused_by_name_and_left_as_it_is() {
    let mut cluster = Cluster::start(1).await;
    put(&cluster.client(), Kind::Stream, "orders", &json!({})).await;
    let node = &mut cluster.nodes[0];
    node.stop().await;
    let before = snapshot(&node.data());
    let disk = Disk::ReadOnly;
    if !disk.is_possible(&node.data()).await {
        return;
    }

    let program = disk.give(&node.data(), env!("CARGO_BIN_EXE_weft"));
    let ended = finished(broker(program, &node.config_file()), "").await;

    assert_eq!(ended.code, Some(1), "{ended:?}");
    let folder = node.data().display().to_string();
    assert!(ended.stderr.contains(&folder), "{}", ended.stderr);
    assert!(ended.stderr.contains("Read-only file system"), "{}", ended.stderr);
    assert_eq!(snapshot(&node.data()), before);
    node.start();
    node.ready().await;
    assert_eq!(stored(&cluster.client(), "orders").await, 0);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let cluster = Cluster::new(1).await;
    let node = &cluster.nodes[0];
    // Where the folder should be, there is a file.
    fs::write(node.data(), "in the way").unwrap();

    let ended = refused_start(node).await;

    let folder = node.data().display().to_string();
    assert!(ended.stderr.contains(&folder), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(node.data()).unwrap(), "in the way");
}
