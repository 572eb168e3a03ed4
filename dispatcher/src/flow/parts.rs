//! An event in pieces, and what is derived from it.
//!
//! The encoding of the same pieces is always the same: whatever a flow makes of an event is made
//! again when the event is delivered again, byte for byte, and streams recognise it.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use serde_json::Value;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::event::{self, EVENT_BYTES_MAX, EventView};
use weft_proto::{QualifiedName, Timestamp};
use xxhash_rust::xxh3::Xxh3;

use super::failure::Failure;

/// How many flows and functions an event has come through.
pub(super) const HOP_COUNT: &str = "hopcount";
/// More hops than this are taken for a loop.
pub const HOPS_MAX: i32 = 16;
/// Arrays and objects in each other at most, as in events.
const DEPTH_MAX: usize = 127;

/// An event in pieces.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) ty: String,
    pub(super) attributes: BTreeMap<String, Attr>,
    pub(super) data: Option<Data>,
}

impl Parts {
    pub(super) fn read(bytes: &Bytes) -> Result<Self, Failure> {
        let undecodable =
            |_| Failure::permanent("undecodable", "the stored bytes are no CloudEvent");
        let event = CloudEvent::decode(bytes.clone()).map_err(undecodable)?;
        let attributes = event.attributes.into_iter();
        let attributes = attributes
            .filter(|(name, _)| !name.starts_with("weft"))
            .filter_map(|(name, value)| Some((name, value.attr?)));
        Ok(Self {
            id: event.id,
            source: event.source,
            ty: event.r#type,
            attributes: attributes.collect(),
            data: event.data,
        })
    }

    /// Encodes it, if it is a good event.
    pub(super) fn encode(self, reason: &'static str) -> Result<Bytes, Failure> {
        let head = CloudEvent {
            id: self.id,
            source: self.source,
            spec_version: "1.0".to_owned(),
            r#type: self.ty,
            ..CloudEvent::default()
        };
        let mut bytes = head.encode_to_vec();
        // Protobuf reads a map that comes in pieces as one; in one piece its order would be random.
        for (name, attr) in self.attributes {
            let value = CloudEventAttributeValue { attr: Some(attr) };
            let piece = CloudEvent { attributes: [(name, value)].into(), ..CloudEvent::default() };
            bytes.extend_from_slice(&piece.encode_to_vec());
        }
        let data = CloudEvent { data: self.data, ..CloudEvent::default() };
        bytes.extend_from_slice(&data.encode_to_vec());
        let bytes = Bytes::from(bytes);
        match event::check(&bytes, EVENT_BYTES_MAX) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(Failure::permanent(reason, error.message())),
        }
    }

    /// The payload as JSON; `null` when there is none.
    pub(super) fn json(&self) -> Result<Value, Failure> {
        let bytes: &[u8] = match &self.data {
            None => return Ok(Value::Null),
            Some(Data::TextData(text)) => text.as_bytes(),
            Some(Data::BinaryData(bytes)) => bytes,
            Some(Data::ProtoData(_)) => {
                return Err(Failure::permanent("data", "the payload is protobuf, no JSON"));
            }
        };
        if let Some(Attr::CeString(ty)) = self.attributes.get("datacontenttype")
            && !is_json(ty)
        {
            return Err(Failure::permanent("data", format!("the payload is {ty}, no JSON")));
        }
        read_json(bytes)
    }

    /// Replaces the payload.
    pub(super) fn set_json(&mut self, data: &Value, reason: &'static str) -> Result<(), Failure> {
        if is_deeper(data, DEPTH_MAX) {
            let message = format!("more than {DEPTH_MAX} arrays and objects in each other");
            return Err(Failure::permanent(reason, message));
        }
        self.data = Some(Data::TextData(data.to_string()));
        let known = self.attributes.get("datacontenttype");
        if !matches!(known, Some(Attr::CeString(ty)) if is_json(ty)) {
            self.set_text("datacontenttype", "application/json");
        }
        Ok(())
    }

    pub(super) fn set_text(&mut self, name: &str, text: impl Into<String>) {
        self.attributes.insert(name.to_owned(), Attr::CeString(text.into()));
    }

    pub(super) fn set_number(&mut self, name: &str, number: i32) {
        self.attributes.insert(name.to_owned(), Attr::CeInteger(number));
    }

    /// Makes another event of it: one that `step` made of this one. The first that is made of an event
    /// of a stream names that as its cause.
    pub(super) fn derive(&mut self, function: &QualifiedName, step: &str, cause: Option<&str>) {
        let name = function.to_string();
        self.id = digest(&[&name, step, &self.source, &self.id]);
        self.source = format!("/functions/{name}");
        if let Some(cause) = cause {
            self.set_text("causationid", cause);
        }
    }
}

