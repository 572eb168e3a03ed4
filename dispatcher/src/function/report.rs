//! What the catalog is told about a function: status with a bounded past.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use weft_proto::{Error, Generation, Timestamp};

use crate::delivery::{Counts, FeedId, InstanceId};

/// Errors that are kept.
const ERRORS_LEN: usize = 10;
/// Lines of output that are kept.
const LOGS_LEN: usize = 100;
/// Characters of a message or line that are kept.
const TEXT_LEN_MAX: usize = 300;

/// The status of a function, as it stands in the catalog.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Status {
    pub(super) observed_generation: u64,
    pub(super) conditions: Vec<Condition>,
    pub(super) instances: Instances,
    pub(super) triggers: Vec<TriggerStatus>,
    pub(super) last_errors: Vec<LastError>,
    pub(super) logs: Vec<LogLine>,
}

/// A statement about the function.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) ty: &'static str,
    pub(super) status: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) since: String,
}

/// How many instances are in which phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Instances {
    pub(super) ready: usize,
    pub(super) starting: usize,
    pub(super) draining: usize,
    /// Ended without being asked, since the dispatcher began.
    pub(super) crashed: u64,
}

/// How one trigger fares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TriggerStatus {
    pub(super) name: String,
    /// Events that are not settled yet.
    pub(super) lag: u64,
    pub(super) in_flight: u64,
    pub(super) retrying: u64,
    pub(super) blocked: u64,
    /// Since the dispatcher began.
    pub(super) delivered: u64,
    /// Attempts, since the dispatcher began.
    pub(super) failed: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LastError {
    pub(super) time: String,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trigger: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
}

/// A line that an instance wrote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LogLine {
    pub(super) time: String,
    pub(super) instance: u64,
    pub(super) line: String,
}

/// Counters and positions of one trigger.
#[derive(Debug)]
pub(super) struct TriggerReport {
    pub(super) name: String,
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) positions: BTreeMap<u32, u64>,
    /// Why the subscription does not work right now.
    pub(super) trouble: Option<String>,
    pub(super) is_joined: bool,
}

impl TriggerReport {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            delivered: 0,
            failed: 0,
            positions: BTreeMap::new(),
            trouble: None,
            is_joined: false,
        }
    }
}

/// Why instances do not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaunchTrouble {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Everything a status is made of.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) triggers: BTreeMap<FeedId, TriggerReport>,
    pub(super) launch_trouble: Option<LaunchTrouble>,
    /// Why the newest definition is not the one that runs.
    pub(super) spec_trouble: Option<String>,
    pub(super) crashed: u64,
    errors: VecDeque<LastError>,
    logs: VecDeque<LogLine>,
    since: BTreeMap<&'static str, (bool, &'static str, Timestamp)>,
}

impl Report {
    pub(super) fn add_error(&mut self, mut error: LastError) {
        shorten(&mut error.message);
        if self.errors.len() == ERRORS_LEN {
            self.errors.pop_front();
        }
        self.errors.push_back(error);
    }

    pub(super) fn add_line(&mut self, now: Timestamp, id: InstanceId, mut line: String) {
        shorten(&mut line);
        if self.logs.len() == LOGS_LEN {
            self.logs.pop_front();
        }
        self.logs.push_back(LogLine { time: now.to_string(), instance: id.0, line });
    }

    /// The status now. `counts` tells how the events of each trigger stand.
    pub(super) fn status(
        &mut self,
        generation: u64,
        instances: Instances,
        counts: impl Fn(FeedId) -> Counts,
        now: Timestamp,
    ) -> Status {
        let mut triggers = Vec::new();
        let mut blocked = 0;
        for (&feed, trigger) in &self.triggers {
            let counts = counts(feed);
            blocked += counts.blocked;
            let held = counts.queued + counts.in_flight + counts.parked + counts.settling;
            triggers.push(TriggerStatus {
                name: trigger.name.clone(),
                // Positions come rarely; what is held here is behind for certain.
                lag: trigger.positions.values().sum::<u64>().max(held),
                in_flight: counts.in_flight,
                retrying: counts.retrying,
                blocked: counts.blocked,
                delivered: trigger.delivered,
                failed: trigger.failed,
            });
        }
        let conditions = self.conditions(blocked, now);
        Status {
            observed_generation: generation,
            conditions,
            instances: Instances { crashed: self.crashed, ..instances },
            triggers,
            last_errors: self.errors.iter().cloned().collect(),
            logs: self.logs.iter().cloned().collect(),
        }
    }

