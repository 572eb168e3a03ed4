//! Composition root: the mesh, the launcher, and a runner for each function of the catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info, info_span, warn};
use weft_proto::trace::Tracer;
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, QualifiedName, ResourceUid, Result};

use crate::Config;
use crate::delivery::{Random, backoff_max};
use crate::feed::FUNCTION_LABEL;
use crate::function::{Order, Parts, Plan, Runner, name_of, refusal};
use crate::launch::{Disabled, Launcher, process};
use crate::metrics;
use crate::port::{Change, FUNCTION, Mesh, SUBSCRIPTION, WireMesh};
use crate::tasks::Tasks;
use crate::webhook::Webhooks;

/// Orders that may wait for a runner.
const ORDERS_LEN: usize = 8;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(10);

/// Runs the functions and webhooks of a mesh until stopped, then finishes what is in flight. Spans go to
/// `tracer`.
///
/// # Errors
///
/// `Invalid` when the configuration cannot work; `Internal` when a part of this program broke.
pub async fn run(
    config: Config,
    tracer: Tracer,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    let mesh = WireMesh::connect(&config)?;
    let requests = TaskTracker::new();
    let webhooks =
        config.webhooks.enabled.then(|| Webhooks::new(&config, requests.clone())).transpose()?;
    let launcher: Arc<dyn Launcher> = if config.process.enabled {
        let process = process::Config {
            directories: config.process.directories,
            shim: process::Shim::this_program(),
        };
        let launcher = process::Processes::new(process, TaskTracker::new());
        let failed = |error| Error::internal("cannot start the launcher").with_source(error);
        Arc::new(launcher.map_err(failed)?)
    } else {
        Arc::new(Disabled)
    };
    run_all(Arc::new(mesh), launcher, webhooks, tracer, stop).await
}

/// Runs the functions of a mesh until stopped, with parts of the caller's choice, and no webhooks.
pub async fn run_with(
    mesh: Arc<dyn Mesh>,
    launcher: Arc<dyn Launcher>,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    run_all(mesh, launcher, None, Tracer::default(), stop).await
}

async fn run_all(
    mesh: Arc<dyn Mesh>,
    launcher: Arc<dyn Launcher>,
    webhooks: Option<Webhooks>,
    tracer: Tracer,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    metrics::describe();
    let token = CancellationToken::new();
    let _stop_all = token.clone().drop_guard();
    let tasks = Tasks::new(token.clone());
    if let Some(webhooks) = webhooks {
        tasks.spawn("webhooks", |stop| webhooks.run(stop));
    }
    let mut seeds = Random::new(rand::random());
    let functions = Functions {
        mesh,
        launcher,
        tracker: tasks.tracker(),
        member: format!("dispatcher-{:016x}", seeds.next()),
        seeds,
        tracer,
        running: BTreeMap::new(),
        ending: BTreeMap::new(),
        ended: FuturesUnordered::new(),
    };
    let (result_tx, result_rx) = tokio::sync::oneshot::channel();
    tasks.spawn("functions", |stop| async move {
        let result = functions.run(stop).await;
        result_tx.send(result).ok();
        Ok(())
    });
    tokio::select! {
        () = stop => info!("stopping: finishing what is in flight"),
        () = token.cancelled() => {}
    }
    token.cancel();
    let result = result_rx.await;
    tasks.ended().await;
    result.unwrap_or_else(|_| Err(Error::internal("the dispatcher's main task died")))
}

struct Running {
    uid: ResourceUid,
    generation: Generation,
    orders_tx: mpsc::Sender<Order>,
    has_ended: CancellationToken,
}

struct Functions {
    mesh: Arc<dyn Mesh>,
    launcher: Arc<dyn Launcher>,
    tracker: TaskTracker,
    member: String,
    seeds: Random,
    tracer: Tracer,
    running: BTreeMap<QualifiedName, Running>,
    ending: BTreeMap<QualifiedName, CancellationToken>,
    ended: FuturesUnordered<JoinHandle<()>>,
}

