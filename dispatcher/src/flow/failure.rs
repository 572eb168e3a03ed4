//! Why a step failed, and whether that may pass.

use std::fmt;
use std::time::Duration;

use crate::delivery::Outcome;

/// Why a flow failed at an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means for the event; `Refused` is for good.
    pub outcome: Outcome,
    /// A word for programs, of a closed list.
    pub reason: &'static str,
    /// The step.
    pub step: String,
    /// A sentence for people.
    pub message: String,
}

impl Failure {
    /// One that a repetition does not change.
    pub(super) fn permanent(reason: &'static str, message: impl Into<String>) -> Self {
        let step = String::new();
        Self { outcome: Outcome::Refused, reason, step, message: message.into() }
    }

    /// One that may pass.
    pub(super) fn transient(
        outcome: Outcome,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { outcome, reason, step: String::new(), message: message.into() }
    }

    /// Not now: something else is in the way.
    pub(super) fn later(reason: &'static str, message: impl Into<String>) -> Self {
        let outcome = Outcome::Throttled { retry_after: Some(Duration::from_secs(1)) };
        Self::transient(outcome, reason, message)
    }

    /// Whether it counts as an attempt, of which an event has so many.
    pub fn is_attempt(&self) -> bool {
        matches!(self.outcome, Outcome::Failed | Outcome::TimedOut | Outcome::Refused)
    }

    /// Whether a repetition will not change it.
    pub fn is_permanent(&self) -> bool {
        self.outcome == Outcome::Refused
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.step, self.reason, self.message)
    }
}
