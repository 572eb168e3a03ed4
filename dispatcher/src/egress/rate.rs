//! So many requests a minute, spread over it.

use std::time::Duration;

/// A little more than a minute, so that clocks and jitter never make it one too many.
const MINUTE: Duration = Duration::from_millis(60_100);
/// How late a request may be and still be made up for: timers are coarse.
const SLACK: Duration = Duration::from_millis(50);

/// Says when the next request may go.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    interval: Option<Duration>,
    next: Duration,
}

impl Rate {
    /// At most so many a minute; any number without a limit.
    pub fn new(per_minute: Option<u32>) -> Self {
        let mut rate = Self::default();
        rate.set(per_minute);
        rate
    }

    /// Changes the limit; what was sent counts on.
    pub fn set(&mut self, per_minute: Option<u32>) {
        self.interval = per_minute.map(|limit| MINUTE / limit.max(1));
    }

    /// When the next request may go.
    pub const fn free_at(&self) -> Duration {
        self.next
    }

    /// A request goes.
    pub fn take(&mut self, now: Duration) {
        let Some(interval) = self.interval else { return };
        self.next = self.next.max(now.saturating_sub(SLACK)).saturating_add(interval);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn no_minute_has_more(
            limit in 1_u32..3_000,
            waits in proptest::collection::vec(0_u64..200_000, 1..400),
        ) {
            let mut rate = Rate::new(Some(limit));
            let (mut now, mut sent) = (Duration::ZERO, Vec::new());
            for wait in waits {
                now += Duration::from_micros(wait);
                while rate.free_at() <= now {
                    rate.take(now);
                    sent.push(now);
                }
            }
            for (place, from) in sent.iter().enumerate() {
                let until = *from + Duration::from_mins(1);
                let within = sent.iter().skip(place).take_while(|time| **time < until).count();
                prop_assert!(within <= limit as usize, "{within} of {limit}");
            }
        }
    }

    #[test]
    fn without_a_limit_everything_may_go_and_with_one_almost_all_of_it() {
        let mut rate = Rate::new(None);
        rate.take(Duration::from_secs(5));
        assert_eq!(rate.free_at(), Duration::ZERO);
        let mut rate = Rate::new(Some(600));
        let mut count = 0;
        for millis in 0..60_000 {
            let now = Duration::from_millis(millis);
            if rate.free_at() <= now {
                rate.take(now);
                count += 1;
            }
        }
        assert!((595..=600).contains(&count), "{count}");
    }
}
