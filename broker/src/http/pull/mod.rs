//! The data plane of Event Grid namespaces, as far as its clients need it to receive and settle:
//! compatible with api-version 2024-06-01. A topic is a stream, an event subscription is a
//! subscription that several share, a lock is a lease.

mod receive;
mod settle;
mod token;

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use tokio::time::Instant;
use weft_proto::event::{self, EventView};
use weft_proto::resource::SubscriptionMode;
use weft_proto::{Error, QualifiedName, Reason, Result as Done, v1};

use self::receive::{Lent, LentBody, Receiving};
use self::settle::{Act, settle};
use self::token::Token;
#[cfg(feature = "fuzzing")]
pub use self::token::lock_again;
use super::follow::name;
use super::problem::{Problem, invalid};
use super::route::{Query, Route};
use super::{Call, Services, ingress, json};
use crate::access::{Caller, key};
use crate::ingest::Ingest;
use crate::lend::Lender;
use crate::resources::SubscriptionView;
use crate::rpc::subscribe::{allowed, may_share};
use crate::tasks::Tasks;

/// Limits of the protocol.
const EVENTS_MAX: u32 = 100;
pub(super) const WAIT_MAX: Duration = Duration::from_mins(2);
const WAIT: Duration = Duration::from_mins(1);
const DELAY_MAX: Duration = Duration::from_hours(1);
/// Locks of one request.
const TOKENS_MAX: usize = 1_000;
const BODY_BYTES_MAX: usize = 1 << 20;

