//! The answer of a function: CloudEvents over HTTP in any mode, `weft_dispatcher::push::decode`.
//!
//! A function is somebody else's program: headers and body may be anything that HTTP lets through.

#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use weft_dispatcher::push::decode;
use weft_fuzz::{Input, chunk, sample};
use weft_proto::cloudevents::CloudEventBatch;
use weft_proto::event::{EVENT_BYTES_MAX, EventView, check, to_json};

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

const CONTENT_TYPES: [&str; 8] = [
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents-batch+json; charset=utf-8",
    "application/cloudevents+protobuf",
    "application/cloudevents-batch+protobuf",
    "application/cloudevents+avro",
    "text/plain",
    "",
];
const NAMES: [&str; 8] = [
    "ce-id",
    "ce-source",
    "ce-type",
    "ce-specversion",
    "ce-time",
    "ce-subject",
    "ce-dataschema",
    "ce-datacontenttype",
];

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut headers = HeaderMap::new();
    let content_type = CONTENT_TYPES[usize::from(input.u8()) % CONTENT_TYPES.len()];
    if !content_type.is_empty() {
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for _ in 0..input.u8() % 16 {
        let choice = usize::from(input.u8());
        let name = match NAMES.get(choice) {
            Some(name) => HeaderName::from_static(name),
            None => match HeaderName::from_bytes(input.chunk()) {
                Ok(name) => name,
                Err(_) => continue,
            },
        };
        if let Ok(value) = HeaderValue::from_bytes(input.chunk()) {
            headers.append(name, value);
        }
    }
    let body = Bytes::copy_from_slice(input.rest());
    let Ok(events) = decode(&headers, &body) else { return false };
    assert!(events.len() <= body.len().max(1), "an event takes at least a byte");
    for event in &events {
        let bytes = event.encode_to_vec();
        // It may break the rules, which are checked before it is published; it must be readable.
        let view = EventView::parse(&bytes).expect("we read what we encode");
        if check(&bytes, EVENT_BYTES_MAX).is_ok() {
            assert!(!to_json(&view).is_empty());
        }
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let header = |name: u8, value: &[u8]| [vec![name], chunk(value)].concat();
    let binary = [
        header(0, b"1"),
        header(1, b"/s"),
        header(2, b"Euro%20%E2%82%AC"),
        header(3, b"1.0"),
        header(4, b"2026-01-02T03:04:05Z"),
        header(5, br#""quoted \" one""#),
        [vec![0xff], chunk(b"ce-custom"), chunk(b"caf\xe9 100%zz%4")].concat(),
    ];
    let event = sample::encode(&sample::event());
    let json = EventView::parse(&event).map(|view| to_json(&view)).unwrap_or_default();
    let batch = CloudEventBatch { events: sample::events().into_iter().skip(1).collect() };
    vec![
        [vec![0, 7], binary.concat(), b"{}".to_vec()].concat(),
        [&[1, 0][..], json.as_bytes()].concat(),
        [&[2, 0][..], format!("[{json},{json}]").as_bytes()].concat(),
        [&[3, 0][..], &event].concat(),
        [&[4, 0][..], &batch.encode_to_vec()].concat(),
        vec![5, 0],
        vec![6, 0],
    ]
}
