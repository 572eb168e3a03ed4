//! When to try again: exponential delays with full jitter. Pure: randomness is an argument.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(1);

/// Delays between attempts, rising with each failure in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure: half of it fixed, half of it random, so that many
    /// clients do not come back at once and none comes back immediately.
    ///
    /// `hint` is what the server asked for; it is a lower bound.
    pub(crate) fn next(&mut self, hint: Option<Duration>, random: u32) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(DELAY_MAX);
        self.failures = self.failures.saturating_add(1);
        let half = ceiling / 2;
        let jitter = half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        (half + jitter).max(hint.unwrap_or_default())
    }

    /// An attempt succeeded: the next failure is a first one again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_rise_to_a_bound_and_start_afresh_after_success() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..10).map(|_| backoff.next(None, u32::MAX)).collect();

        assert_eq!(delays[0], FIRST);
        assert!(delays.is_sorted());
        assert_eq!(delays[9], DELAY_MAX);
        backoff.reset();
        assert_eq!(backoff.next(None, u32::MAX), FIRST);
    }

    proptest! {
        #[test]
        fn a_delay_is_never_zero_nor_shorter_than_the_hint(
            failures in 0..u32::MAX, random: u32, hint in 0..5_000u64,
        ) {
            let hint = Duration::from_millis(hint);
            let delay = Backoff { failures }.next(Some(hint), random);

            prop_assert!(delay >= FIRST / 2);
            prop_assert!(delay >= hint);
            prop_assert!(delay <= DELAY_MAX.max(hint));
        }
    }
}
