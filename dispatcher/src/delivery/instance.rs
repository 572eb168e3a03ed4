//! How many events one instance may have at once.
//!
//! A new instance starts at one permit: it may still be warming up, and a poisonous event that
//! kills it is then the only suspect.

use std::time::Duration;

use super::random::{Random, backoff_max};

/// Permits of an instance whose function names no limit.
const PERMITS_DEFAULT: u32 = 32;

/// Pause after the first refused connection; doubles with each further one.
const PAUSE_BASE: Duration = Duration::from_millis(10);
/// Longest pause of an instance that keeps refusing connections.
const PAUSE_CAP: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Instance {
    limit: u32,
    in_flight: u32,
    hard: u32,
    is_draining: bool,
    strikes: u32,
    paused_until: Duration,
}

impl Instance {
    pub(crate) const fn new(hard: u32) -> Self {
        let hard = if hard == 0 { PERMITS_DEFAULT } else { hard };
        Self {
            limit: 1,
            in_flight: 0,
            hard,
            is_draining: false,
            strikes: 0,
            paused_until: Duration::ZERO,
        }
    }

    pub(crate) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(crate) const fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) const fn drain(&mut self) {
        self.is_draining = true;
    }

    /// When this instance would take an event, were one waiting; `None` while it cannot.
    pub(crate) fn free_at(&self) -> Option<Duration> {
        (!self.is_draining && self.in_flight < self.limit).then_some(self.paused_until)
    }

    pub(crate) const fn take(&mut self) {
        self.in_flight += 1;
    }

    pub(crate) const fn give_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The event was answered well: grow, but only when the limit was what held us back.
    pub(crate) fn succeed(&mut self, was_full: bool) {
        self.strikes = 0;
        if was_full {
            self.limit = (self.limit + 1).min(self.hard);
        }
    }

    /// The instance is overloaded: let it breathe.
    pub(crate) fn cut(&mut self) {
        self.limit = (u64::from(self.limit) * 7 / 10).max(1).try_into().unwrap_or(1);
    }

    /// The instance did not take a connection. Without a pause the event would come back at once,
    /// round and round.
    pub(crate) fn strike(&mut self, random: &mut Random, now: Duration) {
        self.cut();
        self.strikes = self.strikes.saturating_add(1);
        let high = backoff_max(PAUSE_BASE, PAUSE_CAP, self.strikes);
        self.paused_until = now.saturating_add(random.between(PAUSE_BASE, high));
    }
}
