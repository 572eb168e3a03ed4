//! From lent event to outcome: which events go to which instance, and how each is settled.
//!
//! *Owns* what waits, requests under way, permits, budgets and circuits of one function. *Never*
//! reads a clock, sends anything or sees a payload: `handle_*` says what happened, `poll_action`
//! answers what to do, `poll_timeout` when to ask again. Times are durations since the function's
//! runner began.
//!
//! What keeps its order is lent one at a time by the cluster, which also keeps what failed until
//! it is due again, and counts. So an event leaves here after each attempt: done, given back, or
//! given up. What the function never saw stays, and is sent again.

mod budget;
mod instance;
mod queue;
mod random;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::egress::circuit::{Circuit, State as CircuitState};
pub(crate) use instance::Instance;
use queue::{Group, Queue, Waiting};
pub use random::{Random, backoff_max};
pub use types::{
    Action, Counts, FeedId, FeedPolicy, InstanceId, Lent, Outcome, PushId, RevisionNo, Settle,
    Ticket,
};

/// A pause that an instance asks for is waited with its events in hand, up to this; for longer
/// ones they are given back.
const HOLD_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Event {
    feed: FeedId,
    revision: RevisionNo,
    is_fresh: bool,
    /// Instances that died with it before they ever answered.
    deaths: u32,
    push: Option<PushId>,
}

/// A request under way.
#[derive(Debug)]
struct Flight {
    instance: InstanceId,
    revision: RevisionNo,
    group: Group,
    since: Duration,
}

/// What waits for one revision, and whether it is well.
#[derive(Debug, Default)]
struct Track {
    queue: Queue,
    circuit: Circuit,
}

/// The rules of delivery for one function.
#[derive(Debug)]
pub struct Delivery {
    random: Random,
    feeds: BTreeMap<FeedId, FeedPolicy>,
    events: BTreeMap<Ticket, Event>,
    tracks: BTreeMap<RevisionNo, Track>,
    instances: BTreeMap<InstanceId, (RevisionNo, Instance)>,
    flights: BTreeMap<PushId, Flight>,
    next_push: u64,
    due: VecDeque<Action>,
    /// No longer ours, but under way.
    lost: BTreeSet<Ticket>,
}

