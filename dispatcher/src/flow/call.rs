//! Requests of enrich and bridge, and what their answers mean.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use weft_proto::QualifiedName;
use weft_proto::event::to_json;
use weft_proto::resource::flow::{
    BridgeBody, BridgeMethod, BridgeStep, EnrichStep, Pointer, Template,
};
use weft_proto::resource::{SecretRef, WebhookUrl};

use super::failure::Failure;
use super::parts::{Parts, digest, put, read_json};
use super::render::{Escape, JsonTemplate, Scope};
use crate::delivery::Outcome;
use crate::push;

/// Most bytes of an answer that is read.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Why it fails, in a word.
const REASON: &str = "request";

/// A request that the caller sends.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// How.
    pub method: Method,
    /// Where to.
    pub url: WebhookUrl,
    /// Headers, but for host, length and authorization.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The file that holds the value of the header `authorization`.
    pub authorization: Option<SecretRef>,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether the body of a good answer matters.
    pub reads_answer: bool,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Somebody answered.
    Answered {
        /// The status.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
        /// The body, if it matters; `None` when it is longer than [`ANSWER_BYTES_MAX`].
        body: Option<Bytes>,
    },
    /// Nobody can have seen the request.
    NotSent(String),
    /// Somebody may have seen it; the connection broke.
    Broken(String),
    /// Somebody may have seen it; no answer in time.
    TimedOut,
}

/// A call, ready for use.
#[derive(Debug)]
pub(super) struct Call {
    url: Template,
    authority: String,
    method: Method,
    headers: Vec<(HeaderName, Template)>,
    body: Body,
    authorization: Option<SecretRef>,
    into: Option<Vec<String>>,
    is_enrich: bool,
}

#[derive(Debug)]
enum Body {
    None,
    Binary,
    Structured,
    Data,
    Template(JsonTemplate),
}

impl Call {
    pub(super) fn enrich(spec: &EnrichStep) -> Result<Self, String> {
        let url = Template::parse(&spec.url)?;
        Ok(Self {
            authority: authority(&spec.url)?,
            url,
            method: Method::GET,
            headers: headers(&spec.headers)?,
            body: Body::None,
            authorization: spec.authorization.clone(),
            into: Some(Pointer::parse(&spec.into)?.steps().collect()),
            is_enrich: true,
        })
    }

    pub(super) fn bridge(spec: &BridgeStep) -> Result<Self, String> {
        let into = spec.into.as_deref().map(Pointer::parse).transpose()?;
        Ok(Self {
            url: Template::parse(&spec.url)?,
            authority: authority(&spec.url)?,
            method: match spec.method {
                BridgeMethod::Post => Method::POST,
                BridgeMethod::Put => Method::PUT,
                BridgeMethod::Patch => Method::PATCH,
                BridgeMethod::Delete => Method::DELETE,
                BridgeMethod::Get => Method::GET,
            },
            headers: headers(&spec.headers)?,
            body: match &spec.body {
                BridgeBody::None => Body::None,
                BridgeBody::Binary => Body::Binary,
                BridgeBody::Structured => Body::Structured,
                BridgeBody::Data => Body::Data,
                BridgeBody::Template(json) => Body::Template(JsonTemplate::new(json)?),
            },
            authorization: spec.authorization.clone(),
            into: into.map(|into| into.steps().collect()),
            is_enrich: false,
        })
    }

    /// The request for an event.
    pub(super) fn request(
        &self,
        event: &Bytes,
        (function, step): (&QualifiedName, &str),
        timeout: Duration,
    ) -> Result<HttpRequest, Failure> {
        let scope = Scope::new(event)?;
        let (mut headers, body) = self.body(event, &scope)?;
        for (name, template) in &self.headers {
            let text = scope.text(template, Escape::Nothing)?;
            let value = HeaderValue::from_str(&text).map_err(|_error| {
                Failure::permanent("template", format!("{text:?} is no value of a header"))
            })?;
            headers.insert(name.clone(), value);
        }
        if !self.is_enrich {
            // The same for every attempt: whoever is called can tell repetitions.
            let view = scope.view();
            let key = digest(&[&function.to_string(), step, view.source, view.id]);
            if let Ok(value) = HeaderValue::from_str(&key) {
                headers.insert(HeaderName::from_static("idempotency-key"), value);
            }
        }
        Ok(HttpRequest {
            method: self.method.clone(),
            url: self.address(&scope)?,
            headers,
            body,
            authorization: self.authorization.clone(),
            timeout,
            reads_answer: self.into.is_some(),
        })
    }

