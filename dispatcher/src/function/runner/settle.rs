//! Settling what is lent, and keeping it for as long as it is worked on.

use std::time::Duration;

use tracing::debug;
use weft_client::Nack;
use weft_proto::{Reason, Result};

use super::Runner;
use crate::delivery::{FeedId, Settle, Ticket};
use crate::port::Act;

/// Leases last 30 s: what is in hand is kept for longer well before that.
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// An act that ended.
pub(super) struct Settled {
    ticket: Ticket,
    feed: FeedId,
    place: (u32, u64),
    what: What,
    result: Result<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Acked,
    GivenBack,
    Rejected,
    Extended,
}

impl Runner {
    /// Settles an event; from now on it is not ours.
    pub(super) fn settle(&mut self, ticket: Ticket, how: Settle) {
        let Some(payload) = self.forget(ticket) else { return };
        let Some(feed) = self.feeds.get(&payload.feed) else { return };
        let place = (payload.partition, payload.offset);
        let (act, what) = match how {
            Settle::Ack => (Act::Ack, What::Acked),
            Settle::GiveBack { delay, is_counted, reason } => {
                let is_blocked =
                    feed.trigger.blocks_after.is_some_and(|max| payload.attempt >= max);
                if is_counted
                    && is_blocked
                    && let Some(trigger) = self.report.triggers.get_mut(&payload.feed)
                {
                    trigger.block(place.0, place.1);
                }
                let reason = self.told(&payload, &reason);
                let nack = Nack { delay, reason, is_uncounted: !is_counted };
                (Act::Nack(nack), What::GivenBack)
            }
            Settle::Reject { reason } => {
                (Act::Reject(self.told(&payload, &reason)), What::Rejected)
            }
        };
        // Without a membership there is nobody to tell, and the lease has ended.
        let Some(settler) = &feed.settler else { return };
        let settling = settler.settle(payload.held, act);
        let feed = payload.feed;
        self.settles.push(Box::pin(async move {
            Settled { ticket, feed, place, what, result: settling.await }
        }));
    }

    /// What is remembered of a failure: which revision, and what it said.
    fn told(&self, payload: &super::Payload, reason: &str) -> String {
        let revision = payload.sent_to.unwrap_or_else(|| self.route(payload));
        format!("{}: {reason}", self.plan.name_of(revision))
    }

    pub(super) fn handle_settled(&mut self, settled: &Settled) {
        let Settled { ticket, feed, place, what, result } = settled;
        if let Err(error) = result {
            debug!(function = %self.plan.name, %error, ?what, "an event is not settled");
            // The lease has ended: the event comes again, to us or to another.
            if *what == What::Extended && error.reason() == Reason::Fenced {
                self.delivery.handle_lost(*ticket);
            }
            return;
        }
        let Some(trigger) = self.report.triggers.get_mut(feed) else { return };
        match what {
            What::Acked => trigger.delivered += 1,
            What::Rejected => trigger.dead += 1,
            What::GivenBack | What::Extended => return,
        }
        trigger.blocked.remove(place);
        self.mark_changed();
    }

    /// Keeps what is in hand for longer, before its leases end.
    pub(super) fn extend_if_due(&mut self, now: Duration) {
        if self.payloads.is_empty() {
            self.extend_at = now.saturating_add(EXTEND_EVERY);
            return;
        }
        if self.extend_at > now {
            return;
        }
        self.extend_at = now.saturating_add(EXTEND_EVERY);
        for (&ticket, payload) in &self.payloads {
            let settler = self.feeds.get(&payload.feed).and_then(|feed| feed.settler.as_ref());
            let Some(settler) = settler else { continue };
            let extending = settler.settle(payload.held, Act::Extend);
            let (feed, place) = (payload.feed, (payload.partition, payload.offset));
            let what = What::Extended;
            self.settles.push(Box::pin(async move {
                Settled { ticket, feed, place, what, result: extending.await }
            }));
        }
    }
}
