//! Events to one instance, and their replies to their stream, before anything is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use weft_proto::event::EventView;
use weft_proto::trace::{Role, Span, TraceContext, Tracer};
use weft_proto::{Error, ErrorKind, QualifiedName, Reason};

use crate::delivery::{InstanceId, Outcome, PushId, Random, Ticket, backoff_max};
use crate::port::Mesh;
use crate::push::{Delivery, Target};

/// Longest wait until replies are stored; the event is then tried again later.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pause after the first failure to store replies; doubles with each further one.
const PAUSE_BASE: Duration = Duration::from_millis(50);
const PAUSE_CAP: Duration = Duration::from_secs(1);

/// Everything one push needs.
pub(super) struct Push {
    pub(super) id: PushId,
    pub(super) instance: InstanceId,
    pub(super) target: Arc<Target>,
    /// The first of them.
    pub(super) ticket: Ticket,
    pub(super) events: Vec<Bytes>,
    pub(super) delivery: Delivery,
    pub(super) function: QualifiedName,
    pub(super) reply_to: Option<QualifiedName>,
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) tracer: Tracer,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) id: PushId,
    pub(super) instance: InstanceId,
    pub(super) ticket: Ticket,
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
    pub(super) replies: usize,
    pub(super) took: Duration,
}

pub(super) async fn deliver(mut push: Push) -> Pushed {
    let started = Instant::now();
    let mut span = begin(&mut push);
    let answer = push.target.push(&push.events, &push.delivery, &push.function).await;
    let mut pushed = Pushed {
        id: push.id,
        instance: push.instance,
        ticket: push.ticket,
        outcome: answer.outcome,
        error: answer.error,
        replies: 0,
        took: started.elapsed(),
    };
    if let Some(error) = &pushed.error {
        span.fail(|| error.clone());
    }
    let Some(stream) = push.reply_to.filter(|_| !answer.replies.is_empty()) else { return pushed };
    let count = answer.replies.len();
    let random = Random::new(push.delivery.offset);
    match publish(push.mesh.as_ref(), &stream, answer.replies, random).await {
        Ok(()) => pushed.replies = count,
        Err(error) => {
            // What can never be stored blocks the event; anything else is our trouble, not the
            // function's, and burns no attempt.
            pushed.outcome = match error.kind() {
                ErrorKind::Invalid => Outcome::Refused,
                _ => Outcome::ReplyFailed,
            };
            let message = error.message();
            let error = format!("the reply could not be stored in {stream}: {message}");
            span.fail(|| error.clone());
            pushed.error = Some(error);
        }
    }
    pushed
}

/// Begins the span of a push, and says to the function what comes before its own: that span, or, if
/// nobody records it, the one in which the event began.
fn begin(push: &mut Push) -> Span {
    let first = push.events.first().cloned().unwrap_or_default();
    let began = EventView::parse(&first).and_then(|event| TraceContext::of_event(&event));
    let mut span = push.tracer.begin("push", Role::Client, || began.clone());
    let delivery = &push.delivery;
    span.text("faas.invoked_name", || push.function.to_string());
    span.text("messaging.destination.partition.id", || delivery.partition.to_string());
    span.number("weft.offset", delivery.offset);
    span.number("weft.attempt", delivery.attempt.into());
    if push.events.len() > 1 {
        span.number("messaging.batch.message_count", push.events.len() as u64);
    }
    if let Some(event) = EventView::parse(&first) {
        span.text("cloudevents.event_id", || event.id.to_owned());
        span.text("cloudevents.event_source", || event.source.to_owned());
        span.text("cloudevents.event_type", || event.ty.to_owned());
    }
    let state = || began.as_ref().and_then(TraceContext::tracestate).map(str::to_owned);
    let own = span.context().map(|own| TraceContext::new(own, state()));
    push.delivery.trace = own.or(began);
    span
}

/// Stores replies; what cannot be stored at present is tried again for a while. The function has
/// done its work: calling it once more because a leader changes would repeat what it did.
async fn publish(
    mesh: &dyn Mesh,
    stream: &QualifiedName,
    mut replies: Vec<Bytes>,
    mut random: Random,
) -> Result<(), Error> {
    let until = Instant::now() + PUBLISH_TIMEOUT;
    let late = |_| Error::new(Reason::DeadlineExceeded, "no answer in time");
    let mut failures = 0;
    loop {
        let published = timeout_at(until, mesh.publish(stream, replies.clone())).await;
        let error = match published.map_err(late)? {
            Ok(results) => {
                let (rest, error) = unstored(replies, results)?;
                let Some(error) = error else { return Ok(()) };
                replies = rest;
                error
            }
            Err(error) if error.is_retryable() => error,
            Err(error) => return Err(error),
        };
        failures += 1;
        let high = backoff_max(PAUSE_BASE, PAUSE_CAP, failures);
        let pause = random.between(high / 2, high).max(error.retry_after().unwrap_or_default());
        if Instant::now() + pause >= until {
            return Err(error);
        }
        sleep(pause).await;
    }
}

/// The replies that may be stored later, and why they were not; fails when one never can be.
fn unstored(
    replies: Vec<Bytes>,
    results: Vec<Result<(), Error>>,
) -> Result<(Vec<Bytes>, Option<Error>), Error> {
    let (mut rest, mut last) = (Vec::new(), None);
    for (reply, result) in replies.into_iter().zip(results) {
        match result {
            Ok(()) => {}
            // An earlier attempt stored an event with this source and id: by the rules of
            // CloudEvents it is the same event.
            Err(error) if error.reason() == Reason::AlreadyExists => {}
            Err(error) if error.is_retryable() => {
                rest.push(reply);
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((rest, last))
}
