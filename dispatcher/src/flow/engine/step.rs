//! One event, one step after the other, until it has to wait.

use std::sync::Arc;

use bytes::Bytes;
use weft_proto::filter::{Candidate, Compiled};
use weft_proto::resource::flow::RouteMode;
use weft_proto::{QualifiedName, Timestamp};

use super::outbox::Owner;
use super::state::{Item, State, Timer, weigh};
use super::{Engine, publish_failure};
use crate::flow::dedup::{Dedup, Verdict};
use crate::flow::delay;
use crate::flow::failure::Failure;
use crate::flow::parts::{Parts, stamp};
use crate::flow::plan::{Kind, Next, Step};
use crate::flow::render::Scope;
use crate::flow::split::Split;
use crate::flow::types::{Action, CallId, ItemId, Stored};

/// What a step makes of an event.
pub(super) enum Turn {
    /// It goes on.
    Go(Next),
    /// It goes on, changed.
    Changed(Bytes, Next),
    /// It waits, or is not there any more.
    Stop,
}

impl Engine {
    /// Goes on with all that need not wait.
    pub(super) fn work(&mut self, now: Timestamp) {
        while let Some(id) = self.work.pop_front() {
            self.advance(id, now);
        }
    }

    fn advance(&mut self, id: ItemId, now: Timestamp) {
        let plan = Arc::clone(&self.plan);
        let Some(item) = self.items.get(&id) else { return };
        if !matches!(item.state, State::Ready) {
            return;
        }
        let Some(step) = plan.steps.get(item.at) else { return };
        match self.turn(id, step, now) {
            Ok(Turn::Go(next)) => self.go(id, next, now),
            Ok(Turn::Changed(event, next)) => {
                self.change(id, event);
                self.go(id, next, now);
            }
            Ok(Turn::Stop) => {}
            Err(failure) => self.failed(id, failure, now),
        }
    }

    fn turn(&mut self, id: ItemId, step: &Step, now: Timestamp) -> Result<Turn, Failure> {
        let Some(item) = self.items.get(&id).cloned() else { return Ok(Turn::Stop) };
        let next = step.next.clone();
        let function = self.plan.function.clone();
        let derive = |parts: &mut Parts| parts.derive(&function, &step.name, item.cause.as_deref());
        match &step.kind {
            Kind::Filter { when, otherwise } => {
                let passes = fits(when, &item.event)?;
                self.note(id, || if passes { "passes" } else { "does not pass" }.to_owned());
                Ok(Turn::Go(if passes { next } else { otherwise.clone() }))
            }
            Kind::Router { routes, default, mode } => {
                self.route(id, &item, (routes, default, *mode), now)
            }
            Kind::Transform(transform) => {
                let event = transform.apply(&item.event, derive)?;
                self.note(id, || "changed".to_owned());
                Ok(Turn::Changed(event, next))
            }
            Kind::Split(split) => self.split(id, &item, (split, step), now),
            Kind::Aggregate(aggregate) => self.group(id, aggregate, now),
            Kind::Call { .. } => self.call(id, &item, step, now),
            Kind::Delay(spec) => {
                let scope = Scope::new(&item.event)?;
                match delay::until(spec, scope.view(), item.stored, now)? {
                    None => Ok(Turn::Go(next)),
                    Some(until) => {
                        self.note(id, || format!("given back until {until}"));
                        self.give_back(&item, until);
                        Ok(Turn::Stop)
                    }
                }
            }
            Kind::Dedup(dedup) => self.dedup(id, &item, (dedup, next), now),
            Kind::Publish(stream) => {
                if step.compensate.is_some() {
                    self.begin_effect(id);
                }
                self.publish(id, stream, next)?;
                Ok(Turn::Stop)
            }
            Kind::FanOut(fan) => self.open_frame(id, &item, (fan, step), now),
        }
    }

    /// Where an event goes after a step.
    pub(super) fn go(&mut self, id: ItemId, next: Next, now: Timestamp) {
        match next {
            Next::Step(at) => {
                if let Some(item) = self.items.get_mut(&id) {
                    item.at = at;
                    item.state = State::Ready;
                    self.work.push_front(id);
                }
            }
            Next::End => self.finish(id, now),
            Next::Stream(stream) => {
                if let Err(failure) = self.publish(id, &stream, Next::Nothing) {
                    self.fail_item(id, failure, now);
                }
            }
            Next::Nothing => self.finish_without_result(id, now),
        }
    }

