//! Random numbers from a seed, so that a run of the rules can be repeated exactly.

use std::time::Duration;

/// The `SplitMix64` sequence.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A duration in `low..=high`.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let low_us = u64::try_from(low.as_micros()).unwrap_or(u64::MAX);
        let high_us = u64::try_from(high.as_micros()).unwrap_or(u64::MAX);
        match high_us.saturating_sub(low_us).checked_add(1) {
            Some(span) => Duration::from_micros(low_us + self.next() % span),
            None => Duration::from_micros(self.next()),
        }
    }
}

/// The longest wait before try number `failures + 1`: `base * 2^(failures - 1)`, at most `cap`.
pub fn backoff_max(base: Duration, cap: Duration, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_cap_and_never_overflows() {
        let (base, cap) = (Duration::from_millis(200), Duration::from_mins(1));
        let max = |failures| backoff_max(base, cap, failures);

        assert_eq!(max(0), Duration::from_millis(200));
        assert_eq!(max(1), Duration::from_millis(200));
        assert_eq!(max(2), Duration::from_millis(400));
        assert_eq!(max(9), Duration::from_millis(51_200));
        assert_eq!(max(10), cap);
        assert_eq!(max(u32::MAX), cap);
    }

    #[test]
    fn between_stays_between_even_at_the_extremes() {
        let mut random = Random::new(7);
        for _ in 0..100 {
            let (low, high) = (Duration::from_millis(5), Duration::from_millis(9));
            let drawn = random.between(low, high);
            assert!((low..=high).contains(&drawn));
        }
        random.between(Duration::ZERO, Duration::MAX);
        assert_eq!(random.between(Duration::ZERO, Duration::ZERO), Duration::ZERO);
    }
}
