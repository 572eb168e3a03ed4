//! What the catalog is told about a function: status with a bounded past.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_proto::resource::{
    Condition, FunctionStatus, Instances, LogLine, RevisionStatus, TriggerStatus,
};
use weft_proto::{Error, Generation, Timestamp};

use crate::delivery::{Counts, FeedId, InstanceId};

/// Errors that are kept.
const ERRORS_LEN: usize = 10;
/// Lines of output that are kept.
const LOGS_LEN: usize = 100;
/// Characters of a message or line that are kept.
const TEXT_LEN_MAX: usize = 300;
/// Blocked events that are remembered of a trigger; with more, the number is a lower bound.
const BLOCKED_LEN: usize = 10_000;

/// A push that failed, or an instance.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) time: Timestamp,
    pub(super) message: String,
    /// For a push.
    pub(super) push: Option<Tried>,
}

/// An event that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub(super) feed: FeedId,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) attempt: u32,
}

/// Counters and positions of one trigger.
#[derive(Debug)]
pub(super) struct TriggerReport {
    pub(super) name: String,
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) dead: u64,
    /// How much of each partition is not settled.
    pub(super) lags: BTreeMap<u32, u64>,
    /// Failed more often than they should, and are tried on: partition, offset.
    pub(super) blocked: BTreeSet<(u32, u64)>,
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
            dead: 0,
            lags: BTreeMap::new(),
            blocked: BTreeSet::new(),
            trouble: None,
            is_joined: false,
        }
    }

    /// An event failed so often that it holds up what it holds up.
    pub(super) fn block(&mut self, partition: u32, offset: u64) {
        if self.blocked.len() < BLOCKED_LEN {
            self.blocked.insert((partition, offset));
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
    errors: VecDeque<Failure>,
    logs: VecDeque<LogLine>,
}

impl Report {
    /// Whether something keeps the function from being run here.
    pub(super) fn has_trouble(&self) -> bool {
        self.launch_trouble.is_some()
            || self.spec_trouble.is_some()
            || self.triggers.values().any(|trigger| trigger.trouble.is_some())
    }

    pub(super) fn add_error(&mut self, mut error: Failure) {
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
        self.logs.push_back(LogLine { time: now.to_string(), instance: id.to_string(), line });
    }

    /// The status now. `counts` tells how the events of each trigger stand, `oldest` since when
    /// the oldest of them waits.
    pub(super) fn status(
        &self,
        generation: Generation,
        instances: Instances,
        revisions: Vec<RevisionStatus>,
        counts: impl Fn(FeedId) -> (Counts, Option<Timestamp>),
        now: Timestamp,
    ) -> FunctionStatus {
        let mut triggers = Vec::new();
        let mut blocked = 0;
        for (&feed, trigger) in &self.triggers {
            let (counts, oldest) = counts(feed);
            blocked += trigger.blocked.len() as u64;
            let held = counts.queued + counts.in_flight;
            let age = oldest.map(|oldest| now.since(oldest).as_millis()).unwrap_or_default();
            triggers.push(TriggerStatus {
                name: trigger.name.clone(),
                // Positions come rarely; what is held here is behind for certain.
                lag: trigger.lags.values().sum::<u64>().max(held),
                in_flight: counts.in_flight,
                retrying: counts.retrying,
                delivered: trigger.delivered,
                failed: trigger.failed,
                dead: trigger.dead,
                blocked: trigger.blocked.len() as u64,
                oldest_unacked_age_ms: u64::try_from(age).unwrap_or(u64::MAX),
            });
        }
        FunctionStatus {
            observed_generation: generation.get(),
            conditions: self.conditions(blocked),
            instances,
            revisions,
            triggers,
            last_errors: self.errors.iter().map(|error| self.sentence(error)).collect(),
            logs: self.logs.iter().cloned().collect(),
        }
    }

    fn sentence(&self, failure: &Failure) -> String {
        let Failure { time, message, push } = failure;
        let Some(tried) = push else { return format!("{time} {message}") };
        let Tried { feed, partition, offset, attempt } = tried;
        let trigger = self.triggers.get(feed).map_or("?", |trigger| trigger.name.as_str());
        format!(
            "{time} trigger {trigger}, partition {partition}, offset {offset}, attempt {attempt}: \
             {message}"
        )
    }

    fn conditions(&self, blocked: u64) -> Vec<Condition> {
        let good = |kind: &str, reason: &str| Condition {
            kind: kind.to_owned(),
            status: true,
            reason: reason.to_owned(),
            message: String::new(),
        };
        let bad = |kind: &str, reason: &str, message: String| Condition {
            status: false,
            message,
            ..good(kind, reason)
        };
        let accepted = match &self.spec_trouble {
            None => good("Accepted", "Accepted"),
            Some(trouble) => bad("Accepted", "Invalid", trouble.clone()),
        };
        let launched = match &self.launch_trouble {
            None => good("Launched", "Launchable"),
            Some(trouble) => bad("Launched", trouble.reason, trouble.message.clone()),
        };
        let subscribed = self.subscribed(good, bad);
        let delivering = if blocked == 0 {
            good("Delivering", "Delivering")
        } else {
            let cause = self.errors.back().map(|error| error.message.as_str()).unwrap_or_default();
            let message = format!(
                "{blocked} events are blocked; they are tried again and never dropped; \
                 last error: {cause}"
            );
            bad("Delivering", "Blocked", message)
        };
        let parts = [accepted, launched, subscribed, delivering];
        let ready = match parts.iter().take(3).find(|part| !part.status) {
            None => good("Ready", "Ready"),
            Some(part) => bad("Ready", &part.reason, part.message.clone()),
        };
        std::iter::once(ready).chain(parts).collect()
    }

    fn subscribed(
        &self,
        good: impl Fn(&str, &str) -> Condition,
        bad: impl Fn(&str, &str, String) -> Condition,
    ) -> Condition {
        let troubled = self.triggers.values().find_map(|trigger| {
            trigger.trouble.as_ref().map(|trouble| format!("trigger {}: {trouble}", trigger.name))
        });
        match troubled {
            Some(trouble) => bad("Subscribed", "SubscriptionFailed", trouble),
            None if self.triggers.values().all(|trigger| trigger.is_joined) => {
                good("Subscribed", "Subscribed")
            }
            None => {
                let message = "not all subscriptions are joined yet".to_owned();
                bad("Subscribed", "Subscribing", message)
            }
        }
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
    let spec_trouble = Some(error.message().to_owned());
    let report = Report { spec_trouble, ..Report::default() };
    let none = |_| (Counts::default(), None);
    let status =
        report.status(generation, Instances::default(), Vec::new(), none, crate::clock::now());
    serde_json::to_vec(&status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(report: &Report) -> FunctionStatus {
        let counts = |_| (Counts::default(), None);
        let instances = Instances::default();
        report.status(Generation(1), instances, Vec::new(), counts, Timestamp::default())
    }

    #[test]
    fn the_past_is_bounded() {
        let mut report = Report::default();
        for number in 0..1_000 {
            let line = format!("{number}{}", "ä".repeat(5_000));
            report.add_line(Timestamp::from_micros(1), InstanceId(1), line.clone());
            let time = Timestamp::default();
            report.add_error(Failure { time, message: line, push: None });
        }

        let status = status(&report);

        assert_eq!((status.logs.len(), status.last_errors.len()), (LOGS_LEN, ERRORS_LEN));
        assert!(status.logs.iter().all(|log| log.line.chars().count() <= TEXT_LEN_MAX + 1));
        assert!(status.logs[99].line.starts_with("999"));
    }

    #[test]
    fn what_hinders_the_function_is_the_reason_why_it_is_not_ready() {
        let mut report = Report::default();
        report.triggers.insert(FeedId(0), TriggerReport::new("t".to_owned()));
        assert_eq!(status(&report).conditions[0].reason, "Subscribing");
        report.triggers.values_mut().for_each(|trigger| trigger.is_joined = true);
        assert!(status(&report).conditions[0].status);

        for offset in 0..2 {
            report.triggers.values_mut().for_each(|trigger| trigger.block(0, offset));
        }
        report.launch_trouble =
            Some(LaunchTrouble { reason: "CrashLoop", message: "instance 3 ended".to_owned() });

        let ready = &status(&report).conditions[0];
        assert_eq!((ready.status, ready.reason.as_str()), (false, "CrashLoop"));
        let delivering = &status(&report).conditions[4];
        assert!(!delivering.status && delivering.message.starts_with("2 events are blocked"));
    }
}
