//! How much of what is sent may be retries: a part of what succeeds, and a little always.
//!
//! Without it, a function that fails often would spend its time on what fails, and a fault that
//! hits everything would multiply the load at the worst moment.

use std::time::Duration;

/// Of a hundred successes so many retries.
const PERCENT: u64 = 20;
/// One retry, in hundredths.
const RETRY: u64 = 100;
/// A retry every so often, whatever succeeds.
const FLOOR_EVERY: Duration = Duration::from_millis(100);
/// Most that is saved up.
const SAVED_MAX: u64 = 100 * RETRY;

/// The budget of one trigger.
#[derive(Debug)]
pub(super) struct Budget {
    saved: u64,
    floor_at: Duration,
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self { saved: 10 * RETRY, floor_at: Duration::ZERO }
    }

    pub(super) fn handle_success(&mut self) {
        self.saved = self.saved.saturating_add(PERCENT).min(SAVED_MAX);
    }

    /// When the next retry may go.
    pub(super) fn free_at(&self) -> Duration {
        if self.saved >= RETRY { Duration::ZERO } else { self.floor_at }
    }

    /// A retry goes.
    pub(super) fn take(&mut self, now: Duration) {
        if self.saved >= RETRY {
            self.saved -= RETRY;
        } else {
            self.floor_at = now.saturating_add(FLOOR_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_successes_and_ten_a_second() {
        let mut budget = Budget::new();
        let mut now = Duration::ZERO;
        let spend = |budget: &mut Budget, now: Duration| {
            let mut count = 0;
            while budget.free_at() <= now {
                budget.take(now);
                count += 1;
            }
            count
        };
        assert_eq!(spend(&mut budget, now), 11);
        for _ in 0..50 {
            budget.handle_success();
        }
        assert_eq!(spend(&mut budget, now), 10);
        now += FLOOR_EVERY;
        assert_eq!(spend(&mut budget, now), 1);
        for _ in 0..10_000 {
            budget.handle_success();
        }
        assert_eq!(spend(&mut budget, now), 100);
    }
}
