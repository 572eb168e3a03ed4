//! Repeats of events: recognised by source and id, whoever sends them and whoever leads; and
//! appends that expect an offset.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use weft_client::{
    Client, Codec, Options, Position, PublisherOptions, ReadItem, ReadOptions, Reason,
};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::Data;
use weft_proto::resource::Kind;
use weft_proto::v1;
use weft_proto::v1::publish_result::Outcome;
use weft_proto::v1::{BatchIdentity, ExpectedOffset, PublishRequest, Receipt, Refusal};

use super::harness::{Cluster, eventually, put};

const STREAM: &str = "orders";

/// What became of an event.
type Told = Result<Receipt, Box<Refusal>>;
/// The number of a batch, the ids of its events, and where they are, and whether they were before.
type Case = (u64, &'static [usize], &'static [(u64, bool)]);

fn event(id: usize, data: &str) -> Bytes {
    let event = CloudEvent {
        id: format!("order-{id}"),
        source: "/shop".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "order.placed".to_owned(),
        data: Some(Data::TextData(data.to_owned())),
        ..CloudEvent::default()
    };
    event.encode_to_vec().into()
}

fn request(events: Vec<Bytes>) -> PublishRequest {
    PublishRequest {
        stream: STREAM.to_owned(),
        events,
        partition: Some(0),
        ..PublishRequest::default()
    }
}

/// A client of one node, once that node knows the stream.
async fn of_node(cluster: &Cluster, node: usize) -> Client {
    let client = Client::connect(&Options::new([cluster.nodes[node].endpoint()])).unwrap();
    eventually(Duration::from_mins(1), "knowing the stream", async || {
        client.route(STREAM).await.ok()
    })
    .await;
    client
}

async fn publish(client: &Client, request: PublishRequest) -> Vec<Told> {
    let results = client.publish_once(request).await.unwrap();
    let one = |result: v1::PublishResult| match result.outcome.unwrap() {
        Outcome::Receipt(receipt) => Ok(receipt),
        Outcome::Refusal(refusal) => Err(Box::new(refusal)),
    };
    results.into_iter().map(one).collect()
}

/// Offsets, and which of them were there already.
fn places(results: &[Told]) -> Vec<(u64, bool)> {
    let place = |result: &Told| {
        let receipt = result.as_ref().unwrap();
        (receipt.offset, receipt.duplicate)
    };
    results.iter().map(place).collect()
}

async fn end(client: &Client) -> u64 {
    client.locate(STREAM, Position::Latest).await.unwrap()[0].latest
}

#[tokio::test]
async fn repeats_are_told_their_original_offsets() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let events: Vec<Bytes> = (0..3).map(|id| event(id, "{\"n\": 1}")).collect();
    let first = publish(&client, request(events.clone())).await;
    assert_eq!(places(&first), [(0, false), (1, false), (2, false)]);

    let again = publish(&client, request(events.clone())).await;
    assert_eq!(places(&again), [(0, true), (1, true), (2, true)]);
    assert_eq!(again[0].as_ref().unwrap().append_time, first[0].as_ref().unwrap().append_time);

    // Old and new mixed, one event twice in a batch, and the same JSON written in another way.
    let mixed = vec![
        event(1, "{\"n\":1}"),
        event(7, "{}"),
        event(8, "{}"),
        event(7, "{}"),
        event(0, "{\"n\": 1}"),
    ];
    let mixed = publish(&client, request(mixed)).await;
    assert_eq!(places(&mixed), [(1, true), (3, false), (4, false), (3, true), (0, true)]);

    // The same identity with other content is refused; its neighbours are not.
    let other = vec![event(9, "{}"), event(8, "{\"n\":2}"), event(9, "[]"), event(10, "{}")];
    let results = publish(&client, request(other)).await;
    let told: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(receipt) => (receipt.offset, String::new()),
            Err(refusal) => (refusal.offset.unwrap(), refusal.reason.clone()),
        })
        .collect();
    let reason = "IDENTITY_REUSED".to_owned();
    let none = String::new();
    assert_eq!(told, [(5, none.clone()), (4, reason.clone()), (5, reason), (6, none)]);

    let atomic = PublishRequest {
        atomic: true,
        ..request(vec![event(20, "{}"), event(8, "{\"n\":2}"), event(21, "{}")])
    };
    let refused = client.publish_once(atomic).await.unwrap_err();
    assert_eq!((refused.reason(), refused.offset()), (Reason::IdentityReused, Some(4)));
    assert!(refused.message().contains("event 1 refuses the batch"), "{refused}");
    assert_eq!(end(&client).await, 7);
    let status = client.status().await.unwrap();
    assert_eq!(status.groups.iter().map(|group| group.dedup_events).sum::<u64>(), 7);
    assert!(status.groups.iter().any(|group| group.dedup_since_us > 0));
}

