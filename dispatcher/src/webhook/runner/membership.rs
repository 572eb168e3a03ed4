//! Taking part in the webhook's subscription, or not.

use std::future::pending;
use std::time::Duration;

use futures::future::BoxFuture;
use weft_client::{Client, PutOptions, Subscription, SubscriptionOptions};
use weft_proto::resource::{Kind, WEBHOOK_LABEL};
use weft_proto::v1::Resource;
use weft_proto::{Error, QualifiedName, Reason, Result};

use super::{Event, Runner};
use crate::egress::circuit::State;

/// A pause this short is waited for with events in hand.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(5);
/// Before the subscription is joined again that did not work.
pub(super) const AGAIN: Duration = Duration::from_secs(2);
/// Events that may be in hand.
const HELD_MAX: u32 = 2_048;
const HELD_BYTES_MAX: u64 = 8 << 20;

/// How this webhook takes part in its subscription.
pub(super) enum Membership {
    /// It does not; it may again from then on.
    Out { again_at: Duration },
    /// The subscription is made, or brought up to date.
    Joining(BoxFuture<'static, Result<()>>),
    /// It does.
    In(Box<Subscription>),
    /// What was settled is waited for.
    Leaving(BoxFuture<'static, ()>),
}

impl Membership {
    pub(super) async fn next(&mut self) -> Event {
        match self {
            Self::Out { .. } => pending().await,
            Self::Joining(joining) => Event::Joined(joining.await),
            Self::In(subscription) => Event::Item(subscription.next().await),
            Self::Leaving(leaving) => {
                leaving.await;
                Event::Left
            }
        }
    }

    pub(super) const fn again_at(&self) -> Option<Duration> {
        match self {
            Self::Out { again_at } => Some(*again_at),
            _ => None,
        }
    }

    pub(super) const fn is_in(&self) -> bool {
        matches!(self, Self::In(_))
    }
}

impl Runner {
    /// Joins when events may be sent, leaves when they may not for a while.
    pub(super) fn join_or_leave(&mut self, now: Duration) {
        let shut = self.shut_until(now);
        match (&self.membership, shut) {
            // The subscription is made at once, also while nothing may be sent: its cursor begins
            // where the webhook does, and not where consent came.
            (Membership::Out { again_at }, shut)
                if *again_at <= now && (shut.is_none() || !self.is_made) =>
            {
                let client = self.parts.client.clone();
                let wanted = self.plan.subscription.clone();
                let name = self.plan.subscription_name.clone();
                let joining = Box::pin(async move { ensure(&client, wanted, &name).await });
                self.membership = Membership::Joining(joining);
            }
            (Membership::In(_), Some(until))
                if until > now.saturating_add(HOLD_MAX) && self.pushes.is_empty() =>
            {
                self.leave();
            }
            _ => {}
        }
    }

    /// Until when nothing may be sent; `None` if something may.
    fn shut_until(&mut self, now: Duration) -> Option<Duration> {
        if self.report.disabled.is_some() || self.consent.allowed().is_none() {
            return Some(Duration::MAX);
        }
        let circuit = match self.circuit.state(now) {
            State::Open(until) => until,
            State::Closed | State::HalfOpen(_) => Duration::ZERO,
        };
        Some(self.paused_until.max(circuit)).filter(|&until| until > now)
    }

    /// Gives back what is held, and leaves.
    pub(super) fn leave(&mut self) {
        self.give_back_all();
        let out = Membership::Out { again_at: Duration::ZERO };
        match std::mem::replace(&mut self.membership, out) {
            Membership::In(subscription) => {
                self.membership = Membership::Leaving(Box::pin(subscription.close()));
            }
            Membership::Out { again_at } => self.membership = Membership::Out { again_at },
            leaving @ Membership::Leaving(_) => self.membership = leaving,
            // Nobody has joined anything yet.
            Membership::Joining(_) => {}
        }
        self.mark_changed();
    }

    pub(super) fn handle_joined(&mut self, result: Result<()>) {
        match result {
            Ok(()) if self.shut_until(self.now()).is_some() => {
                self.report.trouble = None;
                self.is_made = true;
                self.membership = Membership::Out { again_at: Duration::ZERO };
            }
            Ok(()) => {
                self.report.trouble = None;
                self.is_made = true;
                self.joins += 1;
                let batch = u32::try_from(self.batch_max).unwrap_or(u32::MAX);
                let most = self.plan.spec.concurrency.saturating_mul(batch).saturating_mul(2);
                let options = SubscriptionOptions {
                    // A new name each time: under an old one, what was left would count as ours.
                    member: format!("{}-{}", self.parts.member, self.joins),
                    events_max: most.min(HELD_MAX),
                    bytes_max: HELD_BYTES_MAX,
                    ..SubscriptionOptions::default()
                };
                let name = self.plan.subscription_name.to_string();
                let subscription = self.parts.client.subscribe(&name, options);
                self.membership = Membership::In(Box::new(subscription));
            }
            Err(error) => self.handle_lost(&error),
        }
        self.mark_changed();
    }

    /// The subscription does not work; it is joined again.
    pub(super) fn handle_lost(&mut self, error: &Error) {
        self.report.trouble = Some(error.message().to_owned());
        self.is_made = false;
        // Whatever was lent comes again: nobody is there to settle it.
        self.queue.clear();
        self.groups.clear();
        self.held.clear();
        self.membership = Membership::Out { again_at: self.now().saturating_add(AGAIN) };
        self.mark_changed();
    }
}

/// Creates the subscription, or brings it up to date.
async fn ensure(client: &Client, wanted: Resource, name: &QualifiedName) -> Result<()> {
    let catalog = client.catalog();
    let present = catalog.find(Kind::Subscription, &name.to_string()).await?;
    let owner = wanted.labels.get(WEBHOOK_LABEL);
    if present.is_some_and(|present| present.labels.get(WEBHOOK_LABEL) != owner) {
        let message = format!(
            "subscription {name} exists and is not this webhook's; delete it, or rename the webhook"
        );
        return Err(Error::new(Reason::AlreadyExists, message));
    }
    catalog.put(wanted, PutOptions::default()).await.map(drop)
}
