//! Spans and metrics go to a collector; without one, or with one that is gone, all goes on.

use serde_json::json;
use weft_proto::resource::Kind;
use weft_proto::trace::TraceParent;

use super::collector::{Collector, text};
use super::{PARENT, SPAN, STREAM, TRACE, confirming, dispatcher, lines, order, publish};
use crate::harness::http::ask;
use crate::harness::node::quoted;
use crate::harness::process::{SOON, run};
use crate::harness::{Cluster, eventually, put};

const METRIC: &str = "weft_ingest_appended_events_total";

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_follow_an_event_through_its_trace_and_metrics_come_beside() {
    let collector = Collector::grpc().await;
    let telemetry = format!(
        "[telemetry.otlp]\nendpoint = \"http://127.0.0.1:{}\"\nmetrics_ms = 200\n",
        collector.port
    );
    let mut cluster = Cluster::new(1).await;
    cluster.nodes[0].sections.push_str(&telemetry);
    cluster.start_all().await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let _dispatcher = dispatcher(&cluster, &telemetry);
    confirming(&client).await;

    publish(&cluster, &[order("1", &json!({}))], &[("traceparent", PARENT)]).await;

    let (trace, before) = (bytes(TRACE), bytes(SPAN));
    let one = async |name: &str| {
        eventually(SOON, name, async || collector.spans(name, &trace).into_iter().next()).await
    };
    let (service, published) = one("publish").await;
    assert_eq!((service.as_str(), &published.parent_span_id), ("weft-broker", &before));
    assert_eq!(text(&published.attributes, "messaging.destination.name").unwrap(), STREAM);
    let (_, appended) = one("append").await;
    assert_eq!(appended.parent_span_id, published.span_id);
    let (service, pushed) = one("push").await;
    assert_eq!((service.as_str(), &pushed.parent_span_id), ("weft-dispatcher", &before));
    assert_eq!(text(&pushed.attributes, "cloudevents.event_id").unwrap(), "1");
    // The function's own span comes below that of the push.
    let header = eventually(SOON, "the function's line", async || {
        let lines = lines(&client).await;
        lines.iter().find_map(|line| Some(line.split_once(", traceparent ")?.1.to_owned()))
    })
    .await;
    let header: TraceParent = header.parse().unwrap();
    assert_eq!((header.trace.to_vec(), header.span.to_vec()), (trace.clone(), pushed.span_id));

    let endpoint = cluster.nodes[0].endpoint();
    let replay = run(&["replay", STREAM, "--to", "latest", "--endpoint", &endpoint], "").await;
    assert_eq!(replay.code, Some(0));
    eventually(SOON, "the span of the replay", async || {
        collector
            .look(|came| came.spans.iter().any(|(_, span)| span.name == "replay").then_some(()))
    })
    .await;
    eventually(SOON, "metrics of both", async || {
        collector.look(|came| {
            let broker = came.metrics.get(METRIC)?.iter().any(|service| service == "weft-broker");
            let all = came.metrics.values().flatten();
            (broker && all.into_iter().any(|service| service == "weft-dispatcher")).then_some(())
        })
    })
    .await;
    // One span for the request, whatever the number of its events.
    let events: Vec<_> = (10..30).map(|id| order(&id.to_string(), &json!({}))).collect();
    let other = PARENT.replace(TRACE, &"ab".repeat(16));
    publish(&cluster, &events, &[("traceparent", &other)]).await;
    let not_sampled = PARENT.replace(TRACE, &"cd".repeat(16)).replace("-01", "-00");
    publish(&cluster, &[order("2", &json!({}))], &[("traceparent", &not_sampled)]).await;
    // What is left is sent when the broker stops.
    assert!(cluster.nodes[0].stop().await.success());
    // Replies to them are published in the same trace.
    let mut spans = collector.spans("publish", &[0xab; 16]);
    spans.retain(|(_, span)| {
        text(&span.attributes, "messaging.destination.name").unwrap() == STREAM
    });
    assert_eq!(spans.len(), 1);
    assert_eq!(collector.spans("publish", &[0xcd; 16]).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_may_be_spoken_to_by_http_with_headers_from_a_file() {
    let collector = Collector::http().await;
    let mut cluster = Cluster::new(1).await;
    let headers = cluster.nodes[0].write("otlp-headers", "X-Tenant: shop\n");
    cluster.nodes[0].sections = format!(
        "[telemetry.otlp]\nendpoint = \"http://127.0.0.1:{}/base\"\nprotocol = \"http/protobuf\"\n\
         headers_file = {}\nmetrics_ms = 200\n\
         [telemetry.resource]\n\"service.name\" = \"mesh\"\n",
        collector.port,
        quoted(&headers),
    );
    cluster.start_all().await;
    put(&cluster.client(), Kind::Stream, STREAM, &json!({})).await;

    publish(&cluster, &[order("1", &json!({}))], &[("traceparent", PARENT)]).await;

    let trace = bytes(TRACE);
    let (service, _) =
        eventually(SOON, "a span", async || collector.spans("publish", &trace).into_iter().next())
            .await;
    assert_eq!(service, "mesh");
    eventually(SOON, "metrics", async || {
        collector.look(|came| came.metrics.contains_key(METRIC).then_some(()))
    })
    .await;
    assert!(collector.look(|came| came.tenants.iter().all(|tenant| tenant == "shop")));
    assert!(collector.look(|came| !came.tenants.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_collector_a_broker_goes_on_and_counts_what_is_lost() {
    let gone = Collector::grpc().await.port;
    let mut cluster = Cluster::new(1).await;
    cluster.nodes[0].sections =
        format!("[telemetry.otlp]\nendpoint = \"http://127.0.0.1:{gone}\"\nmetrics_ms = 200\n");
    cluster.start_all().await;
    put(&cluster.client(), Kind::Stream, STREAM, &json!({})).await;

    for id in 0..10 {
        publish(&cluster, &[order(&id.to_string(), &json!({}))], &[]).await;
    }

    let port = cluster.nodes[0].ports.http;
    eventually(SOON, "counts of what failed", async || {
        let text = ask(port, "GET", "/metrics", &[], b"").await.text();
        let lines = [
            "weft_otlp_failed_exports_total{signal=\"spans\"}",
            "weft_otlp_failed_exports_total{signal=\"metrics\"}",
            "weft_otlp_lost_spans_total{reason=\"collector\"}",
        ];
        lines.iter().all(|line| text.contains(line)).then_some(())
    })
    .await;
    assert!(cluster.nodes[0].stop().await.success());
}