    /// What an event decides is never who is called, nor a way up the path.
    fn address(&self, scope: &Scope<'_>) -> Result<WebhookUrl, Failure> {
        let text = scope.text(&self.url, Escape::Address)?;
        let wrong = |what: &str| Failure::permanent("template", format!("the address {what}"));
        let url = WebhookUrl::parse(&text).map_err(wrong)?;
        if url.authority() != self.authority {
            return Err(wrong("leads elsewhere"));
        }
        let path = url.path().split('?').next().unwrap_or_default();
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(wrong("goes up its path"));
        }
        Ok(url)
    }

    fn body(&self, event: &Bytes, scope: &Scope<'_>) -> Result<(HeaderMap, Bytes), Failure> {
        let typed = |ty: &str, body: Bytes| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_str(ty);
            let value =
                value.unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
            headers.insert(http::header::CONTENT_TYPE, value);
            (headers, body)
        };
        Ok(match &self.body {
            Body::None => (HeaderMap::new(), Bytes::new()),
            Body::Binary => {
                push::binary(event).map_err(|error| Failure::permanent(REASON, error))?
            }
            Body::Structured => {
                let ty = "application/cloudevents+json; charset=utf-8";
                typed(ty, to_json(scope.view()).into())
            }
            Body::Data => {
                let (headers, body) =
                    push::binary(event).map_err(|error| Failure::permanent(REASON, error))?;
                let ty = headers.get(http::header::CONTENT_TYPE);
                let ty = ty.and_then(|ty| ty.to_str().ok()).unwrap_or("application/json");
                typed(ty, body)
            }
            Body::Template(template) => {
                typed("application/json", scope.json(template)?.to_string().into())
            }
        })
    }

    /// The event with a good answer in it.
    pub(super) fn merge(
        &self,
        event: &Bytes,
        answer: &Bytes,
        derive: impl FnOnce(&mut Parts),
    ) -> Result<Bytes, Failure> {
        let Some(into) = &self.into else { return Ok(event.clone()) };
        let value = if answer.is_empty() { Value::Null } else { read_answer(answer)? };
        let mut parts = Parts::read(event)?;
        let mut data = parts.json()?;
        put(&mut data, into, value).map_err(|error| Failure::permanent("answer", error))?;
        parts.set_json(&data, "answer")?;
        derive(&mut parts);
        parts.encode("answer")
    }
}

fn read_answer(answer: &Bytes) -> Result<Value, Failure> {
    read_json(answer).map_err(|_failure| Failure::permanent("answer", "the answer is no JSON"))
}

/// What an answer means: the body of a good one. The classes are those of functions and webhooks.
pub(super) fn read(answer: Answer, timeout: Duration) -> Result<Bytes, Failure> {
    let (status, retry_after, body) = match answer {
        Answer::Answered { status, retry_after, body } => (status, retry_after, body),
        Answer::NotSent(error) => {
            return Err(Failure::transient(Outcome::NotReceived, REASON, error));
        }
        Answer::Broken(error) => {
            let message = format!("the connection broke: {error}");
            return Err(Failure::transient(Outcome::Failed, REASON, message));
        }
        Answer::TimedOut => {
            let message = format!("no answer within {} ms", timeout.as_millis());
            return Err(Failure::transient(Outcome::TimedOut, "timeout", message));
        }
    };
    let message = format!("answered {status}");
    match status {
        200..=299 => body.ok_or_else(|| {
            let message = format!("the answer has more than {ANSWER_BYTES_MAX} bytes");
            Failure::permanent("answer", message)
        }),
        429 => Err(Failure::transient(Outcome::Throttled { retry_after }, REASON, message)),
        503 if retry_after.is_some() => {
            Err(Failure::transient(Outcome::Throttled { retry_after }, REASON, message))
        }
        404 | 408 | 409 | 425 | 500..=599 => {
            Err(Failure::transient(Outcome::Failed, REASON, message))
        }
        300..=399 => {
            Err(Failure::permanent("refused", format!("{message}; redirects are not followed")))
        }
        _ => Err(Failure::permanent("refused", message)),
    }
}

/// Whether whoever was called may have done what it was asked for.
pub(super) fn may_be_done(failure: &Failure) -> bool {
    matches!(failure.outcome, Outcome::Failed | Outcome::TimedOut) || failure.reason == "answer"
}

fn headers(spec: &BTreeMap<String, String>) -> Result<Vec<(HeaderName, Template)>, String> {
    let header = |(name, text): (&String, &String)| {
        let name = name.parse().map_err(|_error| format!("{name:?} is no name of a header"))?;
        Ok((name, Template::parse(text)?))
    };
    spec.iter().map(header).collect()
}

/// Host and port, which no hole can change.
fn authority(url: &str) -> Result<String, String> {
    let base = url.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find(['/', '{']).unwrap_or(rest.len());
        Some(format!("{scheme}://{}/", rest.get(..end)?))
    });
    let base = base.ok_or_else(|| "the address is none".to_owned())?;
    let base = WebhookUrl::parse(&base).map_err(|error| format!("the address {error}"))?;
    Ok(base.authority().to_owned())
}
