//! Private decoders for `tests/fuzz`, which is a crate of its own.
//!
//! Owns: nothing. Never: compiled into what is shipped; see the feature `fuzzing`.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use weft_proto::Timestamp;

use crate::push::{Verdict, read_status};
use crate::webhook;

/// Whether an answer asks for a pause, and for how long if it says so.
pub fn pause(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Option<Duration>> {
    match read_status(status, headers, now) {
        Verdict::Throttled { retry_after } => Some(retry_after),
        _ => None,
    }
}

/// Events of a batch that the receiver did not take, by id and source, and when they may come again.
pub fn untaken(body: &[u8]) -> Vec<(String, String, Option<Duration>)> {
    webhook::untaken(body)
}
