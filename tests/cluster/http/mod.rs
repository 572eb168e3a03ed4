//! The HTTP port of real brokers: events in, events out, events on loan, and what is wrong.

mod follow;
mod ingress;
mod problems;
mod pull;

use serde_json::{Value, json};
use weft_client::{Client, ReadItem, ReadOptions};
use weft_proto::event::{EventView, to_json};

use super::harness::Cluster;
use super::harness::http::{Answer, ask};

const STREAM: &str = "orders";
const EVENTS: &str = "/v1/streams/orders/events";
pub(super) const JSON: (&str, &str) = ("content-type", "application/cloudevents+json");
pub(super) const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

fn port(cluster: &Cluster) -> u16 {
    cluster.nodes[0].ports.http
}

pub(super) fn event(id: usize) -> Value {
    json!({"specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "order.placed",
        "subject": format!("cart/{}", id % 7), "datacontenttype": "application/json",
        "data": {"number": id}})
}

fn batch(ids: std::ops::Range<usize>) -> Vec<u8> {
    Value::from(ids.map(event).collect::<Vec<_>>()).to_string().into_bytes()
}

async fn post(port: u16, path: &str, content: (&str, &str), body: &[u8]) -> Answer {
    ask(port, "POST", path, &[content], body).await
}

/// All events of the stream, as text.
async fn stored(client: &Client) -> Vec<Value> {
    let mut reader = client.read(ReadOptions::all(STREAM)).await.unwrap();
    let mut stored = Vec::new();
    while let Some(item) = reader.next().await.unwrap() {
        if let ReadItem::Batch(batch) = item {
            let texts = batch
                .into_records()
                .map(|record| to_json(&EventView::parse(&record.event).unwrap()));
            stored.extend(texts.map(|text| serde_json::from_str::<Value>(&text).unwrap()));
        }
    }
    stored
}
