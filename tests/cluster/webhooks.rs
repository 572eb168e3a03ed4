//! Real input: 329 GitHub webhooks, as they are, against their schema, and into a function.
//!
//! The data is not ours to ship. The folder is found by `WEFT_WEBHOOKS`, or beside the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use weft_client::{
    Client, Error, Position, PublisherOptions, ReadOptions, Reason, Receipt, Record, status_of,
};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::event::EventView;
use weft_proto::resource::{FunctionStatus, Kind};

use super::harness::node::quoted;
use super::harness::ports::address;
use super::harness::process::{Daemon, weft};
use super::harness::{Cluster, eventually, put, within};

const SOURCE: &str = "https://github.com/webhooks";
/// The sample function answers events whose type ends so, and only those.
const ANSWERED: &str = ".order.placed";
const ALL_MAX: Duration = Duration::from_mins(2);

/// A line of the corpus.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    ty: String,
    repository: Option<String>,
    payload: Box<RawValue>,
}

struct Webhook {
    id: String,
    ty: String,
    payload: String,
    event: Bytes,
}

struct Corpus {
    schema: Value,
    webhooks: Vec<Webhook>,
}

fn corpus() -> Option<Corpus> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/github-webhooks");
    let nearby = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/github-webhooks");
    let named = std::env::var_os("WEFT_WEBHOOKS").map(PathBuf::from);
    let folders = named.map_or_else(|| vec![beside.into(), nearby.into()], |named| vec![named]);
    let Some(folder) = folders.iter().find(|folder| folder.join("events.jsonl").is_file()) else {
        eprintln!("SKIPPED: no webhook payloads in {folders:?}; set WEFT_WEBHOOKS to their folder");
        return None;
    };
    let lines = fs::read_to_string(folder.join("events.jsonl")).unwrap();
    let schema = fs::read(folder.join("schema.json")).unwrap();
    Some(Corpus {
        schema: serde_json::from_slice(&schema).unwrap(),
        webhooks: lines.lines().enumerate().map(webhook).collect(),
    })
}

fn webhook((place, line): (usize, &str)) -> Webhook {
    let line: Line = serde_json::from_str(line).unwrap();
    let id = format!("delivery-{place:03}");
    let ty = format!("{}{ANSWERED}", line.ty);
    let payload = line.payload.get().to_owned();
    let mut attributes = BTreeMap::from([("datacontenttype", "application/json".to_owned())]);
    attributes.extend(line.repository.map(|repository| ("subject", repository)));
    let attribute = |(name, text): (&str, String)| {
        (name.to_owned(), CloudEventAttributeValue { attr: Some(Attr::CeString(text)) })
    };
    let event = CloudEvent {
        id: id.clone(),
        source: SOURCE.to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: ty.clone(),
        attributes: attributes.into_iter().map(attribute).collect(),
        data: Some(Data::BinaryData(payload.clone().into_bytes().into())),
    };
    Webhook { id, ty, payload, event: event.encode_to_vec().into() }
}

async fn publish(
    client: &Client,
    stream: &str,
    webhooks: &[Webhook],
) -> Vec<Result<Receipt, Error>> {
    let publisher = client.publisher(stream, PublisherOptions::default()).await.unwrap();
    let events = webhooks.iter().map(|webhook| webhook.event.clone()).collect();
    let pending = publisher.publish_batch(events).await.unwrap();
    within(ALL_MAX, "publishing", pending.outcome()).await.receipts()
}

async fn read(client: &Client, stream: &str) -> Vec<Record> {
    let reader = client.read(ReadOptions::all(stream)).await.unwrap();
    within(ALL_MAX, "reading", reader.into_records().try_collect()).await.unwrap()
}

