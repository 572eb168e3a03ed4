//! The task that runs one webhook: takes events that are lent, sends them, and settles them by what
//! the receiver answers.
//!
//! *Owns* everything about the webhook. Events stay in the cluster while the receiver may not be
//! sent to: what is held is given back, uncounted, and the subscription is left.

mod ending;
mod gate;
mod group;
mod handle;
mod membership;
mod status;

use std::collections::{BTreeSet, VecDeque};
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
use tracing::info;
use weft_client::{Client, Held, SubscriptionItem};
use weft_proto::Result;
use weft_proto::resource::{Disabled, WebhookStatus};
use weft_proto::trace::Tracer;

use super::Outside;
use super::plan::Plan;
use super::post::{Outcome, Receiver};
use super::report::Report;
use super::secret::Secrets;
use crate::delivery::{Instance, Random};
use crate::egress::circuit::Circuit;
use crate::egress::consent::{self, Consent};
use crate::egress::rate::Rate;
use crate::metrics::WebhookMetrics;
use membership::Membership;

/// What the service wants of a runner.
#[derive(Debug)]
pub(crate) enum Order {
    /// The definition changed.
    Revise(Box<Plan>),
    /// The definition changed into something that cannot be run; the text says why.
    Refuse(String),
    /// Another dispatcher was told that the receiver is gone.
    Disable(Disabled),
    /// The webhook was deleted.
    Delete,
}

/// What a runner needs from outside.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) client: Client,
    pub(super) outside: Arc<Outside>,
    pub(super) tasks: TaskTracker,
    /// Name of this dispatcher among the members of a subscription.
    pub(super) member: String,
    pub(super) seed: u64,
    pub(super) tracer: Tracer,
}

/// An event that is lent to us.
#[derive(Clone, Debug)]
pub(super) struct Item {
    held: Held,
    pub(super) event: Bytes,
    pub(super) partition: u32,
    pub(super) offset: u64,
    is_redriven: bool,
    /// The uid of the replay job for which it comes.
    replay_job: Option<u64>,
    /// Which delivery it is, from 1.
    pub(super) attempt: u32,
}

/// A request that ended.
struct Pushed {
    group: Vec<Item>,
    outcome: Outcome,
    error: String,
    took: Duration,
}

/// What was wanted of the cluster for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Ack,
    Nack,
    Reject,
    Extend,
}

struct Settled {
    held: Held,
    act: Act,
    result: Result<()>,
}

enum Event {
    Pushed(Pushed),
    Settled(Settled),
    Item(Result<SubscriptionItem>),
    Joined(Result<()>),
    Left,
    Asked(consent::Answer),
    Reported(Result<()>),
}

/// Why a definition is run no longer.
enum End {
    Stopped,
    Deleted,
    Revised(Box<Plan>),
}

/// The runner of one definition of one webhook.
struct Runner {
    parts: Parts,
    plan: Plan,
    began: Instant,
    random: Random,
    receiver: Arc<Receiver>,
    consent: Consent,
    asking: Option<BoxFuture<'static, consent::Answer>>,
    asked: String,
    circuit: Circuit,
    rate: Rate,
    permits: Instance,
    in_flight: u32,
    /// The receiver asked for a pause.
    paused_until: Duration,
    pauses: u32,
    batch_max: usize,
    membership: Membership,
    /// The subscription is there, and as it shall be.
    is_made: bool,
    joins: u32,
    queue: VecDeque<Item>,
    /// Groups that were split, or that wait for another try: they go first, as they are.
    groups: VecDeque<Vec<Item>>,
    /// Everything that is lent to us and not settled.
    held: BTreeSet<Held>,
    extend_at: Duration,
    pushes: FuturesUnordered<BoxFuture<'static, Pushed>>,
    settles: FuturesUnordered<BoxFuture<'static, Settled>>,
    report: Report,
    reporting: Option<BoxFuture<'static, Result<()>>>,
    report_due: Option<Instant>,
    last_report: Option<Instant>,
    reported: Option<WebhookStatus>,
    metrics: WebhookMetrics,
}

