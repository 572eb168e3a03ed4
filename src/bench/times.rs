//! Times that were measured, in microseconds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Percentiles {
    p50: u64,
    p95: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

/// Gathers times; three digits of each are kept.
#[derive(Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new(3)?))
    }

    /// So many events took the time since then.
    pub(super) fn record_since(&mut self, begin: Instant, events: u64) -> anyhow::Result<()> {
        self.record(begin.elapsed(), events)
    }

    fn record(&mut self, time: Duration, events: u64) -> anyhow::Result<()> {
        Ok(self.0.record_n(u64::try_from(time.as_micros())?, events)?)
    }

    /// Adds what was gathered elsewhere.
    pub(super) fn add(&mut self, others: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&others.0)?)
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.0.value_at_quantile(0.5),
            p95: self.0.value_at_quantile(0.95),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            max: self.0.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_that_was_gathered() {
        let (mut times, mut others) = (Times::new().unwrap(), Times::new().unwrap());
        times.record(Duration::from_micros(100), 99).unwrap();
        others.record(Duration::from_micros(500), 1).unwrap();
        times.add(&others).unwrap();

        let found = times.percentiles();
        assert_eq!((found.p50, found.p99, found.p999, found.max), (100, 100, 500, 500));
    }
}
