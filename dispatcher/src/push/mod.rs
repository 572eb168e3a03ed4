//! Sends one event to one instance as a CloudEvent over HTTP/1.1 and says what came of it.
//!
//! *Owns* the connections to an instance. *Never* repeats a request by itself, follows a redirect
//! or reads more of an answer than it must: whoever answers may be hostile.

mod connection;
mod header;
pub(crate) mod payload;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod verdict;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::Response;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use weft_proto::QualifiedName;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::event::EventView;

use crate::clock;
use crate::delivery::Outcome;
pub(crate) use connection::{Connections, Dial, Failure, Stream};
pub use request::Delivery;
pub(crate) use request::{accompany, binary};
pub(crate) use verdict::{Verdict, read as read_status};

/// Reads the events of an HTTP message in any mode; none when it carries no event.
///
/// # Errors
///
/// A sentence about what is wrong with the message.
pub fn decode(headers: &HeaderMap, body: &Bytes) -> Result<Vec<CloudEvent>, String> {
    reply::read(headers, body)
}

/// Most bytes of a reply.
pub(crate) const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for the rest of a body whose content does not matter, to keep the connection.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(250);
/// Most characters of an answer that are quoted in an error.
const QUOTE_LEN: usize = 200;

/// One running instance, as seen by those who send to it.
#[derive(Debug)]
pub struct Target {
    connections: Connections,
    started: Instant,
    has_answered: AtomicBool,
}

/// What came of one push.
#[derive(Debug)]
pub struct Answer {
    /// What it means for the event.
    pub outcome: Outcome,
    /// Encoded events to publish before the cause is acknowledged.
    pub replies: Vec<Bytes>,
    /// A sentence for people when the outcome is not `Done`.
    pub error: Option<String>,
}

impl Answer {
    fn done(replies: Vec<Bytes>) -> Self {
        Self { outcome: Outcome::Done, replies, error: None }
    }

    fn failed(outcome: Outcome, error: impl Into<String>) -> Self {
        Self { outcome, replies: Vec::new(), error: Some(error.into()) }
    }
}

impl Target {
    /// An instance that listens on `address`. Connections live on `tasks`.
    pub fn new(address: SocketAddr, tasks: TaskTracker) -> Self {
        Self {
            connections: Connections::new(address, tasks),
            started: Instant::now(),
            has_answered: AtomicBool::new(false),
        }
    }

    /// Sends the events in one request and waits for the answer, at most `delivery.timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection; the function may have seen the event.
    pub async fn push(
        &self,
        events: &[Bytes],
        delivery: &Delivery,
        function: &QualifiedName,
    ) -> Answer {
        let request = match request::build(events, delivery) {
            Ok(request) => request,
            Err(error) => return Answer::failed(Outcome::Refused, error),
        };
        let deadline = Instant::now() + delivery.timeout;
        let sent = self.connections.send(request, deadline).await;
        let (response, connection) = match sent {
            Ok(sent) => sent,
            Err(failure) => return self.failed(failure, delivery.timeout),
        };
        self.has_answered.store(true, Ordering::Relaxed);
        let batch = if delivery.is_batch { events } else { &[] };
        let read = timeout_at(deadline, read(response, self.started.elapsed(), batch));
        let Ok(answer) = read.await else {
            return Answer::failed(Outcome::TimedOut, "the body of the answer came too late");
        };
        if answer.is_reusable {
            self.connections.keep(connection);
        }
        match answer.result {
            Err((outcome, error)) => Answer::failed(outcome, error),
            Ok(replies) if replies.is_empty() => Answer::done(Vec::new()),
            Ok(replies) => {
                // Of several events, the first stands for all.
                let Some(cause) = events.first().and_then(|first| EventView::parse(first)) else {
                    return Answer::failed(Outcome::Refused, "the stored bytes are no CloudEvent");
                };
                match reply::complete(replies, function, &cause, delivery.trace.as_ref()) {
                    Ok(replies) => Answer::done(replies),
                    Err(error) => Answer::failed(Outcome::Refused, error),
                }
            }
        }
    }

