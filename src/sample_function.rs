//! `weft sample-function`: confirms orders. Shows what a function is, and serves the demo.
//!
//! It takes CloudEvents over HTTP on the socket that the dispatcher hands down, or on `--port`
//! when tried by hand, and answers `*.order.placed` with the reply event `*.order.confirmed`.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use weft_dispatcher::push;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::Data;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::trace::TRACEPARENT;

const PLACED: &str = ".order.placed";
const CONFIRMED: &str = ".order.confirmed";

/// Serve as a sample function that confirms orders.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Listen on this port of 127.0.0.1 instead of the socket that the dispatcher hands down.
    #[arg(long)]
    port: Option<u16>,
    /// Answer this share of the events with an error, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    fail_rate: f64,
    /// Wait this long before each answer.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a number from 0 to 1".to_owned()),
    }
}

/// Serves until SIGTERM or SIGINT, then finishes open requests.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let listener = match args.port {
        Some(port) => TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on port {port}"))?,
        None => match listenfd::ListenFd::from_env().take_tcp_listener(0)? {
            Some(listener) => listener,
            None => bail!("no socket was handed down; to try it by hand, give --port"),
        },
    };
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listener, args.clone()))
}

async fn serve(listener: TcpListener, args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = Router::new().route("/", post(handle)).with_state(args);
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    Ok(())
}

async fn handle(State(args): State<Args>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    tokio::time::sleep(Duration::from_millis(args.delay_ms)).await;
    if rand::random::<f64>() < args.fail_rate {
        return answer(StatusCode::INTERNAL_SERVER_ERROR, "failing, as --fail-rate demands\n");
    }
    match push::decode(&headers, &body) {
        Err(error) => answer(StatusCode::BAD_REQUEST, format!("{error}\n")),
        Ok(events) => match events.as_slice() {
            [] => answer(StatusCode::BAD_REQUEST, "this is no CloudEvent\n"),
            [event] => {
                confirm(event, headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()))
            }
            _ => answer(StatusCode::PAYLOAD_TOO_LARGE, "one event at a time\n"),
        },
    }
}

fn answer(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

/// The answer to one event. Standard output is the function's log.
#[expect(clippy::print_stdout, reason = "it is what `weft function logs` shows")]
fn confirm(event: &CloudEvent, trace: Option<&str>) -> Response<Body> {
    let Some(family) = event.r#type.strip_suffix(PLACED) else {
        return answer(StatusCode::NO_CONTENT, Body::empty());
    };
    let order = match payload(event) {
        Ok(order) => order,
        Err(error) => return answer(StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")),
    };
    let first = |names: &[&str]| names.iter().find_map(|name| order.get(name)).cloned();
    let id = first(&["order_id", "orderId", "order", "id"]).unwrap_or_else(|| json!(event.id));
    let total = first(&["total", "amount"]).unwrap_or(Value::Null);
    let trace = trace.map(|trace| format!(", traceparent {trace}")).unwrap_or_default();
    println!("confirmed the order in event {}{trace}", event.id);
    let mut reply = json!({
        "specversion": "1.0",
        // The same for every attempt, so that a repeated delivery is recognised.
        "id": format!("{}/{}/confirmed", event.source, event.id),
        "source": "/weft/sample-function",
        "type": format!("{family}{CONFIRMED}"),
        "datacontenttype": "application/json",
        "data": { "order_id": id, "total": total, "status": "confirmed" },
    });
    for name in ["subject", "partitionkey"] {
        if let Some(Attr::CeString(text)) = event.attributes.get(name).and_then(|v| v.attr.as_ref())
        {
            reply[name] = json!(text);
        }
    }
    let mut response = answer(StatusCode::OK, reply.to_string());
    let content_type = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The order; an event without one is an order without details.
fn payload(event: &CloudEvent) -> Result<Value, String> {
    let bytes: &[u8] = match &event.data {
        None => return Ok(json!({})),
        Some(Data::BinaryData(bytes)) => bytes,
        Some(Data::TextData(text)) => text.as_bytes(),
        Some(Data::ProtoData(_)) => return Err("the order must be JSON".to_owned()),
    };
    serde_json::from_slice(bytes).map_err(|error| format!("the order is no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    async fn reply_to(headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), value.parse().unwrap()));
        let args = Args { port: None, fail_rate: 0.0, delay_ms: 0 };
        let response = handle(State(args), headers.collect(), Bytes::from(body.to_owned())).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    const BINARY: &[(&str, &str)] = &[
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/shop"),
        ("ce-type", "com.example.order.placed"),
        ("ce-subject", "o-1"),
        ("content-type", "application/json"),
    ];

    #[tokio::test]
    async fn a_placed_order_is_confirmed_with_the_same_id_each_time() {
        let body = r#"{"order_id":"o-1","total":12.5}"#;

        let (status, reply) = reply_to(BINARY, body).await;

        assert_eq!(status, StatusCode::OK);
        assert_eq!(reply["type"], "com.example.order.confirmed");
        assert_eq!(reply["subject"], "o-1");
        let data = json!({ "order_id": "o-1", "total": 12.5, "status": "confirmed" });
        assert_eq!(reply["data"], data);
        assert_eq!(reply_to(BINARY, body).await.1["id"], reply["id"]);
    }

    #[tokio::test]
    async fn structured_events_are_taken_and_other_types_need_no_reply() {
        let headers = [("content-type", "application/cloudevents+json")];
        let event = |ty: &str| {
            json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": ty }).to_string()
        };

        assert_eq!(reply_to(&headers, &event("a.order.placed")).await.0, StatusCode::OK);
        assert_eq!(reply_to(&headers, &event("a.other")).await.0, StatusCode::NO_CONTENT);
    }

    #[tokio::test]
    async fn what_is_no_order_is_refused() {
        assert_eq!(reply_to(&[], "{}").await.0, StatusCode::BAD_REQUEST);
        assert_eq!(reply_to(BINARY, "nonsense").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
}
