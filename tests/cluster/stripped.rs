//! Attributes that only the broker sets are taken out on every way in: whoever publishes an event that
//! they read need not clean it first.

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use weft_client::{Client, PublisherOptions, ReadItem, ReadOptions};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::packed::Codec;
use weft_proto::resource::Kind;
use weft_proto::v1::PublishRequest;
use weft_proto::v1::publish_result::Outcome;

use super::harness::{Cluster, put};

/// What a dead letter says of itself, and a neighbour that is only called almost so.
const MARKS: [(&str, &str); 3] =
    [("weftreason", "line\nbreak"), ("weftoffset", "7"), ("wefoffset", "8")];

/// Each second one has attributes of the broker.
fn events() -> Vec<CloudEvent> {
    let text =
        |text: &str| CloudEventAttributeValue { attr: Some(Attr::CeString(text.to_owned())) };
    let event = |number: usize| {
        let mut event = CloudEvent {
            id: number.to_string(),
            source: "/shop".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "order.placed".to_owned(),
            data: Some(Data::TextData("weftoffset ".repeat(20))),
            ..CloudEvent::default()
        };
        event.attributes.insert("subject".to_owned(), text(&format!("cart/{number}")));
        if number % 2 == 1 {
            event.attributes.extend(MARKS.map(|(name, value)| (name.to_owned(), text(value))));
        }
        event
    };
    (0..20).map(event).collect()
}

fn encoded(events: &[CloudEvent]) -> Vec<Bytes> {
    events.iter().map(|event| event.encode_to_vec().into()).collect()
}

/// All stored events, as they are.
async fn stored(client: &Client, stream: &str) -> Vec<Bytes> {
    let mut reader = client.read(ReadOptions::all(stream)).await.unwrap();
    let mut stored = Vec::new();
    while let Some(item) = reader.next().await.unwrap() {
        if let ReadItem::Batch(batch) = item {
            stored.extend(batch.into_records().map(|record| record.event));
        }
    }
    stored
}

async fn unary(client: &Client, stream: &str, events: Vec<Bytes>) -> Vec<(u32, u64, bool)> {
    let request = PublishRequest { stream: stream.to_owned(), events, ..PublishRequest::default() };
    let results = client.publish_once(request).await.unwrap();
    let place = |outcome| match outcome {
        Some(Outcome::Receipt(it)) => (it.partition, it.offset, it.duplicate),
        other => panic!("not stored: {other:?}"),
    };
    results.into_iter().map(|result| place(result.outcome)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_broker_sets_is_taken_out_whatever_way_an_event_comes() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let (sent, mut wanted) = (encoded(&events()), events());
    for event in &mut wanted {
        event.attributes.retain(|name, _| !name.starts_with("weft"));
    }
    wanted.sort_by(|one, other| one.id.cmp(&other.id));
    let ways = [("unary", None), ("plain", Some(None)), ("packed", Some(Some(Codec::Zstd)))];
    for (partitions, (way, streamed)) in [1, 4].into_iter().flat_map(|n| ways.map(|way| (n, way))) {
        let stream = format!("{way}-{partitions}");
        put(&client, Kind::Stream, &stream, &json!({"partitions": partitions})).await;
        match streamed {
            None => drop(unary(&client, &stream, sent.clone()).await),
            Some(compression) => {
                let options = PublisherOptions { compression, ..PublisherOptions::default() };
                let publisher = client.publisher(&stream, options).await.unwrap();
                let pending = publisher.publish_batch(sent.clone()).await.unwrap();
                assert_eq!(pending.outcome().await.stored(), 20, "{stream}");
                publisher.close().await;
            }
        }

        let found = stored(&client, &stream).await;
        let mut decoded: Vec<CloudEvent> =
            found.iter().map(|bytes| CloudEvent::decode(bytes.clone()).unwrap()).collect();
        decoded.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!(decoded, wanted, "{stream}");
        // Those that had none are the bytes that were sent.
        for bytes in sent.iter().step_by(2) {
            assert!(found.contains(bytes), "{stream}");
        }

        // Published again with what the broker sets on it, it is still the same event.
        let again = unary(&client, &stream, sent.clone()).await;
        assert!(again.iter().all(|(_, _, duplicate)| *duplicate), "{stream} {again:?}");
        assert_eq!(stored(&client, &stream).await.len(), 20, "{stream}");
    }
}