    /// An event is at the end of its list of steps.
    fn finish(&mut self, id: ItemId, now: Timestamp) {
        let is_in_branch = self.items.get(&id).is_some_and(|item| item.frame.is_some());
        let plan = Arc::clone(&self.plan);
        match &plan.reply {
            _ if is_in_branch => self.contribute(id, now),
            Some(reply) => {
                self.note(id, || "ends: it is the reply".to_owned());
                if let Err(failure) = self.publish(id, reply, Next::Nothing) {
                    self.fail_item(id, failure, now);
                }
            }
            None => {
                self.note(id, || "ends".to_owned());
                self.end(id, now);
            }
        }
    }

    fn finish_without_result(&mut self, id: ItemId, now: Timestamp) {
        if self.items.get(&id).is_some_and(|item| item.frame.is_some()) {
            self.leave_branch(id, now);
        } else {
            self.end(id, now);
        }
    }

    fn route(
        &mut self,
        id: ItemId,
        item: &Item,
        (routes, default, mode): (&[(Compiled, Next)], &Next, RouteMode),
        now: Timestamp,
    ) -> Result<Turn, Failure> {
        let mut taken = Vec::new();
        for (place, (when, next)) in routes.iter().enumerate() {
            if fits(when, &item.event)? {
                taken.push(next.clone());
                self.note(id, || format!("takes route {place}"));
                if mode == RouteMode::First {
                    break;
                }
            }
        }
        let Some(last) = taken.pop() else {
            self.note(id, || "no route takes it".to_owned());
            return Ok(Turn::Go(default.clone()));
        };
        for (place, next) in taken.into_iter().enumerate() {
            let mut copy = item.clone();
            copy.order.push(place);
            self.spawn(copy, &next, now)?;
            // It may have failed at once, and the event with it.
            if !self.items.contains_key(&id) {
                return Ok(Turn::Stop);
            }
        }
        if let Some(item) = self.items.get_mut(&id) {
            item.order.push(usize::MAX);
        }
        Ok(Turn::Go(last))
    }

    /// One more event on its way.
    fn spawn(&mut self, item: Item, next: &Next, now: Timestamp) -> Result<(), Failure> {
        self.check_room(weigh(&item.event))?;
        let id = self.put(Item { state: State::Ready, ..item });
        self.enter(id, next, now);
        Ok(())
    }

