//! A rate limit in one number: the generic cell rate algorithm.
//!
//! Pure but for the atomic: time is an argument. Source: ITU-T I.371, annex A, in the form of
//! a theoretical arrival time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on; so much may still come at once.
    Pass {
        /// Units.
        left: u64,
    },
    /// Not before this much time has passed.
    Wait(Duration),
    /// Never: it is more than may ever come at once.
    Never,
}

/// How much may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units in a second; 0 lets nothing pass.
    pub per_second: u64,
    /// Units that may come at once after a pause.
    pub burst: u64,
}

impl Rate {
    /// A rate whose burst is what comes in a second, and at least `burst_min`.
    pub fn per_second(per_second: u64, burst_min: u64) -> Self {
        Self { per_second, burst: per_second.max(burst_min) }
    }

    fn nanos(self, units: u64) -> u64 {
        let nanos = u128::from(units) * 1_000_000_000 / u128::from(self.per_second.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

/// How much has come.
#[derive(Debug, Default)]
pub struct Gcra {
    /// When all that has come would have come at the steady rate, in nanoseconds.
    due: AtomicU64,
}

impl Gcra {
    /// Takes units at a time, in nanoseconds of any clock that does not go back; or says when they
    /// can be taken, and takes nothing.
    pub fn take(&self, rate: Rate, units: u64, now: u64) -> Answer {
        if units > rate.burst || rate.per_second == 0 {
            return Answer::Never;
        }
        let (cost, room) = (rate.nanos(units), rate.nanos(rate.burst));
        let mut due = self.due.load(Ordering::Relaxed);
        loop {
            let next = due.max(now).saturating_add(cost);
            let ahead = next.saturating_sub(now);
            if ahead > room {
                return Answer::Wait(Duration::from_nanos(ahead - room));
            }
            match self.due.compare_exchange_weak(due, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let left = u128::from(room - ahead) * u128::from(rate.per_second);
                    let left = u64::try_from(left / 1_000_000_000).unwrap_or(u64::MAX);
                    return Answer::Pass { left };
                }
                Err(other) => due = other,
            }
        }
    }

    /// Whether it is as if nothing had come.
    pub fn is_idle(&self, now: u64) -> bool {
        self.due.load(Ordering::Relaxed) <= now
    }

    /// Takes units whatever has come before, and says how long to wait for them: for what cannot be
    /// refused, only slowed down.
    pub fn pace(&self, rate: Rate, units: u64, now: u64) -> Duration {
        let (cost, room) = (rate.nanos(units), rate.nanos(rate.burst));
        let raise = |due: u64| Some(due.max(now).saturating_add(cost));
        let before = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise);
        let before = before.unwrap_or_else(|same| same);
        let ahead = before.max(now).saturating_add(cost).saturating_sub(now);
        Duration::from_nanos(ahead.saturating_sub(room))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (gcra, rate) = (Gcra::default(), Rate { per_second: 10, burst: 3 });

        for left in [2, 1, 0] {
            assert_eq!(gcra.take(rate, 1, SECOND), Answer::Pass { left });
        }
        assert_eq!(gcra.take(rate, 1, SECOND), Answer::Wait(Duration::from_millis(100)));
        assert_eq!(gcra.take(rate, 1, SECOND + SECOND / 10), Answer::Pass { left: 0 });
        assert_eq!(gcra.take(rate, 4, 9 * SECOND), Answer::Never);
        assert_eq!(gcra.take(rate, 3, 9 * SECOND), Answer::Pass { left: 0 });
        assert_eq!(gcra.take(Rate { per_second: 0, burst: 3 }, 1, 99 * SECOND), Answer::Never);
    }

    #[test]
    fn what_cannot_be_refused_is_slowed_down() {
        let (gcra, rate) = (Gcra::default(), Rate { per_second: 100, burst: 100 });

        assert_eq!(gcra.pace(rate, 100, SECOND), Duration::ZERO);
        assert_eq!(gcra.pace(rate, 50, SECOND), Duration::from_millis(500));
        assert_eq!(gcra.pace(rate, 1_000, 2 * SECOND), Duration::from_millis(9_500));
    }

    proptest! {
        /// A bucket that is filled at the rate is the same thing, and easier to believe.
        #[test]
        fn agrees_with_a_leaky_bucket(
            steps in proptest::collection::vec((0..400_u64, 1..5_u64), 1..60),
            per_second in 1..20_u64, burst in 1..10_u64,
        ) {
            let (gcra, rate) = (Gcra::default(), Rate { per_second, burst });
            // Level in units of 1/(1000 * per_second) second.
            let (mut now, mut level) = (SECOND, 0_u64);
            for (pause_ms, units) in steps {
                now += pause_ms * 1_000_000;
                level = level.saturating_sub(pause_ms * per_second);
                let fits = units <= burst && level + units * 1_000 <= burst * 1_000;
                let passed = matches!(gcra.take(rate, units, now), Answer::Pass { .. });
                // Nanoseconds are rounded down, so the limit itself may be met a moment early.
                let is_close = (level + units * 1_000).abs_diff(burst * 1_000) <= 1;
                prop_assert!(passed == fits || is_close && units <= burst);
                if passed {
                    level += units * 1_000;
                }
            }
        }

        #[test]
        fn never_lets_more_pass_than_rate_and_burst(
            pauses in proptest::collection::vec(0..SECOND / 5, 1..200), per_second in 1..50_u64,
        ) {
            let (gcra, rate) = (Gcra::default(), Rate::per_second(per_second, 1));
            let (mut now, mut passed) = (7_u64, 0_u64);
            for pause in &pauses {
                now += pause;
                passed += u64::from(matches!(gcra.take(rate, 1, now), Answer::Pass { .. }));
            }
            let most = rate.burst + (now - 7) * per_second / SECOND + 1;
            prop_assert!(passed <= most, "{passed} > {most}");
        }
    }
}
