//! From where an event came and what became of it: trace context, spans, and its story.

pub(crate) mod collector;
mod context;
mod export;
mod story;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use weft_client::Client;
use weft_proto::event::from_json;
use weft_proto::resource::{FunctionStatus, Kind};
use weft_proto::v1;
use weft_proto::v1::publish_client::PublishClient;

use crate::harness::node::quoted;
use crate::harness::ports::address;
use crate::harness::process::{Daemon, run, weft};
use crate::harness::{Cluster, put};

const STREAM: &str = "orders";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An event as JSON.
fn order(id: &str, more: &Value) -> Value {
    let mut event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "/shop",
        "type": "shop.order.placed",
        "data": {"total": 5},
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

fn encoded(event: &Value) -> Bytes {
    prost::Message::encode_to_vec(&from_json(event.to_string().as_bytes()).unwrap()).into()
}

async fn channel(cluster: &Cluster) -> Channel {
    let endpoint = Endpoint::from_shared(cluster.nodes[0].endpoint()).unwrap();
    endpoint.connect().await.unwrap()
}

/// Publishes by one unary call with these headers.
async fn publish(cluster: &Cluster, events: &[Value], headers: &[(&'static str, &str)]) {
    let mut request = Request::new(v1::PublishRequest {
        stream: STREAM.to_owned(),
        events: events.iter().map(encoded).collect(),
        ..v1::PublishRequest::default()
    });
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let answer = PublishClient::new(channel(cluster).await).publish(request).await.unwrap();
    let results = answer.into_inner().results;
    assert_eq!(results.len(), events.len());
    for result in results {
        let outcome = result.outcome.unwrap();
        assert!(matches!(outcome, v1::publish_result::Outcome::Receipt(_)), "{outcome:?}");
    }
}

/// Runs `weft event trace` and reads what it says to programs.
async fn traced(cluster: &Cluster, args: &[&str]) -> Value {
    let endpoint = cluster.nodes[0].endpoint();
    let mut line = vec!["event", "trace", "--json", "--endpoint", &endpoint];
    line.extend(args);
    let ended = run(&line, "").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// A dispatcher that may start the sample function; `more` is further TOML.
fn dispatcher(cluster: &Cluster, more: &str) -> Daemon {
    let folder = cluster.place.dir.path();
    let binary = Path::new(env!("CARGO_BIN_EXE_weft"));
    let config = format!(
        "endpoints = [{:?}]\n[process]\nenabled = true\ndirectories = [{}]\n{more}",
        address(cluster.nodes[0].ports.grpc),
        quoted(binary.parent().unwrap()),
    );
    let file = folder.join("dispatcher.toml");
    fs::write(&file, config).unwrap();
    let mut command = weft();
    command.arg("dispatcher").arg("--config").arg(file);
    Daemon::start("the dispatcher", command, &folder.join("dispatcher.log"))
}

/// A function that confirms orders, with the stream of its replies.
async fn confirming(client: &Client) {
    put(client, Kind::Stream, "confirmations", &json!({})).await;
    let function = json!({
        "command": [env!("CARGO_BIN_EXE_weft"), "sample-function"],
        "triggers": [{"name": "placed", "stream": STREAM, "start": "earliest"}],
        "reply": {"stream": "confirmations"},
    });
    put(client, Kind::Function, "confirm", &function).await;
}

/// The lines that the function wrote.
async fn lines(client: &Client) -> Vec<String> {
    let catalog = client.catalog();
    let Ok(function) = catalog.get(Kind::Function, "confirm").await else { return Vec::new() };
    let status: FunctionStatus = serde_json::from_slice(&function.status).unwrap_or_default();
    status.logs.into_iter().map(|line| line.line).collect()
}
