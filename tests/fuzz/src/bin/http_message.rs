//! Events as HTTP messages carry them, in all modes: `weft_proto::event::message`, as the HTTP port
//! reads what anybody sends.

#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use prost::Message as _;
use weft_fuzz::sample;
use weft_proto::cloudevents::{CloudEvent, CloudEventBatch};
use weft_proto::event::message::{self, Format, Mode};
use weft_proto::event::{self, EVENT_BYTES_MAX, EventView};

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

/// Lines of headers up to an empty one, then the body.
pub fn run(data: &[u8]) -> bool {
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    let mut rest = data;
    let body = loop {
        let (line, after) = match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &b""[..]),
        };
        if line.is_empty() {
            break Bytes::copy_from_slice(after);
        }
        if let Some(colon) = line.iter().position(|&byte| byte == b':')
            && let Ok(name) = http::HeaderName::from_bytes(&line[..colon])
            && let Ok(value) = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii())
        {
            headers.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
        }
        rest = after;
    };
    let content = headers.iter().find(|(name, _)| name == "content-type");
    let Some(mode) = Mode::of(content.map(|(_, value)| value.as_slice())) else { return false };
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let Ok(events) = message::read(mode, lines, &body) else { return false };
    if !matches!(mode, Mode::Batch(_)) {
        assert_eq!(events.len(), 1, "one message, one event");
    }
    let mut is_good = events.is_empty();
    for event in events.into_iter().flatten() {
        let Ok(view) = event::check(&event, EVENT_BYTES_MAX) else { continue };
        is_good = true;
        // Whatever is stored can be decoded by everybody, and shown in JSON.
        CloudEvent::decode(event.as_ref()).expect("others read what we take");
        let text = event::to_json(&view);
        assert!(!text.contains('\n'), "one event, one line");
        if let Mode::Binary | Mode::Structured(Format::Protobuf) = mode {
            let from_body = view.data_bytes().is_none_or(|data| body.len() >= data.len());
            assert!(from_body, "a payload comes out of the body");
        }
    }
    is_good
}

pub fn seeds() -> Vec<Vec<u8>> {
    let head = "ce-specversion: 1.0\nce-id: 1\nce-source: /s\nce-type: t\n";
    let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a": 1}}"#;
    let mut seeds: Vec<Vec<u8>> = [
        format!("{head}content-type: application/json\n\n{{\"a\": 1}}"),
        format!("{head}ce-subject: caf%C3%A9\nce-time: 2026-01-02T03:04:05.6+01:00\n\n"),
        format!("{head}ce-a: \"quoted \\\"x\\\"\"\nce-b: 100%\nce-datacontenttype: x\n\nx"),
        format!("{head}ce-id: 2\n\n"),
        format!("{head}ce-a: %C0%A0\n\n"),
        format!("{head}traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n\n"),
        format!("content-type: application/cloudevents+json; charset=utf-8\n\n{json}"),
        format!("content-type: Application/CloudEvents-Batch+JSON\n\n[{json},{{}}]"),
        "content-type: application/cloudevents-batch+json\n\n[]".to_owned(),
        "content-type: application/cloudevents+xml\n\n<a/>".to_owned(),
        "\n".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec();
    let events = sample::encoded();
    for event in &events {
        if EventView::parse(event).is_some() {
            let line = &b"content-type: application/cloudevents+protobuf\n\n"[..];
            seeds.push([line, event].concat());
        }
    }
    let decoded = events.iter().filter_map(|event| CloudEvent::decode(&event[..]).ok());
    let batch = CloudEventBatch { events: decoded.collect() }.encode_to_vec();
    let line = &b"content-type: application/cloudevents-batch+protobuf\n\n"[..];
    seeds.push([line, &batch].concat());
    seeds
}
