//! Whether something may be sent now: consent, circuit, pauses, rate, requests that are open.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Pushed, Runner};
use crate::clock;
use crate::egress::circuit::State;
use crate::push;
use crate::webhook::post::Posted;
use crate::webhook::spans::Spans;

/// A group with as many bytes of events is large enough.
const GROUP_BYTES_MAX: usize = 1 << 20;

impl Runner {
    /// Asks the receiver for consent when it is time.
    pub(super) fn ask_if_due(&mut self, now: Duration) {
        let is_due = self.asking.is_none() && self.consent.ask_at() <= now;
        if !is_due || self.report.disabled.is_some() {
            return;
        }
        self.asked = clock::now().to_string();
        let receiver = Arc::clone(&self.receiver);
        let wished = self.plan.spec.rate_per_minute;
        self.asking = Some(Box::pin(async move { receiver.ask(wished).await }));
    }

    /// When any of what holds things back may end.
    pub(super) fn gate_times(&mut self, now: Duration) -> Vec<Duration> {
        let mut times = vec![self.paused_until, self.consent.ask_at()];
        if let State::Open(until) = self.circuit.state(now) {
            times.push(until);
        }
        if !(self.queue.is_empty() && self.groups.is_empty()) {
            times.push(self.rate.free_at());
            times.extend(self.permits.free_at());
        }
        times
    }

    /// Sends all that may be sent now.
    pub(super) fn send_all(&mut self, now: Duration) {
        while self.may_send(now) {
            let is_probe = self.circuit.state(now) != State::Closed;
            let most = if is_probe { 1 } else { self.batch_max };
            let Some(group) = self.next_group(most, GROUP_BYTES_MAX) else { return };
            self.circuit.handle_sent();
            self.rate.take(now);
            self.permits.take();
            self.in_flight += 1;
            self.push(group);
        }
    }

    fn may_send(&mut self, now: Duration) -> bool {
        self.membership.is_in()
            && self.report.disabled.is_none()
            && self.consent.allowed().is_some()
            && self.paused_until <= now
            && self.rate.free_at() <= now
            && self.permits.free_at().is_some_and(|at| at <= now)
            && self.circuit.may_send(now)
    }

    fn push(&mut self, group: Vec<super::Item>) {
        let Some(first) = group.first() else { return };
        let tracer = &self.parts.tracer;
        let (spans, trace) = Spans::begin(tracer, &self.plan.name, &group);
        let delivery = push::Delivery {
            id: self.id_of(&group),
            attempt: first.attempt,
            partition: first.partition,
            offset: first.offset,
            timeout: self.plan.spec.timeout.0,
            is_batch: false,
            takes_reply: false,
            trace,
        };
        let receiver = Arc::clone(&self.receiver);
        let mode = self.plan.spec.mode;
        self.pushes.push(Box::pin(async move {
            let started = Instant::now();
            let events: Vec<_> = group.iter().map(|item| item.event.clone()).collect();
            let posted = receiver.post(mode, &events, &delivery).await;
            spans.end(&posted, &group);
            let Posted { outcome, error, .. } = posted;
            Pushed { group, outcome, error, took: started.elapsed() }
        }));
        self.mark_changed();
    }
}
