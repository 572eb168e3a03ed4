//! How many requests one instance may have at once.
//!
//! A new instance starts at one permit: it may still be warming up, and a poisonous event that
//! kills it is then the only suspect. It gets twice as many as long as its answers do not take
//! longer for it; from then on the limit follows the ratio between how long answers took at best
//! and how long they take now (the gradient of Netflix's concurrency-limits).

use std::time::Duration;

use super::random::{Random, backoff_max};

/// Permits of an instance whose function names no limit, at most.
const PERMITS_MAX: u32 = 1_000;

/// Pause after the first refused connection; doubles with each further one.
const PAUSE_BASE: Duration = Duration::from_millis(10);
/// Longest pause of an instance that keeps refusing connections.
const PAUSE_CAP: Duration = Duration::from_secs(5);

/// Answers by which a limit is judged, at least, and as many as are kept.
const SAMPLES_MIN: usize = 10;
const SAMPLES_MAX: usize = 128;
/// Where answers take less than this, they vary too much for few of them.
const BRIEF: Duration = Duration::from_millis(1);
const SAMPLES_BRIEF: usize = 100;
/// The best time is forgotten after so long: an instance may have become slower for good.
const BEST_FOR: Duration = Duration::from_secs(30);

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Instance {
    /// In thousandths.
    limit: u64,
    in_flight: u32,
    hard: u32,
    is_draining: bool,
    strikes: u32,
    paused_until: Duration,
    samples: Vec<Duration>,
    /// The limit was reached since the last judgement.
    was_full: bool,
    /// It doubles until answers take longer.
    is_doubling: bool,
    /// It was cut: one judgement without a raise.
    holds: bool,
    /// The shortest usual time of an answer, and since when.
    best: Option<(Duration, Duration)>,
}

impl Instance {
    /// At most `hard`; 0 = as many as do it good.
    pub(crate) const fn new(hard: u32) -> Self {
        Self {
            limit: 1_000,
            in_flight: 0,
            hard: if hard == 0 { PERMITS_MAX } else { hard },
            is_draining: false,
            strikes: 0,
            paused_until: Duration::ZERO,
            samples: Vec::new(),
            was_full: false,
            is_doubling: true,
            holds: false,
            best: None,
        }
    }

    pub(crate) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(crate) fn limit(&self) -> u32 {
        u32::try_from(self.limit / 1_000).unwrap_or(u32::MAX)
    }

    /// Whether its limit was judged by enough answers to say what others will be good for.
    pub(crate) const fn is_settled(&self) -> bool {
        !self.is_doubling
    }

    pub(crate) const fn drain(&mut self) {
        self.is_draining = true;
    }

    /// When this instance would take a request, were one waiting; `None` while it cannot.
    pub(crate) fn free_at(&self) -> Option<Duration> {
        (!self.is_draining && self.in_flight < self.limit()).then_some(self.paused_until)
    }

    pub(crate) fn take(&mut self) {
        self.in_flight += 1;
        self.was_full |= self.in_flight >= self.limit();
    }

