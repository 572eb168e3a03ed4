//! A flow at work: which event is at which step, and what the caller must do next.
//!
//! Getters: [`Engine::held`], [`Engine::bytes`], [`Engine::is_idle`]. What happened:
//! [`Engine::handle_event`], [`Engine::handle_answer`], [`Engine::handle_stored`],
//! [`Engine::handle_lost`]. What to do: [`Engine::poll_action`], and when to ask again:
//! [`Engine::poll_timeout`].
//!
//! Each delivery that was taken in comes out once: settled, failed, or given back with a delay. Until
//! then it is held. It is settled when nothing of it is on its way any more and all that was made of
//! it is stored.

mod effect;
mod fail;
mod fan;
mod group;
mod outbox;
#[cfg(test)]
mod property_tests;
mod state;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use weft_proto::Timestamp;
use weft_proto::event::EventView;

use super::aggregate::Groups;
use super::cache::Cache;
use super::call::{self, Answer};
use super::dedup::Seen;
use super::failure::Failure;
use super::parts;
use super::plan::{Kind, Plan};
use super::types::{
    Action, Admission, CallId, Delivered, ItemId, Limits, Note, PublicationId, RunId, Stored, Token,
};
use crate::delivery::Outcome;
use outbox::{Outbox, Owner};
use state::{
    Effect, EffectId, Failing, FailingId, Fate, Frame, FrameId, Item, Run, State, Timer, weigh,
};

/// A flow at work.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    limits: Limits,
    runs: BTreeMap<RunId, Run>,
    tokens: BTreeMap<Token, RunId>,
    items: BTreeMap<ItemId, Item>,
    frames: BTreeMap<FrameId, Frame>,
    effects: BTreeMap<EffectId, Effect>,
    failing: BTreeMap<FailingId, Failing>,
    calls: BTreeMap<CallId, ItemId>,
    /// By step, as are the next two.
    groups: BTreeMap<usize, Groups>,
    seen: BTreeMap<usize, Seen>,
    caches: BTreeMap<usize, Cache>,
    timers: BTreeSet<(Timestamp, Timer)>,
    work: VecDeque<ItemId>,
    settled: Vec<Token>,
    actions: VecDeque<Action>,
    outbox: Outbox,
    last_id: u64,
    /// Room that events take.
    used: usize,
    notes: Option<Vec<Note>>,
}

impl Engine {
    /// A flow that has nothing to do yet.
    pub fn new(plan: Arc<Plan>, limits: Limits) -> Self {
        Self {
            plan,
            limits,
            runs: BTreeMap::new(),
            tokens: BTreeMap::new(),
            items: BTreeMap::new(),
            frames: BTreeMap::new(),
            effects: BTreeMap::new(),
            failing: BTreeMap::new(),
            calls: BTreeMap::new(),
            groups: BTreeMap::new(),
            seen: BTreeMap::new(),
            caches: BTreeMap::new(),
            timers: BTreeSet::new(),
            work: VecDeque::new(),
            settled: Vec::new(),
            actions: VecDeque::new(),
            outbox: Outbox::default(),
            last_id: 0,
            used: 0,
            notes: None,
        }
    }

    /// Keeps a record of what each step does, for [`Self::take_notes`]: it grows until it is taken.
    #[must_use]
    pub fn with_notes(mut self) -> Self {
        self.notes = Some(Vec::new());
        self
    }

    /// What steps did since this was last asked.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.notes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The deliveries that are held.
    pub fn held(&self) -> Vec<Token> {
        let failing = self.failing.values().flat_map(|failing| failing.tokens.iter().copied());
        self.tokens.keys().copied().chain(failing).collect()
    }

    /// About how many bytes it takes, with answers that are kept and keys that are remembered.
    pub fn bytes(&self) -> usize {
        let caches: usize = self.caches.values().map(Cache::bytes).sum();
        let seen: usize = self.seen.values().map(Seen::bytes).sum();
        self.room() + caches + seen
    }

