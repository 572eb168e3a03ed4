//! Events as the body and the headers of an HTTP message carry them: batch, structured or binary
//! mode. Pure.
//!
//! Source: CloudEvents HTTP protocol binding 1.0.2. Reads what is there and no more: whether an event
//! keeps the rules is asked of [`check`](super::check), whatever way it came.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::value::RawValue;

use super::header::from_header;
use super::json::{from_json, time};
use crate::cloudevents::CloudEvent;
use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use crate::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use crate::{Error, Reason, Result};

/// What the media types of all formats begin with.
const CLOUDEVENTS: &str = "application/cloudevents";

/// How a message carries events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Any number of events in the body.
    Batch(Format),
    /// One event in the body.
    Structured(Format),
    /// One event: its attributes in headers, its payload in the body.
    Binary,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The JSON event format.
    Json,
    /// The protobuf event format.
    Protobuf,
}

impl Mode {
    /// The mode of a message by its media type, whose parameters and case do not count; `None` for a
    /// format of `CloudEvents` that is not known here.
    pub fn of(content_type: Option<&[u8]>) -> Option<Self> {
        let text = content_type.map(String::from_utf8_lossy).unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.strip_prefix(CLOUDEVENTS) {
            None => Some(Self::Binary),
            Some("-batch+json") => Some(Self::Batch(Format::Json)),
            Some("-batch+protobuf") => Some(Self::Batch(Format::Protobuf)),
            Some("+json") => Some(Self::Structured(Format::Json)),
            Some("+protobuf") => Some(Self::Structured(Format::Protobuf)),
            Some(_) => None,
        }
    }
}

/// Reads the events of a message, encoded. In protobuf they are pieces of the body.
///
/// # Errors
///
/// `Invalid` when the message cannot be read as a whole; what is wrong with one event of several is in
/// its place.
pub fn read<'a>(
    mode: Mode,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: &Bytes,
) -> Result<Vec<Result<Bytes>>> {
    match mode {
        Mode::Batch(Format::Protobuf) => pieces(body),
        Mode::Structured(Format::Protobuf) => Ok(vec![Ok(body.clone())]),
        Mode::Batch(Format::Json) => {
            let raw: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
                malformed(format!("the body is no JSON array of events: {error}"))
            })?;
            let event =
                |raw: &RawValue| from_json(raw.get().as_bytes()).map(|event| encode(&event));
            Ok(raw.into_iter().map(event).collect())
        }
        Mode::Structured(Format::Json) => Ok(vec![Ok(encode(&from_json(body)?))]),
        Mode::Binary => binary(headers, body).map(|event| vec![Ok(encode(&event))]),
    }
}

fn encode(event: &CloudEvent) -> Bytes {
    event.encode_to_vec().into()
}

fn binary<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: &Bytes,
) -> Result<CloudEvent> {
    let mut event = CloudEvent::default();
    let mut content_type = None;
    for (header, value) in headers {
        if header == "content-type" {
            content_type = Some(value);
        }
        let Some(name) = header.strip_prefix("ce-") else { continue };
        // The binding forbids it: the content type of the message is the one that counts.
        if name == "datacontenttype" {
            continue;
        }
        let text = from_header(value).ok_or_else(|| {
            malformed(format!("the header {header} is no UTF-8 once it is decoded"))
                .with_field(name)
        })?;
        put(&mut event, name, text)?;
    }
    if let Some(value) = content_type.filter(|value| !value.is_empty()) {
        let text = std::str::from_utf8(value).map_err(|error| {
            malformed("the content type is no text")
                .with_field("datacontenttype")
                .with_source(error)
        })?;
        set(&mut event, "datacontenttype", Attr::CeString(text.to_owned()));
    }
    if !body.is_empty() {
        event.data = Some(Data::BinaryData(body.clone()));
    }
    Ok(event)
}

/// Which of two counts would depend on who reads them.
fn put(event: &mut CloudEvent, name: &str, text: String) -> Result<()> {
    let required = match name {
        "id" => &mut event.id,
        "source" => &mut event.source,
        "specversion" => &mut event.spec_version,
        "type" => &mut event.r#type,
        _ => {
            let attr = match name {
                "time" => Attr::CeTimestamp(time(&text)?),
                "dataschema" => Attr::CeUri(text),
                _ => Attr::CeString(text),
            };
            return if set(event, name, attr) { Ok(()) } else { Err(twice(name)) };
        }
    };
    if !required.is_empty() {
        return Err(twice(name));
    }
    *required = text;
    Ok(())
}

