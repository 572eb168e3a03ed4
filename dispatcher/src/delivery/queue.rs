//! What waits to be sent to one revision: fair turns between triggers, batches, halves of batches
//! that failed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::budget::Budget;
use super::types::{FeedId, FeedPolicy, Ticket};

/// An event that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) bytes: u32,
    /// When it came.
    pub(super) since: Duration,
    /// Did not fail before.
    pub(super) is_fresh: bool,
}

/// Events that travel together, as they are: a part of a batch that failed, or one that is tried
/// again.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) feed: FeedId,
    pub(super) events: Vec<Waiting>,
    /// The other half, held back: if this one succeeds, the culprit is in there.
    pub(super) rest: Vec<Waiting>,
    /// What the whole failed with.
    pub(super) why: Option<Arc<str>>,
}

/// What waits of one trigger.
#[derive(Debug)]
struct Feed {
    policy: FeedPolicy,
    fresh: VecDeque<Waiting>,
    fresh_bytes: u64,
    /// Failed before: these need a share of the budget, and go alone.
    retries: VecDeque<Waiting>,
    budget: Budget,
    /// Bytes that were sent: whoever has sent the least is next.
    sent: u64,
}

/// Everything that waits for one revision.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// These go first.
    groups: VecDeque<Group>,
    feeds: BTreeMap<FeedId, Feed>,
}

impl Queue {
    pub(super) fn set_policy(&mut self, feed: FeedId, policy: FeedPolicy) {
        // Whoever comes late does not catch up with what others sent before.
        let least = self.feeds.values().map(|other| other.sent).min().unwrap_or_default();
        let entry = self.feeds.entry(feed).or_insert_with(|| Feed {
            policy: policy.clone(),
            fresh: VecDeque::new(),
            fresh_bytes: 0,
            retries: VecDeque::new(),
            budget: Budget::new(),
            sent: least,
        });
        entry.policy = policy;
    }

    pub(super) fn push(&mut self, feed: FeedId, waiting: Waiting) {
        if !self.feeds.contains_key(&feed) {
            self.set_policy(feed, FeedPolicy::default());
        }
        let is_first = |feed: &Feed| feed.fresh.is_empty() && feed.retries.is_empty();
        let busy = self.feeds.values().filter(|feed| !is_first(feed)).map(|feed| feed.sent).min();
        let Some(entry) = self.feeds.get_mut(&feed) else { return };
        if is_first(entry) {
            entry.sent = entry.sent.max(busy.unwrap_or_default());
        }
        if waiting.is_fresh {
            entry.fresh_bytes = entry.fresh_bytes.saturating_add(waiting.bytes.into());
            entry.fresh.push_back(waiting);
        } else {
            entry.retries.push_back(waiting);
        }
    }

    /// These go before all others.
    pub(super) fn push_group(&mut self, group: Group) {
        if !group.events.is_empty() {
            self.groups.push_front(group);
        }
    }

    pub(super) fn handle_success(&mut self, feed: FeedId) {
        if let Some(feed) = self.feeds.get_mut(&feed) {
            feed.budget.handle_success();
        }
    }

    /// Events that wait.
    pub(super) fn len(&self) -> usize {
        let feeds = self.feeds.values().map(|feed| feed.fresh.len() + feed.retries.len());
        let groups = self.groups.iter().map(|group| group.events.len() + group.rest.len());
        feeds.chain(groups).sum()
    }

    /// Requests in which they would travel.
    pub(super) fn requests(&self) -> usize {
        let feeds = self.feeds.values();
        let feeds = feeds
            .map(|feed| feed.fresh.len().div_ceil(feed.policy.batch_events) + feed.retries.len());
        feeds.sum::<usize>() + self.groups.len()
    }

    /// When something may be sent; nothing while nothing waits.
    pub(super) fn ready_at(&self) -> Option<Duration> {
        if !self.groups.is_empty() {
            return Some(Duration::ZERO);
        }
        self.feeds.values().filter_map(Feed::ready_at).min()
    }

    /// What is sent next, in one request; `single` asks for one event.
    pub(super) fn pop(&mut self, single: bool, now: Duration) -> Option<Group> {
        if let Some(mut group) = self.groups.pop_front() {
            if single && group.events.len() > 1 {
                let mut events = group.events.split_off(1);
                events.append(&mut group.rest);
                group.why = None;
                self.push_group(Group { feed: group.feed, events, ..Group::default() });
            }
            return Some(group);
        }
        let ready = self.feeds.iter_mut().filter(|(_, feed)| feed.is_ready(now));
        let (&id, feed) = ready.min_by_key(|(_, feed)| feed.sent)?;
        let events = feed.take(single, now);
        let bytes: u64 = events.iter().map(|event| u64::from(event.bytes)).sum();
        feed.sent = feed.sent.saturating_add(bytes.max(1));
        Some(Group { feed: id, events, rest: Vec::new(), why: None })
    }

    /// Takes events out that match; what is left of a group goes on as it is.
    pub(super) fn remove(&mut self, matches: impl Fn(Ticket) -> bool) -> Vec<(FeedId, Waiting)> {
        let mut removed = Vec::new();
        for (&id, feed) in &mut self.feeds {
            for queue in [&mut feed.fresh, &mut feed.retries] {
                let (out, left) = queue.drain(..).partition(|one: &Waiting| matches(one.ticket));
                *queue = left;
                let out: VecDeque<Waiting> = out;
                removed.extend(out.into_iter().map(|one| (id, one)));
            }
            feed.fresh_bytes = feed.fresh.iter().map(|one| u64::from(one.bytes)).sum();
        }
        for group in &mut self.groups {
            for events in [&mut group.events, &mut group.rest] {
                let (out, left) = events.drain(..).partition(|one: &Waiting| matches(one.ticket));
                *events = left;
                let out: Vec<Waiting> = out;
                removed.extend(out.into_iter().map(|one| (group.feed, one)));
            }
            if group.events.is_empty() {
                std::mem::swap(&mut group.events, &mut group.rest);
            }
        }
        self.groups.retain(|group| !group.events.is_empty());
        removed
    }
}

impl Feed {
    fn is_full(&self) -> bool {
        self.fresh.len() >= self.policy.batch_events || self.fresh_bytes >= self.policy.batch_bytes
    }

    fn ready_at(&self) -> Option<Duration> {
        let fresh = self.fresh.front().map(|first| {
            if self.is_full() {
                Duration::ZERO
            } else {
                first.since.saturating_add(self.policy.linger)
            }
        });
        let retries = (!self.retries.is_empty()).then(|| self.budget.free_at());
        fresh.into_iter().chain(retries).min()
    }

    fn is_ready(&self, now: Duration) -> bool {
        self.ready_at().is_some_and(|at| at <= now)
    }

    /// The next events that travel together. What failed before goes alone: were it the cause, its
    /// neighbours would pay again.
    fn take(&mut self, single: bool, now: Duration) -> Vec<Waiting> {
        if !self.retries.is_empty() && self.budget.free_at() <= now {
            self.budget.take(now);
            return self.retries.pop_front().into_iter().collect();
        }
        let most = if single { 1 } else { self.policy.batch_events };
        let (mut events, mut bytes) = (Vec::new(), 0_u64);
        while events.len() < most
            && let Some(next) = self.fresh.front()
            && (events.is_empty() || bytes + u64::from(next.bytes) <= self.policy.batch_bytes)
        {
            bytes = bytes.saturating_add(next.bytes.into());
            events.extend(self.fresh.pop_front());
        }
        self.fresh_bytes = self.fresh_bytes.saturating_sub(bytes);
        events
    }
}