    /// Whether nothing is held and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.runs.is_empty() && self.failing.is_empty() && self.outbox.is_empty()
    }

    /// An event was delivered.
    pub fn handle_event(&mut self, delivered: Delivered, now: Timestamp) -> Admission {
        self.fire(now);
        if !self.runs.is_empty()
            && self.room().saturating_add(weigh(&delivered.event)) > self.limits.bytes_max
        {
            self.relieve(now);
            self.work(now);
            return Admission::Full;
        }
        let run = RunId(self.fresh());
        let Delivered { token, event, stored, is_last } = delivered;
        let (items, effects, claims) = (BTreeSet::new(), Vec::new(), Vec::new());
        self.runs.insert(run, Run { token, is_last, items, effects, claims });
        self.tokens.insert(token, run);
        let Some(view) = EventView::parse(&event) else {
            let mut failure = Failure::permanent("undecodable", "the bytes are no CloudEvent");
            self.plan.name_of(0).clone_into(&mut failure.step);
            self.fail_runs(&[run], failure);
            return Admission::Taken;
        };
        let (cause, hops) = (Some(view.id.to_owned()), parts::hops(&view));
        let item = Item {
            origins: vec![run],
            event,
            at: 0,
            state: State::Ready,
            frame: None,
            order: Vec::new(),
            cause,
            hops,
            stored,
            effect: None,
        };
        let item = self.put(item);
        self.work.push_back(item);
        self.work(now);
        Admission::Taken
    }

    /// A request came to an end. One that nobody waits for any more is ignored.
    pub fn handle_answer(&mut self, call: CallId, answer: Answer, now: Timestamp) {
        self.answer(call, answer, now);
        self.work(now);
    }

    fn answer(&mut self, call: CallId, answer: Answer, now: Timestamp) {
        let Some(id) = self.calls.remove(&call) else { return };
        let Some(item) = self.items.get_mut(&id) else { return };
        if let State::Calling { due, .. } = item.state {
            self.timers.remove(&(due, Timer::Call(call)));
        }
        item.state = State::Ready;
        let plan = Arc::clone(&self.plan);
        let Some(step) = plan.steps.get(item.at) else { return };
        let timeout = step.timeout.unwrap_or(self.limits.timeout);
        match call::read(answer, timeout) {
            Ok(body) => self.answered(id, &body, now),
            Err(failure) => self.failed(id, failure, now),
        }
    }

    /// A publication came to an end, with what became of each of its events in their order; what is
    /// missing counts as unavailable.
    pub fn handle_stored(
        &mut self,
        publication: PublicationId,
        results: Vec<Stored>,
        now: Timestamp,
    ) {
        let mut results = results.into_iter();
        for owner in self.outbox.done(publication) {
            let missing = || Stored::Unavailable("nobody said what became of it".to_owned());
            let result = results.next().unwrap_or_else(missing);
            match owner {
                Owner::Item { item, is_derived } => self.stored(item, is_derived, result, now),
                Owner::Failing(failing) => self.compensated(failing, result, now),
            }
        }
        self.work(now);
    }

    /// A delivery is not the caller's any more: all that hangs on nothing else is dropped.
    pub fn handle_lost(&mut self, token: Token, now: Timestamp) {
        if let Some(run) = self.tokens.get(&token).copied() {
            let failure = Failure::later("lost", "the lease is gone");
            self.end_failed(&[run], &failure);
        }
        for failing in self.failing.values_mut() {
            failing.tokens.retain(|other| *other != token);
        }
        self.work(now);
    }

    /// What to do next.
    pub fn poll_action(&mut self, now: Timestamp) -> Option<Action> {
        self.fire(now);
        self.work(now);
        if !self.settled.is_empty() {
            return Some(Action::Settle { tokens: std::mem::take(&mut self.settled) });
        }
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let publication = PublicationId(self.fresh());
        let (stream, events) = self.outbox.next(publication)?;
        Some(Action::Publish { publication, stream, events })
    }

    /// When to ask again, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let groups = self.groups.iter().filter_map(|(at, groups)| {
            match self.plan.steps.get(*at).map(|step| &step.kind) {
                Some(Kind::Aggregate(aggregate)) => aggregate.next_due(groups),
                _ => None,
            }
        });
        groups.chain(self.timers.first().map(|(due, _)| *due)).min()
    }

    /// Does what is due.
    fn fire(&mut self, now: Timestamp) {
        while let Some((due, timer)) = self.timers.first().copied()
            && due <= now
        {
            self.timers.remove(&(due, timer));
            match timer {
                Timer::Call(call) => self.answer(call, Answer::TimedOut, now),
                Timer::Frame(frame) => self.frame_is_late(frame, now),
                Timer::Failing(failing) => self.compensate(failing),
            }
        }
        self.groups_due(now);
    }

    fn fresh(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    /// Room that counts against the limit.
    fn room(&self) -> usize {
        self.used.saturating_add(self.outbox.bytes())
    }

    fn put(&mut self, item: Item) -> ItemId {
        let id = ItemId(self.fresh());
        self.used = self.used.saturating_add(weigh(&item.event));
        for origin in &item.origins {
            if let Some(run) = self.runs.get_mut(origin) {
                run.items.insert(id);
            }
        }
        if let Some((frame, branch)) = item.frame
            && let Some(frame) = self.frames.get_mut(&frame)
            && let Some(branch) = frame.branches.get_mut(branch)
        {
            branch.live += 1;
            branch.items.push(id);
        }
        self.items.insert(id, item);
        id
    }

    fn take(&mut self, id: ItemId) -> Option<Item> {
        let item = self.items.remove(&id)?;
        self.used = self.used.saturating_sub(weigh(&item.event));
        for origin in &item.origins {
            if let Some(run) = self.runs.get_mut(origin) {
                run.items.remove(&id);
            }
        }
        if let Some((frame, branch)) = item.frame
            && let Some(frame) = self.frames.get_mut(&frame)
            && let Some(branch) = frame.branches.get_mut(branch)
        {
            branch.live = branch.live.saturating_sub(1);
        }
        Some(item)
    }

    /// Another event in the place of one.
    fn change(&mut self, id: ItemId, event: bytes::Bytes) {
        let Some(item) = self.items.get_mut(&id) else { return };
        if item.event != event {
            item.cause = None;
        }
        self.used = self.used.saturating_sub(weigh(&item.event)).saturating_add(weigh(&event));
        item.event = event;
    }

    /// Takes an event out, wherever it waits.
    fn cancel(&mut self, id: ItemId) {
        let Some(item) = self.take(id) else { return };
        match item.state {
            State::Ready => {}
            State::Calling { call, due } => {
                self.calls.remove(&call);
                self.timers.remove(&(due, Timer::Call(call)));
            }
            State::Publishing(_) => self.outbox.forget(id),
            State::Grouped => self.groups.entry(item.at).or_default().forget(id),
            State::Waiting => self.seen.entry(item.at).or_default().forget(id),
            State::Parked(frame) => self.cancel_frame(frame),
        }
    }

    /// The path of an event ends; deliveries that have no other are done.
    fn end(&mut self, id: ItemId, now: Timestamp) {
        let Some(item) = self.take(id) else { return };
        for origin in item.origins {
            let is_done = self.runs.get(&origin).is_some_and(|run| run.items.is_empty());
            if is_done && let Some(run) = self.runs.remove(&origin) {
                self.tokens.remove(&run.token);
                self.settled.push(run.token);
                self.release(&run, origin, Some(now));
                for effect in run.effects {
                    self.end_effect(effect, Fate::Settled);
                }
            }
        }
    }

    /// Gives back the keys of a run; who waited for them asks again.
    fn release(&mut self, run: &Run, id: RunId, done: Option<Timestamp>) {
        let plan = Arc::clone(&self.plan);
        for (at, key) in &run.claims {
            let Some(Kind::Dedup(dedup)) = plan.steps.get(*at).map(|step| &step.kind) else {
                continue;
            };
            let seen = self.seen.entry(*at).or_default();
            for waiting in dedup.end(seen, key, id, done) {
                if let Some(item) = self.items.get_mut(&waiting) {
                    item.state = State::Ready;
                    self.work.push_back(waiting);
                }
            }
        }
    }

    fn note(&mut self, id: ItemId, what: impl FnOnce() -> String) {
        let Some(notes) = &mut self.notes else { return };
        let Some(item) = self.items.get(&id) else { return };
        let event = EventView::parse(&item.event).map_or("", |view| view.id).to_owned();
        let step = self.plan.name_of(item.at).to_owned();
        notes.push(Note { step, event, what: what() });
    }
}

/// What a refusal of a stream means.
fn publish_failure(stored: Stored, is_derived: bool) -> Option<Failure> {
    match stored {
        Stored::Yes => None,
        Stored::Differently if is_derived => None,
        Stored::Differently => {
            let message = "the stream has another event of the same source and id";
            Some(Failure::permanent("identity", message))
        }
        Stored::Unavailable(error) => {
            Some(Failure::transient(Outcome::ReplyFailed, "publish", error))
        }
        Stored::Refused(error) => Some(Failure::permanent("refused", error)),
    }
}
