//! The task that runs one function: carries out what the rules of delivery and scaling decide.
//!
//! *Owns* everything about the function. *Never* decides about an event itself: it tells the
//! rules what happened and does what they answer.

mod ending;
mod feeds;
mod handle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
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
use tracing::{debug, info, warn};
use weft_proto::resource::{FunctionStatus, Instances};
use weft_proto::trace::Tracer;
use weft_proto::{Result, Timestamp};

use super::Plan;
use super::deliver::{Push, Pushed, deliver};
use super::fleet::{Fleet, Happening};
use super::plan::Trigger;
use super::report::Report;
use crate::clock;
use crate::delivery::{Action, Delivery, FeedId, InstanceId, Outcome, Place, Random};
use crate::feed::{Outbox, Told};
use crate::launch::{Launch, Launcher};
use crate::metrics::FunctionMetrics;
use crate::port::{FUNCTION, Mesh};
use crate::push;
use crate::scale::{Demand, Restart, Scale};

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

/// An event that is held in memory.
struct Payload {
    event: Bytes,
    appended: Timestamp,
}

struct RunningFeed {
    trigger: Trigger,
    outbox: Outbox,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

enum Event {
    Pushed(Pushed),
    Fleet(Happening),
    Told(FeedId, Told),
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
    scale: Scale,
    restart: Restart,
    check_at: Option<Duration>,
    fleet: Fleet,
    next_instance: u64,
    revision: u64,
    payloads: BTreeMap<Place, Payload>,
    feeds: BTreeMap<FeedId, RunningFeed>,
    next_feed: u32,
    told_tx: mpsc::Sender<(FeedId, Told)>,
    told_rx: mpsc::Receiver<(FeedId, Told)>,
    pushes: FuturesUnordered<BoxFuture<'static, Pushed>>,
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
            delivery: Delivery::new(plan.delivery.clone(), random.next()),
            scale: Scale::new(plan.scale.clone()),
            restart: Restart::default(),
            check_at: None,
            fleet: Fleet::new(Arc::clone(&parts.launcher), parts.tasks.clone()),
            next_instance: 0,
            revision: 0,
            payloads: BTreeMap::new(),
            feeds: BTreeMap::new(),
            next_feed: 0,
            told_tx,
            told_rx,
            pushes: FuturesUnordered::new(),
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
            Some(happening) = self.fleet.next() => Event::Fleet(happening),
            Some((feed, told)) = self.told_rx.recv() => Event::Told(feed, told),
            result = or_never(self.reporting.as_mut()) => Event::Reported(result),
            Some(()) = self.chores.next() => Event::ChoreDone,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wake_at(&self) -> Option<Instant> {
        let start = (!self.is_ending && self.restart.ready_at() > self.now())
            .then(|| self.restart.ready_at());
        let offsets = [self.delivery.poll_timeout(), self.check_at, start];
        let wakes = offsets.into_iter().flatten().map(|offset| self.began + offset);
        wakes.chain(self.report_due.filter(|_| self.reporting.is_none())).min()
    }

    /// Does all there is to do now.
    fn act(&mut self) {
        let now = self.now();
        while let Some(action) = self.delivery.poll_action(now) {
            match action {
                Action::Push { place, instance, attempt } => self.push(place, instance, attempt),
                Action::Ack { place, epoch } => {
                    if let Some(feed) = self.feeds.get(&place.feed) {
                        feed.outbox.ack(place, epoch);
                    }
                }
                Action::Forget { place } => self.forget(place),
            }
        }
        self.scale(now);
        let idle = |id| self.delivery.in_flight_of(id) == 0;
        self.fleet.stop_idle(idle, self.plan.grace());
        self.report_if_due();
    }

    fn push(&mut self, place: Place, instance: InstanceId, attempt: u32) {
        let target = self.fleet.target(instance);
        let event = self.payloads.get(&place).map(|payload| payload.event.clone());
        let (Some(target), Some(event)) = (target, event) else {
            // The rules only name what was told to them; should they ever not, the event stays.
            warn!(?place, %instance, "nothing to push to or from");
            self.delivery.handle_outcome(place, Outcome::NotReceived, self.now());
            return;
        };
        let id = match self.feeds.get(&place.feed) {
            Some(feed) => {
                let subscription = &feed.trigger.subscription;
                format!("{subscription}/{}/{}", place.partition, place.offset)
            }
            None => format!("{}/{}", place.partition, place.offset),
        };
        let push = Push {
            place,
            instance,
            target,
            event,
            delivery: push::Delivery {
                id,
                attempt,
                partition: place.partition.get(),
                offset: place.offset.get(),
                timeout: self.plan.template.timeout,
                takes_reply: self.plan.reply_to.is_some(),
                trace: None,
            },
            function: self.plan.name.clone(),
            reply_to: self.plan.reply_to.clone(),
            mesh: Arc::clone(&self.parts.mesh),
            tracer: self.parts.tracer.clone(),
        };
        self.pushes.push(Box::pin(deliver(push)));
        self.mark_changed();
    }

