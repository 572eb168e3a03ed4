//! Errors as this port tells them: problem details of RFC 9457, with what a program needs to know.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use weft_proto::{Error, ErrorKind, Reason, Result, v1};

use crate::access::whole_seconds;

/// Before something is tried again that did not say when.
const RETRY_AFTER: Duration = Duration::from_secs(1);

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal;)*) => {
        /// What this port refuses by itself, beside the reasons that all ports have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name, as a reason.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Its status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

refusals! {
    /// Nothing has this path.
    UnknownRoute = "UNKNOWN_ROUTE", 404;
    /// The path has other methods.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405;
    /// A format of events, or a coding of the body, that is not known here.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", 415;
    /// The request did not come, or was not answered, in time.
    RequestTimeout = "REQUEST_TIMEOUT", 408;
}

/// An error as an answer.
#[derive(Clone, Debug)]
pub(super) struct Problem(Box<Details>);

#[derive(Clone, Debug, Serialize)]
struct Details {
    #[serde(rename = "type")]
    uri: String,
    title: String,
    status: u16,
    detail: String,
    reason: String,
    kind: String,
    #[serde(flatten)]
    about: About,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// It is certain that nothing was written.
    not_applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    /// What is wrong with which events of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Indexed>,
    /// What became of each event, if not all had the same fate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    results: Vec<serde_json::Value>,
    /// The same for clients of Event Grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<GridError>,
    #[serde(skip)]
    allow: Vec<&'static str>,
}

/// What an error is about.
#[derive(Clone, Debug, Default, Serialize)]
struct About {
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Where in the payload it breaks its schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Schema>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unmet: Vec<Unmet>,
}

#[derive(Clone, Debug, Serialize)]
struct Schema {
    id: u32,
    name: String,
    version: u32,
}

#[derive(Clone, Debug, Serialize)]
struct Unmet {
    partition: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    expected: Option<u64>,
    actual: Option<u64>,
}

/// One event of several.
#[derive(Clone, Debug, Serialize)]
struct Indexed {
    index: usize,
    reason: String,
    detail: String,
    #[serde(flatten)]
    about: About,
}

#[derive(Clone, Debug, Serialize)]
struct GridError {
    code: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Self>,
}

impl From<&v1::SchemaRef> for Schema {
    fn from(schema: &v1::SchemaRef) -> Self {
        Self { id: schema.id, name: schema.schema.clone(), version: schema.version }
    }
}

impl About {
    fn of(error: &Error) -> Self {
        let unmet = |unmet: &v1::UnmetExpectation| Unmet {
            partition: unmet.partition,
            subject: unmet.subject.clone(),
            expected: unmet.expected,
            actual: unmet.actual,
        };
        let field = error.field().map(ToOwned::to_owned);
        let is_pointer = error.reason() == Reason::SchemaViolation;
        Self {
            pointer: is_pointer.then(|| field.clone().unwrap_or_default()),
            field,
            schema: error.schema().map(Schema::from),
            offset: error.offset(),
            unmet: error.unmet().iter().map(unmet).collect(),
        }
    }
}

impl Indexed {
    fn of(index: usize, error: &Error) -> Self {
        let (reason, detail) = (error.reason().to_string(), error.message().to_owned());
        Self { index, reason, detail, about: About::of(error) }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let after = error.retry_after();
        let after = after.or_else(|| error.is_retryable().then_some(RETRY_AFTER));
        let millis = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let reason = error.reason();
        Self(Box::new(Details {
            about: About::of(error),
            kind: error.kind().to_string(),
            retry_after_ms: millis,
            not_applied: error.not_applied(),
            leader: error.leader().map(ToOwned::to_owned),
            ..Details::named(reason.as_str(), reason.http_status(), error.message())
        }))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl Details {
    fn named(reason: &str, status: u16, detail: &str) -> Self {
        Self {
            uri: uri(reason),
            title: title(reason),
            status,
            detail: detail.to_owned(),
            reason: reason.to_owned(),
            kind: ErrorKind::Invalid.to_string(),
            about: About::default(),
            retry_after_ms: None,
            not_applied: true,
            leader: None,
            errors: Vec::new(),
            results: Vec::new(),
            error: None,
            allow: Vec::new(),
        }
    }

    fn tell(&self, headers: &mut HeaderMap) {
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            if self.error.is_some() {
                let key = HeaderValue::from_static("SharedAccessKey");
                headers.append(header::WWW_AUTHENTICATE, key);
            }
        }
        let mut put = |name: header::HeaderName, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        };
        if let Some(millis) = self.retry_after_ms {
            put(header::RETRY_AFTER, whole_seconds(Duration::from_millis(millis)).to_string());
        }
        if !self.allow.is_empty() {
            put(header::ALLOW, self.allow.join(", "));
        }
        if self.error.is_some() {
            put(header::HeaderName::from_static("x-ms-error-code"), self.reason.clone());
        }
    }
}

impl Problem {
    /// What this port refuses by itself.
    pub(super) fn refusal(refusal: Refusal, detail: &str) -> Self {
        Self(Box::new(Details::named(refusal.as_str(), refusal.status(), detail)))
    }

    /// The path has these methods, and not the one that was asked for.
    pub(super) fn method(allow: Vec<&'static str>) -> Self {
        let detail = format!("this path is for {}", allow.join(", "));
        let mut problem = Self::refusal(Refusal::MethodNotAllowed, &detail);
        problem.0.allow = allow;
        problem
    }

    /// The fate of what was asked is not known.
    pub(super) fn with_open_fate(mut self) -> Self {
        self.0.kind = ErrorKind::Unavailable.to_string();
        self.0.not_applied = false;
        self
    }

    /// What is wrong with single events; the first stands for all of them.
    pub(super) fn of_events(errors: &[(usize, Error)]) -> Option<Self> {
        let (_, first) = errors.first()?;
        let mut problem = Self::from(first);
        problem.0.detail = match errors.len() {
            1 => format!("one event is refused, and nothing is stored: {first}"),
            wrong => {
                format!("{wrong} events are refused, and nothing is stored; the first: {first}")
            }
        };
        let all = errors.iter().map(|(index, error)| Indexed::of(*index, error));
        problem.0.errors = all.collect();
        Some(problem)
    }

    /// Tells of each event what became of it.
    pub(super) fn with_results(mut self, results: Vec<serde_json::Value>) -> Self {
        self.0.results = results;
        self
    }

    /// As clients of Event Grid read it, too.
    pub(super) fn for_grid(mut self) -> Self {
        let detail = |one: &Indexed| GridError {
            code: one.reason.clone(),
            message: one.detail.clone(),
            target: Some(format!("[{}]", one.index)),
            details: Vec::new(),
        };
        self.0.error = Some(GridError {
            code: self.0.reason.clone(),
            message: self.0.detail.clone(),
            target: self.0.about.field.clone(),
            details: self.0.errors.iter().map(detail).collect(),
        });
        self
    }

    /// In one line.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The answer.
    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        let status = StatusCode::from_u16(self.0.status);
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.0.tell(response.headers_mut());
        response
    }
}

