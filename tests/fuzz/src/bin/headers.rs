//! Headers that strangers write: trace context of whoever calls us, and what receivers of webhooks answer:
//! consent, pauses, and which events of a batch they did not take.

#![cfg_attr(fuzzing, no_main)]

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use weft_dispatcher::egress::consent;
use weft_dispatcher::fuzzing::{pause, untaken};
use weft_fuzz::{Input, chosen, chunk, sample};
use weft_proto::Timestamp;
use weft_proto::event::{EVENT_BYTES_MAX, check};
use weft_proto::trace::{TraceContext, TraceParent};

weft_fuzz::target!();

pub const MAX_LEN: usize = 1_024;

const NAMES: [&str; 6] = [
    "traceparent",
    "tracestate",
    "retry-after",
    "webhook-allowed-origin",
    "webhook-allowed-rate",
    "x",
];
const STATUS: [u16; 8] = [200, 404, 408, 410, 429, 500, 503, 600];
const ORIGIN: &str = "mesh.example";
/// What everybody must pass on of `tracestate`; the rest may go.
const STATE_BYTES_MAX: usize = 512;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let choice = input.u8() % 4;
    if choice == 3 {
        let found = untaken(input.rest());
        return !found.is_empty();
    }
    let status = match input.u8() {
        known if usize::from(known) < STATUS.len() => STATUS[usize::from(known)],
        _ => input.u16(),
    };
    let Ok(status) = StatusCode::from_u16(status) else { return false };
    let (wished, now) = (input.number(), Timestamp::from_micros(input.number()));
    let mut headers = HeaderMap::new();
    for _ in 0..input.u8() % 8 {
        let name = NAMES[usize::from(input.u8()) % NAMES.len()];
        if let Ok(value) = HeaderValue::from_bytes(input.chunk()) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    match choice {
        0 => traced(&headers),
        1 => paused(status, &headers, now),
        _ => consented(status, &headers, u32::try_from(wished).ok()),
    }
}

/// A context is passed on as it was read, and no event becomes worse by it.
fn traced(headers: &HeaderMap) -> bool {
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let Some(context) = TraceContext::of_headers(lines) else { return false };
    let (parent, state) = (context.traceparent(), context.tracestate());
    assert_eq!(parent.parse::<TraceParent>(), Ok(context.parent()));
    assert_eq!(context.parent().to_string().parse::<TraceParent>(), Ok(context.parent()));
    assert!(state.is_none_or(|state| !state.is_empty() && state.len() <= STATE_BYTES_MAX));
    assert_eq!(TraceContext::read(parent, state).as_ref(), Some(&context), "read again");

    let event = sample::encode(&sample::event()).into();
    let event = context.put(event);
    let view = check(&event, EVENT_BYTES_MAX).expect("an event stays one");
    assert_eq!(TraceContext::of_event(&view).as_ref(), Some(&context), "and has the context");
    assert_eq!(context.put(event.clone()), event, "once");
    true
}

/// Only those who are asked to wait do, and a number of seconds means just that.
fn paused(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> bool {
    let Some(pause_time) = pause(status, headers, now) else {
        assert_ne!(status, 429, "too many requests are a pause");
        return false;
    };
    assert!(status == 429 || status == 503 && pause_time.is_some());
    if let Some(time) = pause_time {
        let seconds = HeaderValue::from(time.as_secs());
        let again = HeaderMap::from_iter([(http::header::RETRY_AFTER, seconds)]);
        let time = Duration::from_secs(time.as_secs());
        assert_eq!(pause(status, &again, now), Some(Some(time)));
    }
    true
}

/// There is no consent without one header that says so, nor for more than is wished and allowed.
fn consented(status: StatusCode, headers: &HeaderMap, wished: Option<u32>) -> bool {
    let consent::Answer::Yes(rate) = consent::read(status, headers, ORIGIN, wished) else {
        return false;
    };
    let origins: Vec<&HeaderValue> = headers.get_all(NAMES[3]).iter().collect();
    let [origin] = origins[..] else { panic!("{} origins", origins.len()) };
    let origin = origin.to_str().expect("what was read is text").trim();
    assert!(origin == "*" || origin.eq_ignore_ascii_case(ORIGIN), "{origin:?}");
    assert!(wished.is_none_or(|wished| rate.is_some_and(|rate| rate <= wished)));
    assert!(rate != Some(0) || wished == Some(0), "nothing is no consent");
    true
}

/// A choice, a status, what is wished, the time, and headers.
fn message(choice: u8, status: u8, headers: &[(u8, &str)]) -> Vec<u8> {
    let mut bytes = vec![status, 60, 0, u8::try_from(headers.len()).unwrap_or(0)];
    for (name, value) in headers {
        bytes.push(*name);
        bytes.extend(chunk(value.as_bytes()));
    }
    chosen(choice, bytes)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-x";
    vec![
        message(0, 0, &[(0, parent), (1, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")]),
        message(0, 0, &[(1, "t@s=1 ,\tb=2,,"), (0, later), (1, "c=3")]),
        message(0, 0, &[(0, parent), (0, parent)]),
        message(1, 4, &[(2, "120")]),
        message(1, 6, &[(2, "Wed, 21 Oct 2015 07:28:00 GMT")]),
        message(1, 4, &[]),
        message(2, 0, &[(3, "*"), (4, "120")]),
        message(2, 1, &[(3, "Mesh.Example"), (4, "99999999999")]),
        message(2, 0, &[(3, "*"), (3, "evil")]),
        chosen(
            3,
            r#"{"failed":[{"id":"1","source":"/s","retry_after":7},{"id":"2","source":""}]}"#,
        ),
        chosen(3, "[]"),
    ]
}
