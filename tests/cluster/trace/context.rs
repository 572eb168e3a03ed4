//! Trace context comes in by headers, stays in events, and goes on to functions.

use serde_json::{Value, json};
use tonic::Request;
use weft_proto::packed::{self, Codec};
use weft_proto::resource::Kind;
use weft_proto::v1;
use weft_proto::v1::publish_client::PublishClient;
use weft_proto::v1::publish_stream_request::Frame;

use super::{PARENT, STREAM, channel, confirming, dispatcher, encoded, lines, order, publish};
use crate::harness::http::ask;
use crate::harness::process::{SOON, run};
use crate::harness::{Cluster, eventually, put, within};

const OWN: &str = "00-11111111111111111111111111111111-2222222222222222-00";

/// The stored events of a stream, as the command line shows them.
async fn stored(cluster: &Cluster, stream: &str) -> Vec<Value> {
    let endpoint = cluster.nodes[0].endpoint();
    let line = ["replay", stream, "--to", "latest", "-o", "json", "--endpoint", &endpoint];
    let ended = run(&line, "").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].clone();
    ended.stdout.lines().map(event).collect()
}

#[tokio::test]
async fn headers_of_a_request_are_kept_in_events_that_have_no_context_of_their_own() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let own = json!({"traceparent": OWN});

    let headers = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")];
    publish(&cluster, &[order("1", &json!({})), order("2", &own)], &headers).await;
    publish(&cluster, &[order("3", &json!({}))], &[("traceparent", "00-junk-01")]).await;
    publish(&cluster, &[order("4", &json!({}))], &[("tracestate", "a=1")]).await;
    let body = format!("[{},{}]", order("5", &json!({})), order("6", &own));
    let headers = [
        ("content-type", "application/cloudevents-batch+json"),
        ("traceparent", PARENT),
        ("tracestate", "A=bad"),
    ];
    let port = cluster.nodes[0].ports.http;
    let answer = ask(port, "POST", "/v1/streams/orders/events", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 202, "{answer:?}");

    let structured = [("content-type", "application/cloudevents+json"), ("traceparent", PARENT)];
    let protobuf = [("content-type", "application/cloudevents+protobuf"), ("traceparent", PARENT)];
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "9"),
        ("ce-source", "/shop"),
        ("ce-type", "t"),
        ("ce-traceparent", OWN),
        ("traceparent", PARENT),
    ];
    let seven = order("7", &json!({})).to_string();
    let eight = encoded(&order("8", &json!({})));
    let sent = async |headers: &[(&str, &str)], body: &[u8]| {
        let answer = ask(port, "POST", "/v1/streams/orders/events", headers, body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    };
    sent(&structured, seven.as_bytes()).await;
    sent(&protobuf, &eight).await;
    sent(&binary, b"").await;

    let events = stored(&cluster, STREAM).await;
    let context = |id: usize| {
        let event = &events[id - 1];
        assert_eq!(event["id"], id.to_string());
        (event["traceparent"].as_str(), event["tracestate"].as_str())
    };
    assert_eq!(context(1), (Some(PARENT), Some("a=1,b=2")));
    assert_eq!(context(2), (Some(OWN), None));
    assert_eq!(context(3), (None, None));
    assert_eq!(context(4), (None, None));
    assert_eq!(context(5), (Some(PARENT), None));
    assert_eq!(context(6), (Some(OWN), None));
    assert_eq!(context(7), (Some(PARENT), None));
    assert_eq!(context(8), (Some(PARENT), None));
    assert_eq!(context(9), (Some(OWN), None));

    // Another trace makes no other event of a repeat.
    publish(&cluster, &[order("1", &json!({}))], &[("traceparent", OWN)]).await;
    assert_eq!(stored(&cluster, STREAM).await, events);
}

#[tokio::test]
async fn a_stream_of_batches_that_was_opened_in_a_trace_gives_it_to_its_events() {
    let cluster = Cluster::start(1).await;
    put(&cluster.client(), Kind::Stream, STREAM, &json!({})).await;
    let own = json!({"traceparent": OWN});
    let events = |numbers: [u64; 2], own: &Value| {
        let [first, second] = numbers.map(|number| number.to_string());
        vec![encoded(&order(&first, &json!({}))), encoded(&order(&second, own))]
    };
    let batch = |tag, events, packed| {
        let batch =
            v1::PublishBatch { tag, partition: Some(0), events, packed, ..Default::default() };
        v1::PublishStreamRequest { frame: Some(Frame::Batch(batch)) }
    };
    let open = v1::PublishOpen { stream: STREAM.to_owned(), ..v1::PublishOpen::default() };
    let packed = packed::pack(Codec::Zstd, events([3, 4], &own)).unwrap();
    let all_own = packed::pack(Codec::Lz4, events([5, 6], &own).split_off(1)).unwrap();
    let frames = [
        v1::PublishStreamRequest { frame: Some(Frame::Open(open)) },
        batch(1, events([1, 2], &own), None),
        batch(2, Vec::new(), Some(packed)),
        batch(3, Vec::new(), Some(all_own)),
    ];
    let mut request = Request::new(futures::stream::iter(frames));
    request.metadata_mut().insert("traceparent", PARENT.parse().unwrap());
    request.metadata_mut().insert("tracestate", "a=1".parse().unwrap());

    let mut client = PublishClient::new(channel(&cluster).await);
    let mut answers = client.publish_stream(request).await.unwrap().into_inner();

    let mut acked = 0;
    while let Some(answer) = within(SOON, "the acks", answers.message()).await.unwrap() {
        if let Some(v1::publish_stream_response::Frame::Acks(acks)) = answer.frame {
            acked += acks.acks.iter().filter(|ack| ack.failure.is_none()).count();
        }
    }
    assert_eq!(acked, 3);
    let told: Vec<_> = stored(&cluster, STREAM)
        .await
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().map(str::to_owned);
            (text("id").unwrap(), text("traceparent").unwrap(), text("tracestate"))
        })
        .collect();
    let expected = [("1", PARENT, Some("a=1")), ("2", OWN, None)];
    let expected = expected.into_iter().chain([("3", PARENT, Some("a=1")), ("4", OWN, None)]);
    let expected: Vec<_> = expected
        .chain([("6", OWN, None)])
        .map(|(id, parent, state)| (id.into(), parent.into(), state.map(str::to_owned)))
        .collect();
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_gets_the_context_and_its_reply_belongs_to_the_same_trace() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let _dispatcher = dispatcher(&cluster, "");
    confirming(&client).await;
    let flow = json!({"correlationid": "flow-7"});
    publish(&cluster, &[order("1", &flow)], &[("traceparent", PARENT)]).await;

    let replies = eventually(SOON, "the reply", async || {
        let replies = stored(&cluster, "confirmations").await;
        (!replies.is_empty()).then_some(replies)
    })
    .await;

    assert_eq!(replies[0]["causationid"], "1");
    assert_eq!(replies[0]["correlationid"], "flow-7");
    assert_eq!(replies[0]["traceparent"], PARENT);
    // Nobody records spans here: the function's own is the next one of the trace.
    eventually(SOON, "the function's line", async || {
        let lines = lines(&client).await;
        lines.iter().any(|line| line.ends_with(&format!(", traceparent {PARENT}"))).then_some(())
    })
    .await;
}
