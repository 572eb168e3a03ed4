//! What happened, and what it means for the events.

use std::time::Duration;

use tracing::{debug, info, warn};
use weft_client::{Acker, Held, Nack, SubscriptionItem};
use weft_proto::resource::Disabled;
use weft_proto::{Reason, Result};

use super::membership::Membership;
use super::{Act, Event, Item, Pushed, Runner, Settled};
use crate::clock;
use crate::delivery::backoff_max;
use crate::egress::consent;
use crate::push::payload::Untaken;
use crate::webhook::post::Outcome;

/// Longest pause after the first answer that asked for one without saying how long.
const PAUSE_BASE: Duration = Duration::from_secs(1);
const PAUSE_CAP: Duration = Duration::from_mins(5);
/// Longest pause that a receiver may ask for: whoever asks for more is wrong about the time.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(30 * 24);

impl Runner {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Pushed(pushed) => self.handle_pushed(pushed),
            Event::Settled(settled) => self.handle_settled(&settled),
            Event::Item(Ok(item)) => self.handle_item(item),
            Event::Item(Err(error)) => {
                warn!(webhook = %self.plan.name, %error, "the subscription does not work");
                self.handle_lost(&error);
            }
            Event::Joined(result) => self.handle_joined(result),
            Event::Left => {
                self.membership = Membership::Out { again_at: Duration::ZERO };
                self.mark_changed();
            }
            Event::Asked(answer) => self.handle_answer(answer),
            Event::Reported(result) => {
                self.reporting = None;
                if let Err(error) = result {
                    self.reported = None;
                    debug!(webhook = %self.plan.name, %error, "cannot report the status");
                    self.mark_changed();
                }
            }
        }
    }

    fn handle_item(&mut self, item: SubscriptionItem) {
        match item {
            SubscriptionItem::Delivery(delivery) => {
                let partition = delivery.batch.partition.get();
                for (place, (offset, event)) in delivery.batch.events.iter().enumerate() {
                    let held = delivery.one(place);
                    self.held.insert(held);
                    self.queue.push_back(Item {
                        held,
                        event: event.clone(),
                        partition,
                        offset: offset.get(),
                        is_redriven: delivery.is_redriven,
                        replay_job: delivery.replay_job,
                        attempt: delivery.attempt(place),
                    });
                }
            }
            SubscriptionItem::Idle { positions } => {
                let lags = positions.iter();
                let lags =
                    lags.map(|(_, watermark, end)| end.get().saturating_sub(watermark.get()));
                self.report.lag = lags.sum();
            }
            // What is lent stays lent, whoever leads.
            SubscriptionItem::Assigned { .. }
            | SubscriptionItem::Revoked { .. }
            | SubscriptionItem::Turn { .. }
            | SubscriptionItem::Seam { .. } => {}
        }
        self.mark_changed();
    }

    fn handle_answer(&mut self, answer: consent::Answer) {
        self.asking = None;
        if Some(&answer) != self.consent.allowed().map(consent::Answer::Yes).as_ref() {
            info!(webhook = %self.plan.name, ?answer, "asked the receiver for consent");
        }
        let now = self.now();
        self.consent.handle(answer, &mut self.random, now);
        if let Some(allowed) = self.consent.allowed() {
            self.rate.set(allowed);
        }
        self.mark_changed();
    }

    fn handle_pushed(&mut self, pushed: Pushed) {
        let Pushed { group, outcome, error, took } = pushed;
        let now = self.now();
        self.metrics.seconds.record(took.as_secs_f64());
        self.in_flight = self.in_flight.saturating_sub(1);
        self.permits.give_back();
        debug!(webhook = %self.plan.name, ?outcome, events = group.len(), "pushed");
        if let Outcome::Done(untaken) = &outcome {
            self.metrics.done.increment(1);
            self.circuit.handle_success();
            self.permits.succeed(took, now);
            self.pauses = 0;
            self.settle_done(group, untaken, &error);
            self.mark_changed();
            return;
        }
        self.metrics.not_done.increment(1);
        self.note_failure(&group, &error);
        match outcome {
            Outcome::Throttled(asked) => self.pause(group, asked, now),
            Outcome::Failed | Outcome::TimedOut => {
                self.circuit.handle_failure(&mut self.random, now);
                if outcome == Outcome::TimedOut {
                    self.permits.cut();
                }
                for item in group {
                    self.nack(item.held, error.clone(), None);
                }
            }
            Outcome::NotReceived => {
                self.circuit.handle_failure(&mut self.random, now);
                self.permits.strike(&mut self.random, now);
                self.requeue(group);
            }
            Outcome::Gone => {
                self.circuit.handle_neutral();
                self.requeue(group);
                self.disable();
            }
            Outcome::TooLarge if group.len() > 1 => {
                self.circuit.handle_neutral();
                self.batch_max = (group.len() / 2).max(1);
                self.split(group);
            }
            // One of them may be the cause: it is found, and the others are taken.
            Outcome::Refused | Outcome::Unsendable if group.len() > 1 => {
                self.circuit.handle_neutral();
                self.split(group);
            }
            Outcome::TooLarge | Outcome::Refused | Outcome::Unsendable => {
                // A receiver that refuses everything is left alone as well, before all that is
                // stored has become dead letters.
                self.circuit.handle_failure(&mut self.random, now);
                for item in group {
                    self.reject(item.held, error.clone());
                }
            }
            Outcome::Done(_) => {}
        }
        self.mark_changed();
    }

    fn note_failure(&mut self, group: &[Item], error: &str) {
        self.report.failed += 1;
        let Some(first) = group.first() else { return };
        let Item { partition, offset, attempt, .. } = first;
        let more = match group.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let message =
            format!("partition {partition}, offset {offset}{more}, attempt {attempt}: {error}");
        self.report.add_error(clock::now(), &message);
    }

    fn settle_done(&mut self, group: Vec<Item>, untaken: &[Untaken], error: &str) {
        if !untaken.is_empty() {
            self.note_failure(&group, error);
        }
        for item in group {
            match untaken.iter().find(|untaken| untaken.is(&item.event)) {
                None => self.ack(item.held),
                Some(untaken) => {
                    let reason = "the receiver took others of its batch".to_owned();
                    let delay = untaken.retry_after().map(|asked| asked.min(RETRY_AFTER_MAX));
                    self.nack(item.held, reason, delay);
                }
            }
        }
    }

    /// Waits as long as the receiver asks, and at least as long as it must be expected to need. No
    /// attempt is counted.
    fn pause(&mut self, group: Vec<Item>, asked: Option<Duration>, now: Duration) {
        self.circuit.handle_neutral();
        self.permits.cut();
        self.pauses = self.pauses.saturating_add(1);
        let high = backoff_max(PAUSE_BASE, PAUSE_CAP, self.pauses);
        let own = self.random.between(high / 2, high);
        let wait = asked.unwrap_or_default().min(RETRY_AFTER_MAX).max(own);
        self.paused_until = self.paused_until.max(now.saturating_add(wait));
        self.requeue(group);
    }

    /// The receiver is gone. The cursor stays where it is.
    fn disable(&mut self) {
        let generation = self.plan.generation.get();
        let time = clock::now().to_string();
        warn!(webhook = %self.plan.name, "the receiver is gone (410): nothing more is sent");
        self.report.disabled = Some(Disabled { generation, time });
    }

    fn handle_settled(&mut self, settled: &Settled) {
        let Settled { held, act, result } = settled;
        match (result, act) {
            (Ok(()), Act::Ack) => {
                self.report.delivered += 1;
                self.metrics.delivered.increment(1);
            }
            (Ok(()), Act::Reject) => {
                self.report.rejected += 1;
                self.metrics.rejected.increment(1);
            }
            (Ok(()), _) => {}
            // The lease has ended: the event comes again, to us or to another.
            (Err(error), Act::Extend) if error.reason() == Reason::Fenced => {
                self.held.remove(held);
                self.queue.retain(|item| item.held != *held);
                for group in &mut self.groups {
                    group.retain(|item| item.held != *held);
                }
                self.groups.retain(|group| !group.is_empty());
            }
            (Err(error), _) => {
                debug!(webhook = %self.plan.name, %error, ?act, "an event is not settled");
            }
        }
        self.mark_changed();
    }

    /// Gives back all that is not in flight; nothing of it was tried.
    pub(super) fn give_back_all(&mut self) {
        let groups = std::mem::take(&mut self.groups).into_iter().flatten();
        let items: Vec<Item> = groups.chain(std::mem::take(&mut self.queue)).collect();
        for item in items {
            self.settle(item.held, Act::Nack, |acker, held| async move {
                let nack = Nack { is_uncounted: true, ..Nack::default() };
                acker.nack(held, nack).await?.await
            });
        }
    }

    /// Keeps what is lent for longer, before its lease ends.
    pub(super) fn extend_if_due(&mut self, now: Duration) {
        if self.held.is_empty() || !self.membership.is_in() {
            self.extend_at = now.saturating_add(self.lease() / 3);
        } else if self.extend_at <= now {
            self.extend_at = now.saturating_add(self.lease() / 3);
            for held in self.held.clone() {
                self.settle(held, Act::Extend, |acker, held| async move {
                    acker.extend(held, None).await?.await
                });
            }
        }
    }

    fn lease(&self) -> Duration {
        self.plan.spec.subscription().lease.0
    }

    fn ack(&mut self, held: Held) {
        self.settle(held, Act::Ack, |acker, held| async move { acker.ack(held).await?.await });
    }

    fn nack(&mut self, held: Held, reason: String, delay: Option<Duration>) {
        self.settle(held, Act::Nack, move |acker, held| async move {
            let nack = Nack { delay, reason, is_uncounted: false };
            acker.nack(held, nack).await?.await
        });
    }

    fn reject(&mut self, held: Held, reason: String) {
        self.settle(held, Act::Reject, move |acker, held| async move {
            acker.reject(held, reason).await?.await
        });
    }

    fn settle<F>(&mut self, held: Held, act: Act, how: impl FnOnce(Acker, Held) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        if act != Act::Extend {
            self.held.remove(&held);
        }
        // Without a membership there is nobody to tell; the lease ends by itself.
        let Membership::In(subscription) = &self.membership else { return };
        let settling = how(subscription.acker(), held);
        self.settles.push(Box::pin(async move { Settled { held, act, result: settling.await } }));
    }
}
