//! Whether a receiver wants to be sent events: the handshake of CloudEvents' webhooks.
//!
//! Source: cloudevents/spec `cloudevents/http-webhook.md`, section 4. A status is never consent.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::delivery::{Random, backoff_max};

/// Who asks, in requests to a receiver.
pub const REQUEST_ORIGIN: &str = "webhook-request-origin";
/// How many requests a minute are wished for.
pub const REQUEST_RATE: &str = "webhook-request-rate";
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
const ALLOWED_RATE: &str = "webhook-allowed-rate";

/// Longest wait before the question is asked again that had no answer.
const ASK_AGAIN_BASE: Duration = Duration::from_secs(1);
const ASK_AGAIN_CAP: Duration = Duration::from_mins(5);

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes, so many requests a minute; any number without it.
    Yes(Option<u32>),
    /// No, and why.
    No(String),
    /// Nothing: the question is asked again.
    Unclear(String),
}

/// Reads the answer to the question whether `origin` may send, `wished` requests a minute.
pub fn read(status: StatusCode, headers: &HeaderMap, origin: &str, wished: Option<u32>) -> Answer {
    let number = status.as_u16();
    let mut origins = headers.get_all(ALLOWED_ORIGIN).iter();
    let (first, second) = (origins.next(), origins.next());
    let is_ours = |text: &str| text == "*" || text.eq_ignore_ascii_case(origin);
    match first.map(|value| value.to_str().map(str::trim)) {
        // Whoever is overloaded or broken has not decided anything.
        None if matches!(number, 408 | 425 | 429 | 500..=599) => {
            Answer::Unclear(format!("the receiver answered {number} to the question for consent"))
        }
        None => Answer::No(format!(
            "the receiver answered {number} to OPTIONS without WebHook-Allowed-Origin"
        )),
        Some(Ok(text)) if second.is_none() && is_ours(text) => rate(headers, wished),
        Some(_) => {
            Answer::No(format!("the receiver's WebHook-Allowed-Origin is neither {origin} nor *"))
        }
    }
}

fn rate(headers: &HeaderMap, wished: Option<u32>) -> Answer {
    let Some(value) = headers.get(ALLOWED_RATE) else { return Answer::Yes(wished) };
    let text = value.to_str().map(str::trim).unwrap_or_default();
    if text == "*" {
        return Answer::Yes(wished);
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(0) => Answer::No("the receiver allows no request a minute".to_owned()),
        Ok(allowed) if is_number => Answer::Yes(Some(wished.map_or(allowed, |w| w.min(allowed)))),
        // More than anybody can send.
        Err(_) if is_number => Answer::Yes(wished),
        _ => Answer::No("the receiver's WebHook-Allowed-Rate is no number".to_owned()),
    }
}

/// What is known of a receiver's consent, and when it is asked again.
#[derive(Clone, Debug)]
pub struct Consent {
    every: Duration,
    /// What it last said.
    said: Option<Result<Option<u32>, String>>,
    /// Why it has not said anything the last time.
    trouble: Option<String>,
    failures: u32,
    ask_at: Duration,
}

impl Consent {
    /// Nothing is known; it is asked at once, and again after so long.
    pub const fn new(every: Duration) -> Self {
        Self { every, said: None, trouble: None, failures: 0, ask_at: Duration::ZERO }
    }

    /// When to ask.
    pub const fn ask_at(&self) -> Duration {
        self.ask_at
    }

    /// How many requests a minute are allowed, if any are; `Some(None)` is any number.
    pub fn allowed(&self) -> Option<Option<u32>> {
        self.said.as_ref().and_then(|said| said.as_ref().ok().copied())
    }

    /// `granted`, `refused` or `pending`, and why.
    pub fn describe(&self) -> (&'static str, &str) {
        match &self.said {
            Some(Ok(_)) => ("granted", ""),
            Some(Err(why)) => ("refused", why),
            None => {
                ("pending", self.trouble.as_deref().unwrap_or("the receiver was not asked yet"))
            }
        }
    }

