//! The JSON event format: one structured CloudEvent as text, and back.
//!
//! Source: cloudevents/spec `cloudevents/formats/json-format.md`. JSON data stays byte for byte
//! as it was written.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::value::Value;
use super::view::{Data, EventView};
use crate::cloudevents::CloudEvent;
use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use crate::cloudevents::cloud_event::{CloudEventAttributeValue, Data as Payload};
use crate::{Error, Reason, Result};

/// Whether a `datacontenttype` means JSON; without one, it does.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let Some(text) = content_type else { return true };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
    subtype == "json" || subtype.ends_with("+json")
}

/// Arrays and objects in each other at most; parsers of others end there, too.
const DEPTH_MAX: usize = 128;

/// Reads one structured event.
///
/// # Errors
///
/// `Invalid` when the text is not JSON, repeats a member, is nested too deeply, or breaks the format.
pub fn from_json(text: &[u8]) -> Result<CloudEvent> {
    if is_deeper(text, DEPTH_MAX) {
        let message =
            format!("the event has more than {DEPTH_MAX} arrays and objects in each other");
        return Err(malformed(message));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let members = deserializer
        .deserialize_map(Members)
        .and_then(|members| deserializer.end().map(|()| members))
        .map_err(|error| malformed(format!("the event is not a JSON object: {error}")))?;
    let mut event = CloudEvent::default();
    let mut data = None;
    let mut binary = None;
    for (name, raw) in members {
        let null = raw.get() == "null";
        match name.as_str() {
            "data" => data = Some(raw),
            _ if null => {}
            "data_base64" => binary = Some(raw),
            "id" => event.id = string(&name, &raw)?,
            "source" => event.source = string(&name, &raw)?,
            "specversion" => event.spec_version = string(&name, &raw)?,
            "type" => event.r#type = string(&name, &raw)?,
            _ => {
                let attr = Some(attribute(&name, &raw)?);
                event.attributes.insert(name, CloudEventAttributeValue { attr });
            }
        }
    }
    event.data = payload(&mut event, data, binary)?;
    Ok(event)
}

/// Whether more than so many arrays and objects are in each other. What is no JSON is found out
/// elsewhere.
fn is_deeper(text: &[u8], depth_max: usize) -> bool {
    let (mut depth, mut is_string) = (0_usize, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if is_string => _ = bytes.next(),
            b'"' => is_string = !is_string,
            b'[' | b'{' if !is_string => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            b']' | b'}' if !is_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn payload(
    event: &mut CloudEvent,
    data: Option<Box<RawValue>>,
    binary: Option<Box<RawValue>>,
) -> Result<Option<Payload>> {
    match (data, binary) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(malformed("the event has both data and data_base64").with_field("data_base64"))
        }
        (None, Some(raw)) => {
            let text = string("data_base64", &raw)?;
            let bytes = BASE64_STANDARD.decode(text).map_err(|error| {
                malformed(format!("data_base64 is not Base64: {error}")).with_field("data_base64")
            })?;
            Ok(Some(Payload::BinaryData(bytes.into())))
        }
        (Some(raw), None) => {
            let content_type = match event.attributes.get("datacontenttype") {
                Some(CloudEventAttributeValue { attr: Some(Attr::CeString(text)) }) => Some(text),
                _ => None,
            };
            if is_json(content_type.map(String::as_str)) {
                if content_type.is_none() {
                    let attr = Some(Attr::CeString("application/json".to_owned()));
                    let value = CloudEventAttributeValue { attr };
                    event.attributes.insert("datacontenttype".to_owned(), value);
                }
                return Ok(Some(Payload::TextData(raw.get().to_owned())));
            }
            // Another content type: a JSON string stands for its text, anything else for itself.
            let text = serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
            Ok(Some(Payload::TextData(text)))
        }
    }
}

fn string(name: &str, raw: &RawValue) -> Result<String> {
    serde_json::from_str(raw.get())
        .ok()
        .ok_or_else(|| malformed(format!("the attribute {name} must be a string")).with_field(name))
}

fn attribute(name: &str, raw: &RawValue) -> Result<Attr> {
    let wrong =
        |what: &str| Err(malformed(format!("the attribute {name} {what}")).with_field(name));
    let value: serde_json::Value = match serde_json::from_str(raw.get()) {
        Ok(value) => value,
        Err(_) => return wrong("is not JSON"),
    };
    match value {
        serde_json::Value::Bool(value) => Ok(Attr::CeBoolean(value)),
        serde_json::Value::Number(number) => {
            match number.as_i64().and_then(|number| i32::try_from(number).ok()) {
                Some(number) => Ok(Attr::CeInteger(number)),
                None => wrong("is a number that is no 32-bit integer"),
            }
        }
        serde_json::Value::String(text) if name == "time" => time(&text).map(Attr::CeTimestamp),
        serde_json::Value::String(text) if name == "dataschema" => Ok(Attr::CeUri(text)),
        serde_json::Value::String(text) => Ok(Attr::CeString(text)),
        _ => wrong("must be a string, a number or a boolean"),
    }
}

/// The attribute `time` as text. The wire keeps the instant, and not its offset.
pub(super) fn time(text: &str) -> Result<prost_types::Timestamp> {
    let instant = text.parse::<jiff::Timestamp>().map_err(|error| {
        let error = malformed("the attribute time is not an RFC 3339 time").with_source(error);
        error.with_field("time")
    })?;
    Ok(prost_types::Timestamp { seconds: instant.as_second(), nanos: instant.subsec_nanosecond() })
}

/// Writes one structured event on one line. JSON data is written as it is stored.
pub fn to_json(event: &EventView<'_>) -> String {
    let mut text = String::with_capacity(event.bytes().len() + 128);
    text.push_str("{\"specversion\":");
    push_string(&mut text, event.spec_version);
    for (name, value) in [("id", event.id), ("source", event.source), ("type", event.ty)] {
        text.push(',');
        push_string(&mut text, name);
        text.push(':');
        push_string(&mut text, value);
    }
    let mut attributes: BTreeMap<&str, Value<'_>> = BTreeMap::new();
    attributes.extend(event.attributes().map(|attribute| (attribute.name, attribute.value)));
    for (name, value) in attributes {
        text.push(',');
        push_string(&mut text, name);
        text.push(':');
        match value {
            Value::Boolean(_) | Value::Integer(_) => text.push_str(&value.to_text()),
            _ => push_string(&mut text, &value.to_text()),
        }
    }
    push_data(&mut text, event);
    text.push('}');
    text
}

fn push_data(text: &mut String, event: &EventView<'_>) {
    let json = is_json(event.data_content_type().as_deref());
    match event.data {
        Data::None => {}
        Data::Text(data) if json && is_json_value(data) => push_value(text, data),
        Data::Text(data) => {
            text.push_str(",\"data\":");
            push_string(text, data);
        }
        Data::Binary(data) => {
            let stored = std::str::from_utf8(data).ok().filter(|data| json && is_json_value(data));
            match stored {
                Some(data) => push_value(text, data),
                None => push_base64(text, data),
            }
        }
        Data::Proto(data) => push_base64(text, data),
    }
}

fn push_base64(text: &mut String, data: &[u8]) {
    text.push_str(",\"data_base64\":\"");
    BASE64_STANDARD.encode_string(data, text);
    text.push('"');
}

fn is_json_value(text: &str) -> bool {
    serde_json::from_str::<de::IgnoredAny>(text).is_ok()
}

/// Writes JSON data inside a line. A line break in it can only stand between two tokens, where a
/// space says the same.
fn push_value(text: &mut String, data: &str) {
    text.push_str(",\"data\":");
    text.extend(data.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
}

fn push_string(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

fn malformed(message: impl Into<String>) -> Error {
    Error::new(Reason::MalformedEvent, message)
}

/// Reads an object member by member, refusing a name that comes twice: which one counts would
/// depend on the parser.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = BTreeMap<String, Box<RawValue>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a CloudEvent in JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if members.contains_key(&name) {
                return Err(de::Error::custom(format!("member {name:?} comes twice")));
            }
            members.insert(name, value);
        }
        Ok(members)
    }
}

