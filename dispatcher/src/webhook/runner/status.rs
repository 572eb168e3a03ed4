//! The status of a webhook, written when there is news.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use weft_proto::Result;
use weft_proto::resource::{ConsentStatus, Kind, WebhookStatus};

use super::Runner;
use crate::egress::circuit::State;
use crate::webhook::report::Now;

/// The status is written at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

impl Runner {
    pub(super) fn mark_changed(&mut self) {
        if self.report_due.is_none() {
            let earliest = self.last_report.map(|last| last + REPORT_EVERY);
            let now = Instant::now();
            self.report_due = Some(earliest.map_or(now, |earliest| earliest.max(now)));
        }
    }

    pub(super) fn report_if_due(&mut self, now: Duration) {
        let is_due = self.report_due.is_some_and(|due| due <= Instant::now());
        if !is_due || self.reporting.is_some() {
            return;
        }
        self.report_due = None;
        self.last_report = Some(Instant::now());
        let status = self.status(now);
        // Each write is an entry of the catalog's log: what says nothing new is not written.
        if self.reported.as_ref() != Some(&status) {
            self.reporting = Some(self.write_status(&status));
            self.reported = Some(status);
        }
    }

    pub(super) fn status(&mut self, now: Duration) -> WebhookStatus {
        let (circuit, level) = match self.circuit.state(now) {
            State::Closed => ("closed", 0.0),
            State::HalfOpen(_) => ("half-open", 1.0),
            State::Open(_) => ("open", 2.0),
        };
        self.metrics.circuit.set(level);
        let (state, reason) = self.consent.describe();
        let consent = ConsentStatus {
            state: state.to_owned(),
            reason: reason.to_owned(),
            asked: self.asked.clone(),
            rate_per_minute: self.consent.allowed().flatten(),
        };
        self.report.status(Now {
            generation: self.plan.generation,
            consent,
            circuit,
            is_throttled: self.paused_until > now,
            is_joined: self.membership.is_in(),
            in_flight: self.in_flight.into(),
            held: self.held.len() as u64,
        })
    }

    pub(super) fn write_status(&self, status: &WebhookStatus) -> BoxFuture<'static, Result<()>> {
        let catalog = self.parts.client.catalog();
        let (name, uid) = (self.plan.name.to_string(), self.plan.uid.get());
        let status = status.clone();
        Box::pin(async move { catalog.set_status(Kind::Webhook, &name, uid, &status).await })
    }
}