    /// An answer came, or none.
    pub fn handle(&mut self, answer: Answer, random: &mut Random, now: Duration) {
        let (said, wait) = match answer {
            Answer::Yes(rate) => (Ok(rate), self.every),
            // Consent may be given at any time, and nobody tells us.
            Answer::No(why) => (Err(why), self.every.min(ASK_AGAIN_CAP)),
            Answer::Unclear(why) => {
                // What was said before holds until something else is said.
                self.trouble = Some(why);
                self.failures = self.failures.saturating_add(1);
                let high = backoff_max(ASK_AGAIN_BASE, ASK_AGAIN_CAP, self.failures);
                self.ask_at = now.saturating_add(random.between(high / 2, high));
                return;
            }
        };
        self.said = Some(said);
        self.trouble = None;
        self.failures = 0;
        self.ask_at = now.saturating_add(random.between(wait.saturating_mul(9) / 10, wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "mesh.example";

    fn answer(
        status: u16,
        headers: &[(&'static str, &'static str)],
        wished: Option<u32>,
    ) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        read(StatusCode::from_u16(status).unwrap(), &map, ORIGIN, wished)
    }

    #[test]
    fn only_the_header_is_consent() {
        let origin = |text| [("webhook-allowed-origin", text)];
        let no = |answer: &Answer| matches!(answer, Answer::No(_));

        for status in [200, 204, 202, 404, 405, 500] {
            assert_eq!(answer(status, &origin(ORIGIN), None), Answer::Yes(None), "{status}");
            assert_eq!(answer(status, &origin("*"), None), Answer::Yes(None), "{status}");
            assert_eq!(answer(status, &origin("Mesh.Example"), None), Answer::Yes(None));
            for other in ["", "example", "mesh.example.org", "evil", "mesh.example, evil", "**"] {
                assert!(no(&answer(status, &origin(other), None)), "{status} {other}");
            }
        }
        for status in [200, 201, 204, 301, 400, 401, 403, 404, 405, 410] {
            assert!(no(&answer(status, &[], None)), "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(matches!(answer(status, &[], None), Answer::Unclear(_)), "{status}");
        }
        let twice = [("webhook-allowed-origin", "*"), ("webhook-allowed-origin", "evil")];
        assert!(no(&answer(200, &twice, None)));
    }

    #[test]
    fn the_lower_rate_counts() {
        let with = |rate, wished| {
            answer(200, &[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", rate)], wished)
        };
        for (rate, wished, allowed) in [
            ("120", None, Some(120)),
            ("120", Some(60), Some(60)),
            ("120", Some(600), Some(120)),
            ("*", Some(600), Some(600)),
            ("*", None, None),
            ("99999999999", Some(7), Some(7)),
        ] {
            assert_eq!(with(rate, wished), Answer::Yes(allowed), "{rate} {wished:?}");
        }
        for wrong in ["0", "-1", "+5", "many", "1.5", ""] {
            assert!(matches!(with(wrong, None), Answer::No(_)), "{wrong}");
        }
        assert_eq!(answer(200, &[("webhook-allowed-origin", "*")], Some(9)), Answer::Yes(Some(9)));
    }

    #[test]
    fn silence_neither_gives_nor_takes_consent() {
        let mut random = Random::new(3);
        let (hour, now) = (Duration::from_hours(1), Duration::from_secs(9));
        let mut consent = Consent::new(hour);
        assert_eq!((consent.ask_at(), consent.allowed()), (Duration::ZERO, None));

        consent.handle(Answer::Unclear("away".to_owned()), &mut random, now);
        assert_eq!((consent.allowed(), consent.describe()), (None, ("pending", "away")));
        assert!(consent.ask_at() > now && consent.ask_at() <= now + ASK_AGAIN_BASE);

        consent.handle(Answer::Yes(Some(5)), &mut random, now);
        assert_eq!((consent.allowed(), consent.describe()), (Some(Some(5)), ("granted", "")));
        assert!(consent.ask_at() > now + hour / 2 && consent.ask_at() <= now + hour);

        consent.handle(Answer::Unclear("away".to_owned()), &mut random, now);
        assert_eq!(consent.allowed(), Some(Some(5)));

        consent.handle(Answer::No("no".to_owned()), &mut random, now);
        assert_eq!((consent.allowed(), consent.describe()), (None, ("refused", "no")));
        assert!(consent.ask_at() <= now + ASK_AGAIN_CAP);
    }
}
