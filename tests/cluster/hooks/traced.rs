//! Spans of requests to receivers.

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use weft_client::PublisherOptions;
use weft_proto::resource::Kind;
use weft_proto::trace::{TraceContext, TraceParent};

use super::receiver::status;
use super::{Bed, LIMIT, event};
use crate::harness::{eventually, put};
use crate::trace::collector::{Collector, text};

fn parent(trace: u8) -> TraceParent {
    TraceParent { trace: [trace; 16], span: [7; 8], sampled: true }
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    match found.value.clone()?.value? {
        any_value::Value::IntValue(number) => Some(number),
        _ => None,
    }
}

/// What a span says of its attempt.
fn told(span: &Span) -> (String, Option<i64>, Option<i64>, bool) {
    let outcome = text(&span.attributes, "weft.outcome").unwrap();
    let [status, attempt] =
        ["http.response.status_code", "weft.attempt"].map(|name| number(&span.attributes, name));
    let has_failed = span.status.as_ref().is_some_and(|status| status.code == 2);
    (outcome, status, attempt, has_failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_to_a_webhook_is_a_span_in_the_trace_of_its_events() {
    let collector = Collector::grpc().await;
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    let bed = Bed::start_with(&format!("[telemetry.otlp]\nendpoint = {endpoint:?}\n")).await;
    bed.receiver.rule("/flaky", |_, before| status(if before < 1 { 503 } else { 200 }));
    bed.receiver.rule("/many", |_, _| {
        let untaken = json!({"failed": [{"id": "2", "source": "/shop", "retry_after": 3_600}]});
        (200, Vec::new(), untaken.to_string())
    });
    bed.webhook("flaky", &json!({"mode": "structured"})).await;
    put(&bed.client, Kind::Stream, "many", &json!({})).await;
    for (stream, ids) in [("flaky", 1..2), ("many", 1..4)] {
        let publisher = bed.client.publisher(stream, PublisherOptions::default()).await.unwrap();
        // The third has no trace.
        let traced = |id: usize| match id {
            3 => event(3),
            id => TraceContext::new(parent(u8::try_from(id).unwrap()), None).put(event(id)),
        };
        let pending = publisher.publish_batch(ids.map(traced).collect()).await.unwrap();
        assert!(pending.outcome().await.first_error().is_none());
    }
    bed.webhook("many", &json!({"mode": {"batch": 10}})).await;

    let spans = async |webhook: &str, trace: u8, count: usize| -> Vec<Span> {
        let webhook = format!("default/{webhook}");
        let what = format!("{count} spans of {webhook}");
        eventually(LIMIT, &what, async || {
            let all = collector.spans("webhook", &[trace; 16]).into_iter().map(|(_, span)| span);
            let of = |span: &Span| text(&span.attributes, "weft.webhook").unwrap() == webhook;
            Some(all.filter(of).collect::<Vec<_>>()).filter(|all| all.len() >= count)
        })
        .await
    };
    let mut flaky = spans("flaky", 1, 2).await;
    flaky.sort_by_key(|span| span.start_time_unix_nano);
    let said: Vec<_> = flaky.iter().map(told).collect();
    let expected = [
        ("failed".to_owned(), Some(503), Some(1), true),
        ("done".to_owned(), Some(200), Some(2), false),
    ];
    assert_eq!(said, expected);
    assert!(flaky.iter().all(|span| span.parent_span_id == [7; 8] && span.kind == 3));
    // The receiver's own comes below that of the request.
    for (span, seen) in flaky.iter().zip(bed.receiver.posts("/flaky")) {
        let named: TraceParent = seen.header("traceparent").parse().unwrap();
        assert_eq!((named.trace, named.span.to_vec()), ([1; 16], span.span_id.clone()));
    }

    // One request, and for each event that has a trace a span in it.
    let first = spans("many", 1, 1).await.remove(0);
    assert_eq!(told(&first), ("done".to_owned(), Some(200), Some(1), false));
    assert_eq!(number(&first.attributes, "messaging.batch.message_count"), Some(3));
    let second = spans("many", 2, 1).await.remove(0);
    assert_eq!(told(&second), ("not taken".to_owned(), Some(200), Some(1), true));
    let all =
        collector.look(|came| came.spans.iter().filter(|(_, span)| span.name == "webhook").count());
    assert_eq!(all, 4, "the event without a trace begins none");
    assert_eq!(bed.receiver.posts("/many")[0].header("traceparent"), "");
}