#[tokio::test]
async fn without_dedup_every_event_is_appended() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({ "dedup": false })).await;

    for offset in 0..3 {
        let results = publish(&client, request(vec![event(1, "{}")])).await;
        assert_eq!(places(&results), [(offset, false)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_are_recognised_by_any_leader_and_after_restarts() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let events: Vec<Bytes> = (0..500).map(|id| event(id, "{}")).collect();
    let all: Vec<(u64, bool)> = (0..500).map(|offset| (offset, false)).collect();
    assert_eq!(places(&publish(&client, request(events.clone())).await), all);
    let repeated: Vec<(u64, bool)> = (0..500).map(|offset| (offset, true)).collect();

    for node in 0..3 {
        let via = of_node(&cluster, node).await;
        assert_eq!(places(&publish(&via, request(events.clone())).await), repeated, "by {node}");
    }
    // Each node is killed, so that each leader goes once at least.
    for node in 0..3 {
        cluster.nodes[node].kill();
        assert_eq!(places(&until_stored(&client, &events).await), repeated, "without {node}");
        cluster.nodes[node].start();
        cluster.nodes[node].ready().await;
    }
    cluster.nodes.iter_mut().for_each(super::harness::node::Node::kill);
    cluster.start_all().await;
    assert_eq!(places(&until_stored(&client, &events).await), repeated, "after all were killed");
    assert_eq!(end(&client).await, 500);
}

/// Publishes again and again, as a caller does who was not told the fate.
async fn until_stored(client: &Client, events: &[Bytes]) -> Vec<Told> {
    loop {
        match client.publish_once(request(events.to_vec())).await {
            Ok(_) => return publish(client, request(events.to_vec())).await,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_publish_the_same_store_it_once() {
    let cluster = Cluster::start(3).await;
    put(&cluster.client(), Kind::Stream, STREAM, &json!({ "partitions": 2 })).await;
    let mut publishers = tokio::task::JoinSet::new();
    for number in 0..6_usize {
        let client = of_node(&cluster, number % 3).await;
        publishers.spawn(async move {
            let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
            let mut told = Vec::new();
            for chunk in 0..40 {
                let events = (0..25).map(|id| event(chunk * 25 + id, "{}")).collect();
                let pending = publisher.publish_batch(events).await.unwrap();
                for receipt in pending.outcome().await.receipts() {
                    told.push(receipt.map(|r| (r.partition, r.offset, r.duplicate)).unwrap());
                }
            }
            told
        });
    }
    let told = publishers.join_all().await;

    let stored: BTreeSet<_> = told.iter().flatten().map(|(at, offset, _)| (*at, *offset)).collect();
    let new = told.iter().flatten().filter(|(_, _, duplicate)| !duplicate).count();
    assert_eq!((stored.len(), new), (1_000, 1_000));
    for others in &told[1..] {
        let same = told[0].iter().zip(others).all(|(one, two)| (one.0, one.1) == (two.0, two.1));
        assert!(same, "two publishers were told different places of one event");
    }
    let ends = cluster.client().locate(STREAM, Position::Latest).await.unwrap();
    assert_eq!(ends.iter().map(|end| end.latest).sum::<u64>(), 1_000);
}

/// What is compressed by the publisher is stored so, and read by those who understand it and by
/// those who do not; what must be thinned out is stored plain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_batches_come_back_as_they_were_published() {
    let cluster = Cluster::start(3).await;
    put(&cluster.client(), Kind::Stream, STREAM, &json!({ "partitions": 2 })).await;
    let long = "0123456789".repeat(50);
    let all: Vec<Bytes> = (0..600).map(|id| event(id, &long)).collect();
    let mut done = 0;
    for (node, compression) in [None, Some(Codec::Lz4), Some(Codec::Zstd)].into_iter().enumerate() {
        let client = of_node(&cluster, node).await;
        let options = PublisherOptions { compression, ..PublisherOptions::default() };
        let publisher = client.publisher(STREAM, options).await.unwrap();
        // The first are stored as they came; the others take events along that are there already.
        for range in [done..done + 150, done + 100..done + 200] {
            let events = all[range].to_vec();
            let outcome = publisher.publish_batch(events).await.unwrap().outcome().await;
            assert!(outcome.first_error().is_none(), "{:?}", outcome.first_error());
        }
        done += 200;
    }

    for node in &cluster.nodes {
        let client = Client::connect(&Options::new([node.endpoint()])).unwrap();
        let options = ReadOptions { linearizable: true, ..ReadOptions::all(STREAM) };
        let mut reader = client.read(options).await.unwrap();
        let mut read = BTreeSet::new();
        while let Some(item) = reader.next().await.unwrap() {
            if let ReadItem::Batch(batch) = item {
                for (_, event) in batch.events {
                    assert!(read.insert(event), "an event came twice");
                }
            }
        }
        assert_eq!(read, all.iter().cloned().collect());
        assert_eq!(packed_events(node.endpoint(), &[]).await, (0, 600));
        // Of each codec 150 events were new as a batch; the rest was stored plain.
        let (packed, plain) = packed_events(node.endpoint(), &[v1::Codec::Zstd]).await;
        assert_eq!((packed, plain), (150, 450));
    }
}

/// How many events come compressed, and how many do not, to who understands these codecs.
async fn packed_events(endpoint: String, accept: &[v1::Codec]) -> (u64, u64) {
    let endpoint = if endpoint.contains("//") { endpoint } else { format!("http://{endpoint}") };
    let mut client = v1::read_client::ReadClient::connect(endpoint).await.unwrap();
    let latest = v1::position::At::Latest(v1::Latest {});
    let request = v1::ReadRequest {
        stream: STREAM.to_owned(),
        to: Some(v1::Position { at: Some(latest) }),
        accept: accept.iter().map(|&codec| codec.into()).collect(),
        ..v1::ReadRequest::default()
    };
    let mut frames = client.read(request).await.unwrap().into_inner();
    let (mut packed, mut plain) = (0, 0);
    while let Some(frame) = frames.message().await.unwrap() {
        if let Some(v1::read_response::Frame::Batch(batch)) = frame.frame {
            plain += batch.events.len() as u64;
            packed += batch.packed.map_or(0, |packed| u64::from(packed.count));
        }
    }
    (packed, plain)
}

/// A producer whose batches bring nothing new, or little, keeps its numbering.
#[tokio::test]
async fn batches_without_new_events_keep_their_numbers() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    publish(&client, request((0..4).map(|id| event(id, "{}")).collect())).await;
    let numbered = |sequence: u64, ids: &[usize]| PublishRequest {
        identity: Some(BatchIdentity {
            producer: vec![7; 16].into(),
            epoch: 1,
            sequence,
            previous: sequence - 1,
        }),
        ..request(ids.iter().map(|&id| event(id, "{}")).collect())
    };
    let cases: [Case; 3] = [
        (1, &[2, 3], &[(2, true), (3, true)]),
        (2, &[0, 50], &[(0, true), (4, false)]),
        (3, &[60, 61], &[(5, false), (6, false)]),
    ];
    for (sequence, ids, expected) in cases {
        assert_eq!(places(&publish(&client, numbered(sequence, ids)).await), expected);
        // The client did not hear the answer and sends the batch again.
        let again = places(&publish(&client, numbered(sequence, ids)).await);
        let all: Vec<_> = expected.iter().map(|(offset, _)| (*offset, true)).collect();
        assert_eq!(again, all, "batch {sequence}");
    }
    assert_eq!(end(&client).await, 7);
}

#[tokio::test]
async fn an_append_that_expects_another_offset_is_refused() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({ "partitions": 2 })).await;
    let expecting = |id: usize, offset: u64| PublishRequest {
        expected: vec![ExpectedOffset { partition: 0, offset }],
        ..request(vec![event(id, "{}"), event(id + 1, "{}")])
    };
    let first = publish(&client, expecting(0, 0)).await;
    assert_eq!(places(&first), [(0, false), (1, false)]);

    let refused = client.publish_once(expecting(10, 0)).await.unwrap_err();
    assert_eq!((refused.reason(), refused.offset()), (Reason::WrongOffset, Some(2)));
    // Who was not told that it was stored may ask again.
    assert_eq!(places(&publish(&client, expecting(0, 0)).await), [(0, true), (1, true)]);
    assert_eq!(places(&publish(&client, expecting(10, 2)).await), [(2, false), (3, false)]);

    // All that fail are told at once: both partitions are wrong here.
    let spread: Vec<Bytes> = (100..120).map(|id| event(id, "{}")).collect();
    let expected =
        [(0, 77), (1, 77)].map(|(partition, offset)| ExpectedOffset { partition, offset });
    let both =
        PublishRequest { partition: None, expected: expected.into(), ..request(spread.clone()) };
    let refusals: Vec<Box<Refusal>> =
        publish(&client, both).await.into_iter().map(Result::unwrap_err).collect();
    assert!(refusals.iter().all(|refusal| refusal.reason == "WRONG_OFFSET"), "{refusals:?}");
    let ends: BTreeSet<_> = refusals.iter().filter_map(|refusal| refusal.offset).collect();
    assert_eq!(ends, [0, 4].into());

    let nowhere = PublishRequest {
        expected: vec![ExpectedOffset { partition: 1, offset: 0 }],
        ..request(vec![event(200, "{}")])
    };
    let invalid = client.publish_once(nowhere).await.unwrap_err();
    assert_eq!(invalid.field(), Some("expected[0].partition"));
}

/// Of many who expect the same end, one succeeds: the append is a compare-and-set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_that_expect_the_same_offset_succeeds() {
    let cluster = Cluster::start(3).await;
    put(&cluster.client(), Kind::Stream, STREAM, &json!({})).await;
    for round in 0..10_u64 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8_usize {
            let client = of_node(&cluster, writer % 3).await;
            writers.spawn(async move {
                let id = usize::try_from(round).unwrap() * 100 + writer;
                let request = PublishRequest {
                    expected: vec![ExpectedOffset { partition: 0, offset: round }],
                    ..request(vec![event(id, "{}")])
                };
                client.publish_once(request).await
            });
        }
        let results = writers.join_all().await;
        let won = results.iter().filter(|result| result.is_ok()).count();
        let lost = results.iter().filter_map(|result| result.as_ref().err());
        for error in lost {
            assert_eq!((error.reason(), error.offset()), (Reason::WrongOffset, Some(round + 1)));
        }
        assert_eq!(won, 1, "round {round}");
    }
}
