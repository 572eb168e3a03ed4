//! One receiver: asks it for consent, sends it requests, and says what came of each.
//!
//! *Never* follows a redirect, repeats a request by itself, or shows anybody what the receiver wrote:
//! who defines a webhook shall not read by it what only the dispatcher can reach.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Response;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use weft_proto::resource::{WebhookMode, WebhookUrl};

use super::Outside;
use super::dial::Dialer;
use super::secret::Secrets;
use super::sign::sign;
use crate::clock;
use crate::egress::consent;
use crate::push::payload::{self, Untaken};
use crate::push::{self, Connections, Failure, REPLY_BYTES_MAX, Verdict};

/// Longest wait for the answer to the question for consent.
const CONSENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Taken, but for these.
    Done(Vec<Untaken>),
    /// Not now; it says how long.
    Throttled(Option<Duration>),
    /// Failed in a way that may pass.
    Failed,
    /// The same, for lack of time.
    TimedOut,
    /// The receiver never saw it.
    NotReceived,
    /// The receiver is gone.
    Gone,
    /// Too much at once.
    TooLarge,
    /// Refused for good.
    Refused,
    /// It can never be sent.
    Unsendable,
}

impl Outcome {
    /// In a word.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Throttled(_) => "throttled",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::NotReceived => "not received",
            Self::Gone => "gone",
            Self::TooLarge => "too large",
            Self::Refused => "refused",
            Self::Unsendable => "unsendable",
        }
    }
}

/// What came of a request, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Posted {
    pub(super) outcome: Outcome,
    /// A sentence, unless all went well.
    pub(super) error: String,
    /// What was answered.
    pub(super) status: Option<u16>,
}

impl Posted {
    fn unanswered(outcome: Outcome, error: String) -> Self {
        Self { outcome, error, status: None }
    }
}

/// One receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    url: WebhookUrl,
    outside: Arc<Outside>,
    secrets: Secrets,
    connections: Connections,
}

impl Receiver {
    pub(super) fn new(
        url: WebhookUrl,
        outside: Arc<Outside>,
        secrets: Secrets,
        tasks: TaskTracker,
    ) -> Self {
        let dialer = Dialer::new(url.clone(), Arc::clone(&outside));
        Self { url, outside, secrets, connections: Connections::by(Box::new(dialer), tasks) }
    }

    /// Asks whether it may be sent to.
    pub(super) async fn ask(&self, wished: Option<u32>) -> consent::Answer {
        let mut headers = HeaderMap::new();
        if let Some(wished) = wished {
            headers.insert(consent::REQUEST_RATE, HeaderValue::from(wished));
        }
        let request = match self.request(Method::OPTIONS, headers, Bytes::new()) {
            Ok(request) => request,
            Err(error) => return consent::Answer::Unclear(error),
        };
        let deadline = Instant::now() + CONSENT_TIMEOUT;
        match self.connections.send(request, deadline).await {
            Err(failure) => consent::Answer::Unclear(describe(failure, CONSENT_TIMEOUT)),
            Ok((response, connection)) => {
                let (parts, body) = response.into_parts();
                if push::discard(body).await.1 {
                    self.connections.keep(connection);
                }
                consent::read(parts.status, &parts.headers, &self.outside.origin, wished)
            }
        }
    }

