//! From demand to the number of instances a function should have.
//!
//! *Owns* how long the function was idle and how high demand was lately. *Never* reads a clock or
//! starts anything: the caller says what is, and gets the wanted number and when to ask again.

mod restart;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use restart::Restart;

/// Most instances that one decision adds when nothing is known about the function yet.
const FIRST_STEP_MAX: u32 = 8;

/// The bounds of one function.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Instances that always run.
    pub min: u32,
    /// Instances that never are exceeded.
    pub max: u32,
    /// Time without any work after which the last instance goes.
    pub idle: Duration,
    /// Demand of the past that still counts when scaling down.
    pub down_delay: Duration,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// Requests that could be sent at once. Events behind a blocked key do not count.
    pub runnable: u64,
    /// Requests at an instance.
    pub in_flight: u64,
    /// Requests that one instance is good for at once.
    pub permits: u32,
    /// Instances that run or start.
    pub instances: u32,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How many instances there should be.
    pub want: u32,
    /// When to ask again if nothing else happens.
    pub check_at: Option<Duration>,
}

/// The scaler of one function.
#[derive(Debug)]
pub struct Scale {
    policy: Policy,
    last_work: Option<Duration>,
    /// Falling sequence of (when, wanted): the maximum of the window is its head.
    window: VecDeque<(Duration, u32)>,
}

impl Scale {
    /// A function that never had work.
    pub const fn new(policy: Policy) -> Self {
        Self { policy, last_work: None, window: VecDeque::new() }
    }

    /// The function changed; what was learned about demand stays.
    pub fn handle_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// How many instances there should be now.
    pub fn decide(&mut self, demand: Demand, now: Duration) -> Decision {
        let need = Self::need(&demand);
        let ceiling = self.policy.max;
        let floor = self.policy.min.min(ceiling);
        if need > 0 {
            self.last_work = Some(now);
        }
        let idle_until =
            self.last_work.map(|at| at.saturating_add(self.policy.idle)).filter(|&at| at > now);
        let recent = self.remember(need, now);
        // Before `idle` has passed one instance stays, but none is started for that.
        let kept = u32::from(idle_until.is_some()).min(demand.instances);
        // No `clamp`: it panics on crossed bounds, and these come from outside.
        let lowered = recent.min(demand.instances);
        let want = need.max(lowered).max(kept).min(ceiling).max(floor);
        let drop_at = self.window.front().map(|&(at, _)| at.saturating_add(self.policy.down_delay));
        let check_at = (want > floor || demand.instances > floor)
            .then(|| drop_at.into_iter().chain(idle_until).filter(|&at| at > now).min())
            .flatten();
        Decision { want, check_at }
    }

    fn need(demand: &Demand) -> u32 {
        let work = demand.runnable.saturating_add(demand.in_flight);
        let need = work.div_ceil(u64::from(demand.permits.max(1)));
        let need = u32::try_from(need).unwrap_or(u32::MAX);
        match demand.instances {
            0 => need.min(FIRST_STEP_MAX),
            some => need.min(some.saturating_mul(2).max(some.saturating_add(16))),
        }
    }

    /// The highest need within the window that ends now.
    fn remember(&mut self, need: u32, now: Duration) -> u32 {
        while self.window.back().is_some_and(|&(_, older)| older <= need) {
            self.window.pop_back();
        }
        if need > 0 {
            self.window.push_back((now, need));
        }
        let start = now.saturating_sub(self.policy.down_delay);
        while self.window.front().is_some_and(|&(at, _)| {
            at < start || (at == start && now >= self.policy.down_delay && at != now)
        }) {
            self.window.pop_front();
        }
        self.window.front().map_or(0, |&(_, need)| need)
    }
}
