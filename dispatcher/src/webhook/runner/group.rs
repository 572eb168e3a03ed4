//! Events that travel in one request.

use xxhash_rust::xxh3::Xxh3;

use super::{Item, Runner};

impl Runner {
    /// The next events to send together: at most so many, with about so many bytes.
    pub(super) fn next_group(&mut self, events_max: usize, bytes_max: usize) -> Option<Vec<Item>> {
        if let Some(mut group) = self.groups.pop_front() {
            if group.len() > events_max {
                let rest = group.split_off(events_max);
                self.groups.push_front(rest);
            }
            return Some(group);
        }
        let first = self.queue.pop_front()?;
        let mut bytes = first.event.len();
        let is_alone = first.attempt > 1;
        let mut group = vec![first];
        // What failed before goes alone: were it the cause, its neighbours would pay again.
        while !is_alone && group.len() < events_max {
            let fits = |item: &Item| item.attempt == 1 && bytes + item.event.len() <= bytes_max;
            if !self.queue.front().is_some_and(fits) {
                break;
            }
            let Some(next) = self.queue.pop_front() else { break };
            bytes += next.event.len();
            group.push(next);
        }
        Some(group)
    }

    /// Names a delivery: the same for every attempt with the same events.
    pub(super) fn id_of(&self, group: &[Item]) -> String {
        let name = &self.plan.subscription_name;
        let Some(first) = group.first() else { return name.to_string() };
        // What is sent once more because somebody asked for it is no repeat.
        let from = match (first.is_redriven, first.replay_job) {
            (true, _) => "dead/".to_owned(),
            (false, Some(job)) => format!("replay-{job}/"),
            (false, None) => String::new(),
        };
        let id = format!("{name}/{from}{}/{}", first.partition, first.offset);
        if group.len() == 1 {
            return id;
        }
        let mut hash = Xxh3::new();
        for item in group {
            hash.update(&item.partition.to_le_bytes());
            hash.update(&item.offset.to_le_bytes());
            hash.update(&[u8::from(item.is_redriven)]);
            hash.update(&item.replay_job.unwrap_or_default().to_le_bytes());
        }
        format!("{id}/{}-{:016x}", group.len(), hash.digest())
    }

    /// The halves of a group go first, each alone.
    pub(super) fn split(&mut self, mut group: Vec<Item>) {
        let rest = group.split_off(group.len().div_ceil(2));
        self.requeue(rest);
        self.requeue(group);
    }

    /// Events that go first, as one group; those that are no longer ours are left out.
    pub(super) fn requeue(&mut self, mut group: Vec<Item>) {
        group.retain(|item| self.held.contains(&item.held));
        if !group.is_empty() {
            self.groups.push_front(group);
        }
    }
}