    /// Refuses what has no room, unless it is all there is.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), Failure> {
        if self.room().saturating_add(bytes) > self.limits.bytes_max && self.runs.len() > 1 {
            return Err(Failure::later("memory", "the flow has no room for more events"));
        }
        Ok(())
    }

    fn split(
        &mut self,
        id: ItemId,
        item: &Item,
        (split, step): (&Split, &Step),
        now: Timestamp,
    ) -> Result<Turn, Failure> {
        let function = self.plan.function.clone();
        let parts = split.apply(&item.event, |parts| {
            parts.derive(&function, &step.name, item.cause.as_deref());
        })?;
        self.note(id, || format!("split into {}", parts.len()));
        let bytes = parts.iter().map(weigh).fold(0, usize::saturating_add);
        self.check_room(bytes)?;
        for (place, event) in parts.into_iter().enumerate() {
            let mut part = Item { event, cause: None, state: State::Ready, ..item.clone() };
            part.order.push(place);
            let part = self.put(part);
            self.enter(part, &step.next, now);
            // It may have failed at once, and the event with it.
            if !self.items.contains_key(&id) {
                return Ok(Turn::Stop);
            }
        }
        self.finish_without_result(id, now);
        Ok(Turn::Stop)
    }

    /// As `go`, behind all that is to be done already: so parts keep their order.
    pub(super) fn enter(&mut self, id: ItemId, next: &Next, now: Timestamp) {
        match next {
            Next::Step(at) => {
                if let Some(item) = self.items.get_mut(&id) {
                    item.at = *at;
                    self.work.push_back(id);
                }
            }
            other => self.go(id, other.clone(), now),
        }
    }

    fn dedup(
        &mut self,
        id: ItemId,
        item: &Item,
        (dedup, next): (&Dedup, Next),
        now: Timestamp,
    ) -> Result<Turn, Failure> {
        let key = dedup.key(&item.event)?;
        let Some(run) = item.origins.first().copied() else { return Ok(Turn::Stop) };
        match dedup.ask(self.seen.entry(item.at).or_default(), &key, (id, run), now) {
            Verdict::First => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.claims.push((item.at, key));
                }
                self.note(id, || "is the first".to_owned());
                Ok(Turn::Go(next))
            }
            Verdict::Repeat => {
                self.note(id, || "is a repeat".to_owned());
                Ok(Turn::Go(Next::Nothing))
            }
            Verdict::Wait if self.runs.get(&run).is_some_and(|run| !run.claims.is_empty()) => {
                // Two that each have what the other waits for would wait for ever.
                self.seen.entry(item.at).or_default().forget(id);
                Err(Failure::later("dedup", "one that is alike is on its way"))
            }
            Verdict::Wait => {
                if let Some(item) = self.items.get_mut(&id) {
                    item.state = State::Waiting;
                }
                Ok(Turn::Stop)
            }
        }
    }

    fn call(
        &mut self,
        id: ItemId,
        item: &Item,
        step: &Step,
        now: Timestamp,
    ) -> Result<Turn, Failure> {
        let Kind::Call { call, cache } = &step.kind else { return Ok(Turn::Stop) };
        let timeout = step.timeout.unwrap_or(self.limits.timeout);
        let function = self.plan.function.clone();
        let request = call.request(&item.event, (&function, &step.name), timeout)?;
        let url = request.url.to_string();
        if let Some(spec) = cache
            && let Some(answer) = self.caches.entry(item.at).or_default().get(&url, *spec, now)
        {
            let event = call.merge(&item.event, &answer, |parts| {
                parts.derive(&function, &step.name, item.cause.as_deref());
            })?;
            self.note(id, || format!("{url} is known"));
            return Ok(Turn::Changed(event, step.next.clone()));
        }
        if step.compensate.is_some() {
            self.begin_effect(id);
        }
        let number = CallId(self.fresh());
        let due = now.saturating_add(timeout);
        self.calls.insert(number, id);
        self.timers.insert((due, Timer::Call(number)));
        self.note(id, || format!("asks {} {url}", request.method));
        let Some(run) = item.origins.first().copied() else { return Ok(Turn::Stop) };
        if let Some(item) = self.items.get_mut(&id) {
            item.state = State::Calling { call: number, due };
        }
        let (step, request) = (step.name.clone(), Box::new(request));
        self.actions.push_back(Action::Request { run, step, call: number, request });
        Ok(Turn::Stop)
    }

    /// A request was answered well.
    pub(super) fn answered(&mut self, id: ItemId, body: &Bytes, now: Timestamp) {
        let plan = Arc::clone(&self.plan);
        let Some(item) = self.items.get(&id).cloned() else { return };
        let Some(step) = plan.steps.get(item.at) else { return };
        let Kind::Call { call, cache } = &step.kind else { return };
        let merged = call.merge(&item.event, body, |parts| {
            parts.derive(&plan.function, &step.name, item.cause.as_deref());
        });
        match merged {
            Err(failure) => self.failed(id, failure, now),
            Ok(event) => {
                let request = cache.map(|spec| {
                    let timeout = self.limits.timeout;
                    (spec, call.request(&item.event, (&plan.function, &step.name), timeout))
                });
                if let Some((spec, Ok(request))) = request {
                    let cache = self.caches.entry(item.at).or_default();
                    cache.put(&request.url.to_string(), body, spec, now);
                }
                self.change(id, event);
                self.done_effect(id);
                self.note(id, || "answered".to_owned());
                self.go(id, step.next.clone(), now);
            }
        }
    }

    /// Hands an event to its stream; it goes on once it is stored.
    pub(super) fn publish(
        &mut self,
        id: ItemId,
        stream: &QualifiedName,
        then: Next,
    ) -> Result<(), Failure> {
        let Some(item) = self.items.get_mut(&id) else { return Ok(()) };
        let event = stamp(&item.event, item.hops)?;
        item.state = State::Publishing(then);
        let is_derived = item.cause.is_none();
        self.outbox.push(stream, Owner::Item { item: id, is_derived }, event);
        self.note(id, || format!("is published to {stream}"));
        Ok(())
    }

    /// What became of an event that was published.
    pub(super) fn stored(&mut self, id: ItemId, is_derived: bool, stored: Stored, now: Timestamp) {
        let Some(item) = self.items.get_mut(&id) else { return };
        let State::Publishing(then) = std::mem::replace(&mut item.state, State::Ready) else {
            return;
        };
        let at = item.at;
        match publish_failure(stored, is_derived) {
            None => {
                self.done_effect(id);
                match then {
                    Next::Step(_) => self.enter(id, &then, now),
                    then => self.go(id, then, now),
                }
            }
            Some(failure) => {
                let plan = Arc::clone(&self.plan);
                // What leads elsewhere, or ends, is not what `on_error` of a step is about.
                let is_step =
                    matches!(plan.steps.get(at).map(|step| &step.kind), Some(Kind::Publish(_)))
                        && !matches!(then, Next::Nothing);
                if is_step && failure.is_permanent() {
                    self.failed(id, failure, now);
                } else {
                    self.fail_item(id, failure, now);
                }
            }
        }
    }
}

fn fits(filters: &Compiled, event: &Bytes) -> Result<bool, Failure> {
    let scope = Scope::new(event)?;
    Ok(filters.passes(&Candidate::new(*scope.view())))
}