/// Who settles or takes what.
#[derive(Clone)]
struct Part {
    ingest: Ingest,
    lender: Lender,
    tasks: Tasks,
    caller: Caller,
    subscription: SubscriptionView,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Locks {
    lock_tokens: Vec<String>,
}

/// Answers a request of this protocol.
pub(super) async fn answer(
    services: &Services,
    route: Route,
    call: Call,
) -> Result<Response, Problem> {
    if call.query.one("api-version")?.is_none_or(str::is_empty) {
        let message = "the query needs an api-version, as in ?api-version=2024-06-01";
        return Err(Error::invalid(message).with_field("api-version").into());
    }
    match route {
        Route::PullPublish => publish(services, call).await,
        Route::PullReceive => receive(services, call).await,
        Route::PullAcknowledge => settle_all(services, call, Act::Ack).await,
        Route::PullRelease => {
            let delay = seconds(&call.query, "releaseDelayInSeconds", Duration::ZERO, DELAY_MAX)?;
            settle_all(services, call, Act::Fail(delay)).await
        }
        Route::PullReject => settle_all(services, call, Act::Reject).await,
        Route::PullRenewLock => settle_all(services, call, Act::Extend).await,
        Route::Live
        | Route::Ready
        | Route::Metrics
        | Route::OpenApi
        | Route::PublishEvents
        | Route::FollowEvents => Err(Error::internal("this is no request to pull").into()),
    }
}

async fn publish(services: &Services, call: Call) -> Result<Response, Problem> {
    let topic = tenants(&call.caller, call.name(0), "topic")?;
    ingress::append(services, call, &topic).await?;
    Ok(ingress::empty())
}

async fn receive(services: &Services, call: Call) -> Result<Response, Problem> {
    let events = match call.query.one("maxEvents")? {
        None => 1,
        Some(text) => match text.parse() {
            Ok(events @ 1..=EVENTS_MAX) => events,
            _ => return Err(outside("maxEvents", &format!("1 to {EVENTS_MAX}")).into()),
        },
    };
    let wait = seconds(&call.query, "maxWaitTime", WAIT, WAIT_MAX)?;
    let caller = call.caller.clone().standing();
    let part = part(services, &call, caller.clone())?;
    let mut receiving = Receiving::new(part, key::random()?);
    let asked = receiving.ask(events, Instant::now() + wait);
    tokio::select! {
        biased;
        asked = asked => asked?,
        error = caller.clone().until_lost() => return Err(error.into()),
        () = services.stop.cancelled() => {
            return Err(Error::unavailable("this node is stopping").with_not_applied().into());
        }
    }
    let (lent, unsent) = receiving.kept();
    let text = lent_out(&lent);
    let wait = caller.meter().read(&caller.limits(), text.len() as u64);
    // The answer goes to whoever waits for it, and later if much went before.
    let body = LentBody::new(text, unsent);
    tokio::time::sleep(wait).await;
    let mut response = json(StatusCode::OK, String::new());
    *response.body_mut() = Body::new(body);
    Ok(response)
}

fn lent_out(lent: &[Lent]) -> String {
    let bytes: usize = lent.iter().map(|one| one.event.len()).sum();
    let mut text = String::with_capacity(bytes + lent.len() * 512 + 16);
    text.push_str("{\"value\":[");
    for (place, Lent { token, event }) in lent.iter().enumerate() {
        // What is stored was an event when it came.
        let event =
            EventView::parse(event).map_or_else(|| "null".to_owned(), |view| event::to_json(&view));
        let comma = if place == 0 { "" } else { "," };
        let (lock, count) = (token.encode(), token.attempt);
        text.push_str(comma);
        _ = write!(
            text,
            "{{\"brokerProperties\":{{\"lockToken\":\"{lock}\",\"deliveryCount\":{count}}},\"event\":"
        );
        text.push_str(&event);
        text.push('}');
    }
    text.push_str("]}");
    text
}

async fn settle_all(services: &Services, call: Call, act: Act) -> Result<Response, Problem> {
    let part = part(services, &call, call.caller.clone())?;
    let read = services.bodies.read(call.body, BODY_BYTES_MAX).await?;
    let locks: Locks = serde_json::from_slice(&read.bytes).map_err(|error| {
        let message = format!("the body must be {{\"lockTokens\": [\"...\"]}}: {error}");
        Error::invalid(message).with_field("lockTokens")
    })?;
    let texts = locks.lock_tokens;
    if texts.len() > TOKENS_MAX {
        let message = format!("{} locks are more than {TOKENS_MAX}", texts.len());
        return Err(Error::new(Reason::TooLarge, message).with_field("lockTokens").into());
    }
    let uid = part.subscription.uid.get();
    let partitions = part.subscription.stream.partitions();
    let own = |text: &String| {
        let token = Token::decode(text)?;
        (token.subscription == uid && token.partition < partitions).then_some(token)
    };
    let tokens: Vec<Option<Token>> = texts.iter().map(own).collect();
    let known: Vec<Token> = tokens.iter().flatten().cloned().collect();
    let mut refused = settle(&part, &known, &act).await?.into_iter();
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    for (text, token) in texts.into_iter().zip(tokens) {
        let why = match token {
            None => Some(("LockInvalid", "this is no lock of the subscription")),
            Some(_) => refused.next().flatten().map(told),
        };
        match why {
            None => succeeded.push(text),
            Some((code, message)) => failed.push(serde_json::json!({
                "lockToken": text, "error": {"code": code, "message": message},
            })),
        }
    }
    let told = serde_json::json!({"succeededLockTokens": succeeded, "failedLockTokens": failed});
    Ok(json(StatusCode::OK, told.to_string()))
}

fn told(why: v1::Refused) -> (&'static str, &'static str) {
    match why {
        v1::Refused::Expired | v1::Refused::SettledBefore => (
            "LockExpired",
            "the lock ended before: its event is or was delivered again, or given up",
        ),
        v1::Refused::Fenced => {
            ("LockLost", "somebody else holds the event, or the subscription was moved")
        }
        v1::Refused::Unknown | v1::Refused::Unspecified => {
            ("LockUnknown", "the lock was never given, or ended too long ago")
        }
    }
}

/// The subscription of a request, if its caller may be a member.
fn part(services: &Services, call: &Call, caller: Caller) -> Done<Part> {
    let topic = tenants(&caller, call.name(0), "topic")?;
    let name = tenants(&caller, call.name(1), "subscription")?;
    let (subscription, visible) = allowed(&services.ingest, &caller, &name)?;
    may_share(&visible)?;
    if subscription.stream.name != topic {
        let message = format!("there is no Subscription {name} of the stream {topic}");
        return Err(Error::new(Reason::UnknownResource, message));
    }
    if subscription.mode == SubscriptionMode::Exclusive {
        let message = format!(
            "the subscription {name} is exclusive; events are lent by those whose mode is shared \
             or key-shared"
        );
        return invalid("subscription", message);
    }
    let (ingest, lender, tasks) =
        (services.ingest.clone(), services.lender.clone(), services.tasks.clone());
    Ok(Part { ingest, lender, tasks, caller, subscription })
}

/// A name; without a namespace, it is one of the caller's.
fn tenants(caller: &Caller, text: &str, field: &'static str) -> Done<QualifiedName> {
    let named = name(text, field)?;
    let own = caller.principal().name().strip_prefix("key:").and_then(|key| key.split_once('/'));
    match own {
        Some((namespace, _)) if !text.contains('/') && namespace != "weft-system" => {
            name(&format!("{namespace}/{text}"), field)
        }
        _ => Ok(named),
    }
}

fn seconds(query: &Query, name: &'static str, default: Duration, most: Duration) -> Done<Duration> {
    let Some(text) = query.one(name)? else { return Ok(default) };
    let parsed = text.parse().ok().map(Duration::from_secs).filter(|given| *given <= most);
    parsed.ok_or_else(|| outside(name, &format!("0 to {} seconds", most.as_secs())))
}

fn outside(name: &'static str, range: &str) -> Error {
    Error::invalid(format!("{name} is a whole number, {range}")).with_field(name)
}
