//! Events that come in every mode are the same events.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::transport::Endpoint;
use weft_proto::cloudevents::{CloudEvent, CloudEventBatch};
use weft_proto::event::from_json;
use weft_proto::resource::Kind;

use super::{BATCH, EVENTS, JSON, STREAM, batch, event, port, post, stored};
use crate::delayed::now;
use crate::harness::http::ask;
use crate::harness::{Cluster, put};

const HEAD: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "0"),
    ("ce-source", "/s"),
    ("ce-type", "order.placed"),
    ("ce-subject", "cart%2F0"),
];

fn proto(id: usize) -> CloudEvent {
    from_json(event(id).to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn one_event_is_the_same_in_every_mode() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let port = port(&cluster);
    let (text, one) = (event(0).to_string(), proto(0).encode_to_vec());
    let many = CloudEventBatch { events: vec![proto(0)] }.encode_to_vec();
    let mut binary = HEAD.to_vec();
    binary.push(("content-type", "application/json"));
    binary.push(("ce-datacontenttype", "text/lies"));
    binary.push(("ce-weftoffset", "7"));

    let first = ask(port, "POST", EVENTS, &binary, br#"{"number":0}"#).await;
    assert_eq!(first.status, 202, "{first:?}");
    let first = first.json();
    assert_eq!((&first[0]["offset"], &first[0]["duplicate"]), (&json!(0), &json!(false)));
    for (content, body) in [
        ("application/cloudevents+json; charset=utf-8", text.as_bytes()),
        ("Application/CloudEvents-Batch+JSON", format!("[{text}]").as_bytes()),
        ("application/cloudevents+protobuf", &one),
        ("application/cloudevents-batch+protobuf", &many),
    ] {
        // Headers of an event do not count where the event is in the body.
        let headers = [("content-type", content), ("ce-id", "other"), ("ce-datacontenttype", "x")];
        let answer = ask(port, "POST", EVENTS, &headers, body).await;
        assert_eq!(answer.status, 202, "{content}: {answer:?}");
        let told = answer.json();
        assert_eq!((&told[0]["duplicate"], &told[0]["offset"]), (&json!(true), &json!(0)));
        assert_eq!(told[0]["time"], first[0]["time"], "{content}");
    }
    assert_eq!(stored(&client).await, [event(0)]);
}

#[tokio::test]
async fn a_batch_is_stored_as_a_whole_or_not_at_all() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let schema = json!({"document": {"type": "object", "properties": {
        "number": {"type": "integer", "maximum": 50}}}});
    put(&client, Kind::Schema, "order", &schema).await;
    let spec = json!({"partitions": 3,
        "schemas": [{"type": "order.placed", "schema": "order", "mode": "enforce"}]});
    put(&client, Kind::Stream, STREAM, &spec).await;
    let port = port(&cluster);

    let empty = post(port, EVENTS, BATCH, b"[]").await;
    assert_eq!((empty.status, empty.text().as_str()), (202, "[]"));
    let bad = post(port, EVENTS, BATCH, &batch(48..53)).await;
    assert_eq!(bad.status, 400, "{bad:?}");
    let told = bad.json();
    let errors = told["errors"].as_array().unwrap();
    let places: Vec<_> = errors.iter().map(|error| error["index"].as_u64().unwrap()).collect();
    assert_eq!(places, [3, 4]);
    assert!(errors.iter().all(|error| error["pointer"] == "/number"), "{told}");
    assert_eq!(
        (&told["reason"], &told["schema"]["version"]),
        (&json!("SCHEMA_VIOLATION"), &json!(1))
    );
    let mut wrong = vec![event(1), event(2)];
    wrong[1].as_object_mut().unwrap().remove("type");
    let wrong = post(port, EVENTS, BATCH, Value::from(wrong).to_string().as_bytes()).await;
    assert_eq!((wrong.status, &wrong.json()["errors"][0]["field"]), (400, &json!("type")));
    assert!(stored(&client).await.is_empty());

    let good = post(port, EVENTS, BATCH, &batch(0..30)).await;
    assert_eq!((good.status, good.json().as_array().unwrap().len()), (202, 30), "{good:?}");
    assert_eq!(stored(&client).await.len(), 30);
    // What is delivered later is stored with its neighbours.
    let mut later = event(41);
    let hour = std::time::Duration::from_hours(1);
    later["deliverat"] = json!(now().saturating_add(hour).to_string());
    let mixed = Value::from(vec![event(40), later]).to_string();
    let mixed = post(port, EVENTS, BATCH, mixed.as_bytes()).await;
    assert_eq!(mixed.status, 202, "{mixed:?}");
    let delayed: Vec<_> =
        mixed.json().as_array().unwrap().iter().map(|one| one["delayed"] == true).collect();
    assert_eq!(delayed, [false, true]);
    // One that says something else under a used identity; not 409, after which some try again.
    let mut reused = event(0);
    reused["data"]["number"] = json!(9);
    let reused = post(port, EVENTS, JSON, reused.to_string().as_bytes()).await;
    assert_eq!((reused.status, &reused.json()["reason"]), (422, &json!("IDENTITY_REUSED")));
}

#[tokio::test]
async fn any_node_takes_events_by_http_2_without_tls_too() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 4})).await;
    client.route(STREAM).await.unwrap();
    for (node, number) in cluster.nodes.iter().zip(0..) {
        let endpoint = format!("http://127.0.0.1:{}", node.ports.http);
        let mut channel = Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap();
        let body = batch(number * 10..number * 10 + 10);
        // The node may not know the stream yet.
        loop {
            let request = http::Request::post(format!("http://x{EVENTS}"))
                .header(BATCH.0, BATCH.1)
                .body(Body::new(String::from_utf8(body.clone()).unwrap()))
                .unwrap();
            tower_ready(&mut channel).await;
            let answer = tonic::client::GrpcService::call(&mut channel, request).await.unwrap();
            match answer.status().as_u16() {
                202 => break,
                404 => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                other => panic!("{other}"),
            }
        }
    }

    let mut ids: Vec<usize> = stored(&client)
        .await
        .iter()
        .map(|event| event["id"].as_str().unwrap().parse().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..30).collect::<Vec<_>>());
}

async fn tower_ready(channel: &mut tonic::transport::Channel) {
    std::future::poll_fn(|context| {
        tonic::client::GrpcService::<Body>::poll_ready(channel, context)
    })
    .await
    .unwrap();
}

/// As the JavaScript SDK sends: in chunks, without a length, with a name in Latin-1.
#[tokio::test]
async fn what_sdks_send_is_read() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, "shop/orders", &json!({})).await;
    let mut request = Bytes::from_static(
        b"POST /v1/streams/shop%2Forders/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
          ce-specversion: 1.0\r\nce-id: 100% \"a\"\r\nce-source: /s\r\nce-type: t\r\n\
          ce-name: caf\xe9\r\ncontent-type: text/plain\r\n\
          transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    );
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port(&cluster))).await.unwrap();
    stream.write_all_buf(&mut request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");

    let path = "/v1/streams/shop/orders/events?from=earliest&to=latest";
    let mut followed = crate::harness::http::begin(port(&cluster), "GET", path, &[], b"").await;
    let sent = followed.next().await.unwrap().json();
    assert_eq!(sent["id"], "100% \"a\"");
    assert_eq!(sent["name"], "caf\u{e9}");
    assert_eq!(
        (&sent["datacontenttype"], &sent["data_base64"]),
        (&json!("text/plain"), &json!("YWJjZGVmZw=="))
    );
}