/// Runs a webhook until stopped or until it is deleted; then finishes what is in flight.
pub(super) async fn run(
    mut plan: Plan,
    parts: Parts,
    mut orders: mpsc::Receiver<Order>,
    stop: CancellationToken,
) {
    let mut report = Report::default();
    let mut random = Random::new(parts.seed);
    loop {
        let mut runner = Runner::new(plan, parts.clone(), report, random.next());
        let end = runner.serve(&mut orders, &stop).await;
        report = runner.finish(&end).await;
        match end {
            End::Revised(next) => {
                info!(webhook = %next.name, generation = %next.generation, "webhook changed");
                plan = *next;
            }
            End::Stopped | End::Deleted => return,
        }
    }
}

impl Runner {
    fn new(plan: Plan, parts: Parts, mut report: Report, seed: u64) -> Self {
        report.disabled.clone_from(&plan.disabled);
        report.spec_trouble = None;
        let spec = &plan.spec;
        let secrets = Secrets::new(
            parts.outside.secrets.clone(),
            &plan.name.namespace,
            spec.authorization.clone(),
            spec.secrets.clone(),
        );
        let (url, outside) = (spec.url.clone(), Arc::clone(&parts.outside));
        let receiver = Receiver::new(url, outside, secrets, parts.tasks.clone());
        Self {
            began: Instant::now(),
            random: Random::new(seed),
            receiver: Arc::new(receiver),
            consent: Consent::new(parts.outside.consent_every),
            asking: None,
            asked: String::new(),
            circuit: Circuit::default(),
            rate: Rate::new(spec.rate_per_minute),
            permits: Instance::new(spec.concurrency),
            in_flight: 0,
            paused_until: Duration::ZERO,
            pauses: 0,
            batch_max: plan.batch_max(),
            membership: Membership::Out { again_at: Duration::ZERO },
            is_made: false,
            joins: 0,
            queue: VecDeque::new(),
            groups: VecDeque::new(),
            held: BTreeSet::new(),
            extend_at: Duration::ZERO,
            pushes: FuturesUnordered::new(),
            settles: FuturesUnordered::new(),
            report,
            reporting: None,
            report_due: None,
            last_report: None,
            reported: None,
            metrics: WebhookMetrics::of(&plan.name.to_string()),
            parts,
            plan,
        }
    }

    async fn serve(&mut self, orders: &mut mpsc::Receiver<Order>, stop: &CancellationToken) -> End {
        self.mark_changed();
        loop {
            self.act();
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                order = orders.recv() => match order {
                    Some(Order::Revise(plan)) => return End::Revised(plan),
                    Some(Order::Refuse(message)) => {
                        self.report.spec_trouble = Some(message);
                        self.mark_changed();
                    }
                    Some(Order::Disable(disabled)) => {
                        self.report.disabled.get_or_insert(disabled);
                        self.mark_changed();
                    }
                    Some(Order::Delete) => return End::Deleted,
                    None => return End::Stopped,
                },
                event = self.next() => self.handle(event),
                () = sleep_or_never(wake) => {}
            }
        }
    }

    /// The next thing that happens. Dropping the future loses nothing.
    async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            Some(pushed) = self.pushes.next() => Event::Pushed(pushed),
            Some(settled) = self.settles.next() => Event::Settled(settled),
            event = self.membership.next() => event,
            answer = or_never(self.asking.as_mut()) => Event::Asked(answer),
            result = or_never(self.reporting.as_mut()) => Event::Reported(result),
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Does all there is to do now.
    fn act(&mut self) {
        let now = self.now();
        self.ask_if_due(now);
        self.join_or_leave(now);
        self.send_all(now);
        self.extend_if_due(now);
        self.report_if_due(now);
    }

    /// When to act again if nothing happens. What is due already waits for something else.
    fn wake_at(&mut self) -> Option<Instant> {
        let now = self.now();
        let offsets = self.gate_times(now).into_iter().chain(self.membership.again_at());
        let extend = (!self.held.is_empty()).then_some(self.extend_at);
        let offsets = offsets.chain(extend).filter(|&offset| offset > now);
        let wakes = offsets.filter_map(|offset| self.began.checked_add(offset));
        wakes.chain(self.report_due.filter(|_| self.reporting.is_none())).min()
    }
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
