//! When an instance may be started again after one failed.

use std::time::Duration;

use crate::delivery::{Random, backoff_max};

const BASE: Duration = Duration::from_millis(100);
const CAP: Duration = Duration::from_secs(30);
/// Failures in a row from which on the function is said to crash in a loop.
const LOOP_LEN: u32 = 3;

/// The failures of one function's instances.
#[derive(Debug, Default)]
pub struct Restart {
    failures: u32,
    not_before: Duration,
}

impl Restart {
    /// An instance ended by itself, or could not be started.
    pub fn handle_failure(&mut self, random: &mut Random, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        let high = backoff_max(BASE, CAP, self.failures);
        // Never at once: a program that ends at once would keep this host busy with nothing else.
        self.not_before = now.saturating_add(random.between(high / 2, high));
    }

    /// An event was answered well: whatever was wrong is over.
    pub fn handle_success(&mut self) {
        self.failures = 0;
    }

    /// The function changed: the new revision deserves a try at once.
    pub fn handle_new_revision(&mut self) {
        *self = Self::default();
    }

    /// Before this time nothing is started.
    pub fn ready_at(&self) -> Duration {
        self.not_before
    }

    /// Whether instances fail again and again.
    pub fn is_loop(&self) -> bool {
        self.failures >= LOOP_LEN
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_success_ends_them() {
        let (mut restart, mut random) = (Restart::default(), Random::new(1));
        let mut longest = Duration::ZERO;
        for failures in 1..=20 {
            restart.handle_failure(&mut random, Duration::ZERO);
            let wait = restart.ready_at();
            assert!(wait >= BASE / 2 && wait <= CAP);
            assert_eq!(restart.is_loop(), failures >= LOOP_LEN);
            longest = longest.max(wait);
        }
        assert!(longest >= CAP / 2);

        restart.handle_success();
        assert!(!restart.is_loop());
        restart.handle_failure(&mut random, Duration::ZERO);
        assert!(restart.ready_at() <= BASE);
    }

    #[test]
    fn a_new_revision_starts_at_once() {
        let mut restart = Restart::default();
        restart.handle_failure(&mut Random::new(1), Duration::from_secs(5));

        restart.handle_new_revision();

        assert_eq!(restart.ready_at(), Duration::ZERO);
    }
}