    fn conditions(&mut self, blocked: u64, now: Timestamp) -> Vec<Condition> {
        let launched = match &self.launch_trouble {
            None => (true, "Launchable", String::new()),
            Some(trouble) => (false, trouble.reason, trouble.message.clone()),
        };
        let troubled = self.triggers.values().find_map(|trigger| {
            trigger.trouble.as_ref().map(|trouble| format!("trigger {}: {trouble}", trigger.name))
        });
        let subscribed = match troubled {
            Some(trouble) => (false, "SubscriptionFailed", trouble),
            None if self.triggers.values().all(|trigger| trigger.is_joined) => {
                (true, "Subscribed", String::new())
            }
            None => (false, "Subscribing", "not all subscriptions are joined yet".to_owned()),
        };
        let delivering = if blocked == 0 {
            (true, "Delivering", String::new())
        } else {
            let cause = self.errors.back().map(|error| error.message.as_str()).unwrap_or_default();
            let message = format!(
                "{blocked} events are blocked; they are tried again and never dropped; \
                 last error: {cause}"
            );
            (false, "Blocked", message)
        };
        let accepted = match &self.spec_trouble {
            None => (true, "Accepted", String::new()),
            Some(trouble) => (false, "Invalid", trouble.clone()),
        };
        let ready = launched.0 && subscribed.0 && accepted.0;
        let ready = (ready, if ready { "Ready" } else { "NotReady" }, String::new());
        [
            ("Ready", ready),
            ("Accepted", accepted),
            ("Launched", launched),
            ("Subscribed", subscribed),
            ("Delivering", delivering),
        ]
        .map(|(ty, (status, reason, message))| {
            let known = self.since.entry(ty).or_insert((status, reason, now));
            if (known.0, known.1) != (status, reason) {
                *known = (status, reason, now);
            }
            Condition { ty, status, reason, message, since: known.2.to_string() }
        })
        .into()
    }
}

/// The status is small: it goes through the log of the catalog.
fn shorten(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(TEXT_LEN_MAX) {
        text.truncate(at);
        text.push('…');
    }
}

/// The status of a function that cannot be run at all.
pub(crate) fn refusal(generation: Generation, error: &Error) -> Vec<u8> {
    let mut report = Report { spec_trouble: Some(error.message().to_owned()), ..Report::default() };
    let none = |_| Counts::default();
    let status = report.status(generation.get(), Instances::default(), none, crate::clock::now());
    serde_json::to_vec(&status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_bounded() {
        let mut report = Report::default();
        for number in 0..1_000 {
            let line = format!("{number}{}", "ä".repeat(5_000));
            report.add_line(Timestamp::from_micros(1), InstanceId(1), line);
        }

        let status =
            report.status(1, Instances::default(), |_| Counts::default(), Timestamp::default());

        assert_eq!(status.logs.len(), LOGS_LEN);
        assert!(status.logs.iter().all(|log| log.line.chars().count() <= TEXT_LEN_MAX + 1));
        assert!(status.logs[99].line.starts_with("999"));
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut report = Report::default();
        let since = |report: &mut Report, at| {
            let now = Timestamp::from_micros(at);
            let status = report.status(1, Instances::default(), |_| Counts::default(), now);
            status.conditions[0].since.clone()
        };

        let first = since(&mut report, 1);
        assert_eq!(since(&mut report, 2), first);
        report.spec_trouble = Some("wrong".to_owned());
        assert_ne!(since(&mut report, 3), first);
    }
}
