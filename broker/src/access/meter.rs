//! How much a principal uses of this node, against its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use weft_proto::{Error, Principal, Reason, Result};

use super::gcra::{Answer, Gcra, Rate};
use super::rules::Limits;

/// A rate of bytes lets a batch of this size through after a pause, however low it is: the largest
/// request there is.
const BYTES_BURST_MIN: u64 = 1 << 20;

/// What one principal uses of this node.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    requests: Gcra,
    published: Gcra,
    read: Gcra,
    open_calls: AtomicU32,
    connections: AtomicU32,
    in_flight_bytes: AtomicU64,
}

/// What is left of a rate, for the headers of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Requests in a second.
    pub per_second: u64,
    /// How many may still come at once.
    pub left: u64,
    /// After so many seconds there are more.
    pub seconds: u64,
}

/// Why a call may not begin, and what is left of the caller's rate where it has one.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// Nothing is left where the rate itself is the reason.
    pub left: Option<Left>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, left: None }
    }
}

/// Gives back what was taken when it is dropped.
#[derive(Debug)]
pub struct Taken {
    meter: Arc<Meter>,
    what: What,
}

#[derive(Debug)]
enum What {
    Call,
    Connection,
    Bytes(u64),
}

impl Drop for Taken {
    fn drop(&mut self) {
        match self.what {
            What::Call => _ = self.meter.open_calls.fetch_sub(1, Ordering::Relaxed),
            What::Connection => _ = self.meter.connections.fetch_sub(1, Ordering::Relaxed),
            What::Bytes(bytes) => {
                _ = self.meter.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }
}

impl Default for Meter {
    /// Nothing was used yet.
    fn default() -> Self {
        Self {
            began: Instant::now(),
            requests: Gcra::default(),
            published: Gcra::default(),
            read: Gcra::default(),
            open_calls: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            in_flight_bytes: AtomicU64::new(0),
        }
    }
}

impl Meter {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A call begins.
    ///
    /// # Errors
    ///
    /// `Overloaded`, with the limit and when to come again.
    pub fn request(
        &self,
        who: &Principal,
        limits: &Limits,
    ) -> std::result::Result<Option<Left>, Refused> {
        let Some(per_second) = limits.requests_per_second else { return Ok(None) };
        let rate = Rate::per_second(per_second, 1);
        let wait = match self.requests.take(rate, 1, self.now()) {
            Answer::Pass { left } => return Ok(Some(Left { per_second, left, seconds: 1 })),
            Answer::Wait(wait) => wait,
            Answer::Never => Duration::MAX,
        };
        let error = over(who, "requests_per_second", per_second, wait);
        let seconds = whole_seconds(error.retry_after().unwrap_or_default());
        Err(Refused { error, left: Some(Left { per_second, left: 0, seconds }) })
    }

    /// A call is open until what this returns is dropped.
    ///
    /// # Errors
    ///
    /// `Overloaded`, with the limit.
    pub fn call(self: &Arc<Self>, who: &Principal, limits: &Limits) -> Result<Taken> {
        let open = self.open_calls.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let taken = Taken { meter: Arc::clone(self), what: What::Call };
        match limits.open_calls {
            Some(most) if open > most => {
                Err(over(who, "open_calls", most.into(), Duration::from_secs(1)))
            }
            _ => Ok(taken),
        }
    }

    /// A connection shows that it is the principal's, until what this returns is dropped.
    ///
    /// # Errors
    ///
    /// `Overloaded`, with the limit.
    pub fn connection(self: &Arc<Self>, who: &Principal, limits: &Limits) -> Result<Taken> {
        let open = self.connections.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let taken = Taken { meter: Arc::clone(self), what: What::Connection };
        match limits.connections {
            Some(most) if open > most => {
                Err(over(who, "connections", most.into(), Duration::from_secs(1)))
            }
            _ => Ok(taken),
        }
    }

    /// Bytes are on their way until what this returns is dropped.
    ///
    /// # Errors
    ///
    /// `Overloaded`, with the limit. A single request passes whatever its size.
    pub fn in_flight(
        self: &Arc<Self>,
        who: &Principal,
        limits: &Limits,
        bytes: u64,
    ) -> Result<Taken> {
        let before = self.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = Taken { meter: Arc::clone(self), what: What::Bytes(bytes) };
        match limits.in_flight_bytes {
            Some(most) if before > 0 && before.saturating_add(bytes) > most => {
                Err(over(who, "in_flight_bytes", most, Duration::from_millis(100)))
            }
            _ => Ok(taken),
        }
    }

    /// Bytes are published to a partition that this node leads.
    ///
    /// # Errors
    ///
    /// `Overloaded`, with the limit and when to come again.
    pub fn publish(&self, who: &Principal, limits: &Limits, bytes: u64) -> Result<()> {
        let Some(per_second) = limits.publish_bytes_per_second else { return Ok(()) };
        let rate = Rate::per_second(per_second, BYTES_BURST_MIN);
        match self.published.take(rate, bytes, self.now()) {
            Answer::Pass { .. } => Ok(()),
            Answer::Wait(wait) => Err(over(who, "publish_bytes_per_second", per_second, wait)),
            Answer::Never => {
                Err(over(who, "publish_bytes_per_second", per_second, Duration::from_secs(1)))
            }
        }
    }

    /// How long to wait before the next bytes go to the principal.
    pub fn read(&self, limits: &Limits, bytes: u64) -> Duration {
        let Some(per_second) = limits.read_bytes_per_second else { return Duration::ZERO };
        self.read.pace(Rate::per_second(per_second, BYTES_BURST_MIN), bytes, self.now())
    }

    /// Whether nothing of it is in use, so that it may be forgotten once its rates are full again.
    pub fn is_idle(&self) -> bool {
        self.open_calls.load(Ordering::Relaxed) == 0
            && self.connections.load(Ordering::Relaxed) == 0
            && self.in_flight_bytes.load(Ordering::Relaxed) == 0
    }
}

/// A wait as headers tell it: never too short.
pub fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

fn over(who: &Principal, limit: &str, most: u64, wait: Duration) -> Error {
    let message = format!("{who} has reached its limit {limit} = {most}");
    // Nothing was written: it is certain.
    Error::new(Reason::LimitReached, message).with_retry_after(wait.min(Duration::from_mins(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_limit_refuses_names_itself_and_gives_back() {
        let (meter, who) = (Arc::new(Meter::default()), Principal::new("key:a/b"));
        let limits = Limits {
            requests_per_second: Some(2),
            publish_bytes_per_second: Some(2 << 20),
            read_bytes_per_second: Some(1 << 20),
            connections: Some(1),
            open_calls: Some(1),
            in_flight_bytes: Some(100),
        };
        let refused = |result: Result<()>, limit: &str| {
            let error = result.unwrap_err();
            assert_eq!(error.reason(), Reason::LimitReached);
            assert!(error.message().contains(limit), "{error}");
            error.retry_after().unwrap()
        };

        for left in [1, 0] {
            let taken = meter.request(&who, &limits).unwrap();
            assert_eq!(taken, Some(Left { per_second: 2, left, seconds: 1 }));
        }
        let over = meter.request(&who, &limits).unwrap_err();
        assert_eq!(over.left, Some(Left { per_second: 2, left: 0, seconds: 1 }));
        let wait = refused(Err(over.error), "requests_per_second = 2");
        tokio::time::advance(wait).await;
        meter.request(&who, &limits).unwrap();

        let held = meter.call(&who, &limits).unwrap();
        refused(meter.call(&who, &limits).map(drop), "open_calls = 1");
        drop(held);
        meter.call(&who, &limits).unwrap();
        let held = meter.connection(&who, &limits).unwrap();
        refused(meter.connection(&who, &limits).map(drop), "connections = 1");
        assert!(!meter.is_idle());
        drop(held);
        let held = meter.in_flight(&who, &limits, 1_000).unwrap();
        refused(meter.in_flight(&who, &limits, 1).map(drop), "in_flight_bytes = 100");
        drop(held);
        assert!(meter.is_idle());

        meter.publish(&who, &limits, 2 << 20).unwrap();
        let wait = refused(meter.publish(&who, &limits, 1 << 20), "publish_bytes_per_second");
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(meter.read(&limits, 1 << 20), Duration::ZERO);
        assert_eq!(meter.read(&limits, 1 << 20), Duration::from_secs(1));
        let none = Limits::default();
        assert!((0..99).all(|_| meter.request(&who, &none).unwrap().is_none()));
        assert_eq!(meter.read(&none, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_too_short() {
        let told = |millis| whole_seconds(Duration::from_millis(millis));
        assert_eq!([0, 1, 1_000, 1_001, 59_999].map(told), [1, 1, 1, 2, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_call_never_is_told_so_with_a_wait_that_has_an_end() {
        let (meter, who) = (Meter::default(), Principal::new("key:a/b"));
        let limits = Limits { requests_per_second: Some(0), ..Limits::default() };

        let refused = meter.request(&who, &limits).unwrap_err();

        assert_eq!(refused.left, Some(Left { per_second: 0, left: 0, seconds: 60 }));
        assert_eq!(refused.error.retry_after(), Some(Duration::from_mins(1)));
    }
}
