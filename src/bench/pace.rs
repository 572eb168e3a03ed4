//! A fixed rate, whatever the cluster does: when each event is due, and a clock that keeps to it.

use std::time::Duration;

use tokio::time::Instant;

/// When events are due. A late event is late for whoever waits for it, so times are taken from
/// here and not from when it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    begin: Instant,
    gap: Duration,
}

impl Pace {
    /// So many events a second from then on.
    pub(super) fn new(begin: Instant, per_second: u32) -> Self {
        Self { begin, gap: Duration::from_secs(1) / per_second.max(1) }
    }

    /// When the event of this number is due, counting from 0.
    pub(super) fn due(&self, number: u32) -> Instant {
        self.begin + self.gap * number
    }

    /// Blocks a thread until then. A runtime's clock ticks each millisecond, which would be a part
    /// of what is measured.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, none of a runtime")]
    pub(super) fn wait(&self, number: u32) {
        std::thread::sleep(self.due(number).saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_due_in_even_steps_and_never_early() {
        let begin = Instant::now();
        let pace = Pace::new(begin, 10_000);

        assert_eq!(pace.due(0), begin);
        assert_eq!(pace.due(25) - begin, Duration::from_micros(2_500));
        pace.wait(25);
        assert!(begin.elapsed() >= Duration::from_micros(2_500));
    }
}