fn twice(name: &str) -> Error {
    malformed(format!("the header ce-{name} comes twice")).with_field(name)
}

/// Says whether the attribute was not there before.
fn set(event: &mut CloudEvent, name: &str, attr: Attr) -> bool {
    let value = CloudEventAttributeValue { attr: Some(attr) };
    event.attributes.insert(name.to_owned(), value).is_none()
}

/// The events of an encoded `io.cloudevents.v1.CloudEventBatch`, in place.
fn pieces(body: &Bytes) -> Result<Vec<Result<Bytes>>> {
    let no_batch = |error: &dyn std::fmt::Display| {
        malformed(format!("the body is no io.cloudevents.v1.CloudEventBatch message: {error}"))
    };
    let mut rest = body.clone();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let (number, kind) = decode_key(&mut rest).map_err(|error| no_batch(&error))?;
        if number != 1 {
            let context = DecodeContext::default();
            skip_field(kind, number, &mut rest, context).map_err(|error| no_batch(&error))?;
            continue;
        }
        if kind != WireType::LengthDelimited {
            return Err(no_batch(&"an event is a message"));
        }
        let length = decode_varint(&mut rest).map_err(|error| no_batch(&error))?;
        let length = usize::try_from(length).ok().filter(|&length| length <= rest.len());
        let Some(length) = length else { return Err(no_batch(&"it ends inside of an event")) };
        events.push(Ok(rest.split_to(length)));
    }
    Ok(events)
}