impl Delivery {
    /// A function without events or instances.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            feeds: BTreeMap::new(),
            events: BTreeMap::new(),
            tracks: BTreeMap::new(),
            instances: BTreeMap::new(),
            flights: BTreeMap::new(),
            next_push: 0,
            due: VecDeque::new(),
            lost: BTreeSet::new(),
        }
    }

    /// The rules of a trigger are these from now on.
    pub fn handle_policy(&mut self, feed: FeedId, policy: FeedPolicy) {
        for track in self.tracks.values_mut() {
            track.queue.set_policy(feed, policy.clone());
        }
        self.feeds.insert(feed, policy);
    }

    /// An event was lent.
    pub fn handle_lent(&mut self, lent: Lent, now: Duration) {
        let Lent { ticket, feed, revision, attempt, bytes } = lent;
        let is_fresh = attempt <= 1;
        let event = Event { feed, revision, is_fresh, deaths: 0, push: None };
        self.events.insert(ticket, event);
        let waiting = Waiting { ticket, bytes, since: now, is_fresh };
        self.track(revision).queue.push(feed, waiting);
    }

    /// A lease ended, or was lost with the membership: nothing can be settled any more.
    pub fn handle_lost(&mut self, ticket: Ticket) {
        self.drop_all(|one| one == ticket);
    }

    /// The membership of a trigger ended: nothing of it can be settled any more.
    pub fn handle_feed_lost(&mut self, feed: FeedId) {
        let of_feed = self.events.iter().filter(|(_, event)| event.feed == feed);
        let tickets: BTreeSet<Ticket> = of_feed.map(|(&ticket, _)| ticket).collect();
        self.drop_all(|ticket| tickets.contains(&ticket));
    }

    /// Who shall get what changed: what is not under way goes where `route` says.
    pub fn handle_routes(&mut self, route: impl Fn(Ticket) -> RevisionNo, now: Duration) {
        let mut moved = Vec::new();
        for (&from, track) in &mut self.tracks {
            moved.extend(track.queue.remove(|ticket| route(ticket) != from));
        }
        for (feed, waiting) in moved {
            let revision = route(waiting.ticket);
            if let Some(event) = self.events.get_mut(&waiting.ticket) {
                event.revision = revision;
            }
            self.track(revision).queue.push(feed, Waiting { since: now, ..waiting });
        }
        let events = &self.events;
        let used = |revision| events.values().any(|event| event.revision == revision);
        self.tracks.retain(|&revision, track| track.queue.len() > 0 || used(revision));
    }

    /// Gives back what is not under way of one trigger, uncounted.
    pub fn give_back(&mut self, feed: FeedId, reason: &str) {
        let events = &self.events;
        let is_of = |ticket| events.get(&ticket).is_some_and(|event| event.feed == feed);
        let mut waiting = Vec::new();
        for track in self.tracks.values_mut() {
            waiting.extend(track.queue.remove(is_of));
        }
        self.hand_on(waiting, reason);
    }

    /// Gives back all that is not under way, uncounted.
    pub fn give_back_all(&mut self, reason: &str) {
        let mut waiting = Vec::new();
        for track in self.tracks.values_mut() {
            waiting.extend(track.queue.remove(|_| true));
        }
        self.hand_on(waiting, reason);
    }

    fn hand_on(&mut self, waiting: Vec<(FeedId, Waiting)>, reason: &str) {
        let reason: Arc<str> = reason.into();
        for (_, Waiting { ticket, .. }) in waiting {
            let how =
                Settle::GiveBack { delay: None, is_counted: false, reason: Arc::clone(&reason) };
            self.settle(ticket, how);
        }
    }

    /// An instance may take events. It starts with one permit, and never has more than `hard`; 0 = as
    /// many as do it good.
    pub fn handle_instance_ready(&mut self, id: InstanceId, revision: RevisionNo, hard: u32) {
        self.instances.insert(id, (revision, Instance::new(hard)));
    }

    /// An instance shall get no further event.
    pub fn handle_instance_draining(&mut self, id: InstanceId) {
        if let Some((_, instance)) = self.instances.get_mut(&id) {
            instance.drain();
        }
    }

    /// An instance ended. The outcomes of what it had in flight still come.
    pub fn handle_instance_gone(&mut self, id: InstanceId) {
        self.instances.remove(&id);
    }

    /// A push ended as the error says, or well.
    pub fn handle_outcome(&mut self, push: PushId, outcome: &Outcome, error: &str, now: Duration) {
        let Some(flight) = self.flights.remove(&push) else { return };
        self.rate(&flight, outcome, now);
        let Flight { revision, mut group, .. } = flight;
        // What is not ours any more was repeated, or will be: it is not here that it is settled.
        let lost = &mut self.lost;
        let places: Vec<Ticket> = group.events.iter().map(|one| one.ticket).collect();
        group.events.retain(|one| !lost.remove(&one.ticket));
        for one in &group.events {
            if let Some(event) = self.events.get_mut(&one.ticket) {
                event.push = None;
            }
        }
        let why: Arc<str> = error.into();
        match outcome {
            Outcome::Done | Outcome::Partly(_) => {
                self.handle_done(revision, group, outcome, &places);
            }
            Outcome::NotReceived => self.requeue(revision, group),
            Outcome::Died => self.handle_death(revision, group, &why),
            Outcome::Throttled { retry_after } => {
                self.handle_throttled(revision, group, *retry_after, &why);
            }
            Outcome::ReplyFailed => {
                self.release(revision, std::mem::take(&mut group.rest), group.feed);
                for one in group.events {
                    self.give_one_back(one.ticket, None, false, &why);
                }
            }
            Outcome::Failed | Outcome::TimedOut | Outcome::TooLarge | Outcome::Refused
                if group.events.len() > 1 =>
            {
                self.bisect(revision, group, &why);
            }
            Outcome::Failed | Outcome::TimedOut => {
                self.release(revision, std::mem::take(&mut group.rest), group.feed);
                for one in group.events {
                    self.give_one_back(one.ticket, None, true, &why);
                }
            }
            Outcome::TooLarge | Outcome::Refused => {
                self.release(revision, std::mem::take(&mut group.rest), group.feed);
                for one in group.events {
                    self.give_up(one.ticket, group.feed, &why);
                }
            }
        }
    }

    /// What to do now, if anything.
    pub fn poll_action(&mut self, now: Duration) -> Option<Action> {
        if let Some(action) = self.due.pop_front() {
            return Some(action);
        }
        let revisions: Vec<RevisionNo> = self.tracks.keys().copied().collect();
        for revision in revisions {
            if let Some(action) = self.next_push(revision, now) {
                return Some(action);
            }
        }
        None
    }

    /// When to call `poll_action` again if nothing else happens.
    pub fn poll_timeout(&mut self, now: Duration) -> Option<Duration> {
        let mut wake: Option<Duration> = None;
        for (&revision, track) in &mut self.tracks {
            let Some(ready) = track.queue.ready_at() else { continue };
            let own = self.instances.values().filter(|(of, _)| *of == revision);
            let Some(free) = own.filter_map(|(_, instance)| instance.free_at()).min() else {
                continue;
            };
            let open = match track.circuit.state(now) {
                CircuitState::Open(until) => until,
                CircuitState::Closed | CircuitState::HalfOpen(_) => Duration::ZERO,
            };
            let at = ready.max(free).max(open);
            // What is ready already waits for an answer, which comes by itself.
            if at > now {
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
            }
        }
        wake
    }

    /// Requests that could be sent to a revision at once, were there instances with permits.
    pub fn runnable(&self, revision: RevisionNo) -> u64 {
        let track = self.tracks.get(&revision);
        track.map_or(0, |track| track.queue.requests().try_into().unwrap_or(u64::MAX))
    }

    /// Revisions for which there are events.
    pub fn wanted(&self) -> impl Iterator<Item = RevisionNo> {
        self.tracks.iter().filter(|(_, track)| track.queue.len() > 0).map(|(&revision, _)| revision)
    }

    /// Whether the circuit of a revision is closed: nothing keeps events from it.
    pub fn is_well(&self, revision: RevisionNo, now: Duration) -> bool {
        let track = self.tracks.get(&revision);
        track.is_none_or(|track| track.circuit.clone().state(now) == CircuitState::Closed)
    }

    /// Requests at an instance right now.
    pub fn in_flight_of(&self, id: InstanceId) -> u32 {
        self.instances.get(&id).map_or(0, |(_, instance)| instance.in_flight())
    }

    /// What instances of a revision turned out to be good for: the median of those that were judged.
    pub fn permits_of(&self, revision: RevisionNo) -> Option<u32> {
        let own = self.instances.values().filter(|(of, one)| *of == revision && one.is_settled());
        let mut limits: Vec<u32> = own.map(|(_, one)| one.limit()).collect();
        let middle = limits.len() / 2;
        (!limits.is_empty()).then(|| *limits.select_nth_unstable(middle).1)
    }

    /// How many events of one trigger are in which state.
    pub fn counts(&self, feed: FeedId) -> Counts {
        let mut counts = Counts::default();
        for event in self.events.values().filter(|event| event.feed == feed) {
            if event.push.is_some() {
                counts.in_flight += 1;
            } else {
                counts.queued += 1;
            }
            counts.retrying += u64::from(!event.is_fresh);
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

    fn track(&mut self, revision: RevisionNo) -> &mut Track {
        self.tracks.entry(revision).or_insert_with(|| {
            let mut track = Track::default();
            for (&feed, policy) in &self.feeds {
                track.queue.set_policy(feed, policy.clone());
            }
            track
        })
    }

    fn next_push(&mut self, revision: RevisionNo, now: Duration) -> Option<Action> {
        let track = self.tracks.get_mut(&revision)?;
        if track.queue.ready_at().is_none_or(|at| at > now) || !track.circuit.may_send(now) {
            return None;
        }
        let instance = choose(&self.instances, revision, &mut self.random, now)?;
        // One event finds out whether the function is well again.
        let is_probe = track.circuit.state(now) != CircuitState::Closed;
        let group = track.queue.pop(is_probe, now)?;
        track.circuit.handle_sent();
        if let Some((_, instance)) = self.instances.get_mut(&instance) {
            instance.take();
        }
        self.next_push += 1;
        let push = PushId(self.next_push);
        let tickets: Vec<Ticket> = group.events.iter().map(|one| one.ticket).collect();
        for ticket in &tickets {
            if let Some(event) = self.events.get_mut(ticket) {
                event.push = Some(push);
            }
        }
        self.flights.insert(push, Flight { instance, revision, group, since: now });
        Some(Action::Push { push, tickets, instance })
    }

    /// What the outcome says about the instance and about the revision.
    fn rate(&mut self, flight: &Flight, outcome: &Outcome, now: Duration) {
        let took = now.saturating_sub(flight.since);
        if let Some(track) = self.tracks.get_mut(&flight.revision) {
            match outcome {
                Outcome::Done | Outcome::Partly(_) => track.circuit.handle_success(),
                Outcome::Failed | Outcome::TimedOut => {
                    track.circuit.handle_failure(&mut self.random, now);
                }
                _ => track.circuit.handle_neutral(),
            }
        }
        let Some((_, instance)) = self.instances.get_mut(&flight.instance) else { return };
        instance.give_back();
        match outcome {
            Outcome::Done | Outcome::Partly(_) => instance.succeed(took, now),
            Outcome::Throttled { retry_after } => {
                instance.cut();
                match retry_after.filter(|wait| !wait.is_zero()) {
                    Some(wait) => instance.pause_until(now.saturating_add(wait.min(HOLD_MAX))),
                    None => instance.pause(&mut self.random, now),
                }
            }
            Outcome::TimedOut => instance.cut(),
            Outcome::NotReceived => instance.strike(&mut self.random, now),
            Outcome::Failed
            | Outcome::TooLarge
            | Outcome::Refused
            | Outcome::ReplyFailed
            | Outcome::Died => {}
        }
    }

    fn handle_done(
        &mut self,
        revision: RevisionNo,
        group: Group,
        outcome: &Outcome,
        places: &[Ticket],
    ) {
        let failed: &[(usize, Option<Duration>)] = match outcome {
            Outcome::Partly(failed) => failed,
            _ => &[],
        };
        let Group { feed, events, rest, why } = group;
        for one in events {
            let place = places.iter().position(|&ticket| ticket == one.ticket);
            match failed.iter().find(|(failed, _)| Some(*failed) == place) {
                None => {
                    self.track(revision).queue.handle_success(feed);
                    self.settle(one.ticket, Settle::Ack);
                }
                Some(&(_, asked)) => {
                    let most = self.feeds.get(&feed).map_or(HOLD_MAX, |feed| feed.retry_after_max);
                    let delay = asked.map(|asked| asked.min(most));
                    let why = "the function took others of its batch".into();
                    self.give_one_back(one.ticket, delay, true, &why);
                }
            }
        }
        // The whole failed and this half did not: the culprit is in the other one.
        if let Some(why) = why.filter(|_| !rest.is_empty()) {
            let suspects = Group { feed, events: rest, rest: Vec::new(), why: None };
            self.bisect(revision, suspects, &why);
        }
    }

    /// Narrows down which event of a batch fails: the culprit is among these.
    fn bisect(&mut self, revision: RevisionNo, mut group: Group, why: &Arc<str>) {
        let feed = group.feed;
        // These failed; so nothing is known of the others, which were held back.
        self.release(revision, std::mem::take(&mut group.rest), feed);
        if group.events.len() <= 1 {
            // It failed as a part of the whole; whether for good shows when it comes alone.
            for one in group.events {
                self.give_one_back(one.ticket, None, true, why);
            }
            return;
        }
        let rest = group.events.split_off(group.events.len() / 2);
        let half = Group { feed, events: group.events, rest, why: Some(Arc::clone(why)) };
        self.track(revision).queue.push_group(half);
    }

    /// Events that were held back go on as a group of their own.
    fn release(&mut self, revision: RevisionNo, events: Vec<Waiting>, feed: FeedId) {
        self.track(revision).queue.push_group(Group { feed, events, ..Group::default() });
    }

    fn requeue(&mut self, revision: RevisionNo, mut group: Group) {
        if group.events.is_empty() {
            std::mem::swap(&mut group.events, &mut group.rest);
        }
        self.track(revision).queue.push_group(group);
    }

    fn handle_death(&mut self, revision: RevisionNo, group: Group, why: &Arc<str>) {
        let Group { feed, events, rest, .. } = group;
        self.release(revision, rest, feed);
        for one in events.into_iter().rev() {
            let deaths = self.events.get_mut(&one.ticket).map_or(0, |event| {
                event.deaths = event.deaths.saturating_add(1);
                event.deaths
            });
            if deaths > 1 {
                self.give_one_back(one.ticket, None, true, why);
            } else {
                // Alone: were it the cause, its neighbours would pay as well.
                self.release(revision, vec![one], feed);
            }
        }
    }

    fn handle_throttled(
        &mut self,
        revision: RevisionNo,
        mut group: Group,
        retry_after: Option<Duration>,
        why: &Arc<str>,
    ) {
        if retry_after.is_none_or(|wait| wait <= HOLD_MAX) {
            return self.requeue(revision, group);
        }
        let most = self.feeds.get(&group.feed).map_or(HOLD_MAX, |feed| feed.retry_after_max);
        let delay = retry_after.map(|wait| wait.min(most));
        self.release(revision, std::mem::take(&mut group.rest), group.feed);
        for one in group.events {
            self.give_one_back(one.ticket, delay, false, why);
        }
    }

    fn give_one_back(
        &mut self,
        ticket: Ticket,
        delay: Option<Duration>,
        is_counted: bool,
        reason: &Arc<str>,
    ) {
        // At once and uncounted it would come round and round.
        let delay = if is_counted { delay } else { delay.or(Some(HOLD_MAX)) };
        self.settle(ticket, Settle::GiveBack { delay, is_counted, reason: Arc::clone(reason) });
    }

    fn give_up(&mut self, ticket: Ticket, feed: FeedId, why: &Arc<str>) {
        let gives_up = self.feeds.get(&feed).is_none_or(|feed| feed.gives_up);
        if gives_up {
            self.settle(ticket, Settle::Reject { reason: Arc::clone(why) });
        } else {
            self.give_one_back(ticket, None, true, why);
        }
    }

    fn settle(&mut self, ticket: Ticket, how: Settle) {
        if self.events.remove(&ticket).is_some() {
            self.due.push_back(Action::Settle { ticket, how });
        }
    }

    /// Forgets events: at once, or when their requests end.
    fn drop_all(&mut self, matches: impl Fn(Ticket) -> bool) {
        for track in self.tracks.values_mut() {
            track.queue.remove(&matches);
        }
        // Halves that are held back wait in the requests of the other halves.
        for flight in self.flights.values_mut() {
            flight.group.rest.retain(|one| !matches(one.ticket));
        }
        let gone: Vec<Ticket> =
            self.events.keys().copied().filter(|&ticket| matches(ticket)).collect();
        for ticket in gone {
            if self.events.remove(&ticket).is_some_and(|event| event.push.is_some()) {
                self.lost.insert(ticket);
            }
            self.due.push_back(Action::Forget { ticket });
        }
    }
}

/// The less loaded of two random instances of a revision that have a permit free.
fn choose(
    instances: &BTreeMap<InstanceId, (RevisionNo, Instance)>,
    revision: RevisionNo,
    random: &mut Random,
    now: Duration,
) -> Option<InstanceId> {
    let is_free = |one: &Instance| one.free_at().is_some_and(|at| at <= now);
    let free = instances.iter().filter(|(_, (of, one))| *of == revision && is_free(one));
    let free: Vec<(InstanceId, u64)> = free
        .map(|(&id, (_, one))| {
            (id, u64::from(one.in_flight()) * 1_000_000 / u64::from(one.limit().max(1)))
        })
        .collect();
    let mut draw = || {
        let len = u64::try_from(free.len()).unwrap_or(1).max(1);
        usize::try_from(random.next() % len).ok().and_then(|place| free.get(place))
    };
    let (one, other) = (draw()?, draw()?);
    Some(if one.1 <= other.1 { one.0 } else { other.0 })
}
