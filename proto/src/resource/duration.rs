//! Durations as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A duration written as a whole number and a unit: `200ms`, `30s`, `5m`, `12h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DurationText(pub Duration);

impl DurationText {
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for DurationText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no duration; write a number and ms, s, m, h or d");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        millis.map(Self::from_millis).ok_or_else(wrong)
    }
}

impl TryFrom<String> for DurationText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DurationText> for String {
    fn from(duration: DurationText) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let fits = |&&(_, factor): &&(&str, u64)| millis != 0 && millis.is_multiple_of(factor);
        let (unit, factor) = UNITS.iter().rev().find(fits).copied().unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["200ms", "30s", "5m", "12h", "7d", "0ms", "90s"] {
            assert_eq!(text.parse::<DurationText>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<DurationText>().unwrap().to_string(), "1m");
        for text in ["", "5", "s", "-1s", "1.5h", "5 s", "99999999999999999999d", "99999999999999d"]
        {
            assert!(text.parse::<DurationText>().is_err(), "{text:?} was accepted");
        }
    }
}
