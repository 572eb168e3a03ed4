//! What policy lets go is gone on every node, for readers and on the disk; the rest stays.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use weft_client::{
    Client, Nack, Position, PublisherOptions, ReadItem, ReadOptions, Reason, SubscriptionItem,
    SubscriptionOptions,
};
use weft_proto::cloudevents::{CloudEvent, cloud_event};
use weft_proto::event::EventView;
use weft_proto::resource::Kind;
use weft_proto::v1::{GroupStatus, PartitionOffset};

use super::harness::node::Node;
use super::harness::process::run;
use super::harness::{Cluster, eventually, put, within};

/// For leaders to look, and for replicas to follow.
const TRIMMED_MAX: Duration = Duration::from_mins(1);
const READ_MAX: Duration = Duration::from_mins(1);
/// Events of one request.
const BATCH: usize = 100;

/// Looks often, keeps nothing back, and cuts the log into small pieces.
async fn eager(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(nodes).await;
    for node in &mut cluster.nodes {
        "checkpoint_bytes = 65536\n".clone_into(&mut node.cluster_settings);
        "\n[retention]\ntick_ms = 100\nlog_kept_ms = 0\n".clone_into(&mut node.sections);
    }
    cluster.start_all().await;
    cluster
}

/// An event of about 1 KiB.
fn event(number: u64) -> Bytes {
    let event = CloudEvent {
        id: number.to_string(),
        source: "/retention".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "com.example.kept".to_owned(),
        data: Some(cloud_event::Data::BinaryData(vec![0x5a; 1_000].into())),
        ..CloudEvent::default()
    };
    event.encode_to_vec().into()
}

/// Publishes batch by batch, whatever becomes of the leader meanwhile.
async fn publish(client: &Client, stream: &str, numbers: std::ops::Range<u64>) {
    let publisher = client.publisher(stream, PublisherOptions::default()).await.unwrap();
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(BATCH) {
        let events = numbers.iter().map(|&number| event(number)).collect();
        let outcome = publisher.publish_batch(events).await.unwrap().outcome().await;
        assert!(outcome.first_error().is_none(), "{:?}", outcome.first_error());
    }
    publisher.close().await;
}

/// The one partition of a stream, as a node knows it.
async fn bounds(client: &Client, stream: &str) -> Option<PartitionOffset> {
    client.locate(stream, Position::Latest).await.ok()?.into_iter().next()
}

/// Waits until every node has a stream as it should be.
async fn on_each(cluster: &Cluster, stream: &str, is_right: impl Fn(&PartitionOffset) -> bool) {
    for node in &cluster.nodes {
        let client = node.client();
        let what = format!("that {} has the right part of {stream}", node.endpoint());
        let right = async || bounds(&client, stream).await.filter(|at| is_right(at)).map(drop);
        eventually(TRIMMED_MAX, &what, right).await;
    }
}

/// A group as a node knows it.
async fn group(client: &Client, id: u32) -> Option<GroupStatus> {
    let groups = client.status().await.ok()?.groups;
    groups.into_iter().find(|group| group.id == id)
}

