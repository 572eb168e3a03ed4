//! A node whose disk has less than it promised takes no part, and nothing acknowledged is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use weft_client::{Client, Position, PublisherOptions, ReadItem, ReadOptions};
use weft_proto::cloudevents::{CloudEvent, cloud_event};
use weft_proto::resource::Kind;

use super::harness::node::{Node, broker};
use super::harness::ports::address;
use super::harness::process::{finished, run, weft};
use super::harness::{Cluster, eventually, put, within};
use super::load::Load;

/// As documented: whatever restarts processes must leave such a node alone.
const SUSPECT: Option<i32> = Some(3);
/// The pledge is written once a second.
const PLEDGED: Duration = Duration::from_millis(2_500);
const READ_MAX: Duration = Duration::from_mins(1);

fn event(number: u64) -> Bytes {
    let event = CloudEvent {
        id: number.to_string(),
        source: "/suspect".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "com.example.promised".to_owned(),
        data: Some(cloud_event::Data::BinaryData(vec![0x5a; 1_000].into())),
        ..CloudEvent::default()
    };
    event.encode_to_vec().into()
}

/// Publishes events of 1 KiB and waits until each is acknowledged.
async fn publish(client: &Client, numbers: std::ops::Range<u64>) {
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(100) {
        let events = numbers.iter().map(|&number| event(number)).collect();
        let outcome = publisher.publish_batch(events).await.unwrap().outcome().await;
        assert!(outcome.first_error().is_none(), "{:?}", outcome.first_error());
    }
    publisher.close().await;
}

async fn ids(client: &Client) -> Vec<u64> {
    let options = ReadOptions { from: Position::Earliest, ..ReadOptions::all("orders".to_owned()) };
    let mut reader = client.read(options).await.unwrap();
    let reading = async {
        let mut ids = Vec::new();
        while let Some(item) = reader.next().await.unwrap() {
            let ReadItem::Batch(batch) = item else { continue };
            for record in batch.into_records() {
                ids.push(CloudEvent::decode(record.event).unwrap().id.parse().unwrap());
            }
        }
        ids
    };
    within(READ_MAX, "reading all", reading).await
}

/// The newest write-ahead log of a node that does not run.
fn wal(node: &Node) -> PathBuf {
    let files = fs::read_dir(node.data().join("store")).unwrap();
    let logs = files.map(|entry| entry.unwrap().path());
    let logs = logs.filter(|path| path.extension().is_some_and(|name| name == "log"));
    logs.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Starts a node that must refuse to take part.
async fn is_suspect(node: &Node, damage: &str) {
    let ended = finished(broker(weft(), &node.config_file()), "").await;
    assert_eq!(ended.code, SUSPECT, "{damage}: {ended:?}");
    let folder = node.data().display().to_string();
    for told in ["this node is suspect", folder.as_str(), "docs/operations.md"] {
        assert!(ended.stderr.contains(told), "{damage}, {told}: {}", ended.stderr);
    }
}

/// 3,000 acknowledged events on three nodes, the third of which was killed.
async fn with_promises() -> (Cluster, Client) {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({})).await;
    publish(&client, 0..3_000).await;
    tokio::time::sleep(PLEDGED).await;
    cluster.nodes[2].kill();
    (cluster, client)
}

