//! From leased event to outcome: which event goes to which instance, and when again.
//!
//! *Owns* the lanes, attempts, waits and permits of one function. *Never* reads a clock, sends
//! anything or sees a payload: `handle_*` says what happened, `poll_action` answers what to do,
//! `poll_timeout` when to ask again. Times are durations since the function's runner began.
//!
//! Nothing is ever dropped here: an event leaves by success or because its lease ended.

mod instance;
mod lanes;
mod random;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use weft_proto::{Epoch, Offset, PartitionId};

pub(crate) use instance::Instance;
use lanes::{LaneId, Lanes};
pub use random::{Random, backoff_max};
pub use types::{Action, Counts, FeedId, InstanceId, Leased, Outcome, Place, Policy};

/// The state of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    InFlight(InstanceId),
    Parked(Duration),
    Done,
}

/// Whether the event is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    Held,
    /// It ended while the event was in flight: the outcome settles nothing.
    Ended,
}

#[derive(Debug)]
struct Event {
    epoch: Epoch,
    lane: LaneId,
    state: State,
    /// Failures that count.
    attempts: u32,
    /// Waits in a row, whether or not they count.
    waits: u32,
    deaths: u32,
    is_blocked: bool,
    lease: Lease,
}

/// The rules of delivery for one function.
#[derive(Debug)]
pub struct Delivery {
    policy: Policy,
    random: Random,
    events: BTreeMap<Place, Event>,
    lanes: Lanes,
    parked: BTreeSet<(Duration, Place)>,
    instances: BTreeMap<InstanceId, Instance>,
    due: VecDeque<Action>,
    /// Done, but the lease ended before the acknowledgement was confirmed.
    unsure: BTreeSet<Place>,
}

