//! Reply events: read from the answer, completed, checked.
//!
//! *Never* sends anything. What a function leaves out is derived from the cause, so that the same
//! cause always has the same reply and a repetition is recognised.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use prost::Message as _;
use serde_json::value::RawValue;
use weft_proto::QualifiedName;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::cloudevents::{CloudEvent, CloudEventBatch};
use weft_proto::event::{self, EventView};
use weft_proto::trace::TraceContext;
use xxhash_rust::xxh3::Xxh3;

use super::header::decode;

/// How an answer carries events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// No event at all: the body is not read as one.
    None,
    Binary,
    Json,
    Proto,
    JsonBatch,
    ProtoBatch,
    /// A CloudEvents media type that nobody knows.
    Unknown,
}

pub(super) fn form(headers: &HeaderMap) -> Form {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/cloudevents-batch+json" => Form::JsonBatch,
        "application/cloudevents-batch+protobuf" => Form::ProtoBatch,
        "application/cloudevents+json" => Form::Json,
        "application/cloudevents+protobuf" => Form::Proto,
        other if other.starts_with("application/cloudevents") => Form::Unknown,
        _ if headers.contains_key("ce-specversion") || headers.contains_key("ce-type") => {
            Form::Binary
        }
        _ => Form::None,
    }
}

/// Reads the events of an answer; `Err` says what is wrong with it.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Vec<CloudEvent>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("no CloudEvent: {error}");
    match form(headers) {
        Form::None => Ok(Vec::new()),
        Form::Binary => binary(headers, body).map(|event| vec![event]),
        Form::Json => {
            let event = event::from_json(body).map_err(|error| wrong(&error.message()))?;
            Ok(vec![event])
        }
        Form::Proto => {
            let event = CloudEvent::decode(body.as_ref()).map_err(|error| wrong(&error))?;
            Ok(vec![event])
        }
        Form::JsonBatch => {
            let raw: Vec<Box<RawValue>> =
                serde_json::from_slice(body).map_err(|error| wrong(&error))?;
            raw.iter()
                .map(|raw| event::from_json(raw.get().as_bytes()))
                .collect::<Result<_, _>>()
                .map_err(|error| wrong(&error.message()))
        }
        Form::ProtoBatch => CloudEventBatch::decode(body.as_ref())
            .map(|batch| batch.events)
            .map_err(|error| wrong(&error)),
        Form::Unknown => Err("an unknown CloudEvents media type".to_owned()),
    }
}

fn binary(headers: &HeaderMap, body: &Bytes) -> Result<CloudEvent, String> {
    let mut event = CloudEvent::default();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix("ce-") else { continue };
        let text = decode(value).ok_or_else(|| format!("the header {header} is no UTF-8"))?;
        match name {
            "id" => event.id = text,
            "source" => event.source = text,
            "specversion" => event.spec_version = text,
            "type" => event.r#type = text,
            // The binding forbids it: the content type of the message is the one that counts.
            "datacontenttype" => {}
            "time" => {
                let time = text.parse::<jiff::Timestamp>();
                let time = time.ok().ok_or_else(|| "ce-time is no time".to_owned())?;
                let time = prost_types::Timestamp {
                    seconds: time.as_second(),
                    nanos: time.subsec_nanosecond(),
                };
                set(&mut event, name, Attr::CeTimestamp(time));
            }
            "dataschema" => set(&mut event, name, Attr::CeUri(text)),
            _ => set(&mut event, name, Attr::CeString(text)),
        }
    }
    if let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
        set(&mut event, "datacontenttype", Attr::CeString(content_type.to_owned()));
    }
    if !body.is_empty() {
        event.data = Some(Data::BinaryData(body.clone()));
    }
    Ok(event)
}

/// Completes the replies to one event and encodes them.
pub(super) fn complete(
    replies: Vec<CloudEvent>,
    function: &QualifiedName,
    cause: &EventView<'_>,
    trace: Option<&TraceContext>,
) -> Result<Vec<Bytes>, String> {
    // Where the cause began, and only if nobody knows that, where it was delivered.
    let began = TraceContext::of_event(cause).or_else(|| trace.cloned());
    let complete = |(index, mut reply): (usize, CloudEvent)| {
        // What the broker sets, nobody else does.
        reply.attributes.retain(|name, _| !name.starts_with("weft"));
        if reply.id.is_empty() {
            reply.id = derive_id(function, cause, index);
        }
        if reply.source.is_empty() {
            reply.source = format!("/functions/{function}");
        }
        if reply.spec_version.is_empty() {
            "1.0".clone_into(&mut reply.spec_version);
        }
        inherit(&mut reply, "causationid", Some(cause.id.into()));
        inherit(&mut reply, "correlationid", cause.attribute("correlationid"));
        let mut bytes = Bytes::from(reply.encode_to_vec());
        if let Some(began) = &began {
            bytes = began.put(bytes);
        }
        event::check(&bytes, event::EVENT_BYTES_MAX)
            .map_err(|error| format!("reply {index} is no valid event: {}", error.message()))?;
        Ok(bytes)
    };
    replies.into_iter().enumerate().map(complete).collect()
}

fn inherit(reply: &mut CloudEvent, name: &str, value: Option<std::borrow::Cow<'_, str>>) {
    if let Some(value) = value.filter(|value| !value.is_empty())
        && !reply.attributes.contains_key(name)
    {
        set(reply, name, Attr::CeString(value.into_owned()));
    }
}

fn set(event: &mut CloudEvent, name: &str, attr: Attr) {
    event.attributes.insert(name.to_owned(), CloudEventAttributeValue { attr: Some(attr) });
}

/// The hash is part of what repetitions are recognised by: changing it would repeat replies.
fn derive_id(function: &QualifiedName, cause: &EventView<'_>, index: usize) -> String {
    let mut hasher = Xxh3::new();
    for part in [function.to_string().as_str(), cause.source, cause.id] {
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        hasher.update(&part.len().to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&index.to_le_bytes());
    format!("{:032x}", hasher.digest128())
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