fn malformed(message: impl Into<String>) -> Error {
    Error::new(Reason::MalformedEvent, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cloudevents::CloudEventBatch;
    use crate::event::{EventView, check, to_json};

    const HEAD: [(&str, &[u8]); 4] =
        [("ce-specversion", b"1.0"), ("ce-id", b"1"), ("ce-source", b"/s"), ("ce-type", b"t")];

    fn read_one(
        mode: Mode,
        headers: &[(&'static str, &'static [u8])],
        body: &'static [u8],
    ) -> Result<String> {
        let body = Bytes::from_static(body);
        let mut events = read(mode, headers.iter().copied(), &body)?;
        assert_eq!(events.len(), 1);
        let event = events.remove(0)?;
        check(&event, 1_000_000)?;
        Ok(to_json(&EventView::parse(&event).unwrap()))
    }

    fn binary_with(
        more: &[(&'static str, &'static [u8])],
        body: &'static [u8],
    ) -> Result<serde_json::Value> {
        let headers: Vec<_> = HEAD.iter().chain(more).copied().collect();
        read_one(Mode::Binary, &headers, body).map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn the_media_type_decides_and_batches_are_not_taken_for_single_events() {
        use Format::{Json, Protobuf};
        let cases = [
            ("application/cloudevents-batch+json", Some(Mode::Batch(Json))),
            ("Application/CloudEvents-Batch+JSON; charset=utf-8", Some(Mode::Batch(Json))),
            ("application/cloudevents-batch+protobuf", Some(Mode::Batch(Protobuf))),
            ("application/cloudevents+json ;charset=utf-8", Some(Mode::Structured(Json))),
            ("application/cloudevents+protobuf", Some(Mode::Structured(Protobuf))),
            ("application/cloudevents+xml", None),
            ("application/cloudevents", None),
            ("application/cloudevents-batch+avro", None),
            ("application/json", Some(Mode::Binary)),
            ("", Some(Mode::Binary)),
        ];
        for (text, mode) in cases {
            assert_eq!(Mode::of(Some(text.as_bytes())), mode, "{text}");
        }
        assert_eq!(Mode::of(None), Some(Mode::Binary));
        assert_eq!(Mode::of(Some(b"\xff")), Some(Mode::Binary));
    }

    #[test]
    fn binary_mode_takes_attributes_from_headers_and_the_payload_from_the_body() {
        let event = binary_with(
            &[
                ("ce-subject", b"caf%C3%A9 100%"),
                ("ce-time", b"2026-01-02T03:04:05.123456Z"),
                ("ce-flag", b"True"),
                ("ce-datacontenttype", b"text/lies"),
                ("content-type", b"application/json; charset=utf-8"),
                ("x-other", b"1"),
            ],
            b"{\"a\": 1}",
        )
        .unwrap();

        assert_eq!(event["subject"], "caf\u{e9} 100%");
        assert_eq!(event["time"], "2026-01-02T03:04:05.123456Z");
        assert_eq!(event["flag"], "True");
        assert_eq!(event["datacontenttype"], "application/json; charset=utf-8");
        assert_eq!(event["data"]["a"], 1);
        assert_eq!(event.as_object().unwrap().len(), 9);
    }

    #[test]
    fn each_required_attribute_is_demanded_in_every_mode() {
        for missing in ["specversion", "id", "source", "type"] {
            let headers: Vec<_> =
                HEAD.iter().filter(|(name, _)| name[3..] != *missing).copied().collect();
            let error = read_one(Mode::Binary, &headers, b"").unwrap_err();
            assert_eq!(error.field(), Some(missing));

            let members = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
            let members = members.iter().filter(|(name, _)| *name != missing);
            let members = members.map(|(name, value)| format!("{name:?}:{value:?}"));
            let text = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
            let events =
                read(Mode::Structured(Format::Json), HEAD.into_iter(), &Bytes::from(text)).unwrap();
            // Headers of an event do not help one that is in the body.
            let error = check(events[0].as_ref().unwrap(), 1_000).unwrap_err();
            assert_eq!(error.field(), Some(missing));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let refused = |more: &[(&'static str, &'static [u8])]| {
            binary_with(more, b"").unwrap_err().field().unwrap_or_default().to_owned()
        };

        assert_eq!(refused(&[("ce-id", b"2")]), "id");
        assert_eq!(refused(&[("ce-a", b"1"), ("ce-a", b"2")]), "a");
        assert_eq!(refused(&[("ce-a", b"%C0%A0")]), "a");
        assert_eq!(refused(&[("ce-time", b"noon")]), "time");
        assert_eq!(refused(&[("ce-data", b"x")]), "data");
        assert_eq!(refused(&[("ce-under_score", b"x")]), "under_score");
        assert_eq!(refused(&[("ce-a", b"%0A")]), "a");
    }

    #[test]
    fn one_event_of_a_batch_may_be_wrong() {
        let text =
            r#"[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"id":"1","id":"2"},7]"#;
        let json = Mode::Batch(Format::Json);
        let events = read(json, std::iter::empty(), &Bytes::from(text)).unwrap();

        let good: Vec<bool> = events.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, false]);
        assert!(read(json, std::iter::empty(), &Bytes::from("[]")).unwrap().is_empty());
        for text in ["", "{}", "[1", "[] x"] {
            assert!(read(json, std::iter::empty(), &Bytes::from(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn events_of_a_protobuf_batch_are_pieces_of_the_body() {
        let event = |id: &str| CloudEvent { id: id.to_owned(), ..CloudEvent::default() };
        let batch = CloudEventBatch { events: vec![event("1"), event(""), event("3")] };
        let body = Bytes::from(batch.encode_to_vec());
        let mode = Mode::Batch(Format::Protobuf);

        let events = read(mode, std::iter::empty(), &body).unwrap();

        let all: Vec<CloudEvent> =
            events.into_iter().map(|one| CloudEvent::decode(one.unwrap()).unwrap()).collect();
        assert_eq!(all, batch.events);
        for wrong in [&b"\x0a\x05x"[..], b"\x08\x01", b"\xff", b"\x12"] {
            assert!(read(mode, std::iter::empty(), &Bytes::copy_from_slice(wrong)).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn protobuf_batches_are_read_as_the_generated_decoder_reads_them(
            body in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let pieces = read(Mode::Batch(Format::Protobuf), std::iter::empty(), &body.clone().into());
            if let Ok(batch) = CloudEventBatch::decode(body.as_slice()) {
                let pieces: Vec<_> = pieces.unwrap().into_iter()
                    .map(|one| CloudEvent::decode(one.unwrap()).unwrap()).collect();
                prop_assert_eq!(pieces, batch.events);
            }
        }

        #[test]
        fn attributes_survive_their_headers(text in "[ -~]{1,30}", name in "[a-z0-9]{1,12}") {
            prop_assume!(!["id", "source", "type", "specversion", "time", "data", "datacontenttype",
                "dataschema"].contains(&name.as_str()) && !name.starts_with("weft"));
            let header = format!("ce-{name}");
            let encoded = text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
            let more = [(header.as_str(), encoded.as_bytes())];
            let headers = HEAD.into_iter().chain(more);
            let events = read(Mode::Binary, headers, &Bytes::new()).unwrap();
            let bytes = events[0].as_ref().unwrap();
            let view = check(bytes, 10_000).unwrap();
            prop_assert_eq!(view.attribute(&name).unwrap(), text);
        }
    }
}