impl Delivery {
    /// A function without events or instances.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            policy,
            random: Random::new(seed),
            events: BTreeMap::new(),
            lanes: Lanes::default(),
            parked: BTreeSet::new(),
            instances: BTreeMap::new(),
            due: VecDeque::new(),
            unsure: BTreeSet::new(),
        }
    }

    /// A partition was assigned. What waits under an older epoch comes again if it is still ours.
    pub fn handle_assigned(&mut self, feed: FeedId, partition: PartitionId, watermark: Offset) {
        self.end_leases(feed, Some(partition), |place, event| {
            place.offset < watermark || matches!(event.state, State::Queued | State::Parked(_))
        });
        let done = self
            .of_feed(feed)
            .filter(|(place, event)| place.partition == partition && event.state == State::Done);
        let done: Vec<Place> = done.map(|(&place, _)| place).collect();
        // Their work is done, so their payloads may go. Were they kept until they are acknowledged
        // again, a full memory of them would leave no credit with which to be leased again.
        self.due.extend(done.iter().map(|&place| Action::Forget { place }));
        self.unsure.extend(done);
    }

    /// A partition went to another member: its events are no longer ours.
    pub fn handle_revoked(&mut self, feed: FeedId, partition: PartitionId) {
        self.end_leases(feed, Some(partition), |_, _| true);
    }

    /// The trigger is gone.
    pub fn handle_feed_removed(&mut self, feed: FeedId) {
        self.end_leases(feed, None, |_, _| true);
    }

    /// An event was leased. Events with the same key in one partition go one at a time, in order.
    pub fn handle_lease(&mut self, place: Place, epoch: Epoch, key: Option<&[u8]>) -> Leased {
        self.unsure.remove(&place);
        // Events come in order: what is passed over was settled under the old lease.
        let first = Place { offset: Offset(0), ..place };
        while let Some(&settled) = self.unsure.range(first..place).next() {
            self.remove(settled);
        }
        if let Some(event) = self.events.get_mut(&place) {
            event.epoch = epoch;
            event.lease = Lease::Held;
            // The acknowledgement was lost with the old lease; the work is done all the same.
            if event.state == State::Done {
                self.due.push_back(Action::Ack { place, epoch });
            }
            return Leased::Known;
        }
        let lane = LaneId::of(place, key);
        self.lanes.insert(&lane, place);
        self.events.insert(
            place,
            Event {
                epoch,
                lane,
                state: State::Queued,
                attempts: 0,
                waits: 0,
                deaths: 0,
                is_blocked: false,
                lease: Lease::Held,
            },
        );
        Leased::Taken
    }

    /// An instance may take events. It starts with one permit.
    pub fn handle_instance_ready(&mut self, id: InstanceId) {
        self.instances.insert(id, Instance::new(self.policy.permits_hard));
    }

    /// An instance shall get no further event.
    pub fn handle_instance_draining(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.drain();
        }
    }

    /// An instance ended. The outcomes of what it had in flight still come.
    pub fn handle_instance_gone(&mut self, id: InstanceId) {
        self.instances.remove(&id);
    }

    /// The function changed: whatever waits may try its luck with the new revision at once.
    pub fn handle_new_revision(&mut self, policy: Policy) {
        self.policy = policy;
        let waiting: Vec<Place> = self.parked.iter().map(|&(_, place)| place).collect();
        self.parked.clear();
        for place in waiting {
            if let Some(event) = self.events.get_mut(&place) {
                event.is_blocked = false;
                event.attempts = 0;
                event.waits = 0;
                event.deaths = 0;
            }
            self.requeue(place, lanes::End::Back);
        }
    }

    /// A push ended.
    pub fn handle_outcome(&mut self, place: Place, outcome: Outcome, now: Duration) {
        let Some(event) = self.events.get_mut(&place) else { return };
        let State::InFlight(instance) = event.state else { return };
        self.rate(instance, outcome, now);
        let Some(event) = self.events.get_mut(&place) else { return };
        if event.lease == Lease::Ended {
            self.remove(place);
            return;
        }
        match outcome {
            Outcome::Done => {
                event.state = State::Done;
                self.due.push_back(Action::Ack { place, epoch: event.epoch });
                let lane = event.lane.clone();
                self.lanes.finish(&lane, place);
            }
            Outcome::NotReceived => self.requeue(place, lanes::End::Front),
            Outcome::Died => {
                event.deaths = event.deaths.saturating_add(1);
                if event.deaths == 1 {
                    self.requeue(place, lanes::End::Front);
                } else {
                    self.park_failed(place, now);
                }
            }
            Outcome::Failed | Outcome::TimedOut => self.park_failed(place, now),
            Outcome::Refused => {
                event.is_blocked = true;
                event.attempts = event.attempts.saturating_add(1);
                // A repetition hardly helps: go to the longest wait at once.
                let cap = self.policy.backoff_cap;
                let delay = self.random.between(cap / 2, cap);
                self.park(place, now.saturating_add(delay));
            }
            Outcome::ReplyFailed => {
                let delay = self.next_delay(place);
                self.park(place, now.saturating_add(delay));
            }
            Outcome::Throttled { retry_after } => {
                let asked = retry_after.unwrap_or_default().min(self.policy.retry_after_max);
                let delay = self.next_delay(place).max(asked);
                self.park(place, now.saturating_add(delay));
            }
        }
    }

    /// An acknowledgement is stored.
    pub fn handle_settled(&mut self, place: Place) {
        if self.events.get(&place).is_some_and(|event| event.state == State::Done) {
            self.remove(place);
        }
    }

    /// An acknowledgement came too late. If the event is still ours, it is leased again.
    pub fn handle_fenced(&mut self, place: Place) {
        if self.events.get(&place).is_some_and(|event| event.state == State::Done) {
            self.unsure.insert(place);
        }
    }

    /// What to do now, if anything.
    pub fn poll_action(&mut self, now: Duration) -> Option<Action> {
        if let Some(action) = self.due.pop_front() {
            return Some(action);
        }
        while let Some(&(until, place)) = self.parked.first()
            && until <= now
        {
            self.parked.pop_first();
            self.requeue(place, lanes::End::Back);
        }
        if self.lanes.ready_len() == 0 {
            return None;
        }
        let (&id, instance) = self
            .instances
            .iter_mut()
            .filter(|(_, instance)| instance.free_at().is_some_and(|at| at <= now))
            .min_by_key(|(_, instance)| {
                // Least loaded in proportion to what it can take.
                u64::from(instance.in_flight()) * 1_000_000 / u64::from(instance.limit().max(1))
            })?;
        let place = self.lanes.start_next()?;
        instance.take();
        let event = self.events.get_mut(&place)?;
        event.state = State::InFlight(id);
        let attempt = event.attempts.saturating_add(1);
        Some(Action::Push { place, instance: id, attempt })
    }

    /// When to call `poll_action` again if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let parked = self.parked.first().map(|&(until, _)| until);
        let paused = (self.lanes.ready_len() > 0)
            .then(|| self.instances.values().filter_map(Instance::free_at).min())
            .flatten();
        parked.into_iter().chain(paused).min()
    }

    /// Events that could be sent at once, were there an instance with a permit.
    pub fn runnable(&self) -> u64 {
        self.lanes.ready_len().try_into().unwrap_or(u64::MAX)
    }

    /// When the next waiting event is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.parked.first().map(|&(until, _)| until)
    }

    /// Events at an instance right now.
    pub fn in_flight_of(&self, id: InstanceId) -> u32 {
        self.instances.get(&id).map_or(0, Instance::in_flight)
    }

    /// How many events of one trigger are in which state.
    pub fn counts(&self, feed: FeedId) -> Counts {
        let mut counts = Counts::default();
        for event in self.of_feed(feed).map(|(_, event)| event) {
            match event.state {
                State::Queued => counts.queued += 1,
                State::InFlight(_) => counts.in_flight += 1,
                State::Parked(_) => counts.parked += 1,
                State::Done => counts.settling += 1,
            }
            if event.state != State::Done {
                counts.retrying += u64::from(event.attempts > 0 || event.waits > 0);
                counts.blocked += u64::from(event.is_blocked);
            }
        }
        counts
    }

    /// Events that are not settled yet.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is no event left.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn of_feed(&self, feed: FeedId) -> impl Iterator<Item = (&Place, &Event)> {
        let first = Place { feed, partition: PartitionId(0), offset: Offset(0) };
        self.events.range(first..).take_while(move |(place, _)| place.feed == feed)
    }

    fn end_leases(
        &mut self,
        feed: FeedId,
        partition: Option<PartitionId>,
        ends: impl Fn(&Place, &Event) -> bool,
    ) {
        let ended: Vec<Place> = self
            .of_feed(feed)
            .filter(|(place, _)| partition.is_none_or(|partition| place.partition == partition))
            .filter(|(place, event)| ends(place, event))
            .map(|(&place, _)| place)
            .collect();
        for place in ended {
            match self.events.get_mut(&place) {
                Some(event) if matches!(event.state, State::InFlight(_)) => {
                    event.lease = Lease::Ended;
                }
                Some(_) => self.remove(place),
                None => {}
            }
        }
    }

    fn rate(&mut self, id: InstanceId, outcome: Outcome, now: Duration) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let was_full = instance.in_flight() >= instance.limit();
        instance.give_back();
        match outcome {
            Outcome::Done => instance.succeed(was_full),
            Outcome::Throttled { .. } | Outcome::TimedOut => instance.cut(),
            Outcome::NotReceived => instance.strike(&mut self.random, now),
            Outcome::Failed | Outcome::Refused | Outcome::ReplyFailed | Outcome::Died => {}
        }
    }

    fn park_failed(&mut self, place: Place, now: Duration) {
        if let Some(event) = self.events.get_mut(&place) {
            event.attempts = event.attempts.saturating_add(1);
            event.is_blocked |= event.attempts >= self.policy.attempts;
        }
        let delay = self.next_delay(place);
        self.park(place, now.saturating_add(delay));
    }

    /// Full jitter: anything up to the longest wait, so that what failed together returns apart.
    fn next_delay(&mut self, place: Place) -> Duration {
        let waits = self.events.get_mut(&place).map_or(1, |event| {
            event.waits = event.waits.saturating_add(1);
            event.waits
        });
        let high = backoff_max(self.policy.backoff_base, self.policy.backoff_cap, waits);
        self.random.between(Duration::ZERO, high)
    }

    fn park(&mut self, place: Place, until: Duration) {
        if let Some(event) = self.events.get_mut(&place) {
            event.state = State::Parked(until);
            self.parked.insert((until, place));
        }
    }

    fn requeue(&mut self, place: Place, end: lanes::End) {
        if let Some(event) = self.events.get_mut(&place) {
            event.state = State::Queued;
            self.lanes.retry(&event.lane, end);
        }
    }

    fn remove(&mut self, place: Place) {
        let Some(event) = self.events.remove(&place) else { return };
        self.unsure.remove(&place);
        if let State::Parked(until) = event.state {
            self.parked.remove(&(until, place));
        }
        if event.state != State::Done {
            self.lanes.finish(&event.lane, place);
        }
        self.due.retain(|action| !matches!(action, Action::Ack { place: p, .. } if *p == place));
        self.due.push_back(Action::Forget { place });
    }
}
