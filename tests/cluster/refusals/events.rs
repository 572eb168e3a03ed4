//! Events that are none, are too large, do not fit their schema, or have no stream.

use bytes::Bytes;
use serde_json::json;
use weft_client::Reason;
use weft_proto::event::EVENT_BYTES_MAX;
use weft_proto::resource::Kind;
use weft_proto::v1::PublishRequest;

use super::{publish, refusal_of, stored};
use crate::harness::process::run;
use crate::harness::{Cluster, put};

/// The required attributes and their fields in `io.cloudevents.v1.CloudEvent`.
const REQUIRED: [(&str, u8); 4] = [("id", 1), ("source", 2), ("specversion", 3), ("type", 4)];
const DATA: u8 = 7;

/// An attribute of an event on the wire.
enum Attribute<'a> {
    Text(&'a str),
    /// The field is there, with nothing in it.
    Empty,
    Missing,
}

/// An event with one of its required attributes changed; written by hand, because the generated
/// code would never send an empty field.
fn event(id: &str, changed: &str, to: &Attribute<'_>, data: &str) -> Bytes {
    let mut bytes = Vec::new();
    for (name, number) in REQUIRED {
        let text = match (name == changed, to, name) {
            (true, Attribute::Missing, _) => continue,
            (true, Attribute::Empty, _) => "",
            (true, Attribute::Text(text), _) => text,
            (false, _, "id") => id,
            (false, _, "specversion") => "1.0",
            (false, _, _) => "com.example.order",
        };
        field(&mut bytes, number, text);
    }
    if !data.is_empty() {
        field(&mut bytes, DATA, data);
    }
    bytes.into()
}

fn good(id: &str, data: &str) -> Bytes {
    event(id, "", &Attribute::Missing, data)
}

fn field(bytes: &mut Vec<u8>, number: u8, text: &str) {
    bytes.push((number << 3) | 2);
    let mut length = text.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend(text.as_bytes());
}

#[tokio::test]
async fn an_event_without_a_required_attribute_is_refused_by_its_name() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({})).await;
    publish(&client, "orders", vec![good("before", "")]).await;

    for (name, _) in REQUIRED {
        for wrong in [Attribute::Missing, Attribute::Empty] {
            let result = publish(&client, "orders", vec![event("x", name, &wrong, "")]).await;
            let (reason, field, message) = refusal_of(&result[0]);
            assert_eq!((reason.as_str(), field.as_str()), ("MALFORMED_EVENT", name));
            assert!(message.contains("is missing or empty"), "{message}");
        }
    }
    let other = event("x", "specversion", &Attribute::Text("0.3"), "");
    let (_, field, message) = refusal_of(&publish(&client, "orders", vec![other]).await[0]);
    assert_eq!(field, "specversion");
    assert!(message.contains("\"0.3\""), "{message}");

    assert_eq!(stored(&client, "orders").await, 1);
}

#[tokio::test]
async fn the_command_line_names_the_line_and_the_attribute() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({})).await;
    let endpoint = cluster.nodes[0].endpoint();

    for (name, _) in REQUIRED {
        let good = json!({ "specversion": "1.0", "id": name, "source": "/s", "type": "t" });
        let (mut missing, mut empty) = (good.clone(), good.clone());
        missing.as_object_mut().unwrap().remove(name);
        empty[name] = json!("");
        let input = format!("{good}\n{missing}\n{empty}\n");

        let ended = run(&["--endpoint", &endpoint, "publish", "orders"], &input).await;

        assert_eq!(ended.code, Some(1), "{name}: {ended:?}");
        for line in ["line 2", "line 3"] {
            let told = ended.stderr.lines().find(|told| told.starts_with(line));
            assert!(told.is_some_and(|told| told.contains(name)), "{name}, {line}: {ended:?}");
        }
        assert!(ended.stdout.contains("1 published, 2 refused"), "{ended:?}");
    }
    assert_eq!(stored(&client, "orders").await, REQUIRED.len() as u64);
}

#[tokio::test]
async fn an_unknown_stream_is_refused_and_not_made() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let endpoint = cluster.nodes[0].endpoint();
    let request = PublishRequest {
        stream: "nowhere".to_owned(),
        events: vec![good("1", "")],
        ..PublishRequest::default()
    };

    let error = client.publish_once(request).await.unwrap_err();
    let line = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t" });
    let ended = run(&["--endpoint", &endpoint, "publish", "nowhere"], &line.to_string()).await;

    assert_eq!(error.reason(), Reason::UnknownStream);
    assert!(error.message().contains("nowhere"), "{error}");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("weft stream create nowhere"), "{}", ended.stderr);
    assert_eq!(client.catalog().list(Kind::Stream, "").await.unwrap(), []);
}

#[tokio::test]
async fn an_event_above_the_limit_is_refused_and_its_neighbour_is_not() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "orders", &json!({})).await;
    let frame = good("largest", "").len() + 4;
    let largest = good("largest", &"x".repeat(EVENT_BYTES_MAX - frame));
    let larger = good("larger!", &"x".repeat(EVENT_BYTES_MAX + 1 - frame));
    assert_eq!((largest.len(), larger.len()), (EVENT_BYTES_MAX, EVENT_BYTES_MAX + 1));

    let accepted = publish(&client, "orders", vec![largest]).await;
    let results = publish(&client, "orders", vec![larger, good("small", "")]).await;

    assert_eq!(accepted.len(), 1);
    let (reason, _, message) = refusal_of(&results[0]);
    assert_eq!(reason, "TOO_LARGE");
    assert!(message.contains("1000001 bytes, more than the 1000000"), "{message}");
    assert_eq!(stored(&client, "orders").await, 2);

    // So large that the call itself is refused.
    let request = PublishRequest {
        stream: "orders".to_owned(),
        events: vec![good("huge", &"x".repeat(8 << 20))],
        ..PublishRequest::default()
    };
    let error = client.publish_once(request).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TooLarge, "{error}");
    assert_eq!(stored(&client, "orders").await, 2);
}

#[tokio::test]
async fn a_schema_violation_is_refused_with_its_place_and_its_neighbours_are_not() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let document = json!({
        "type": "object",
        "required": ["total"],
        "properties": { "total": { "type": "number" } },
    });
    put(&client, Kind::Schema, "order", &json!({ "document": document })).await;
    let bindings = json!([{ "type": "com.example.*", "schema": "order", "mode": "enforce" }]);
    put(&client, Kind::Stream, "orders", &json!({ "schemas": bindings })).await;
    let events = || {
        vec![
            good("1", r#"{"total":1}"#),
            good("2", r#"{"total":"1"}"#),
            good("3", "{}"),
            good("4", "no JSON"),
            good("5", r#"{"total":5}"#),
        ]
    };

    let results = publish(&client, "orders", events()).await;

    for (index, pointer) in [(1, "/total"), (2, ""), (3, "")] {
        let (reason, field, message) = refusal_of(&results[index]);
        assert_eq!((reason.as_str(), field.as_str()), ("SCHEMA_VIOLATION", pointer));
        assert!(message.contains("order"), "{message}");
    }
    assert_eq!(stored(&client, "orders").await, 2);

    // All or nothing, if that is asked for.
    let atomic = PublishRequest {
        stream: "orders".to_owned(),
        events: events(),
        atomic: true,
        ..PublishRequest::default()
    };
    _ = client.publish_once(atomic).await;
    assert_eq!(stored(&client, "orders").await, 2);
}