    fn forget(&mut self, place: Place) {
        if let Some(Payload { event, .. }) = self.payloads.remove(&place)
            && let Some(feed) = self.feeds.get(&place.feed)
        {
            feed.outbox.release(event.len() as u64);
        }
        self.gauge_held();
        self.mark_changed();
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge of at most some thousands")]
    fn gauge_held(&self) {
        self.metrics.leased.set(self.payloads.len() as f64);
    }

    fn scale(&mut self, now: Duration) {
        for id in self.fleet.outdated(self.revision) {
            self.drain(id);
        }
        if self.is_ending {
            self.check_at = None;
            return;
        }
        let serving: Vec<InstanceId> = self.fleet.serving().collect();
        let starting = self.fleet.starting_len(self.revision);
        let have = u32::try_from(serving.len() + starting).unwrap_or(u32::MAX);
        let demand = Demand {
            runnable: self.delivery.runnable(),
            in_flight: serving.iter().map(|&id| u64::from(self.delivery.in_flight_of(id))).sum(),
            next_due: self.delivery.next_due(),
            instances: have,
        };
        let decision = self.scale.decide(demand, now);
        self.check_at = decision.check_at;
        if decision.want > have && now >= self.restart.ready_at() {
            // After a failure one at a time: the next will probably fail as well.
            let more = if self.restart.failures() > 0 {
                u32::from(starting == 0)
            } else {
                decision.want - have
            };
            for _ in 0..more {
                self.start();
            }
        }
        let surplus = usize::try_from(have.saturating_sub(decision.want)).unwrap_or(0);
        let mut idle_first = serving;
        idle_first.sort_by_key(|&id| self.delivery.in_flight_of(id));
        for id in idle_first.into_iter().take(surplus) {
            self.drain(id);
        }
    }

    fn start(&mut self) {
        self.next_instance += 1;
        let launch = Launch {
            id: InstanceId(self.next_instance),
            function: self.plan.name.clone(),
            command: self.plan.template.command.clone(),
            env: self.plan.template.env.clone(),
        };
        debug!(function = %self.plan.name, instance = self.next_instance, "starting an instance");
        self.fleet.start(launch, self.revision);
        self.metrics.starts.increment(1);
        self.mark_changed();
    }

    fn drain(&mut self, id: InstanceId) {
        self.delivery.handle_instance_draining(id);
        self.fleet.drain(id);
        self.mark_changed();
    }

    fn revise(&mut self, plan: Plan) {
        info!(function = %plan.name, generation = %plan.generation, "function changed");
        if plan.template != self.plan.template {
            self.revision += 1;
            self.restart.handle_new_revision();
            self.report.launch_trouble = None;
        }
        self.report.spec_trouble = None;
        self.plan = plan;
        self.delivery.handle_new_revision(self.plan.delivery.clone());
        self.scale.handle_policy(self.plan.scale.clone());
        self.update_feeds();
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
        if is_due && self.reporting.is_none() {
            self.report_due = None;
            self.last_report = Some(Instant::now());
            let status = self.status();
            // Each write is an entry of the catalog's log: what says nothing new is not written.
            let news = without_ages(status.clone());
            if self.reported.as_ref() != Some(&news) {
                self.reported = Some(news);
                self.reporting = Some(self.write_status(&status));
            }
        }
    }

    fn status(&self) -> FunctionStatus {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let instances = Instances {
            ready: count(self.fleet.serving().count()),
            starting: count(self.fleet.starting_len(self.revision)),
        };
        let counts = |feed| (self.delivery.counts(feed), self.oldest(feed));
        self.report.status(self.plan.generation, instances, counts, clock::now())
    }

    /// When the oldest event of the trigger that is held was appended.
    fn oldest(&self, feed: FeedId) -> Option<Timestamp> {
        let held = self.payloads.iter().filter(|(place, _)| place.feed == feed);
        held.map(|(_, payload)| payload.appended).min()
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
