//! Amounts of processor and memory as people write them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const KIBI: u64 = 1 << 10;
const UNITS: [(&str, u64); 3] = [("Gi", KIBI * KIBI * KIBI), ("Mi", KIBI * KIBI), ("Ki", KIBI)];
const MILLIS: u32 = 1_000;

/// Processor time in thousandths of a core, written `250m`, or as whole cores: `2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuText(pub u32);

/// Bytes, written `64Mi`, `1Gi`, `512Ki`, or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BytesText(pub u64);

impl BytesText {
    /// So many times 1,048,576.
    pub const fn mebi(number: u64) -> Self {
        Self(number * KIBI * KIBI)
    }
}

impl FromStr for CpuText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) = match text.strip_suffix('m') {
            Some(number) => (number, 1),
            None => (text, MILLIS),
        };
        let millis =
            digits(number).and_then(|number| u32::try_from(number).ok()?.checked_mul(factor));
        millis.map(Self).ok_or_else(|| {
            format!("{text:?} is no amount of processor; write thousandths (250m) or cores (2)")
        })
    }
}

impl FromStr for BytesText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit =
            UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
        let (number, factor) = unit.unwrap_or((text, 1));
        let bytes = digits(number).and_then(|number| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| {
            format!("{text:?} is no number of bytes; write a number, and perhaps Ki, Mi or Gi")
        })
    }
}

/// Takes no sign, which `parse` does.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for CpuText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(MILLIS) {
            write!(f, "{}", self.0 / MILLIS)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl fmt::Display for BytesText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&&(_, factor): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(factor);
        match UNITS.iter().find(fits) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for CpuText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for BytesText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for BytesText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// YAML reads `2` as a number.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an amount, such as 250m or 64Mi")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }

    deserializer.deserialize_any(Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_in_their_largest_unit() {
        let cpu = |text: &str| text.parse::<CpuText>().map(|cpu| (cpu.0, cpu.to_string()));
        for (text, millis, again) in
            [("250m", 250, "250m"), ("2", 2_000, "2"), ("3000m", 3_000, "3"), ("0", 0, "0")]
        {
            assert_eq!(cpu(text).unwrap(), (millis, again.to_owned()));
        }
        let bytes =
            |text: &str| text.parse::<BytesText>().map(|bytes| (bytes.0, bytes.to_string()));
        for (text, number, again) in [
            ("64Mi", 64 << 20, "64Mi"),
            ("1024Mi", 1 << 30, "1Gi"),
            ("1000", 1_000, "1000"),
            ("3Ki", 3_072, "3Ki"),
        ] {
            assert_eq!(bytes(text).unwrap(), (number, again.to_owned()));
        }
        for wrong in ["", "m", "-1", "+1", "1.5", "1 m", "1K", "9999999999999999999", "9999999999"]
        {
            assert!(cpu(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "Mi", "-1", "1MB", "99999999999999999999", "99999999999Gi"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_is_taken_for_its_text() {
        assert_eq!(serde_json::from_str::<CpuText>("2").unwrap(), CpuText(2_000));
        assert_eq!(serde_json::from_str::<BytesText>("4096").unwrap(), BytesText(4_096));
        assert!(serde_json::from_str::<BytesText>("-1").is_err());
    }
}