/// A receipt as this port writes it.
pub(super) fn receipt(receipt: &v1::Receipt) -> serde_json::Value {
    let time = receipt.append_time.and_then(|time| weft_proto::Timestamp::try_from(time).ok());
    let mut told = serde_json::json!({
        "partition": receipt.partition,
        "offset": receipt.offset,
        "time": time.map(|time| time.to_string()),
        "duplicate": receipt.duplicate,
    });
    let Some(members) = told.as_object_mut() else { return told };
    if receipt.delayed {
        members.insert("delayed".to_owned(), true.into());
    }
    if let Some(schema) = &receipt.schema {
        members.insert("schema".to_owned(), serde_json::json!(Schema::from(schema)));
    }
    told
}

/// The refusal of an event, beside receipts of others.
pub(super) fn refused(error: &Error) -> serde_json::Value {
    serde_json::json!({"reason": error.reason().as_str(), "detail": error.message()})
}

/// What a problem's `type` is for a reason.
pub(super) fn uri(reason: &str) -> String {
    format!("urn:weft:reason:{reason}")
}

fn title(reason: &str) -> String {
    let words = reason.replace('_', " ").to_lowercase();
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What is invalid, with the field.
pub(super) fn invalid<T>(field: &str, message: impl Into<String>) -> Result<T> {
    Err(Error::invalid(message).with_field(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_a_program_needs() {
        let schema = v1::SchemaRef { id: 3, schema: "default/order".to_owned(), version: 2 };
        let error = Error::new(Reason::SchemaViolation, "total is no number")
            .with_field("/total")
            .with_schema(schema);

        let told: serde_json::Value =
            serde_json::from_str(&Problem::from(&error).to_json()).unwrap();

        let expected = serde_json::json!({
            "type": "urn:weft:reason:SCHEMA_VIOLATION", "title": "Schema violation", "status": 400,
            "detail": "total is no number", "reason": "SCHEMA_VIOLATION", "kind": "invalid",
            "field": "/total", "pointer": "/total", "not_applied": true,
            "schema": {"id": 3, "name": "default/order", "version": 2},
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn headers_say_what_clients_without_json_need() {
        let late = Error::unavailable("no leader").with_retry_after(Duration::from_millis(1_200));
        let response = Problem::from(&late).into_response();
        assert_eq!(
            (response.status(), &response.headers()["retry-after"]),
            (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("2"))
        );
        // Who is told to come back is told when.
        let full = Problem::from(Error::new(Reason::LimitReached, "x")).into_response();
        assert_eq!(full.headers()["retry-after"], "1");

        let unknown = Problem::from(Error::new(Reason::Unauthenticated, "who"));
        let grid = unknown.clone().for_grid().into_response();
        assert_eq!(unknown.into_response().headers()["www-authenticate"], "Bearer");
        assert_eq!(grid.headers().get_all("www-authenticate").iter().count(), 2);
        assert_eq!(grid.headers()["x-ms-error-code"], "UNAUTHENTICATED");
        let method = Problem::method(vec!["GET", "HEAD"]).into_response();
        assert_eq!(
            (method.status().as_u16(), &method.headers()["allow"]),
            (405, &HeaderValue::from_static("GET, HEAD"))
        );
    }

    #[test]
    fn every_reason_has_a_status_of_an_error() {
        for reason in Reason::ALL {
            let problem = Problem::from(Error::new(*reason, "x")).0;
            assert!((400..600).contains(&problem.status), "{reason}");
            assert!(problem.title.len() > 3 && problem.uri.ends_with(reason.as_str()));
        }
        for refusal in Refusal::ALL {
            assert!(Reason::from_wire(refusal.as_str()).is_none(), "{refusal:?} is a reason");
        }
    }
}