    fn failed(&self, failure: Failure, limit: Duration) -> Answer {
        match failure {
            Failure::NotSent(error) => {
                Answer::failed(Outcome::NotReceived, format!("cannot connect: {error}"))
            }
            Failure::TimedOut => {
                let ms = limit.as_millis();
                Answer::failed(Outcome::TimedOut, format!("no answer within {ms} ms"))
            }
            Failure::Broken(error) if self.has_answered.load(Ordering::Relaxed) => {
                Answer::failed(Outcome::Failed, format!("the connection broke: {error}"))
            }
            Failure::Broken(error) => Answer::failed(
                Outcome::Died,
                format!("the connection broke before the instance ever answered: {error}"),
            ),
        }
    }
}

struct Read {
    result: Result<Vec<CloudEvent>, (Outcome, String)>,
    is_reusable: bool,
}

async fn read(response: Response<Incoming>, age: Duration, batch: &[Bytes]) -> Read {
    let (parts, body) = response.into_parts();
    let outcome = verdict::of_status(parts.status, &parts.headers, age, clock::now());
    if outcome != Outcome::Done {
        let (text, is_reusable) = discard(body).await;
        let mut error = format!("answered {}", parts.status.as_u16());
        if !text.is_empty() {
            error.push_str(": ");
            error.push_str(&text);
        }
        return Read { result: Err((outcome, error)), is_reusable };
    }
    let has_events = reply::form(&parts.headers) != reply::Form::None;
    if parts.status == StatusCode::OK && !has_events && !batch.is_empty() {
        return read_partly(body, batch).await;
    }
    if parts.status != StatusCode::OK || !has_events {
        let (_, is_reusable) = discard(body).await;
        return Read { result: Ok(Vec::new()), is_reusable };
    }
    match Limited::new(body, REPLY_BYTES_MAX).collect().await {
        Ok(body) => {
            let result = reply::read(&parts.headers, &body.to_bytes());
            let result = result
                .map_err(|error| (Outcome::Refused, format!("the reply cannot be read: {error}")));
            Read { result, is_reusable: true }
        }
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let error = format!("the reply has more than {REPLY_BYTES_MAX} bytes");
            Read { result: Err((Outcome::Refused, error)), is_reusable: false }
        }
        Err(error) => {
            let error = format!("the connection broke within the reply: {error}");
            Read { result: Err((Outcome::Failed, error)), is_reusable: false }
        }
    }
}

/// Reads which events of a batch the function did not take.
async fn read_partly(body: Incoming, batch: &[Bytes]) -> Read {
    let Ok(body) = Limited::new(body, REPLY_BYTES_MAX).collect().await else {
        let error = format!("the answer has more than {REPLY_BYTES_MAX} bytes, or broke off");
        return Read { result: Err((Outcome::Failed, error)), is_reusable: false };
    };
    let untaken = payload::untaken(&body.to_bytes());
    let find = |event: &Bytes| untaken.iter().find(|untaken| untaken.is(event));
    let left = batch.iter().enumerate();
    let left = left.filter_map(|(place, event)| Some((place, find(event)?.retry_after())));
    let left: Vec<_> = left.collect();
    if left.is_empty() {
        return Read { result: Ok(Vec::new()), is_reusable: true };
    }
    let error = format!("{} events of the batch were not taken", left.len());
    Read { result: Err((Outcome::Partly(left), error)), is_reusable: true }
}

/// Reads a body that does not matter, so that its connection can serve again, and returns its
/// beginning for error messages.
pub(crate) async fn discard(body: Incoming) -> (String, bool) {
    if body.is_end_stream() {
        return (String::new(), true);
    }
    let whole = timeout(DISCARD_TIMEOUT, Limited::new(body, REPLY_BYTES_MAX).collect()).await;
    let Ok(Ok(body)) = whole else { return (String::new(), false) };
    let body = body.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let quotable = |c: &char| !c.is_control();
    (text.chars().filter(quotable).take(QUOTE_LEN).collect(), true)
}
