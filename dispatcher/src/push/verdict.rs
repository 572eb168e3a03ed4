//! From the status of an answer to what it means for the event.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use weft_proto::Timestamp;

use crate::delivery::Outcome;

/// A function younger than this may answer 404 because its routes are not set up yet.
const YOUNG: Duration = Duration::from_secs(5);

/// What an answer means, whoever gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was taken.
    Done,
    /// Not now; it says how long.
    Throttled { retry_after: Option<Duration> },
    /// Failed in a way that may pass.
    Failed,
    /// There is nobody any more.
    Gone,
    /// Too much at once.
    TooLarge,
    /// A repetition will hardly change it.
    Refused,
}

/// Reads a status. Redirects are never followed: they are refusals.
pub(crate) fn read(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Verdict {
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| wait(text, now));
    match status.as_u16() {
        200..=299 => Verdict::Done,
        429 => Verdict::Throttled { retry_after },
        503 if retry_after.is_some() => Verdict::Throttled { retry_after },
        404 | 408 | 409 | 425 | 500..=599 => Verdict::Failed,
        410 => Verdict::Gone,
        413 => Verdict::TooLarge,
        _ => Verdict::Refused,
    }
}

/// What the answer of a function means for the event.
pub(super) fn of_status(
    status: StatusCode,
    headers: &HeaderMap,
    age: Duration,
    now: Timestamp,
) -> Outcome {
    match read(status, headers, now) {
        _ if age < YOUNG && matches!(status.as_u16(), 404 | 405) => Outcome::NotReceived,
        Verdict::Done => Outcome::Done,
        Verdict::Throttled { retry_after } => Outcome::Throttled { retry_after },
        Verdict::Failed => Outcome::Failed,
        Verdict::TooLarge => Outcome::TooLarge,
        Verdict::Gone | Verdict::Refused => Outcome::Refused,
    }
}

/// `Retry-After` is a number of seconds or a date.
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_microsecond();
    Some(Timestamp::from_micros(u64::try_from(date).ok()?).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, retry_after: Option<&'static str>, age_s: u64) -> Outcome {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(RETRY_AFTER, text.parse().unwrap());
        }
        let now: Timestamp = "2015-10-21T07:27:50Z".parse().unwrap();
        of_status(StatusCode::from_u16(status).unwrap(), &headers, Duration::from_secs(age_s), now)
    }

    fn throttled(seconds: Option<u64>) -> Outcome {
        Outcome::Throttled { retry_after: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn each_row_of_the_table_holds() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(verdict(status, None, 60), Outcome::Done);
        }
        for status in [404, 408, 409, 425, 500, 501, 502, 503, 504, 599] {
            assert_eq!(verdict(status, None, 60), Outcome::Failed);
        }
        for status in [101, 300, 301, 302, 307, 400, 401, 403, 405, 410, 415, 422, 600] {
            assert_eq!(verdict(status, None, 60), Outcome::Refused, "{status}");
        }
        assert_eq!(verdict(413, None, 60), Outcome::TooLarge);
        assert_eq!(verdict(404, None, 1), Outcome::NotReceived);
        assert_eq!(verdict(405, None, 1), Outcome::NotReceived);
    }

    #[test]
    fn whoever_is_outside_may_also_be_gone_or_want_less_at_once() {
        let read_verdict = read;
        let read = |status: u16, retry_after: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(text) = retry_after {
                headers.insert(RETRY_AFTER, text.parse().unwrap());
            }
            let now = "2015-10-21T07:27:50Z".parse().unwrap();
            read_verdict(StatusCode::from_u16(status).unwrap(), &headers, now)
        };
        let asked =
            |seconds| Verdict::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(read(status, None), Verdict::Done, "{status}");
        }
        for status in [404, 408, 409, 425, 500, 501, 502, 503, 504, 599] {
            assert_eq!(read(status, None), Verdict::Failed, "{status}");
        }
        for status in [
            100, 101, 103, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 405, 406, 407,
            411, 412, 414, 415, 416, 417, 418, 421, 422, 423, 424, 426, 428, 431, 451, 600, 999,
        ] {
            assert_eq!(read(status, Some("5")), Verdict::Refused, "{status}");
        }
        assert_eq!((read(410, None), read(413, None)), (Verdict::Gone, Verdict::TooLarge));
        // However long: nobody but the receiver knows.
        assert_eq!(read(429, Some("864000")), asked(864_000));
        assert_eq!(read(503, Some("Thu, 22 Oct 2015 07:27:50 GMT")), asked(86_400));
        assert_eq!(read(429, None), Verdict::Throttled { retry_after: None });
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(verdict(429, None, 60), throttled(None));
        assert_eq!(verdict(429, Some("7"), 60), throttled(Some(7)));
        assert_eq!(verdict(503, Some("0"), 60), throttled(Some(0)));
        assert_eq!(verdict(503, Some("Wed, 21 Oct 2015 07:28:00 GMT"), 60), throttled(Some(10)));
        assert_eq!(verdict(429, Some("Wed, 21 Oct 2009 07:28:00 GMT"), 60), throttled(Some(0)));
        assert_eq!(verdict(503, Some("soon"), 60), Outcome::Failed);
        assert_eq!(verdict(429, Some("-1"), 60), throttled(None));
    }
}
