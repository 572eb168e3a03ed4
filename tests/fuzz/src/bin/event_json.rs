//! One structured event in JSON: `weft_proto::event::from_json`, as the CLI and function replies
//! use it.

#![cfg_attr(fuzzing, no_main)]

use prost::Message as _;
use weft_fuzz::sample;
use weft_proto::event::{self, EVENT_BYTES_MAX, EventView};

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let Ok(message) = event::from_json(data) else { return false };
    let bytes = message.encode_to_vec();
    let view = EventView::parse(&bytes).expect("we read what we encode");
    assert_eq!((view.id, view.source), (&*message.id, &*message.source));
    if event::check(&bytes, EVENT_BYTES_MAX).is_err() {
        return true;
    }
    // Once it went through JSON, it is the same for ever.
    let text = event::to_json(&view);
    assert!(!text.contains('\n'), "one event, one line");
    let again = event::from_json(text.as_bytes()).expect("we read what we write");
    assert!(sample::same_data(message.data.as_ref(), again.data.as_ref()), "{text}");
    let again = again.encode_to_vec();
    let again = EventView::parse(&again).expect("we read what we encode");
    assert_eq!(event::to_json(&again), text);
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = sample::encoded()
        .iter()
        .filter_map(|event| EventView::parse(event).map(|view| event::to_json(&view).into_bytes()))
        .collect();
    for text in [
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a": [1.50, "\u00e9"]}}"#,
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AAEC","n":5,"b":true}"#,
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"a\nb"}"#,
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-02T03:04:05.6+01:00","subject":null}"#,
        r#"{"id":"1","id":"2"}"#,
        "[]",
    ] {
        seeds.push(text.as_bytes().to_vec());
    }
    seeds
}
