//! The only place that reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
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

/// Waits until an instant; for ever without one.
///
/// # Cancel safety
///
/// Cancel safe.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Wall clock and monotonic clock may part by this much before neither is believed.
const PARTED_MAX: Duration = Duration::from_mins(5);

/// Tells whether the wall clock jumped since this was made.
#[derive(Clone, Copy, Debug)]
pub struct Steadiness {
    began: Instant,
    began_wall: Timestamp,
    is_steady: bool,
}

impl Steadiness {
    /// Believes the wall clock as it is now.
    pub fn new() -> Self {
        Self { began: Instant::now(), began_wall: now(), is_steady: true }
    }

    /// What the last look said.
    pub fn is_steady(&self) -> bool {
        self.is_steady
    }

    /// Compares the clocks.
    pub fn look(&mut self) -> bool {
        self.compare(self.began.elapsed(), now())
    }

    fn compare(&mut self, elapsed: Duration, wall: Timestamp) -> bool {
        let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let expected = self.began_wall.as_micros().saturating_add(elapsed);
        let parted = Duration::from_micros(expected.abs_diff(wall.as_micros()));
        self.is_steady = parted <= PARTED_MAX;
        self.is_steady
    }
}

impl Default for Steadiness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_either_way_is_noticed_and_forgiven_once_undone() {
        let mut clock = Steadiness::new();
        let hour = Duration::from_hours(1);
        let at = |micros: u64| Timestamp::from_micros(clock.began_wall.as_micros() + micros);
        let (right, ahead) = (at(3_600_000_000), at(3_600_000_000 + 301_000_000));
        let behind = at(3_600_000_000 - 301_000_000);

        assert!(clock.compare(hour, right));
        assert!(!clock.compare(hour, ahead));
        assert!(!clock.compare(hour, behind));
        assert!(clock.compare(hour, right) && clock.is_steady());
    }
}