/// The ids that a node has, from its earliest event on.
async fn ids(node: &Node, stream: &str) -> Vec<u64> {
    let options =
        ReadOptions { from: Position::Earliest, ..ReadOptions::follow(stream.to_owned()) };
    let mut reader = node.client().read(options).await.unwrap();
    let reading = async {
        let mut ids = Vec::new();
        loop {
            match reader.next().await.unwrap() {
                Some(ReadItem::Batch(batch)) => {
                    for record in batch.into_records() {
                        let event = CloudEvent::decode(record.event).unwrap();
                        ids.push(event.id.parse().unwrap());
                    }
                }
                Some(ReadItem::CaughtUp) => return ids,
                None => panic!("a read that follows {stream} ended"),
            }
        }
    };
    within(READ_MAX, "reading a replica", reading).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn age_bytes_and_count_are_limits_on_every_node_and_free_the_disk() {
    let cluster = eager(3).await;
    let client = cluster.client();
    // In turn in group 1 and group 2.
    let spec = |retention: serde_json::Value| json!({ "retention": retention });
    put(&client, Kind::Stream, "counted", &spec(json!({ "max_events": 150 }))).await;
    put(&client, Kind::Stream, "sized", &spec(json!({ "max_bytes": 300_000 }))).await;
    put(&client, Kind::Stream, "aged", &spec(json!({ "max_age": "2s" }))).await;
    put(&client, Kind::Stream, "kept", &json!({})).await;
    let streams = ["counted", "sized", "aged", "kept"];
    for stream in streams {
        publish(&client, stream, 0..1_000).await;
    }

    on_each(&cluster, "counted", |at| (at.earliest, at.latest) == (850, 1_000)).await;
    on_each(&cluster, "aged", |at| (at.earliest, at.latest) == (1_000, 1_000)).await;
    // Whole batches of 100 events with 1,060 bytes or so: two fit.
    on_each(&cluster, "sized", |at| (at.earliest, at.latest) == (800, 1_000)).await;
    on_each(&cluster, "kept", |at| (at.earliest, at.latest) == (0, 1_000)).await;
    for node in &cluster.nodes {
        assert_eq!(ids(node, "counted").await, (850..1_000).collect::<Vec<_>>());
        assert_eq!(ids(node, "sized").await, (800..1_000).collect::<Vec<_>>());
        assert_eq!(ids(node, "kept").await, (0..1_000).collect::<Vec<_>>());
    }
    // Nothing pins the log of group 1 but the newest 150 events; the stream that keeps all pins that of group 2.
    for node in &cluster.nodes {
        let client = node.client();
        let freed = async || {
            let group = group(&client, 1).await?;
            (group.first_index > 0 && group.log_bytes < 1_500_000).then_some(())
        };
        eventually(TRIMMED_MAX, "that the log of group 1 is trimmed", freed).await;
        let pinned = group(&client, 2).await.unwrap();
        assert!(pinned.log_bytes > 1_000_000, "{pinned:?}");
    }

    client.catalog().delete(Kind::Stream, "kept", None).await.unwrap();
    // Its bytes lie behind those of a stream that lives on, and go when that one moves on.
    publish(&client, "sized", 1_000..1_300).await;
    on_each(&cluster, "sized", |at| (at.earliest, at.latest) == (1_100, 1_300)).await;
    for node in &cluster.nodes {
        let client = node.client();
        let freed =
            async || group(&client, 2).await.filter(|group| group.log_bytes < 600_000).map(drop);
        eventually(TRIMMED_MAX, "that a deleted stream gives its bytes back", freed).await;
        assert_eq!(ids(node, "sized").await, (1_100..1_300).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_retention_took_is_refused_with_the_earliest_offset() {
    let cluster = eager(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({ "retention": { "max_events": 10 } })).await;
    put(&client, Kind::Subscription, "slow", &json!({ "stream": "orders" })).await;
    // Its cursor is made before anything is taken from it.
    let member = client.subscribe("slow", SubscriptionOptions::default());
    let joined = async || {
        let status = client.status().await.ok()?;
        status.subscriptions.first()?.cursors.first().map(drop)
    };
    eventually(TRIMMED_MAX, "that the subscription has a cursor", joined).await;
    publish(&client, "orders", 0..500).await;
    on_each(&cluster, "orders", |at| at.earliest == 490).await;

    let options = ReadOptions {
        from: Position::Offset(weft_proto::Offset(7)),
        ..ReadOptions::follow("orders".to_owned())
    };
    let refused = async { client.read(options).await.unwrap().next().await.unwrap_err() };
    let error = within(READ_MAX, "a refusal", refused).await;
    assert_eq!(error.reason(), Reason::OffsetOutOfRange, "{error}");
    assert!(error.message().contains("the earliest is 490"), "{error}");
    let endpoint = cluster.nodes[0].endpoint();
    let args = ["--endpoint", &endpoint, "replay", "orders", "--from", "7", "--to", "latest"];
    let ended = run(&args, "").await;
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the earliest is 490"), "{}", ended.stderr);
    assert!(ended.stderr.contains("weft stream describe orders"), "{}", ended.stderr);
    let overtaken = async || {
        let status = client.status().await.ok()?;
        let cursor = *status.subscriptions.first()?.cursors.first()?;
        (cursor.watermark >= 490 && cursor.overtaken > 0).then_some(cursor)
    };
    eventually(TRIMMED_MAX, "that the loss is shown", overtaken).await;
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floor_snapshot_catch_up() {
    let mut cluster = eager(3).await;
    let client = cluster.client();
    for stream in ["orders", "payments"] {
        put(&client, Kind::Stream, stream, &json!({ "retention": { "max_events": 500 } })).await;
        publish(&client, stream, 0..100).await;
    }
    let away = &mut cluster.nodes[2];
    away.kill();
    let lived = [cluster.nodes[0].client(), cluster.nodes[1].client()];
    for stream in ["orders", "payments"] {
        publish(&client, stream, 100..3_000).await;
    }
    for (client, id) in lived.iter().flat_map(|client| [(client, 1), (client, 2)]) {
        // Beyond all that the third node has.
        let beyond = async || group(client, id).await.filter(|at| at.first_index > 20).map(drop);
        eventually(TRIMMED_MAX, "that the log is trimmed", beyond).await;
    }

    cluster.nodes[2].start();
    cluster.nodes[2].ready().await;
    for stream in ["orders", "payments"] {
        publish(&client, stream, 3_000..3_100).await;
    }

    for stream in ["orders", "payments"] {
        on_each(&cluster, stream, |at| (at.earliest, at.latest) == (2_600, 3_100)).await;
        for node in &cluster.nodes {
            assert_eq!(ids(node, stream).await, (2_600..3_100).collect::<Vec<_>>());
        }
    }
    // And what it took over is on its own disk.
    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    cluster.nodes[2].ready().await;
    on_each(&cluster, "orders", |at| (at.earliest, at.latest) == (2_600, 3_100)).await;
    assert_eq!(ids(&cluster.nodes[2], "orders").await, (2_600..3_100).collect::<Vec<_>>());
}

/// The numbers of a subscription's dead letters, and what they say of why.
async fn letters(client: &Client, subscription: &str) -> BTreeMap<u64, (String, String)> {
    let answer = client.dead_letters(subscription, 100, "").await.unwrap();
    let letters = answer.letters.into_iter().map(|letter| {
        let view = EventView::parse(&letter.event).unwrap();
        let said = |name: &str| view.attribute(name).unwrap().into_owned();
        let number = view.id.parse().unwrap();
        let plain = view.without_broker_attributes().unwrap();
        assert_eq!(plain, event(number), "the letter is the event, byte for byte");
        (number, (said("weftreason"), said("weftlasterror")))
    });
    letters.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_back_becomes_a_dead_letter_before_retention_takes_it() {
    let cluster = eager(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({ "retention": { "max_events": 10 } })).await;
    let spec = json!({ "stream": "orders", "mode": "shared", "start": "earliest", "lease": "1h" });
    for name in ["attached", "left"] {
        put(&client, Kind::Subscription, name, &spec).await;
    }
    publish(&client, "orders", 0..6).await;
    let mut members = Vec::new();
    for name in ["attached", "left"] {
        let mut member = client.subscribe(name, SubscriptionOptions::default());
        let acker = member.acker();
        let mut held = BTreeMap::new();
        within(READ_MAX, "six events", async {
            while held.len() < 6 {
                if let SubscriptionItem::Delivery(delivery) = member.next().await.unwrap() {
                    for (place, (_, event)) in delivery.batch.events.iter().enumerate() {
                        let id = EventView::parse(event).unwrap().id.parse::<u64>().unwrap();
                        held.insert(id, delivery.one(place));
                    }
                }
            }
        })
        .await;
        let later = |reason: &str| Nack {
            reason: reason.to_owned(),
            delay: Some(Duration::from_hours(1)),
            ..Nack::default()
        };
        acker.nack(held[&1], later("one")).await.unwrap().await.unwrap();
        acker.nack(held[&4], later("four")).await.unwrap().await.unwrap();
        // One keeps the others; to leave with them would be to give them back.
        let settled: &[u64] = if name == "attached" { &[2] } else { &[0, 2, 3, 5] };
        for number in settled {
            acker.ack(held[number]).await.unwrap().await.unwrap();
        }
        members.push(member);
    }
    // Nobody is there to whom its events could come.
    members.pop().unwrap().close().await;

    publish(&client, "orders", 6..100).await;

    on_each(&cluster, "orders", |at| at.earliest == 90).await;
    let why = |text: &str| ("retention".to_owned(), text.to_owned());
    let expected = BTreeMap::from([(1, why("one")), (4, why("four"))]);
    for name in ["attached", "left"] {
        assert_eq!(letters(&client, name).await, expected, "{name}");
    }
    // What was never given back is only counted.
    let status = client.status().await.unwrap();
    for one in &status.subscriptions {
        assert!(one.cursors[0].overtaken > 0, "{status:?}");
    }
}