/// That exactly the acknowledged ones are stored, at their places, byte for byte.
fn assert_stored(records: &[Record], webhooks: &[Webhook], receipts: &[Result<Receipt, Error>]) {
    let acked = receipts.iter().filter(|receipt| receipt.is_ok()).count();
    assert_eq!(records.len(), acked);
    let places: BTreeMap<_, _> =
        records.iter().map(|record| ((record.partition, record.offset), record)).collect();
    for (webhook, receipt) in webhooks.iter().zip(receipts) {
        let Ok(receipt) = receipt else { continue };
        let record = places[&(receipt.partition, receipt.offset)];
        assert_eq!(record.event, webhook.event, "{}", webhook.id);
        let view = EventView::parse(&record.event).unwrap();
        assert_eq!(view.data_bytes(), Some(webhook.payload.as_bytes()), "{}", webhook.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_come_back_byte_for_byte_and_their_schema_refuses_fifty_two() {
    let Some(Corpus { schema, webhooks }) = corpus() else { return };
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Schema, "webhook", &json!({ "document": schema })).await;
    put(&client, Kind::Stream, "unbound", &json!({ "partitions": 3 })).await;
    let bindings = json!([{ "type": "*", "schema": "webhook", "mode": "enforce" }]);
    put(&client, Kind::Stream, "bound", &json!({ "partitions": 3, "schemas": bindings })).await;

    let unbound = publish(&client, "unbound", &webhooks).await;
    let bound = publish(&client, "bound", &webhooks).await;

    assert_eq!((webhooks.len(), unbound.iter().flatten().count()), (329, 329));
    assert_stored(&read(&client, "unbound").await, &webhooks, &unbound);
    assert_eq!(bound.iter().flatten().count(), 277);
    let stored = read(&client, "bound").await;
    assert_stored(&stored, &webhooks, &bound);
    let governed = |record: &Record| {
        record.schema.as_ref().is_some_and(|schema| schema.schema == "default/webhook")
    };
    assert!(stored.iter().all(governed), "each stored event names the schema that it fitted");
    for (webhook, refusal) in webhooks.iter().zip(&bound) {
        let Err(refusal) = refusal else { continue };
        assert_eq!(refusal.reason(), Reason::SchemaViolation, "{}: {refusal}", webhook.id);
        let payload: Value = serde_json::from_str(&webhook.payload).unwrap();
        // The pointer to the whole payload is empty.
        let pointer = refusal.field().unwrap_or_default();
        assert!(payload.pointer(pointer).is_some(), "{}: {pointer}: {refusal}", webhook.id);
        assert!(!refusal.message().is_empty(), "{}", webhook.id);
    }
    let pointed = bound.iter().filter_map(|refusal| refusal.as_ref().err()?.field());
    assert_eq!(pointed.filter(|pointer| pointer.starts_with('/')).count(), 49);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_gets_exactly_the_webhooks_of_its_type() {
    let Some(Corpus { webhooks, .. }) = corpus() else { return };
    let wanted = most_frequent(&webhooks);
    let ids = |matching: bool| {
        let of = webhooks.iter().filter(move |webhook| (webhook.ty == wanted) == matching);
        of.map(|webhook| format!("{SOURCE}/{}/confirmed", webhook.id)).collect::<BTreeSet<_>>()
    };
    assert!(ids(true).len() > 3 && ids(false).len() > 300, "{wanted}");
    let cluster = Cluster::start(3).await;
    let _dispatcher = dispatcher(&cluster);
    let client = cluster.client();
    put(&client, Kind::Stream, "webhooks", &json!({ "partitions": 3 })).await;
    put(&client, Kind::Stream, "replies", &json!({})).await;
    let function = json!({
        "command": [env!("CARGO_BIN_EXE_weft"), "sample-function"],
        "triggers": [{
            "stream": "webhooks",
            "start": "earliest",
            "filters": [{ "exact": { "type": wanted } }],
        }],
        "reply": { "stream": "replies" },
    });
    put(&client, Kind::Function, "confirm", &function).await;

    let receipts = publish(&client, "webhooks", &webhooks).await;
    assert_eq!(receipts.iter().flatten().count(), webhooks.len());
    let all = async || {
        let ends = client.locate("replies", Position::Latest).await.ok()?;
        (ends.iter().map(|end| end.offset).sum::<u64>() >= ids(true).len() as u64).then_some(())
    };
    eventually(ALL_MAX, "a reply for each event", all).await;
    // What should not be delivered might still come.
    eventually(ALL_MAX, "that nothing is left to deliver", async || is_done(&client).await).await;

    let replies = read(&client, "replies").await;
    let answered =
        replies.iter().map(|reply| EventView::parse(&reply.event).unwrap().id.to_owned());
    assert_eq!(answered.collect::<BTreeSet<_>>(), ids(true));
}

fn most_frequent(webhooks: &[Webhook]) -> &str {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for webhook in webhooks {
        *counts.entry(&webhook.ty).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).unwrap().0
}

/// Whether the function's status says that each event is settled.
async fn is_done(client: &Client) -> Option<()> {
    let function = client.catalog().get(Kind::Function, "confirm").await.ok()?;
    let status: FunctionStatus = status_of(&function).ok()?;
    let trigger = status.triggers.first()?;
    let left = (trigger.lag, trigger.in_flight, trigger.retrying);
    (left == (0, 0, 0) && trigger.delivered > 0).then_some(())
}

/// A dispatcher that may start functions from the folder of the binary.
fn dispatcher(cluster: &Cluster) -> Daemon {
    let endpoints: Vec<_> = cluster.nodes.iter().map(|node| address(node.ports.grpc)).collect();
    let folder = Path::new(env!("CARGO_BIN_EXE_weft")).parent().unwrap();
    let config = format!(
        "endpoints = {endpoints:?}\n[process]\nenabled = true\ndirectories = [{}]\n",
        quoted(folder)
    );
    let file = cluster.place.dir.path().join("dispatcher.toml");
    fs::write(&file, config).unwrap();
    let mut command = weft();
    command.arg("dispatcher").arg("--config").arg(file);
    Daemon::start("the dispatcher", command, &cluster.place.dir.path().join("dispatcher.log"))
}