    pub(crate) const fn give_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A request was answered well.
    pub(crate) fn succeed(&mut self, took: Duration, now: Duration) {
        self.strikes = 0;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(took);
        }
        let limit = usize::try_from(self.limit()).unwrap_or(usize::MAX);
        let enough = match (self.is_doubling, self.best) {
            (true, _) => limit.min(SAMPLES_MAX),
            (false, Some((best, _))) if best < BRIEF => SAMPLES_BRIEF,
            (false, _) => limit.clamp(SAMPLES_MIN, SAMPLES_MAX),
        };
        if self.samples.len() >= enough {
            self.judge(now);
        }
    }

    /// Moves the limit by what was seen since the last time.
    fn judge(&mut self, now: Duration) {
        let count = self.samples.len();
        let middle = count / 2;
        let (_, usual, _) = self.samples.select_nth_unstable(middle);
        let usual = (*usual).max(Duration::from_micros(1));
        self.samples.clear();
        let was_full = std::mem::take(&mut self.was_full);
        let holds = std::mem::take(&mut self.holds);
        let best = match self.best {
            Some((best, since)) if best <= usual && now.saturating_sub(since) < BEST_FOR => best,
            _ => {
                self.best = Some((usual, now));
                usual
            }
        };
        // Few answers say little about time, and much about whether there is room.
        if self.is_doubling && count >= SAMPLES_MIN && usual > best.saturating_mul(2) {
            self.is_doubling = false;
        }
        if holds {
            return;
        }
        let limit = if self.is_doubling {
            self.limit.saturating_mul(2)
        } else {
            let permille = best.as_micros().saturating_mul(1_500) / usual.as_micros().max(1);
            let permille = u64::try_from(permille).unwrap_or(1_000).clamp(500, 1_000);
            let aimed = self.limit * permille / 1_000 + (self.limit / 1_000).isqrt() * 1_000;
            (self.limit * 4 + aimed) / 5
        };
        if was_full || limit < self.limit {
            self.limit = limit.clamp(1_000, u64::from(self.hard) * 1_000);
        }
    }

    /// The instance is overloaded: let it breathe.
    pub(crate) fn cut(&mut self) {
        self.limit = (self.limit * 7 / 10).max(1_000);
        self.is_doubling = false;
        self.holds = true;
        self.samples.clear();
        self.was_full = false;
    }

    /// The instance did not take a connection. Without a pause the event would come back at once,
    /// round and round.
    pub(crate) fn strike(&mut self, random: &mut Random, now: Duration) {
        self.cut();
        self.pause(random, now);
    }

    /// Leaves it alone for a moment that grows each time it is needed.
    pub(crate) fn pause(&mut self, random: &mut Random, now: Duration) {
        self.strikes = self.strikes.saturating_add(1);
        let high = backoff_max(PAUSE_BASE, PAUSE_CAP, self.strikes);
        let until = now.saturating_add(random.between(PAUSE_BASE, high));
        self.paused_until = self.paused_until.max(until);
    }

    /// Leaves it alone until then.
    pub(crate) fn pause_until(&mut self, until: Duration) {
        self.paused_until = self.paused_until.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as much as there are permits for, `rounds` times; an answer takes what `time` says for so many
    /// at once.
    fn run(instance: &mut Instance, rounds: u32, time: impl Fn(u32) -> Duration) -> u32 {
        let mut now = Duration::from_secs(1);
        for _ in 0..rounds {
            let count = instance.limit();
            (0..count).for_each(|_| instance.take());
            let took = time(count);
            now += took;
            for _ in 0..count {
                instance.give_back();
                instance.succeed(took, now);
            }
        }
        instance.limit()
    }

    #[test]
    fn who_is_not_slowed_down_gets_what_is_allowed() {
        let same = |_| Duration::from_millis(20);
        assert_eq!(run(&mut Instance::new(64), 7, same), 64);
        assert_eq!(run(&mut Instance::new(0), 40, same), PERMITS_MAX);
    }

    #[test]
    fn who_queues_is_kept_near_what_it_can_do() {
        // Eight at once take no longer than one; beyond, each waits for its turn.
        let time = |count: u32| Duration::from_millis(10) * count.max(8) / 8;
        for rounds in [50, 200, 1_000] {
            let limit = run(&mut Instance::new(0), rounds, time);
            assert!((8..=24).contains(&limit), "{limit} after {rounds} rounds");
        }
    }

    #[test]
    fn one_that_is_never_full_does_not_grow() {
        let mut instance = Instance::new(0);
        run(&mut instance, 4, |_| Duration::from_millis(5));
        let limit = instance.limit();
        for _ in 0..1_000 {
            instance.take();
            instance.give_back();
            instance.succeed(Duration::from_millis(5), Duration::from_secs(9));
        }
        assert_eq!(instance.limit(), limit);
    }

    #[test]
    fn what_is_cut_stays_so_for_a_while_and_never_below_one() {
        let mut instance = Instance::new(100);
        run(&mut instance, 7, |_| Duration::from_millis(5));
        assert_eq!(instance.limit(), 100);
        instance.cut();
        assert_eq!(instance.limit(), 70);
        run(&mut instance, 1, |_| Duration::from_millis(5));
        assert_eq!(instance.limit(), 70);
        (0..50).for_each(|_| instance.cut());
        assert_eq!(instance.limit(), 1);
    }
}