impl Functions {
    async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let mut failures = 0;
        loop {
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                result = self.follow(&stop, &mut failures) => result,
            };
            if let Err(Interrupted::Panic(error)) = result {
                // Its events are in an unknown state: end, to begin afresh.
                return Err(Error::internal("the task of a function panicked").with_source(error));
            }
            if let Err(Interrupted::Mesh(error)) = result
                && !error.is_retryable()
                && failures == 0
            {
                warn!(%error, "cannot follow the functions of the catalog");
            }
            failures += 1;
            let high = backoff_max(BACKOFF_BASE, BACKOFF_CAP, failures);
            let delay = self.seeds.between(high / 2, high);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(delay) => {}
            }
        }
        // Runners see the same stop and finish what is in flight.
        while let Some(ended) = self.ended.next().await {
            let panicked = |error| Error::internal("a function panicked").with_source(error);
            ended.map_err(panicked)?;
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        stop: &CancellationToken,
        failures: &mut u32,
    ) -> Result<(), Interrupted> {
        let mut changes = self.mesh.watch_functions().await?;
        let mut seen = Some(BTreeSet::new());
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.ended.next() => {
                    ended.map_err(Interrupted::Panic)?;
                }
                change = changes.next() => {
                    let Some(change) = change else {
                        return Err(Error::unavailable("the watch on the catalog ended").into());
                    };
                    *failures = 0;
                    self.handle(change?, &mut seen, stop).await?;
                }
            }
        }
    }

    async fn handle(
        &mut self,
        change: Change,
        seen: &mut Option<BTreeSet<QualifiedName>>,
        stop: &CancellationToken,
    ) -> Result<()> {
        match change {
            Change::Put(resource) => {
                let name = self.put(&resource, stop).await;
                if let Some((seen, name)) = seen.as_mut().zip(name) {
                    seen.insert(name);
                }
            }
            Change::Deleted { name, uid } => {
                if self.running.get(&name).is_some_and(|running| running.uid == uid) {
                    self.delete(&name).await;
                }
            }
            Change::Synced => {
                // What was deleted while nobody watched is not told: it is missing.
                let seen = seen.take().unwrap_or_default();
                let gone = self.running.keys().filter(|name| !seen.contains(name));
                for name in gone.cloned().collect::<Vec<_>>() {
                    self.delete(&name).await;
                }
                self.delete_orphans(&seen).await?;
            }
        }
        Ok(())
    }

    /// Starts or changes a function. Returns its name, if it has one.
    async fn put(
        &mut self,
        resource: &Resource,
        stop: &CancellationToken,
    ) -> Option<QualifiedName> {
        let name = name_of(resource).ok()?;
        let uid = ResourceUid(resource.uid);
        let generation = Generation(resource.generation);
        let known = self.running.get(&name).map(|running| (running.uid, running.generation));
        // Only the status changed.
        if known == Some((uid, generation)) {
            return Some(name);
        }
        let plan = match Plan::of(resource) {
            Ok(plan) => plan,
            Err(error) => {
                warn!(function = %name, %error, "the function cannot be run");
                if let Some(running) = self.running.get_mut(&name) {
                    // The last good definition goes on.
                    running.generation = generation;
                    let message = error.message().to_owned();
                    running.orders_tx.send(Order::Refuse(message)).await.ok();
                } else {
                    let status = refusal(generation, &error);
                    if let Err(error) = self.mesh.set_status(&name, uid, status).await {
                        warn!(function = %name, %error, "cannot report the status");
                    }
                }
                return Some(name);
            }
        };
        if known.is_some_and(|(known, _)| known != uid) {
            self.delete(&name).await;
        }
        match self.running.get_mut(&name) {
            Some(running) => {
                running.generation = generation;
                running.orders_tx.send(Order::Revise(Box::new(plan))).await.ok();
            }
            None => self.start(plan, stop),
        }
        Some(name)
    }

    fn start(&mut self, plan: Plan, stop: &CancellationToken) {
        let name = plan.name.clone();
        info!(function = %name, generation = %plan.generation, "function found");
        let (orders_tx, orders_rx) = mpsc::channel(ORDERS_LEN);
        let has_ended = CancellationToken::new();
        let running = Running {
            uid: plan.uid,
            generation: plan.generation,
            orders_tx,
            has_ended: has_ended.clone(),
        };
        // One of the same name may still be finishing, with subscriptions of the same names.
        let before = self.ending.remove(&name);
        self.running.insert(name.clone(), running);
        let parts = Parts {
            mesh: Arc::clone(&self.mesh),
            launcher: Arc::clone(&self.launcher),
            tasks: self.tracker.clone(),
            member: self.member.clone(),
            seed: self.seeds.next(),
            tracer: self.tracer.clone(),
        };
        let stop = stop.clone();
        let task = async move {
            let _ended = has_ended.drop_guard();
            if let Some(before) = before {
                before.cancelled().await;
            }
            Runner::new(plan, parts).run(orders_rx, stop).await;
        };
        let handle = self.tracker.spawn(task.instrument(info_span!("function", %name)));
        self.ended.push(handle);
    }

    async fn delete(&mut self, name: &QualifiedName) {
        if let Some(running) = self.running.remove(name) {
            info!(function = %name, "function deleted");
            running.orders_tx.send(Order::Delete).await.ok();
            self.ending.retain(|_, has_ended| !has_ended.is_cancelled());
            self.ending.insert(name.clone(), running.has_ended);
        }
    }

    /// Deletes subscriptions of functions that went while no dispatcher ran.
    async fn delete_orphans(&self, functions: &BTreeSet<QualifiedName>) -> Result<()> {
        for subscription in self.mesh.list(SUBSCRIPTION).await? {
            let Some(function) = subscription.labels.get(FUNCTION_LABEL) else { continue };
            let Ok(name) = name_of(&subscription) else { continue };
            let Ok(function) = function.parse() else { continue };
            let function = QualifiedName { namespace: name.namespace.clone(), name: function };
            if functions.contains(&function) || self.mesh.get(FUNCTION, &function).await?.is_some()
            {
                continue;
            }
            info!(subscription = %name, %function, "deleting the subscription of a gone function");
            self.mesh.delete(SUBSCRIPTION, &name).await?;
        }
        Ok(())
    }
}

/// Why following the catalog stopped.
enum Interrupted {
    /// It can be tried again.
    Mesh(Error),
    /// A runner panicked.
    Panic(JoinError),
}

impl From<Error> for Interrupted {
    fn from(error: Error) -> Self {
        Self::Mesh(error)
    }
}
