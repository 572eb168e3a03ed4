//! The only place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use weft_proto::Timestamp;

/// The present, in microseconds; 1970 when the clock is set before it.
///
/// Only a leader's proposals carry it; what replicas agree on never depends on a local clock.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn now() -> Timestamp {
    // A simulated node has a clock of its own.
    #[cfg(test)]
    if let Some(now) = crate::sim::process::now() {
        return now;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
