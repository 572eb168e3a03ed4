//! What happened, told to the rules and to the status.

use std::time::Duration;

use tracing::{debug, info, warn};
use weft_proto::event::{EventView, ordering_key};

use super::{Event, Payload, Runner};
use crate::clock;
use crate::delivery::{FeedId, InstanceId, Leased, Outcome, Place};
use crate::feed::{self, Told};
use crate::function::deliver::Pushed;
use crate::function::fleet::Happening;
use crate::function::report::{Failure, LaunchTrouble};
use crate::launch::{Exit, LaunchError};

/// The reason of the condition that a function crashes again and again.
const CRASHES: &str = "CrashLoop";

impl Runner {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Pushed(pushed) => self.handle_pushed(pushed),
            Event::Fleet(happening) => self.handle_fleet(happening),
            Event::Told(feed, told) => self.handle_told(feed, told),
            Event::Reported(result) => {
                self.reporting = None;
                if let Err(error) = result {
                    self.reported = None;
                    debug!(function = %self.plan.name, %error, "cannot report the status");
                    self.mark_changed();
                }
            }
            Event::ChoreDone => {}
        }
    }

    fn handle_pushed(&mut self, pushed: Pushed) {
        self.metrics.push_seconds.record(pushed.took.as_secs_f64());
        let trigger = self.report.triggers.get_mut(&pushed.place.feed);
        if pushed.outcome == Outcome::Done {
            self.restart.handle_success();
            if matches!(&self.report.launch_trouble, Some(trouble) if trouble.reason == CRASHES) {
                self.report.launch_trouble = None;
            }
            self.metrics.done.increment(1);
            self.metrics.replies.increment(pushed.replies as u64);
        } else {
            self.metrics.not_done.increment(1);
            if let Some(trigger) = trigger {
                trigger.failed += 1;
            }
            self.report.add_error(Failure {
                time: clock::now(),
                message: pushed.error.unwrap_or_default(),
                push: Some((pushed.place, pushed.attempt)),
            });
        }
        debug!(place = ?pushed.place, instance = %pushed.instance, outcome = ?pushed.outcome, "pushed");
        self.delivery.handle_outcome(pushed.place, pushed.outcome, self.now());
        self.mark_changed();
    }

    fn handle_fleet(&mut self, happening: Happening) {
        self.mark_changed();
        let now = self.now();
        match happening {
            Happening::Started { id } => {
                self.delivery.handle_instance_ready(id);
                if self.is_ending {
                    self.drain(id);
                }
                // A crash loop is over when an event was answered, not when the next one starts.
                if !self.restart.is_loop() {
                    self.report.launch_trouble = None;
                }
            }
            Happening::NotStarted { error } => {
                self.restart.handle_failure(&mut self.random, now);
                let reason = match error {
                    LaunchError::Denied(_) => "PolicyDenied",
                    LaunchError::Invalid(_) => "InvalidCommand",
                    LaunchError::Failed(_) => "LaunchFailed",
                };
                warn!(function = %self.plan.name, %error, "cannot start an instance");
                self.trouble(reason, error.to_string());
            }
            Happening::Wrote { id, line } => {
                self.metrics.lines_left_out.increment(line.left_out);
                self.report.add_line(clock::now(), id, line.text);
            }
            Happening::Ended { id, exit, last_lines } => {
                for line in last_lines {
                    self.report.add_line(clock::now(), id, line.text);
                }
                self.delivery.handle_instance_gone(id);
                self.handle_exit(id, exit, now);
            }
        }
    }

    fn handle_exit(&mut self, id: InstanceId, exit: Exit, now: Duration) {
        match exit {
            Exit::Stopped => info!(function = %self.plan.name, instance = %id, "instance ended"),
            Exit::Killed => {
                warn!(function = %self.plan.name, instance = %id, "instance did not end in time");
            }
            Exit::Crashed(how) => {
                self.metrics.crashes.increment(1);
                self.restart.handle_failure(&mut self.random, now);
                warn!(function = %self.plan.name, instance = %id, %how, "instance crashed");
                let message = format!("instance {id} {how}");
                if self.restart.is_loop() {
                    let failures = self.restart.failures();
                    self.trouble(CRASHES, format!("{message}; {failures} in a row"));
                } else {
                    self.report.add_error(plain_error(message));
                }
            }
        }
    }

    fn trouble(&mut self, reason: &'static str, message: String) {
        self.report.add_error(plain_error(message.clone()));
        self.report.launch_trouble = Some(LaunchTrouble { reason, message });
    }

    fn handle_told(&mut self, feed: FeedId, told: Told) {
        // A message may still be under way when its feed has ended.
        if !self.feeds.contains_key(&feed) {
            return;
        }
        match told {
            Told::Assigned { partition, watermark } => {
                self.delivery.handle_assigned(feed, partition, watermark);
            }
            Told::Revoked { partition } => self.delivery.handle_revoked(feed, partition),
            Told::Leased(leased) => self.handle_leased(feed, leased),
            Told::Settled { places } => {
                if let Some(trigger) = self.report.triggers.get_mut(&feed) {
                    trigger.delivered += places.len() as u64;
                }
                for place in places {
                    self.delivery.handle_settled(place);
                }
            }
            Told::Fenced { places } => {
                for place in places {
                    self.delivery.handle_fenced(place);
                }
            }
            Told::Positions { positions } => {
                if let Some(trigger) = self.report.triggers.get_mut(&feed) {
                    let lags = positions.iter();
                    let lags = lags.map(|at| (at.partition, at.end.saturating_sub(at.watermark)));
                    trigger.positions = lags.collect();
                }
            }
            Told::Joined => self.handle_joined(feed, None),
            Told::Trouble { error } => {
                if !error.is_retryable() {
                    warn!(function = %self.plan.name, %error, "subscription does not work");
                }
                self.handle_joined(feed, Some(error.message().to_owned()));
            }
        }
        self.mark_changed();
    }

    fn handle_joined(&mut self, feed: FeedId, trouble: Option<String>) {
        if let Some(trigger) = self.report.triggers.get_mut(&feed) {
            trigger.is_joined = trouble.is_none();
            trigger.trouble = trouble;
        }
    }

    fn handle_leased(&mut self, feed: FeedId, leased: feed::Leased) {
        for (offset, event) in leased.events {
            let place = Place { feed, partition: leased.partition, offset };
            let view = EventView::parse(&event);
            let key = view.and_then(|view| ordering_key(&view).map(|key| key.as_bytes().to_vec()));
            match self.delivery.handle_lease(place, leased.epoch, key.as_deref()) {
                Leased::Taken => {
                    let appended = leased.appended;
                    self.payloads.insert(place, Payload { event, appended });
                }
                Leased::Known => {
                    if let Some(feed) = self.feeds.get(&feed) {
                        feed.outbox.release(event.len() as u64);
                    }
                }
            }
        }
        self.gauge_held();
    }
}

fn plain_error(message: String) -> Failure {
    Failure { time: clock::now(), message, push: None }
}
