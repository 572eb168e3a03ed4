//! When events of a replay job have their time. Pure.

use std::time::Duration;

use weft_proto::Timestamp;
use weft_proto::resource::ReplayPace;

/// Events come at most so late, so that they are not read one by one.
const GRAIN: Duration = Duration::from_millis(20);
/// What a target did not take in time it may take faster, but no more than in so long.
const BURST: Duration = Duration::from_millis(100);

/// The pace of one partition of a job.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    pace: ReplayPace,
    /// Partitions that share the rate.
    partitions: u32,
    /// An instant, and the append time that belongs to it.
    began: Option<(Timestamp, Timestamp)>,
    /// By rate: when the next event may go.
    next: Timestamp,
    /// Not before this.
    wakes: Option<Timestamp>,
}

impl Pacer {
    /// A pace that so many partitions share.
    pub(super) fn new(pace: ReplayPace, partitions: usize) -> Self {
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX).max(1);
        Self { pace, partitions, began: None, next: Timestamp::default(), wakes: None }
    }

    /// Goes on at another pace, or after a pause.
    pub(super) fn change(&mut self, pace: ReplayPace) {
        let partitions = usize::try_from(self.partitions).unwrap_or(usize::MAX);
        *self = Self::new(pace, partitions);
    }

    /// When it is worth asking again; nothing if it is at any time.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.wakes
    }

    /// Whether an event that was appended at `event` has its time, which is then taken.
    pub(super) fn may(&mut self, event: Timestamp, now: Timestamp) -> bool {
        let due = match self.pace {
            ReplayPace::Fastest => now,
            ReplayPace::Original => {
                let (began, first) = *self.began.get_or_insert((now, event));
                let after = event.as_micros().saturating_sub(first.as_micros());
                began.saturating_add(Duration::from_micros(after))
            }
            ReplayPace::PerSecond(rate) => {
                let pause = Duration::from_secs(1) * self.partitions / rate.max(1);
                let earliest = now.as_micros().saturating_sub(micros(BURST));
                let due = self.next.max(Timestamp::from_micros(earliest));
                if due <= now {
                    self.next = due.saturating_add(pause);
                }
                due
            }
        };
        self.wakes = (due > now).then(|| due.max(now.saturating_add(GRAIN)));
        due <= now
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(1_000 * SECOND + micros)
    }

    #[test]
    fn fastest_never_waits() {
        let mut pacer = Pacer::new(ReplayPace::Fastest, 3);
        assert!((0..9).all(|event| pacer.may(at(event * SECOND), at(0))));
        assert_eq!(pacer.next(), None);
    }

    #[test]
    fn original_pauses_are_kept_and_begin_anew_after_a_change() {
        let mut pacer = Pacer::new(ReplayPace::Original, 3);
        assert!(pacer.may(at(0), at(500)));
        assert!(!pacer.may(at(SECOND), at(SECOND)));
        assert_eq!(pacer.next(), Some(at(SECOND + 20_000)));
        assert!(pacer.may(at(SECOND), at(SECOND + 500)));
        // Behind: at once.
        assert!(pacer.may(at(2 * SECOND), at(9 * SECOND)));

        pacer.change(ReplayPace::Original);
        assert_eq!(pacer.next(), None);
        assert!(pacer.may(at(7 * SECOND), at(60 * SECOND)));
        assert!(!pacer.may(at(8 * SECOND), at(60 * SECOND)));
        assert_eq!(pacer.next(), Some(at(61 * SECOND)));
    }

    #[test]
    fn a_slow_rate_gives_one_event_at_a_time() {
        let mut pacer = Pacer::new(ReplayPace::PerSecond(1), 2);
        let mut given = 0;
        let mut now = 0;
        while now < 20 * SECOND {
            given += u64::from(pacer.may(at(0), at(now)));
            now += SECOND / 10;
        }
        assert!((10..=12).contains(&given), "{given}");
    }

    proptest! {
        /// Whatever the times at which somebody asks, and however often: no more than the rate and one burst.
        #[test]
        fn the_rate_holds(
            (rate, partitions) in (1_u32..2_000, 1_usize..8),
            steps in prop::collection::vec((0_u64..400_000, 0_u32..400), 1..60),
        ) {
            let mut pacer = Pacer::new(ReplayPace::PerSecond(rate), partitions);
            let (mut now, mut given) = (0, 0_u64);
            for (wait, asks) in steps {
                now += wait;
                for _ in 0..asks {
                    let may = pacer.may(at(0), at(now));
                    given += u64::from(may);
                    prop_assert!(may || pacer.next().is_some_and(|next| next > at(now)));
                }
            }
            let share = u64::from(rate) * (now + 100_000) / SECOND / partitions as u64;
            prop_assert!(given <= share + 3, "{given} of {share}");
        }
    }
}
