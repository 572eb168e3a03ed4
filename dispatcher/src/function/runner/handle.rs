//! What happened, told to the rules and to the status.

use std::time::Duration;

use tracing::{debug, info, warn};
use weft_proto::event::EventView;

use super::{Event, Payload, Runner};
use crate::clock;
use crate::delivery::{FeedId, InstanceId, Lent, Outcome, RevisionNo, Ticket};
use crate::feed::Told;
use crate::function::deliver::Pushed;
use crate::function::fleet::Happening;
use crate::function::report::{Failure, LaunchTrouble, Tried};
use crate::launch::Exit;
use crate::port::{self, Item};

/// The reason of the condition that a function crashes again and again.
const CRASHES: &str = "CrashLoop";

impl Runner {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Pushed(pushed) => self.handle_pushed(pushed),
            Event::Fleet(happening) => self.handle_fleet(happening),
            Event::Told(feed, told) => self.handle_told(feed, told),
            Event::Settled(settled) => self.handle_settled(&settled),
            Event::Job(known) => self.handle_job(known),
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
        let tried = self.payloads.get(&pushed.ticket).map(|payload| Tried {
            feed: payload.feed,
            partition: payload.partition,
            offset: payload.offset,
            attempt: payload.attempt,
        });
        let error = pushed.error.unwrap_or_default();
        if pushed.outcome == Outcome::Done {
            if let Some(revision) = self.fleet.revision_of(pushed.instance)
                && let Some(track) = self.tracks.get_mut(&revision)
            {
                track.restart.handle_success();
            }
            if matches!(&self.report.launch_trouble, Some(trouble) if trouble.reason == CRASHES) {
                self.report.launch_trouble = None;
            }
            self.metrics.done.increment(1);
            self.metrics.replies.increment(pushed.replies as u64);
        } else {
            self.metrics.not_done.increment(1);
            if let Some(trigger) = tried.and_then(|tried| self.report.triggers.get_mut(&tried.feed))
            {
                trigger.failed += 1;
            }
            let message = error.clone();
            self.report.add_error(Failure { time: clock::now(), message, push: tried });
        }
        debug!(push = ?pushed.id, instance = %pushed.instance, outcome = ?pushed.outcome, "pushed");
        self.delivery.handle_outcome(pushed.id, &pushed.outcome, &error, self.now());
        self.mark_changed();
    }

    fn handle_fleet(&mut self, happening: Happening) {
        self.mark_changed();
        let now = self.now();
        match happening {
            Happening::Started { id, revision } => {
                let found = self.plan.revisions.get(&revision);
                let hard = found.map_or(1, |found| found.template.concurrency.hard);
                self.delivery.handle_instance_ready(id, revision, hard);
                if self.is_ending {
                    self.drain(id);
                }
                // A crash loop is over when an event was answered, not when the next one starts.
                if !self.tracks.get(&revision).is_some_and(|track| track.restart.is_loop()) {
                    self.report.launch_trouble = None;
                }
            }
            Happening::NotStarted { revision, error } => {
                self.start_failed(revision, now);
                warn!(function = %self.plan.name, %error, "cannot start an instance");
                self.trouble(error.kind.as_str(), error.to_string());
            }
            Happening::HeldUp { failure } => match failure {
                Some(failure) => self.trouble(failure.kind.as_str(), failure.to_string()),
                None => self.report.launch_trouble = None,
            },
            Happening::Wrote { id, line } => {
                self.metrics.lines_left_out.increment(line.left_out);
                self.report.add_line(clock::now(), id, line.text);
            }
            Happening::Ended { id, revision, exit, last_lines } => {
                for line in last_lines {
                    self.report.add_line(clock::now(), id, line.text);
                }
                self.delivery.handle_instance_gone(id);
                self.handle_exit(id, revision, exit, now);
            }
        }
    }

    /// Says whether it was one of many.
    fn start_failed(&mut self, revision: RevisionNo, now: Duration) -> (bool, u32) {
        let Some(track) = self.tracks.get_mut(&revision) else { return (false, 0) };
        track.restart.handle_failure(&mut self.random, now);
        (track.restart.is_loop(), track.restart.failures())
    }

    fn handle_exit(&mut self, id: InstanceId, revision: RevisionNo, exit: Exit, now: Duration) {
        match exit {
            Exit::Stopped => info!(function = %self.plan.name, instance = %id, "instance ended"),
            Exit::Killed => {
                warn!(function = %self.plan.name, instance = %id, "instance did not end in time");
            }
            Exit::Crashed(how) => {
                self.metrics.crashes.increment(1);
                let (is_loop, failures) = self.start_failed(revision, now);
                warn!(function = %self.plan.name, instance = %id, %how, "instance crashed");
                let message = format!("instance {id} {how}");
                if is_loop {
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
            Told::Joined(settler) => {
                if let Some(running) = self.feeds.get_mut(&feed) {
                    running.settler = Some(settler);
                }
                self.handle_joined(feed, None);
            }
            Told::Item(Item::Lent(lent)) => {
                for one in lent {
                    self.handle_lent(feed, one);
                }
            }
            Told::Item(Item::Turn { partition, is_own: true }) => {
                self.turns.insert((feed, partition));
            }
            Told::Item(Item::Turn { partition, is_own: false }) => {
                self.turns.remove(&(feed, partition));
                // Another dispatcher goes on; what is under way ends here.
                self.delivery.give_back(feed, "another dispatcher runs the function now");
            }
            Told::Item(Item::Lags(lags)) => {
                if let Some(trigger) = self.report.triggers.get_mut(&feed) {
                    trigger.lags = lags.into_iter().collect();
                }
            }
            Told::Trouble(error) => {
                if !error.is_retryable() {
                    warn!(function = %self.plan.name, %error, "subscription does not work");
                }
                self.feed_lost(feed);
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

    pub(super) fn handle_lent(&mut self, feed: FeedId, lent: port::Lent) {
        let Some((lent, pinned)) = self.pinned_by(feed, lent) else { return };
        let Some(running) = self.feeds.get(&feed) else { return };
        let hash = EventView::parse(&lent.event).map(|view| running.trigger.hash_of(&view));
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let bytes = u32::try_from(lent.event.len()).unwrap_or(u32::MAX);
        let payload = Payload {
            feed,
            held: lent.held,
            partition: lent.partition,
            offset: lent.offset,
            attempt: lent.attempt,
            event: lent.event,
            appended: lent.appended,
            hash: hash.unwrap_or_default(),
            pinned,
            sent_to: None,
            is_redriven: lent.is_redriven,
            replay_job: lent.replay_job,
        };
        let (revision, attempt) = (self.route(&payload), payload.attempt);
        self.payloads.insert(ticket, payload);
        self.delivery.handle_lent(Lent { ticket, feed, revision, attempt, bytes }, self.now());
        self.gauge_held();
    }
}

fn plain_error(message: String) -> Failure {
    Failure { time: clock::now(), message, push: None }
}
