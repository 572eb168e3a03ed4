//! Places in a stream as people write them.

use std::str::FromStr;
use std::time::Duration;

use weft_client::Position;
use weft_proto::resource::DurationText;
use weft_proto::{Offset, Timestamp};

/// `earliest`, `latest`, an offset, an RFC 3339 time, or an age like `-1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    At(Position),
    Ago(Duration),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no place in a stream; write earliest, latest, an offset such as 42, \
                 a time such as 2026-03-01T12:00:00Z, or an age such as -1h"
            )
        };
        if let Some(age) = text.strip_prefix('-') {
            let age: DurationText = age.parse().map_err(|_wrong: String| wrong())?;
            return Ok(Self::Ago(age.0));
        }
        Ok(Self::At(match text {
            "earliest" => Position::Earliest,
            "latest" => Position::Latest,
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Position::Offset(Offset(number.parse().map_err(|_too_large| wrong())?))
            }
            time => Position::Time(time.parse().map_err(|_wrong| wrong())?),
        }))
    }
}

impl When {
    /// The position; an age counts from now.
    pub(crate) fn position(self) -> Position {
        match self {
            Self::At(position) => position,
            Self::Ago(age) => {
                let now = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0);
                Position::Time(Timestamp::from_micros(now).saturating_sub(age))
            }
        }
    }
}

/// The time that a `--since` means; none for `earliest`, with which everything is looked through.
pub(crate) fn since(when: Option<When>) -> anyhow::Result<Option<Timestamp>> {
    match when.map(When::position) {
        None | Some(Position::Earliest) => Ok(None),
        Some(Position::Time(time)) => Ok(Some(time)),
        Some(Position::Latest | Position::Offset(_)) => {
            anyhow::bail!("since when is a time, an age such as -1h, or earliest")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        let at = |text: &str| text.parse::<When>().unwrap();

        assert_eq!(at("earliest"), When::At(Position::Earliest));
        assert_eq!(at("42"), When::At(Position::Offset(Offset(42))));
        assert_eq!(at("-1h"), When::Ago(Duration::from_hours(1)));
        assert!(matches!(at("2026-03-01T12:00:00+01:00"), When::At(Position::Time(_))));
    }

    #[test]
    fn since_when_is_a_time() {
        let at = |text: &str| since(Some(text.parse::<When>().unwrap()));

        assert_eq!(since(None).unwrap(), None);
        assert_eq!(at("earliest").unwrap(), None);
        let noon = "2026-03-01T12:00:00Z";
        assert_eq!(at(noon).unwrap(), Some(noon.parse().unwrap()));
        assert!(at("-1h").unwrap().is_some());
        assert!(at("42").is_err() && at("latest").is_err());
    }

    #[test]
    fn other_texts_are_refused_with_the_forms() {
        for text in ["", "-", "yesterday", "99999999999999999999", "-1x", "2026-03-01"] {
            let problem = text.parse::<When>().unwrap_err();
            assert!(problem.contains("-1h"), "{text:?}: {problem}");
        }
    }
}
