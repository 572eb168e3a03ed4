//! How many instances of a function run.

use serde::{Deserialize, Serialize};

use super::{DurationText, problem};
use crate::Result;

/// Most instances of a function.
const INSTANCES_MAX: u32 = 1_000;
const WAIT_MAX: DurationText = DurationText::from_secs(24 * 3_600);

/// How many instances run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScalingSpec {
    /// At least so many, even without events.
    pub min: u32,
    /// At most so many, 1 to 1,000.
    pub max: u32,
    /// Without work for this long the last instance is stopped.
    pub idle: DurationText,
    /// In how long a backlog should be done.
    pub drain_target: DurationText,
    /// Demand of the past that still counts when instances are taken away.
    pub down_delay: DurationText,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self {
            min: 0,
            max: 10,
            idle: DurationText::from_secs(30),
            drain_target: DurationText::from_secs(5),
            down_delay: DurationText::from_secs(30),
        }
    }
}

impl ScalingSpec {
    pub(super) fn check(&self, field: &str) -> Result<()> {
        let Self { min, max, .. } = *self;
        if !(1..=INSTANCES_MAX).contains(&max) {
            let message = format!("{max} is not in 1..={INSTANCES_MAX}");
            return Err(problem(format!("{field}.max"), message));
        }
        if min > max {
            let message = format!("{min} is more than the maximum {max}");
            return Err(problem(format!("{field}.min"), message));
        }
        for (name, wait) in [
            ("idle", self.idle),
            ("drain_target", self.drain_target),
            ("down_delay", self.down_delay),
        ] {
            if wait > WAIT_MAX {
                let message = format!("{wait} is more than {WAIT_MAX}");
                return Err(problem(format!("{field}.{name}"), message));
            }
        }
        if self.drain_target.0.is_zero() {
            return Err(problem(format!("{field}.drain_target"), "no backlog is done in no time"));
        }
        Ok(())
    }
}
