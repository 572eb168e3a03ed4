//! Sends the requests of a flow, by the same rules as webhooks: vetted addresses, no redirects, no
//! repetition, bounded answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::Response;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use weft_proto::Name;
use weft_proto::resource::{SecretRef, WebhookUrl};

use crate::clock;
use crate::flow::{ANSWER_BYTES_MAX, Answer, HttpRequest};
use crate::push::{self, Connections, Failure, Verdict};
use crate::webhook::{Dialer, Outside, Secrets};

/// Whoever is called by one flow.
#[derive(Debug)]
pub(crate) struct Caller {
    outside: Arc<Outside>,
    namespace: Name,
    tasks: TaskTracker,
    /// By scheme, host and port: as many as the steps of a flow name.
    connections: Mutex<BTreeMap<(bool, String), Arc<Connections>>>,
    /// By the name of the file.
    secrets: Mutex<BTreeMap<String, Arc<Secrets>>>,
}

impl Caller {
    /// Calls for a function of a namespace, whose secrets it may show. Connections live on `tasks`.
    pub(crate) fn new(outside: Arc<Outside>, namespace: Name, tasks: TaskTracker) -> Self {
        let (connections, secrets) = (Mutex::default(), Mutex::default());
        Self { outside, namespace, tasks, connections, secrets }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection; whoever was called may have seen the request.
    pub(crate) async fn call(&self, request: HttpRequest) -> Answer {
        let deadline = Instant::now() + request.timeout;
        let connections = self.connections(&request.url);
        let reads_answer = request.reads_answer;
        let request = match self.prepare(request).await {
            Ok(request) => request,
            Err(error) => return Answer::NotSent(error),
        };
        let (response, connection) = match connections.send(request, deadline).await {
            Ok(sent) => sent,
            Err(Failure::NotSent(error)) => return Answer::NotSent(error),
            Err(Failure::Broken(error)) => return Answer::Broken(error),
            Err(Failure::TimedOut) => return Answer::TimedOut,
        };
        let (answer, is_reusable) = read(response, reads_answer, deadline).await;
        if is_reusable {
            connections.keep(connection);
        }
        answer
    }

    fn connections(&self, url: &WebhookUrl) -> Arc<Connections> {
        let key = (url.is_plain(), url.authority().to_owned());
        let mut known = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = known.entry(key).or_insert_with(|| {
            let dialer = Dialer::new(url.clone(), Arc::clone(&self.outside));
            Arc::new(Connections::by(Box::new(dialer), self.tasks.clone()))
        });
        Arc::clone(connections)
    }

    async fn prepare(&self, request: HttpRequest) -> Result<Request<Full<Bytes>>, String> {
        let mut headers = request.headers;
        let host = HeaderValue::from_str(request.url.authority());
        headers.insert(HOST, host.map_err(|error| format!("no host: {error}"))?);
        let agent = concat!("weft/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(secret) = request.authorization {
            let shown = self.secrets(&secret).shown().await?;
            if let Some(value) = &shown.authorization {
                headers.insert(AUTHORIZATION, value.clone());
            }
        }
        let mut prepared = Request::new(Full::new(request.body));
        *prepared.method_mut() = request.method;
        let path = request.url.path().parse();
        *prepared.uri_mut() = path.map_err(|error| format!("the path cannot be sent: {error}"))?;
        *prepared.headers_mut() = headers;
        Ok(prepared)
    }

    fn secrets(&self, secret: &SecretRef) -> Arc<Secrets> {
        let mut known = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets = known.entry(secret.file.clone()).or_insert_with(|| {
            let folder = self.outside.secrets().cloned();
            Arc::new(Secrets::new(folder, &self.namespace, Some(secret.clone()), Vec::new()))
        });
        Arc::clone(secrets)
    }
}

/// Reads an answer, and of its body no more than matters.
async fn read(
    response: Response<Incoming>,
    reads_answer: bool,
    deadline: Instant,
) -> (Answer, bool) {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    let retry_after = match push::read_status(parts.status, &parts.headers, clock::now()) {
        Verdict::Throttled { retry_after } => retry_after,
        _ => None,
    };
    let answered = |body| Answer::Answered { status, retry_after, body };
    if !reads_answer || !parts.status.is_success() {
        return (answered(Some(Bytes::new())), push::discard(body).await.1);
    }
    match timeout_at(deadline, Limited::new(body, ANSWER_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => (answered(Some(body.to_bytes())), true),
        Ok(Err(error)) if error.is::<LengthLimitError>() => (answered(None), false),
        Ok(Err(error)) => (Answer::Broken(format!("within the answer: {error}")), false),
        Err(_) => (Answer::TimedOut, false),
    }
}
