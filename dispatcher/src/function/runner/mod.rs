//! The task that runs one function: carries out what the rules of delivery and scaling decide.
//!
//! *Owns* everything about the function. *Never* decides about an event itself: it tells the
//! rules what happened and does what they answer.

mod ending;
mod feeds;
mod handle;
mod replay;
mod scaling;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use weft_client::Held;
use weft_proto::resource::{FunctionStatus, Instances, RevisionStatus};
use weft_proto::trace::Tracer;
use weft_proto::{Result, Timestamp};

use super::Plan;
use super::deliver::{Push, Pushed, deliver};
use super::fleet::{Fleet, Happening};
use super::plan::Trigger;
use super::report::Report;
use crate::clock;
use crate::delivery::{
    Action, Delivery, FeedId, InstanceId, Outcome, PushId, Random, RevisionNo, Ticket,
};
use crate::feed::Told;
use crate::launch::Launcher;
use crate::metrics::FunctionMetrics;
use crate::port::{FUNCTION, Mesh, Settler};
use crate::push;
use replay::Jobs;
use scaling::Track;
use settle::Settled;

/// Messages of feeds that may wait; when it is full, feeds wait, and with them the server.
const TOLD_LEN: usize = 64;
/// The status is written at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What the service wants of a runner.
#[derive(Debug)]
pub(crate) enum Order {
    /// The definition changed.
    Revise(Box<Plan>),
    /// The definition changed into something that cannot be run; the text says why.
    Refuse(String),
    /// The function was deleted.
    Delete,
}

/// What a runner needs from outside.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) mesh: Arc<dyn Mesh>,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) tasks: TaskTracker,
    /// Name of this dispatcher among the members of a subscription.
    pub(crate) member: String,
    pub(crate) seed: u64,
    pub(crate) tracer: Tracer,
}

/// An event that is lent to us.
struct Payload {
    feed: FeedId,
    held: Held,
    partition: u32,
    offset: u64,
    /// Which delivery it is, from 1.
    attempt: u32,
    event: Bytes,
    appended: Timestamp,
    /// By what it finds its revision.
    hash: u64,
    /// The revision that a replay job names.
    pinned: Option<RevisionNo>,
    /// Who was sent it last: what failed is said of that one, wherever events go by then.
    sent_to: Option<RevisionNo>,
    is_redriven: bool,
    replay_job: Option<u64>,
}

struct RunningFeed {
    trigger: Trigger,
    /// While it is joined.
    settler: Option<Arc<dyn Settler>>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

enum Event {
    Pushed(Pushed),
    Fleet(Happening),
    Told(FeedId, Told),
    Settled(Settled),
    Job(replay::Known),
    Reported(Result<()>),
    ChoreDone,
}

/// The runner of one function.
pub(crate) struct Runner {
    parts: Parts,
    plan: Plan,
    began: Instant,
    random: Random,
    delivery: Delivery,
    /// What is known of each revision that gets events, or has instances.
    tracks: BTreeMap<RevisionNo, Track>,
    check_at: Option<Duration>,
    fleet: Fleet,
    next_instance: u64,
    payloads: BTreeMap<Ticket, Payload>,
    next_ticket: u64,
    feeds: BTreeMap<FeedId, RunningFeed>,
    next_feed: u32,
    /// Partitions whose events come to us, and not to another dispatcher.
    turns: BTreeSet<(FeedId, u32)>,
    jobs: Jobs,
    extend_at: Duration,
    told_tx: mpsc::Sender<(FeedId, Told)>,
    told_rx: mpsc::Receiver<(FeedId, Told)>,
    pushes: FuturesUnordered<BoxFuture<'static, Pushed>>,
    settles: FuturesUnordered<BoxFuture<'static, Settled>>,
    chores: FuturesUnordered<BoxFuture<'static, ()>>,
    report: Report,
    reporting: Option<BoxFuture<'static, Result<()>>>,
    report_due: Option<Instant>,
    last_report: Option<Instant>,
    reported: Option<FunctionStatus>,
    metrics: FunctionMetrics,
    is_ending: bool,
}

impl Runner {
    pub(crate) fn new(plan: Plan, parts: Parts) -> Self {
        let (told_tx, told_rx) = mpsc::channel(TOLD_LEN);
        let mut random = Random::new(parts.seed);
        Self {
            began: Instant::now(),
            delivery: Delivery::new(random.next()),
            tracks: BTreeMap::new(),
            check_at: None,
            fleet: Fleet::new(Arc::clone(&parts.launcher), parts.tasks.clone()),
            next_instance: 0,
            payloads: BTreeMap::new(),
            next_ticket: 0,
            feeds: BTreeMap::new(),
            next_feed: 0,
            turns: BTreeSet::new(),
            jobs: Jobs::new(Arc::clone(&parts.mesh)),
            extend_at: Duration::ZERO,
            told_tx,
            told_rx,
            pushes: FuturesUnordered::new(),
            settles: FuturesUnordered::new(),
            chores: FuturesUnordered::new(),
            report: Report::default(),
            reporting: None,
            report_due: None,
            last_report: None,
            reported: None,
            metrics: FunctionMetrics::of(&plan.name.to_string()),
            is_ending: false,
            random,
            parts,
            plan,
        }
    }

