//! Groups of events: when one becomes a single event.

use std::sync::Arc;

use weft_proto::Timestamp;
use weft_proto::resource::flow::OnTimeout;

use super::Engine;
use super::state::{Item, State};
use super::step::Turn;
use crate::flow::aggregate::{Aggregate, Group, REASON};
use crate::flow::failure::Failure;
use crate::flow::plan::{Kind, Step};
use crate::flow::types::ItemId;

impl Engine {
    pub(super) fn group(
        &mut self,
        id: ItemId,
        aggregate: &Aggregate,
        now: Timestamp,
    ) -> Result<Turn, Failure> {
        let Some(item) = self.items.get_mut(&id) else { return Ok(Turn::Stop) };
        let (at, event) = (item.at, item.event.clone());
        let groups = self.groups.entry(at).or_default();
        let complete = aggregate.join(groups, id, &event, now)?;
        item.state = State::Grouped;
        self.note(id, || "joins its group".to_owned());
        for group in complete {
            self.complete(at, group, now);
        }
        Ok(Turn::Stop)
    }

    /// The groups whose time is over.
    pub(super) fn groups_due(&mut self, now: Timestamp) {
        let plan = Arc::clone(&self.plan);
        let places: Vec<usize> = self.groups.keys().copied().collect();
        for at in places {
            let Some(Kind::Aggregate(aggregate)) = plan.steps.get(at).map(|step| &step.kind) else {
                continue;
            };
            for group in aggregate.due(self.groups.entry(at).or_default(), now) {
                match aggregate.on_timeout {
                    OnTimeout::Emit => self.complete(at, group, now),
                    OnTimeout::Fail => {
                        let count = group.members.len();
                        let message = format!("the group {:?} has only {count}", group.key);
                        let failure = Failure::permanent("incomplete", message);
                        self.group_failed(&group, &failure, now);
                    }
                }
            }
        }
    }

    /// Makes room: the group that waits longest goes on as it is.
    pub(super) fn relieve(&mut self, now: Timestamp) {
        let waiting = self.groups.iter();
        let oldest = waiting.filter_map(|(at, groups)| Some((groups.oldest()?, *at))).min();
        let Some((_, at)) = oldest else { return };
        let group = self.groups.entry(at).or_default().take_oldest();
        if let Some(group) = group {
            self.complete(at, group, now);
        }
    }

    fn complete(&mut self, at: usize, group: Group, now: Timestamp) {
        let plan = Arc::clone(&self.plan);
        let Some(step) = plan.steps.get(at) else { return };
        let members: Vec<ItemId> =
            group.members.iter().flat_map(|member| member.items.iter().copied()).collect();
        let Some(output) = self.output(step, group) else { return };
        match output {
            Err(failure) => self.members_failed(&members, &failure, now),
            Ok(event) => {
                let held: Vec<&Item> = members.iter().filter_map(|id| self.items.get(id)).collect();
                let mut origins: Vec<_> =
                    held.iter().flat_map(|item| item.origins.iter().copied()).collect();
                origins.sort_unstable();
                origins.dedup();
                let hops = held.iter().map(|item| item.hops).max().unwrap_or_default();
                let stored = held.iter().map(|item| item.stored).max().unwrap_or_default();
                let one = Item {
                    origins,
                    event,
                    at,
                    state: State::Ready,
                    frame: None,
                    order: Vec::new(),
                    cause: None,
                    hops,
                    stored,
                    effect: None,
                };
                let one = self.put(one);
                let count = members.len();
                self.note(one, || format!("is made of {count}"));
                // Their deliveries now hang on the one that was made of them.
                for member in members {
                    self.take(member);
                }
                self.enter(one, &step.next, now);
            }
        }
    }

    fn output(&self, step: &Step, group: Group) -> Option<Result<bytes::Bytes, Failure>> {
        let Kind::Aggregate(aggregate) = &step.kind else { return None };
        let event = aggregate.output(group, &self.plan.function, &step.name);
        Some(event.map_err(|failure| Failure { reason: REASON, ..failure }))
    }

    fn group_failed(&mut self, group: &Group, failure: &Failure, now: Timestamp) {
        let members = group.members.iter().flat_map(|member| member.items.iter().copied());
        let members: Vec<ItemId> = members.collect();
        self.members_failed(&members, failure, now);
    }

    fn members_failed(&mut self, members: &[ItemId], failure: &Failure, now: Timestamp) {
        for member in members {
            if let Some(item) = self.items.get_mut(member) {
                item.state = State::Ready;
            }
        }
        for member in members {
            self.failed(*member, failure.clone(), now);
        }
    }
}
