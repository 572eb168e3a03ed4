//! Failures: what a step says about them, and what is undone.

use std::sync::Arc;
use std::time::Duration;

use weft_proto::Timestamp;

use super::Engine;
use super::outbox::Owner;
use super::state::{Effect, Failing, FailingId, Fate, Item, Timer};
use crate::delivery::Outcome;
use crate::flow::failure::Failure;
use crate::flow::parts::Parts;
use crate::flow::plan::{Course, Next};
use crate::flow::types::{Action, ItemId, RunId, Stored};

/// Longest pause before a compensation is published again; it doubles from the first on.
const PAUSE_BASE: Duration = Duration::from_secs(1);
const PAUSE_CAP: Duration = Duration::from_secs(30);
/// After so many the event is given back, to fail again.
const TRIES_MAX: u32 = 10;
/// Reasons that are about this engine, not about the event: `on_error` is not asked.
const OURS: [&str; 3] = ["memory", "dedup", "publish"];

impl Engine {
    /// A step failed at an event.
    pub(super) fn failed(&mut self, id: ItemId, mut failure: Failure, now: Timestamp) {
        let plan = Arc::clone(&self.plan);
        let Some(item) = self.items.get_mut(&id) else { return };
        let Some(step) = plan.steps.get(item.at) else { return };
        if failure.step.is_empty() {
            failure.step.clone_from(&step.name);
        }
        let is_ours = OURS.contains(&failure.reason);
        match &step.on_error {
            _ if is_ours => {}
            Course::Retry => {}
            Course::Fail => failure.outcome = Outcome::Refused,
            Course::Continue => {
                self.end_own_effect(id, &failure);
                self.note(id, || format!("failed and goes on: {}", failure.message));
                return self.enter(id, &step.next, now);
            }
            Course::Go(next) => {
                self.end_own_effect(id, &failure);
                self.note(id, || format!("failed and goes elsewhere: {}", failure.message));
                if matches!(next, Next::Stream(_))
                    && let Err(failure) = self.mark(id, &failure)
                {
                    return self.fail_item(id, failure, now);
                }
                return self.enter(id, next, now);
            }
        }
        self.fail_item(id, failure, now);
    }

    /// An event failed, whatever its step says.
    pub(super) fn fail_item(&mut self, id: ItemId, mut failure: Failure, now: Timestamp) {
        let Some(item) = self.items.get(&id) else { return };
        if failure.step.is_empty() {
            self.plan.name_of(item.at).clone_into(&mut failure.step);
        }
        let (frame, origins) = (item.frame, item.origins.clone());
        self.end_own_effect(id, &failure);
        self.note(id, || format!("failed: {}", failure.message));
        match frame {
            Some(frame) => self.branch_failed(frame, failure, now),
            None => self.fail_runs(&origins, failure),
        }
    }

    /// Says in an event at which step it failed, and why.
    fn mark(&mut self, id: ItemId, failure: &Failure) -> Result<(), Failure> {
        let Some(item) = self.items.get(&id) else { return Ok(()) };
        let mut parts = Parts::read(&item.event)?;
        let step = format!("{} failed", self.plan.name_of(item.at));
        parts.derive(&self.plan.function, &step, item.cause.as_deref());
        parts.set_text("flowstep", failure.step.as_str());
        parts.set_text("flowreason", failure.reason);
        let event = parts.encode("data")?;
        self.change(id, event);
        Ok(())
    }

    /// Deliveries fail, with all that hangs on them alone; what was done is undone first.
    pub(super) fn fail_runs(&mut self, origins: &[RunId], failure: Failure) {
        let tokens = origins.iter().filter_map(|run| Some(self.runs.get(run)?.token)).collect();
        let undo = self.end_failed(origins, &failure);
        if undo.is_empty() {
            self.actions.push_back(Action::Fail { tokens, failure });
            return;
        }
        let id = FailingId(self.fresh());
        let todo = undo.into_iter().rev();
        let todo = todo.filter_map(|effect| self.compensation(&effect, &failure)).collect();
        self.failing.insert(id, Failing { tokens, failure, todo, tries: 0 });
        self.compensate(id);
    }

    /// Takes deliveries out; what is to be undone, the oldest first.
    pub(super) fn end_failed(&mut self, origins: &[RunId], failure: &Failure) -> Vec<Effect> {
        let mut undo = Vec::new();
        for origin in origins {
            let Some(run) = self.runs.remove(origin) else { continue };
            self.tokens.remove(&run.token);
            let is_final = failure.is_permanent() || run.is_last && failure.is_attempt();
            for id in &run.effects {
                undo.extend(
                    self.end_effect(*id, if is_final { Fate::Final } else { Fate::Open })
                        .map(|effect| (*id, effect)),
                );
            }
            for id in run.items.clone() {
                let Some(item) = self.items.get_mut(&id) else { continue };
                item.origins.retain(|other| other != origin);
                if item.origins.is_empty() {
                    self.cancel(id);
                }
            }
            self.release(&run, *origin, None);
        }
        undo.sort_by_key(|(id, _)| *id);
        let undo = undo.into_iter().map(|(_, effect)| effect);
        undo.filter(|effect| effect.fate == Fate::Final).collect()
    }

    /// Publishes the next compensation of a failure; after the last one the failure is told.
    pub(super) fn compensate(&mut self, id: FailingId) {
        let Some(failing) = self.failing.get(&id) else { return };
        match failing.todo.front() {
            Some((stream, event)) => {
                self.outbox.push(stream, Owner::Failing(id), event.clone());
            }
            None => {
                if let Some(Failing { tokens, failure, .. }) = self.failing.remove(&id) {
                    self.actions.push_back(Action::Fail { tokens, failure });
                }
            }
        }
    }

    /// What became of a compensation.
    pub(super) fn compensated(&mut self, id: FailingId, stored: Stored, now: Timestamp) {
        let Some(failing) = self.failing.get_mut(&id) else { return };
        match stored {
            Stored::Yes | Stored::Differently => {}
            Stored::Unavailable(_) if failing.tries < TRIES_MAX => {
                let pause = PAUSE_BASE.saturating_mul(1 << failing.tries.min(5)).min(PAUSE_CAP);
                failing.tries += 1;
                self.timers.insert((now.saturating_add(pause), Timer::Failing(id)));
                return;
            }
            Stored::Unavailable(error) => {
                failing.todo.clear();
                failing.failure.outcome = Outcome::ReplyFailed;
                failing.failure.reason = "compensation";
                failing.failure.message = format!("a compensation cannot be stored: {error}");
            }
            Stored::Refused(error) => {
                let failure = &mut failing.failure;
                failure.message.push_str("; a compensation was refused: ");
                failure.message.push_str(&error);
            }
        }
        failing.todo.pop_front();
        failing.tries = 0;
        self.compensate(id);
    }

    /// Gives a delivery back until later.
    pub(super) fn give_back(&mut self, item: &Item, until: Timestamp) {
        let failure = Failure::later("lost", "given back");
        for origin in item.origins.clone() {
            let Some(token) = self.runs.get(&origin).map(|run| run.token) else { continue };
            self.end_failed(&[origin], &failure);
            self.actions.push_back(Action::Delay { token, until });
        }
    }
}
