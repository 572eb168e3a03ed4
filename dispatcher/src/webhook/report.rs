//! What the catalog is told about a webhook: status with a bounded past.

use std::collections::VecDeque;

use weft_proto::resource::{Condition, ConsentStatus, Disabled, WebhookStatus};
use weft_proto::{Generation, Timestamp};

/// Errors that are kept.
const ERRORS_LEN: usize = 10;
/// Characters of a message that are kept.
const TEXT_LEN_MAX: usize = 300;

/// Everything of a status that lasts longer than one definition of the webhook.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) rejected: u64,
    pub(super) lag: u64,
    /// Why the newest definition is not the one that runs.
    pub(super) spec_trouble: Option<String>,
    /// Why the subscription does not work right now.
    pub(super) trouble: Option<String>,
    pub(super) disabled: Option<Disabled>,
    errors: VecDeque<String>,
}

/// What holds at the moment.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Now {
    pub(super) generation: Generation,
    pub(super) consent: ConsentStatus,
    pub(super) circuit: &'static str,
    /// The receiver asked for a pause.
    pub(super) is_throttled: bool,
    pub(super) is_joined: bool,
    pub(super) in_flight: u64,
    /// Events that are here.
    pub(super) held: u64,
}

impl Report {
    pub(super) fn add_error(&mut self, time: Timestamp, message: &str) {
        let mut text = format!("{time} {message}");
        if let Some((at, _)) = text.char_indices().nth(TEXT_LEN_MAX) {
            text.truncate(at);
            text.push('…');
        }
        if self.errors.len() == ERRORS_LEN {
            self.errors.pop_front();
        }
        self.errors.push_back(text);
    }

    pub(super) fn status(&self, now: Now) -> WebhookStatus {
        WebhookStatus {
            observed_generation: now.generation.get(),
            conditions: self.conditions(&now),
            circuit: now.circuit.to_owned(),
            disabled: self.disabled.clone(),
            // Positions come rarely; what is held here is behind for certain.
            lag: self.lag.max(now.held),
            in_flight: now.in_flight,
            delivered: self.delivered,
            failed: self.failed,
            rejected: self.rejected,
            last_errors: self.errors.iter().cloned().collect(),
            consent: now.consent,
        }
    }

    fn conditions(&self, now: &Now) -> Vec<Condition> {
        let condition = |kind: &str, problem: Option<(&str, String)>| {
            let (status, (reason, message)) = match problem {
                None => (true, (kind, String::new())),
                Some(problem) => (false, problem),
            };
            Condition { kind: kind.to_owned(), status, reason: reason.to_owned(), message }
        };
        let enabled = self.disabled.as_ref().map(|disabled| {
            let message = format!(
                "the receiver said at {} that it is gone (410); `weft webhook enable` tries again",
                disabled.time
            );
            ("Gone", message)
        });
        let consented = match now.consent.state.as_str() {
            "granted" => None,
            "refused" => Some(("ConsentRefused", now.consent.reason.clone())),
            _ => Some(("ConsentPending", now.consent.reason.clone())),
        };
        let subscribed = match &self.trouble {
            Some(trouble) => Some(("SubscriptionFailed", trouble.clone())),
            None if now.is_joined => None,
            None => Some(("NotJoined", "no events are taken at present".to_owned())),
        };
        let last = || self.errors.back().cloned().unwrap_or_default();
        let reached = if now.circuit != "closed" {
            Some(("CircuitOpen", format!("it failed again and again; last: {}", last())))
        } else if now.is_throttled {
            Some(("Throttled", "the receiver asked for a pause".to_owned()))
        } else {
            None
        };
        let parts = [
            condition("Accepted", self.spec_trouble.clone().map(|trouble| ("Invalid", trouble))),
            condition("Enabled", enabled),
            condition("Consented", consented),
            condition("Reached", reached),
            condition("Subscribed", subscribed),
        ];
        let ready = match parts.iter().find(|part| !part.status) {
            None => condition("Ready", None),
            Some(part) => Condition { kind: "Ready".to_owned(), ..part.clone() },
        };
        std::iter::once(ready).chain(parts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(report: &Report, now: Now) -> (bool, String) {
        let status = report.status(now);
        let ready = &status.conditions[0];
        assert_eq!(ready.kind, "Ready");
        (ready.status, ready.reason.clone())
    }

    fn well() -> Now {
        let consent = ConsentStatus { state: "granted".to_owned(), ..ConsentStatus::default() };
        Now { consent, circuit: "closed", is_joined: true, ..Now::default() }
    }

    #[test]
    fn what_hinders_the_webhook_is_the_reason_why_it_is_not_ready() {
        let mut report = Report::default();
        assert_eq!(ready(&report, well()), (true, "Ready".to_owned()));
        assert_eq!(ready(&report, Now { is_joined: false, ..well() }).1, "NotJoined");
        assert_eq!(ready(&report, Now { is_throttled: true, ..well() }).1, "Throttled");
        assert_eq!(
            ready(&report, Now { circuit: "open", is_joined: false, ..well() }).1,
            "CircuitOpen"
        );
        let consent = ConsentStatus { state: "refused".to_owned(), ..ConsentStatus::default() };
        assert_eq!(ready(&report, Now { consent, is_joined: false, ..well() }).1, "ConsentRefused");
        report.disabled = Some(Disabled::default());
        assert_eq!(ready(&report, well()), (false, "Gone".to_owned()));
        report.spec_trouble = Some("no".to_owned());
        assert_eq!(ready(&report, well()).1, "Invalid");
    }

    #[test]
    fn the_past_is_bounded() {
        let mut report = Report::default();
        for number in 0..1_000 {
            report.add_error(Timestamp::default(), &format!("{number}{}", "ä".repeat(5_000)));
        }
        let errors = report.status(well()).last_errors;
        assert_eq!(errors.len(), ERRORS_LEN);
        assert!(errors.iter().all(|error| error.chars().count() <= TEXT_LEN_MAX + 1));
    }
}
