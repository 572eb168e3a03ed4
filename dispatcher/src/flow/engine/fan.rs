//! Several ways at once, and where they meet again.

use std::sync::Arc;

use serde_json::{Map, Value};
use weft_proto::Timestamp;

use super::Engine;
use super::state::{BranchState, Frame, FrameId, Item, State, Timer, weigh};
use super::step::Turn;
use crate::delivery::Outcome;
use crate::flow::failure::Failure;
use crate::flow::parts::{Parts, put};
use crate::flow::plan::{FanOut, Kind, Step};
use crate::flow::types::ItemId;

impl Engine {
    pub(super) fn open_frame(
        &mut self,
        id: ItemId,
        item: &Item,
        (fan, step): (&FanOut, &Step),
        now: Timestamp,
    ) -> Result<Turn, Failure> {
        let bytes = weigh(&item.event).saturating_mul(fan.branches.len());
        self.check_room(bytes)?;
        let frame = FrameId(self.fresh());
        let due = now.saturating_add(step.timeout.unwrap_or(self.limits.timeout));
        let branches = fan.branches.iter().map(|_| BranchState::default()).collect();
        self.frames.insert(frame, Frame { parked: id, due, branches, ok: 0, failed: 0 });
        self.timers.insert((due, Timer::Frame(frame)));
        self.note(id, || format!("goes {} ways", fan.branches.len()));
        if let Some(item) = self.items.get_mut(&id) {
            item.state = State::Parked(frame);
        }
        for (place, branch) in fan.branches.iter().enumerate() {
            let mut copy = item.clone();
            copy.order.push(place);
            let frame = Some((frame, place));
            let copy = Item { at: branch.first, state: State::Ready, frame, ..copy };
            let copy = self.put(copy);
            self.work.push_back(copy);
        }
        Ok(Turn::Stop)
    }

    /// An event is at the end of its branch: its payload is a result.
    pub(super) fn contribute(&mut self, id: ItemId, now: Timestamp) {
        let Some(item) = self.items.get(&id) else { return };
        let Some((frame, branch)) = item.frame else { return };
        let wants_result = self.fan_of(frame).is_some_and(|(_, into)| into);
        if wants_result {
            match Parts::read(&item.event).and_then(|parts| parts.json()) {
                Err(failure) => return self.fail_item(id, failure, now),
                Ok(result) => {
                    let order = item.order.clone();
                    let open = self.frames.get_mut(&frame);
                    if let Some(state) = open.and_then(|open| open.branches.get_mut(branch)) {
                        state.results.push((order, result));
                    }
                }
            }
        }
        self.leave_branch(id, now);
    }

    /// An event leaves its branch; with the last one the branch is over.
    pub(super) fn leave_branch(&mut self, id: ItemId, now: Timestamp) {
        let Some(item) = self.take(id) else { return };
        let Some((id, branch)) = item.frame else { return };
        let need = self.fan_of(id).map_or(0, |(need, _)| need);
        let Some(frame) = self.frames.get_mut(&id) else { return };
        let Some(state) = frame.branches.get_mut(branch) else { return };
        if state.live > 0 || state.is_over {
            return;
        }
        state.is_over = true;
        frame.ok += 1;
        if frame.ok >= need {
            self.join(id, now);
        }
    }

    /// A branch failed: the fan-out does, once too few are left.
    pub(super) fn branch_failed(
        &mut self,
        (id, branch): (FrameId, usize),
        failure: Failure,
        now: Timestamp,
    ) {
        let need = self.fan_of(id).map_or(0, |(need, _)| need);
        let Some(frame) = self.frames.get_mut(&id) else { return };
        let Some(state) = frame.branches.get_mut(branch) else { return };
        if state.is_over {
            return;
        }
        state.is_over = true;
        state.results.clear();
        let items = std::mem::take(&mut state.items);
        frame.failed += 1;
        let left = frame.branches.len().saturating_sub(frame.failed);
        for item in items {
            self.cancel(item);
        }
        if left < need {
            self.frame_failed(id, failure, now);
        }
    }

    pub(super) fn frame_is_late(&mut self, id: FrameId, now: Timestamp) {
        let message = "its branches did not come to their ends in time";
        let failure = Failure::transient(Outcome::TimedOut, "timeout", message);
        self.frame_failed(id, failure, now);
    }

    fn frame_failed(&mut self, id: FrameId, failure: Failure, now: Timestamp) {
        let Some(parked) = self.close(id) else { return };
        self.failed(parked, failure, now);
    }

    /// Enough branches came to their ends.
    fn join(&mut self, id: FrameId, now: Timestamp) {
        let results = self.frames.get_mut(&id).map(|frame| {
            let branches = frame.branches.iter_mut();
            branches
                .map(|state| Some(std::mem::take(&mut state.results)).filter(|_| state.live == 0))
                .collect::<Vec<_>>()
        });
        let Some(parked) = self.close(id) else { return };
        let plan = Arc::clone(&self.plan);
        let Some(item) = self.items.get(&parked) else { return };
        let Some(step) = plan.steps.get(item.at) else { return };
        let Kind::FanOut(fan) = &step.kind else { return };
        let Some(into) = &fan.into else {
            self.note(parked, || "joined".to_owned());
            return self.enter(parked, &step.next, now);
        };
        let mut merged = Map::new();
        for (branch, results) in fan.branches.iter().zip(results.unwrap_or_default()) {
            let Some(mut results) = results else { continue };
            results.sort_by(|(one, _), (other, _)| one.cmp(other));
            let mut values: Vec<Value> = results.into_iter().map(|(_, value)| value).collect();
            let value = match values.len() {
                _ if branch.is_list => Value::Array(values),
                0 => continue,
                1 => values.pop().unwrap_or_default(),
                _ => Value::Array(values),
            };
            merged.insert(branch.name.clone(), value);
        }
        let event = Parts::read(&item.event).and_then(|mut parts| {
            let mut data = parts.json()?;
            put(&mut data, into, Value::Object(merged))
                .map_err(|error| Failure::permanent("join", error))?;
            parts.set_json(&data, "join")?;
            parts.derive(&plan.function, &step.name, item.cause.as_deref());
            parts.encode("join")
        });
        match event {
            Err(failure) => self.failed(parked, failure, now),
            Ok(event) => {
                self.change(parked, event);
                self.note(parked, || "joined".to_owned());
                self.enter(parked, &step.next, now);
            }
        }
    }

    /// Ends a fan-out, with whatever is still in it.
    fn close(&mut self, id: FrameId) -> Option<ItemId> {
        let parked = self.frames.get(&id)?.parked;
        self.cancel_frame(id);
        let item = self.items.get_mut(&parked)?;
        item.state = State::Ready;
        Some(parked)
    }

    pub(super) fn cancel_frame(&mut self, id: FrameId) {
        let Some(frame) = self.frames.remove(&id) else { return };
        self.timers.remove(&(frame.due, Timer::Frame(id)));
        for item in frame.branches.into_iter().flat_map(|state| state.items) {
            self.cancel(item);
        }
    }

    /// How many branches a fan-out needs, and whether their results matter.
    fn fan_of(&self, id: FrameId) -> Option<(usize, bool)> {
        let parked = self.items.get(&self.frames.get(&id)?.parked)?;
        match &self.plan.steps.get(parked.at)?.kind {
            Kind::FanOut(fan) => Some((fan.need, fan.into.is_some())),
            _ => None,
        }
    }
}