/// A name for something that follows from these. It is part of what repetitions are recognised by:
/// changing it would repeat events.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut hasher = Xxh3::new();
    for part in parts {
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        hasher.update(&part.len().to_le_bytes());
        hasher.update(part.as_bytes());
    }
    format!("{:032x}", hasher.digest128())
}

/// Reads JSON; a member that comes twice would be lost.
pub(super) fn read_json(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::permanent("data", format!("the payload is no JSON: {error}")))
}

/// By media type, whatever its parameters.
pub(super) fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.ends_with("/json") || media.ends_with("+json")
}

fn is_deeper(value: &Value, depth_max: usize) -> bool {
    let Some(left) = depth_max.checked_sub(1) else {
        return matches!(value, Value::Array(_) | Value::Object(_));
    };
    match value {
        Value::Array(list) => list.iter().any(|one| is_deeper(one, left)),
        Value::Object(map) => map.values().any(|one| is_deeper(one, left)),
        _ => false,
    }
}

/// About how long it is as text.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => 2 + list.iter().map(|one| weight(one) + 1).sum::<usize>(),
        Value::Object(map) => {
            2 + map.iter().map(|(name, one)| name.len() + 4 + weight(one)).sum::<usize>()
        }
        _ => 8,
    }
}

/// Whether it is too deep, or its text too long, to go on with.
pub(super) fn is_unwieldy(value: &Value) -> bool {
    is_deeper(value, DEPTH_MAX) || weight(value) > 2 * EVENT_BYTES_MAX
}

/// Puts a value at a place, and makes the objects on the way there. Objects are joined.
pub(super) fn put(data: &mut Value, at: &[String], value: Value) -> Result<(), String> {
    let mut here = data;
    for step in at {
        if here.is_null() {
            *here = Value::Object(serde_json::Map::new());
        }
        here = match here {
            Value::Object(map) => map.entry(step.clone()).or_insert(Value::Null),
            Value::Array(list) => {
                let found = step.parse::<usize>().ok().and_then(|place| list.get_mut(place));
                found.ok_or_else(|| format!("there is no element {step:?} on the way"))?
            }
            _ => return Err(format!("{step:?} is within something that is no object")),
        };
    }
    match (here, value) {
        (Value::Object(map), Value::Object(more)) => map.extend(more),
        (here, value) => *here = value,
    }
    Ok(())
}

/// How many hops an event has behind it.
pub(super) fn hops(event: &EventView<'_>) -> i32 {
    event.attribute(HOP_COUNT).and_then(|text| text.parse().ok()).unwrap_or(0).max(0)
}

/// An event as it is published, one hop further.
pub(super) fn stamp(bytes: &Bytes, hops: i32) -> Result<Bytes, Failure> {
    let hops = hops.saturating_add(1);
    if hops > HOPS_MAX {
        let message = format!("it came through {HOPS_MAX} flows and functions: is there a loop?");
        return Err(Failure::permanent("hops", message));
    }
    let mut parts = Parts::read(bytes)?;
    parts.set_number(HOP_COUNT, hops);
    parts.encode("data")
}

/// The attribute `time` of an event.
pub(super) fn time(event: &EventView<'_>) -> Option<Timestamp> {
    event.attribute("time")?.parse().ok()
}
