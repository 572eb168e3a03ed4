//! Random waits from a seed, so that a run of the rules can be repeated exactly.

use std::time::Duration;

use super::Backoff;

/// The `SplitMix64` sequence.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// How long to wait after so many failures: anything up to the bound.
    pub(super) fn wait(&mut self, backoff: &Backoff, failures: u32) -> Duration {
        let bound = u64::try_from(bound(backoff, failures).as_micros()).unwrap_or(u64::MAX);
        let drawn = self.next();
        Duration::from_micros(bound.checked_add(1).map_or(drawn, |span| drawn % span))
    }
}

/// The longest wait: `base * 2^(failures - 1)`, at most `cap`.
pub(super) fn bound(backoff: &Backoff, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    backoff.base.saturating_mul(factor).min(backoff.cap)
}
