//! Events that come as CloudEvents over HTTP: decoded, and appended as any others.
//!
//! *Never* has rules of its own: what may be published, and where it goes, is found out where gRPC
//! finds it out.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use weft_proto::event::message::{self, Mode};
use weft_proto::trace::TraceContext;
use weft_proto::{Error, QualifiedName, Result as Done, v1};

use super::follow::name;
use super::problem::{Problem, Refusal, receipt, refused};
use super::{Call, Services, json};
use crate::rpc::Whole;

/// Of a body: text is longer than what is stored of it, whose limits answer first.
pub(super) const BODY_BYTES_MAX: usize = 2 << 20;

/// Appends events to a stream.
pub(super) async fn publish(services: &Services, call: Call) -> Result<Response, Problem> {
    let stream = name(call.name(0), "stream")?;
    let receipts = append(services, call, &stream).await?;
    let receipts: Vec<_> = receipts.iter().map(receipt).collect();
    // What is taken in, and no reply: senders of Knative take events out of answers with 200.
    Ok(json(StatusCode::ACCEPTED, serde_json::Value::from(receipts).to_string()))
}

/// Reads the events of a request and appends them; how each was stored.
pub(super) async fn append(
    services: &Services,
    call: Call,
    stream: &QualifiedName,
) -> Result<Vec<v1::Receipt>, Problem> {
    let Call { caller, headers, body, taken: _open, .. } = call;
    // Whoever may not publish is not read.
    let stream = services.publish.open(&caller, stream)?;
    let mode = mode(&headers)?;
    let read = services.bodies.read(body, BODY_BYTES_MAX).await?;
    let events = events(mode, &headers, &read.bytes)?;
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let trace = TraceContext::of_headers(lines);
    let results = match services.publish.whole(&caller, &stream, events, trace).await? {
        Whole::Stored(receipts) => return Ok(receipts),
        Whole::Refused(errors) => return Err(refusal(mode, &errors)),
        Whole::Parted(results) => results,
    };
    Err(parted(&results))
}

/// How the message carries events.
fn mode(headers: &HeaderMap) -> Result<Mode, Problem> {
    let coding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let detail = "the body is compressed; this port takes it as it is";
        return Err(Problem::refusal(Refusal::UnsupportedMediaType, detail));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let content_type = types.next().map(HeaderValue::as_bytes);
    if types.next().is_some() {
        return Err(Error::invalid("the message has more than one content type").into());
    }
    Mode::of(content_type).ok_or_else(|| {
        let detail = "a format of CloudEvents that is not known here; there are \
                      application/cloudevents and application/cloudevents-batch, each with +json \
                      or +protobuf, and headers that begin with ce- beside any other media type";
        Problem::refusal(Refusal::UnsupportedMediaType, detail)
    })
}

fn events(mode: Mode, headers: &HeaderMap, body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut events = Vec::new();
    let mut wrong = Vec::new();
    let read: Vec<Done<Bytes>> = message::read(mode, lines, body)?;
    for (index, event) in read.into_iter().enumerate() {
        match event {
            Ok(event) => events.push(event),
            Err(error) => wrong.push((index, error)),
        }
    }
    if wrong.is_empty() { Ok(events) } else { Err(refusal(mode, &wrong)) }
}

/// What is wrong: with the event, or with which events of a batch.
fn refusal(mode: Mode, errors: &[(usize, Error)]) -> Problem {
    let of_one = match (mode, errors) {
        (Mode::Structured(_) | Mode::Binary, [(_, error)]) => Some(Problem::from(error)),
        _ => Problem::of_events(errors),
    };
    of_one.unwrap_or_else(|| Error::internal("a refusal without a reason").into())
}

/// Some events may be stored: the request may be sent again as a whole.
fn parted(results: &[Done<v1::Receipt>]) -> Problem {
    let failed = || results.iter().filter_map(|result| result.as_ref().err());
    let first = failed().find(|error| error.is_retryable()).or_else(|| failed().next());
    let Some(error) = first else { return Error::internal("a failure without a reason").into() };
    let told = results.iter().map(|result| match result {
        Ok(stored) => receipt(stored),
        Err(error) => refused(error),
    });
    Problem::from(error).with_open_fate().with_results(told.collect())
}

/// The empty answer of clients that only look at the status.
pub(super) fn empty() -> Response {
    let mut response = Response::new(Body::from("{}"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