async fn a_damaged_log_is_found(damage: &str, spoil: impl Fn(&Path)) {
    let (cluster, client) = with_promises().await;

    spoil(&wal(&cluster.nodes[2]));

    // However often it is started.
    is_suspect(&cluster.nodes[2], damage).await;
    is_suspect(&cluster.nodes[2], damage).await;
    publish(&client, 3_000..3_100).await;
    assert_eq!(ids(&client).await, (0..3_100).collect::<Vec<_>>(), "{damage}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_write_ahead_log_is_found() {
    a_damaged_log_is_found("a flipped bit", |file| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(file, bytes).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_ahead_log_cut_in_half_is_found() {
    a_damaged_log_is_found("cut in half", |file| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_write_ahead_log_is_found() {
    a_damaged_log_is_found("deleted", |file| fs::remove_file(file).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_emptied_store_and_a_lost_pledge_are_found() {
    let (cluster, client) = with_promises().await;
    let node = &cluster.nodes[2];
    let aside = cluster.place.dir.path().join("aside");

    fs::rename(node.data().join("store"), &aside).unwrap();
    is_suspect(node, "no store").await;
    fs::remove_dir_all(node.data().join("store")).unwrap();
    fs::rename(&aside, node.data().join("store")).unwrap();
    fs::rename(node.data().join("pledge"), &aside).unwrap();
    is_suspect(node, "no pledge").await;
    fs::write(node.data().join("pledge"), vec![0; 1 << 16]).unwrap();
    is_suspect(node, "an empty pledge").await;

    publish(&client, 3_000..3_100).await;
    assert_eq!(ids(&client).await, (0..3_100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_folder_is_found() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({})).await;
    publish(&client, 0..1_000).await;
    let older = cluster.place.dir.path().join("older");
    cluster.nodes[2].stop().await;
    copy(&cluster.nodes[2].data(), &older);
    cluster.nodes[2].start();
    cluster.nodes[2].ready().await;
    publish(&client, 1_000..2_000).await;
    cluster.nodes[2].stop().await;

    fs::remove_dir_all(cluster.nodes[2].data()).unwrap();
    copy(&older, &cluster.nodes[2].data());

    is_suspect(&cluster.nodes[2], "an older copy").await;
    publish(&client, 2_000..2_100).await;
    assert_eq!(ids(&client).await, (0..2_100).collect::<Vec<_>>());
}

/// An empty folder under an old id: its votes and acknowledgements would count twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_replica() {
    let (mut cluster, client) = with_promises().await;
    fs::remove_dir_all(cluster.nodes[2].data()).unwrap();

    let ended = finished(broker(weft(), &cluster.nodes[2].config_file()), "").await;

    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("another data folder"), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot return under its old id"), "{}", ended.stderr);
    // Not even when all others start afresh: they still know it.
    cluster.nodes[0].stop().await;
    cluster.nodes[1].stop().await;
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    cluster.nodes[0].ready().await;
    let ended = finished(broker(weft(), &cluster.nodes[2].config_file()), "").await;
    assert_ne!(ended.code, Some(0), "{ended:?}");
    publish(&client, 3_000..3_100).await;
    assert_eq!(ids(&client).await, (0..3_100).collect::<Vec<_>>());
}

/// Ids follow the addresses, not the order in which a test lists its nodes.
async fn id(node: &Node) -> u64 {
    node.client().status().await.unwrap().node_id
}

/// The voters of all groups, as one node knows them.
async fn voters(client: &Client) -> Option<Vec<Vec<u64>>> {
    let groups = client.status().await.ok()?.groups;
    Some(groups.into_iter().map(|group| group.voters).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_takes_the_place_of_a_lost_one() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({})).await;
    publish(&client, 0..3_000).await;
    let [kept, other, lost] =
        [id(&cluster.nodes[0]).await, id(&cluster.nodes[1]).await, id(&cluster.nodes[2]).await];
    cluster.nodes[2].kill();
    let endpoint = cluster.nodes[0].endpoint();
    let remove = async |endpoint: &str, id: u64| {
        run(&["--endpoint", endpoint, "node", "remove", &id.to_string()], "").await
    };

    // Without a living one nothing would go on.
    let ended = remove(&endpoint, other).await;
    assert!(ended.stderr.contains("only 1 of the 2 nodes"), "{ended:?}");
    let ended = remove(&endpoint, lost).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // On the same machine, at the same addresses, over an empty folder.
    let (ports, folder) = (cluster.nodes[2].ports, cluster.place.dir.path().join("node-4"));
    let mut new = Node::new(folder, ports, Vec::new());
    let members = cluster.nodes[..2].iter().map(|node| address(node.ports.peer));
    new.cluster_settings = format!("join = {:?}\n", members.collect::<Vec<_>>());
    new.start();
    new.ready().await;

    let own = new.client();
    let votes = async || {
        let voters = voters(&own).await?;
        let mut wanted = vec![kept, other, 4];
        wanted.sort_unstable();
        voters.iter().all(|voters| *voters == wanted).then_some(())
    };
    eventually(READ_MAX, "that node 4 votes everywhere", votes).await;
    publish(&client, 3_000..3_100).await;
    // What it has is its own.
    let mut follow = own.read(ReadOptions::follow("orders".to_owned())).await.unwrap();
    drop(follow.next().await.unwrap());
    cluster.nodes[0].kill();
    publish(&client, 3_100..3_200).await;
    assert_eq!(ids(&client).await, (0..3_200).collect::<Vec<_>>());
    // It comes back as node 4, and the old one never again under its address.
    new.kill();
    new.start();
    new.ready().await;
    publish(&client, 3_200..3_300).await;
    let ended = remove(&new.endpoint(), 9).await;
    assert!(ended.stderr.contains("there is no node 9"), "{ended:?}");
    let ended = remove(&new.endpoint(), kept).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = remove(&new.endpoint(), other).await;
    assert!(ended.stderr.contains("add another one first"), "{ended:?}");
    assert_eq!(ids(&client).await, (0..3_300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_makes_nobody_suspect() {
    let mut cluster = Cluster::start(3).await;
    put(&cluster.client(), Kind::Stream, "orders", &json!({ "partitions": 2 })).await;
    let load = Load::start(&cluster.options(), &["orders"]);
    load.progress(50).await;

    for round in 0..12 {
        let victim = round % cluster.nodes.len();
        cluster.nodes[victim].kill();
        cluster.nodes[victim].start();
        // A node that ended, as a suspect one does, fails this.
        cluster.nodes[victim].ready().await;
        if round % 4 == 3 {
            cluster.nodes.iter_mut().for_each(Node::kill);
            cluster.start_all().await;
        }
        load.progress(20).await;
    }

    _ = load.stop().await;
    let lives = async || cluster.client().status().await.ok().map(drop);
    eventually(READ_MAX, "that the cluster answers", lives).await;
}
