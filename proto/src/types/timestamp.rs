//! Instants in microseconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Microseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From a number of microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The number of microseconds.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    #[must_use]
    /// This instant and a while, at most the end of time.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    #[must_use]
    /// This instant less a while, at least 1970.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Why a text is no instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampError(String);

impl fmt::Display for TimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TimestampError {}

/// RFC 3339 with an offset, for example `2026-03-01T12:00:00Z`.
impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let wrong = || TimestampError(format!("{text:?} is not an RFC 3339 time after 1970"));
        let instant: jiff::Timestamp = text.parse().ok().ok_or_else(wrong)?;
        u64::try_from(instant.as_microsecond()).ok().map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(instant) => write!(f, "{instant:.6}"),
            // Beyond the year 9999 there is no RFC 3339 text.
            Err(_) => write!(f, "{micros}us"),
        }
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        let seconds = i64::try_from(time.0 / 1_000_000).unwrap_or(i64::MAX);
        let nanos = i32::try_from(time.0 % 1_000_000 * 1_000).unwrap_or(0);
        Self { seconds, nanos }
    }
}

impl TryFrom<prost_types::Timestamp> for Timestamp {
    type Error = TimestampError;

    fn try_from(time: prost_types::Timestamp) -> Result<Self, TimestampError> {
        let micros = u64::try_from(time.seconds)
            .ok()
            .and_then(|seconds| seconds.checked_mul(1_000_000))
            .and_then(|micros| micros.checked_add(u64::try_from(time.nanos).ok()? / 1_000));
        let wrong = || TimestampError(format!("{}s is not a time after 1970", time.seconds));
        micros.map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_keep_microseconds() {
        let time: Timestamp = "2026-03-01T12:00:00.123456+01:00".parse().unwrap();

        assert_eq!(time.to_string(), "2026-03-01T11:00:00.123456Z");
        assert_eq!(Timestamp::try_from(prost_types::Timestamp::from(time)), Ok(time));
    }

    #[test]
    fn hostile_numbers_are_errors() {
        for seconds in [i64::MIN, -1, i64::MAX] {
            let wire = prost_types::Timestamp { seconds, nanos: 0 };
            assert!(Timestamp::try_from(wire).is_err());
        }
        assert_eq!(Timestamp::from_micros(u64::MAX).to_string(), "9223372036854775807us");
    }
}