/// Reads one structured event and returns it encoded.
impl TryFrom<&RawValue> for CloudEvent {
    type Error = Error;

    fn try_from(raw: &RawValue) -> Result<Self> {
        from_json(raw.get().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn again(text: &str) -> String {
        let bytes = from_json(text.as_bytes()).unwrap().encode_to_vec();
        to_json(&EventView::parse(&bytes).unwrap())
    }

    #[test]
    fn data_stays_byte_for_byte() {
        let text = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","n":5,"data":{"b": 1.50,  "a":[1e2, "é"]}}"#;

        assert_eq!(again(text), text);
    }

    #[test]
    fn json_of_several_lines_stays_json() {
        let head = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":"#;
        let lines = format!("{head}{{\r\n  \"a\": [1,\n2] }}}}");

        assert_eq!(again(&lines), format!("{head}{{    \"a\": [1, 2] }}}}"));
    }

    #[test]
    fn content_types_and_binary_data_keep_their_form() {
        let head = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t""#;
        for tail in [
            r#","datacontenttype":"text/plain","data":"hello"}"#,
            r#","data_base64":"AP8="}"#,
            r#","datacontenttype":"application/json","data":null}"#,
            r#","datacontenttype":"application/json","time":"2026-01-02T03:04:05.006Z"}"#,
            "}",
        ] {
            let text = format!("{head}{tail}");
            assert_eq!(again(&text), text);
        }
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_text_do_not_count() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            let quoted = "[{".repeat(300);
            format!(
                r#"{{"specversion":"1.0","id":"1","source":"/s","type":"{quoted}\"[","data":{open}{close}}}"#
            )
        };

        assert!(from_json(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
        let error = from_json(nested(DEPTH_MAX).as_bytes()).unwrap_err();
        assert_eq!(error.reason(), Reason::MalformedEvent);
        assert!(from_json(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            "{} x",
            r#"{"id":1}"#,
            r#"{"id":"1","id":"2"}"#,
            r#"{"n":3000000000}"#,
            r#"{"n":[1]}"#,
            r#"{"time":"noon"}"#,
            r#"{"data":1,"data_base64":"AA=="}"#,
            r#"{"data_base64":"%"}"#,
        ] {
            assert!(from_json(text.as_bytes()).is_err(), "{text} was accepted");
        }
    }
}