    /// Runs until stopped or until the function is deleted; then finishes what is in flight.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        self.update_feeds();
        self.mark_changed();
        let is_deleted = loop {
            self.act();
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => break false,
                order = orders.recv() => match order {
                    Some(Order::Revise(plan)) => self.revise(*plan),
                    Some(Order::Refuse(message)) => {
                        self.report.spec_trouble = Some(message);
                        self.mark_changed();
                    }
                    Some(Order::Delete) => break true,
                    None => break false,
                },
                event = self.next() => self.handle(event),
                () = sleep_or_never(wake) => {}
            }
        };
        self.finish(is_deleted).await;
    }

    /// The next thing that happens. Dropping the future loses nothing.
    async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            Some(pushed) = self.pushes.next() => Event::Pushed(pushed),
            Some(settled) = self.settles.next() => Event::Settled(settled),
            Some(happening) = self.fleet.next() => Event::Fleet(happening),
            Some((feed, told)) = self.told_rx.recv() => Event::Told(feed, told),
            known = self.jobs.next() => Event::Job(known),
            result = or_never(self.reporting.as_mut()) => Event::Reported(result),
            Some(()) = self.chores.next() => Event::ChoreDone,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// When to act again if nothing happens. What is due already waits for something else.
    fn wake_at(&mut self) -> Option<Instant> {
        let now = self.now();
        let starts = self.tracks.values().map(Track::starts_at).filter(|_| !self.is_ending);
        let extend = (!self.payloads.is_empty()).then_some(self.extend_at);
        let offsets = [self.delivery.poll_timeout(now), self.check_at, extend];
        let offsets = offsets.into_iter().flatten().chain(starts).filter(|&offset| offset > now);
        let wakes = offsets.map(|offset| self.began + offset);
        wakes.chain(self.report_due.filter(|_| self.reporting.is_none())).min()
    }

    /// Does all there is to do now.
    fn act(&mut self) {
        let now = self.now();
        while let Some(action) = self.delivery.poll_action(now) {
            match action {
                Action::Push { push, tickets, instance } => self.push(push, &tickets, instance),
                Action::Settle { ticket, how } => self.settle(ticket, how),
                Action::Forget { ticket } => drop(self.forget(ticket)),
            }
        }
        self.extend_if_due(now);
        self.scale(now);
        let idle = |id| self.delivery.in_flight_of(id) == 0;
        self.fleet.stop_idle(idle, |revision| self.plan.grace(revision));
        self.report_if_due();
    }

    fn push(&mut self, push: PushId, tickets: &[Ticket], instance: InstanceId) {
        let target = self.fleet.target(instance);
        let payloads: Vec<&Payload> =
            tickets.iter().filter_map(|ticket| self.payloads.get(ticket)).collect();
        let first = payloads.first().zip(tickets.first());
        let (Some((revision, target)), Some((first, &ticket))) = (target, first) else {
            // The rules only name what was told to them; should they ever not, the events stay.
            warn!(?push, %instance, "nothing to push to or from");
            self.delivery.handle_outcome(push, &Outcome::NotReceived, "", self.now());
            return;
        };
        let feed = self.feeds.get(&first.feed);
        let push = Push {
            id: push,
            instance,
            target,
            ticket,
            events: payloads.iter().map(|payload| payload.event.clone()).collect(),
            delivery: push::Delivery {
                id: name_of_delivery(feed, first),
                attempt: first.attempt,
                partition: first.partition,
                offset: first.offset,
                timeout: self.plan.timeout(revision),
                is_batch: feed.is_some_and(|feed| feed.trigger.is_batch),
                takes_reply: self.plan.reply_to.is_some(),
                trace: None,
            },
            function: self.plan.name.clone(),
            reply_to: self.plan.reply_to.clone(),
            mesh: Arc::clone(&self.parts.mesh),
            tracer: self.parts.tracer.clone(),
        };
        self.pushes.push(Box::pin(deliver(push)));
        for ticket in tickets {
            if let Some(payload) = self.payloads.get_mut(ticket) {
                payload.sent_to = Some(revision);
            }
        }
        self.mark_changed();
    }

    fn forget(&mut self, ticket: Ticket) -> Option<Payload> {
        let payload = self.payloads.remove(&ticket);
        self.gauge_held();
        self.mark_changed();
        payload
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge of at most some thousands")]
    fn gauge_held(&self) {
        self.metrics.leased.set(self.payloads.len() as f64);
    }

    /// Who gets an event.
    fn route(&self, payload: &Payload) -> RevisionNo {
        let pinned = payload.pinned.filter(|pinned| self.plan.revisions.contains_key(pinned));
        pinned.unwrap_or_else(|| self.plan.route(payload.hash))
    }

    fn revise(&mut self, plan: Plan) {
        info!(function = %plan.name, generation = %plan.generation, "function changed");
        if plan.shares != self.plan.shares {
            self.report.launch_trouble = None;
        }
        self.report.spec_trouble = None;
        self.plan = plan;
        self.update_feeds();
        let routes: BTreeMap<Ticket, RevisionNo> =
            self.payloads.iter().map(|(&ticket, one)| (ticket, self.route(one))).collect();
        let own = |ticket| routes.get(&ticket).copied().unwrap_or_default();
        self.delivery.handle_routes(own, self.now());
        self.mark_changed();
    }

    fn mark_changed(&mut self) {
        if self.report_due.is_none() {
            let earliest = self.last_report.map(|last| last + REPORT_EVERY);
            let now = Instant::now();
            self.report_due = Some(earliest.map_or(now, |earliest| earliest.max(now)));
        }
    }

    fn report_if_due(&mut self) {
        let is_due = self.report_due.is_some_and(|due| due <= Instant::now());
        if !is_due || self.reporting.is_some() {
            return;
        }
        self.report_due = None;
        // Whoever stands by has nothing to say, but that it cannot.
        if self.turns.is_empty() && !self.report.has_trouble() {
            return;
        }
        self.last_report = Some(Instant::now());
        let status = self.status();
        // Each write is an entry of the catalog's log: what says nothing new is not written.
        let news = without_ages(status.clone());
        if self.reported.as_ref() != Some(&news) {
            self.reported = Some(news);
            self.reporting = Some(self.write_status(&status));
        }
    }

    fn status(&self) -> FunctionStatus {
        let now = self.now();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let instances = |revision| Instances {
            ready: count(self.fleet.serving_of(revision).count()),
            starting: count(self.fleet.starting_len(revision)),
        };
        let mut all = self.fleet.revisions();
        all.extend(self.plan.shares.iter().map(|&(revision, _)| revision));
        let share = |revision| self.plan.shares.iter().find(|(of, _)| *of == revision);
        let revisions: Vec<RevisionStatus> = all
            .into_iter()
            .map(|revision| RevisionStatus {
                name: self.plan.name_of(revision),
                percent: share(revision).map_or(0, |&(_, percent)| percent),
                instances: instances(revision),
                circuit_open: !self.delivery.is_well(revision, now),
            })
            .collect();
        let total = revisions.iter().fold(Instances::default(), |sum, one| Instances {
            ready: sum.ready + one.instances.ready,
            starting: sum.starting + one.instances.starting,
        });
        let counts = |feed| (self.delivery.counts(feed), self.oldest(feed));
        self.report.status(self.plan.generation, total, revisions, counts, clock::now())
    }

    /// When the oldest event of the trigger that is in hand was appended.
    fn oldest(&self, feed: FeedId) -> Option<Timestamp> {
        let held = self.payloads.values().filter(|payload| payload.feed == feed);
        held.map(|payload| payload.appended).min()
    }

    fn write_status(&self, status: &FunctionStatus) -> BoxFuture<'static, Result<()>> {
        let mesh = Arc::clone(&self.parts.mesh);
        let (name, uid) = (self.plan.name.clone(), self.plan.uid);
        let text = serde_json::to_vec(status);
        Box::pin(async move {
            let status = text.map_err(|error| weft_proto::Error::internal(error.to_string()))?;
            mesh.set_status(FUNCTION, &name, uid, status).await
        })
    }
}

/// Names a delivery: the same for every attempt with the same event.
fn name_of_delivery(feed: Option<&RunningFeed>, payload: &Payload) -> String {
    // What is sent once more because somebody asked for it is no repeat.
    let from = match (payload.is_redriven, payload.replay_job) {
        (true, _) => "dead/".to_owned(),
        (false, Some(job)) => format!("replay-{job}/"),
        (false, None) => String::new(),
    };
    let name = feed.map(|feed| format!("{}/", feed.trigger.subscription)).unwrap_or_default();
    format!("{name}{from}{}/{}", payload.partition, payload.offset)
}

/// Time passes without anybody having to be told.
fn without_ages(mut status: FunctionStatus) -> FunctionStatus {
    for trigger in &mut status.triggers {
        trigger.oldest_unacked_age_ms = 0;
    }
    status
}

async fn sleep_or_never(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

async fn or_never<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