    /// Sends events in one request.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection; the receiver may have seen the events.
    pub(super) async fn post(
        &self,
        mode: WebhookMode,
        events: &[Bytes],
        delivery: &push::Delivery,
    ) -> Posted {
        let prepared = match payload::encode(mode, events) {
            Ok(prepared) => prepared,
            Err(error) => return Posted::unanswered(Outcome::Unsendable, error),
        };
        let request = match self.prepare(prepared, delivery).await {
            Ok(request) => request,
            Err(error) => return Posted::unanswered(Outcome::NotReceived, error),
        };
        let deadline = Instant::now() + delivery.timeout;
        let (response, connection) = match self.connections.send(request, deadline).await {
            Ok(sent) => sent,
            Err(failure) => {
                let outcome = match failure {
                    Failure::NotSent(_) => Outcome::NotReceived,
                    Failure::Broken(_) => Outcome::Failed,
                    Failure::TimedOut => Outcome::TimedOut,
                };
                return Posted::unanswered(outcome, describe(failure, delivery.timeout));
            }
        };
        let is_batch = matches!(mode, WebhookMode::Batch(_));
        let status = Some(response.status().as_u16());
        let (outcome, error, is_reusable) = read(response, is_batch, deadline).await;
        if is_reusable {
            self.connections.keep(connection);
        }
        Posted { outcome, error, status }
    }

    /// A request with everything that goes with events.
    async fn prepare(
        &self,
        (mut headers, body): (HeaderMap, Bytes),
        delivery: &push::Delivery,
    ) -> Result<Request<Full<Bytes>>, String> {
        let shown = self.secrets.shown().await?;
        push::accompany(&mut headers, delivery)?;
        let seconds = clock::now().as_micros() / 1_000_000;
        sign(&mut headers, &shown.keys, &delivery.id, seconds, &body)?;
        if let Some(value) = &shown.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        self.request(Method::POST, headers, body)
    }

    fn request(
        &self,
        method: Method,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_error| format!("{text:?} is no value of a header"))
        };
        headers.insert(HOST, value(self.url.authority())?);
        headers.insert(consent::REQUEST_ORIGIN, value(&self.outside.origin)?);
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("weft/", env!("CARGO_PKG_VERSION"))),
        );
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let path = self.url.path().parse();
        *request.uri_mut() = path.map_err(|error| format!("the path cannot be sent: {error}"))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn describe(failure: Failure, limit: Duration) -> String {
    match failure {
        Failure::NotSent(error) => error,
        Failure::Broken(error) => format!("the connection broke: {error}"),
        Failure::TimedOut => format!("no answer within {} ms", limit.as_millis()),
    }
}

/// Reads an answer, and of its body no more than matters.
async fn read(
    response: Response<Incoming>,
    is_batch: bool,
    deadline: Instant,
) -> (Outcome, String, bool) {
    let (parts, body) = response.into_parts();
    let outcome = match push::read_status(parts.status, &parts.headers, clock::now()) {
        Verdict::Done if is_batch => return read_batch(body, deadline).await,
        Verdict::Done => Outcome::Done(Vec::new()),
        Verdict::Throttled { retry_after } => Outcome::Throttled(retry_after),
        Verdict::Failed => Outcome::Failed,
        Verdict::Gone => Outcome::Gone,
        Verdict::TooLarge => Outcome::TooLarge,
        Verdict::Refused => Outcome::Refused,
    };
    let is_reusable = push::discard(body).await.1;
    let error = match outcome {
        Outcome::Done(_) => String::new(),
        _ if parts.status.is_redirection() => {
            format!("answered {}; redirects are not followed", parts.status.as_u16())
        }
        _ => format!("answered {}", parts.status.as_u16()),
    };
    (outcome, error, is_reusable)
}

async fn read_batch(body: Incoming, deadline: Instant) -> (Outcome, String, bool) {
    match timeout_at(deadline, Limited::new(body, REPLY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => {
            let untaken = payload::untaken(&body.to_bytes());
            let error = match untaken.len() {
                0 => String::new(),
                count => format!("{count} events of a batch were not taken"),
            };
            (Outcome::Done(untaken), error, true)
        }
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let error = format!("the answer has more than {REPLY_BYTES_MAX} bytes");
            (Outcome::Failed, error, false)
        }
        Ok(Err(_error)) => {
            (Outcome::Failed, "the connection broke within the answer".to_owned(), false)
        }
        Err(_) => (Outcome::TimedOut, "the body of the answer came too late".to_owned(), false),
    }
}
