//! A runner for each resource of a kind: what exists by the catalog, and what runs here.
//!
//! *Owns* which runners there are, and follows the catalog. *Never* knows what a resource means:
//! its kind says how it is read, run and refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span, info, warn};
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, QualifiedName, ResourceUid, Result};

use crate::delivery::{Random, backoff_max};
use crate::function::name_of;
use crate::port::{Change, Mesh, SUBSCRIPTION};

/// Orders that may wait for a runner.
const ORDERS_LEN: usize = 8;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(10);

/// A kind of resource of which each has a runner.
pub(crate) trait Runs: Send + Sync + 'static {
    /// What it is called in the catalog.
    const KIND: &'static str;
    /// What it is called in logs and errors.
    const WORD: &'static str;
    /// The label that says whom a subscription serves.
    const LABEL: &'static str;
    /// A definition as a runner needs it.
    type Plan: Send + 'static;
    /// What a runner is told.
    type Order: Send + 'static;

    /// Reads a definition.
    fn plan(&self, resource: &Resource) -> Result<Self::Plan>;
    /// The definition changed.
    fn revised(plan: Self::Plan) -> Self::Order;
    /// The definition changed into something that cannot be run; the text says why.
    fn refused(message: String) -> Self::Order;
    /// The resource was deleted.
    fn deleted() -> Self::Order;
    /// What a runner has to know of a status that somebody else wrote.
    fn noted(_resource: &Resource) -> Option<Self::Order> {
        None
    }
    /// The status of a resource that was never run.
    fn refusal(generation: Generation, error: &Error) -> Vec<u8>;
    /// In which a runner runs.
    fn span(name: &QualifiedName) -> Span;
    /// Runs one until it is deleted or everything stops; then it finishes what is in flight.
    fn run(
        &self,
        plan: Self::Plan,
        seed: u64,
        orders: mpsc::Receiver<Self::Order>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()>;
}

struct Running<O> {
    uid: ResourceUid,
    generation: Generation,
    orders_tx: mpsc::Sender<O>,
    has_ended: CancellationToken,
}

/// All resources of a kind that run here.
pub(crate) struct Roster<K: Runs> {
    kind: K,
    mesh: Arc<dyn Mesh>,
    tracker: TaskTracker,
    seeds: Random,
    running: BTreeMap<QualifiedName, Running<K::Order>>,
    ending: BTreeMap<QualifiedName, CancellationToken>,
    ended: FuturesUnordered<JoinHandle<()>>,
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

impl<K: Runs> Roster<K> {
    /// Nothing runs yet.
    pub(crate) fn new(kind: K, mesh: Arc<dyn Mesh>, tracker: TaskTracker) -> Self {
        Self {
            kind,
            mesh,
            tracker,
            seeds: Random::new(rand::random()),
            running: BTreeMap::new(),
            ending: BTreeMap::new(),
            ended: FuturesUnordered::new(),
        }
    }

    /// Runs what there is until stopped, then finishes what is in flight.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let mut failures = 0;
        loop {
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                result = self.follow(&stop, &mut failures) => result,
            };
            match result {
                Ok(()) => {}
                // Its events are in an unknown state: end, to begin afresh.
                Err(Interrupted::Panic(error)) => return Err(panicked::<K>(error)),
                Err(Interrupted::Mesh(error)) => {
                    if !error.is_retryable() && failures == 0 {
                        warn!(kind = K::WORD, %error, "cannot follow the catalog");
                    }
                }
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
            ended.map_err(panicked::<K>)?;
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        stop: &CancellationToken,
        failures: &mut u32,
    ) -> Result<(), Interrupted> {
        let mut changes = self.mesh.watch(K::KIND).await?;
        let mut seen = Some(BTreeSet::new());
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.ended.next() => ended.map_err(Interrupted::Panic)?,
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
                let Ok(name) = name_of(&resource) else { return Ok(()) };
                self.put(&name, &resource, stop).await;
                if let Some(seen) = seen {
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

    /// Starts or changes one.
    async fn put(&mut self, name: &QualifiedName, resource: &Resource, stop: &CancellationToken) {
        let uid = ResourceUid(resource.uid);
        let generation = Generation(resource.generation);
        let known = self.running.get(name).map(|running| (running.uid, running.generation));
        // Only the status changed.
        if known == Some((uid, generation)) {
            if let Some(order) = K::noted(resource) {
                self.tell(name, order).await;
            }
            return;
        }
        let plan = match self.kind.plan(resource) {
            Ok(plan) => plan,
            Err(error) => {
                warn!(kind = K::WORD, %name, %error, "cannot be run");
                self.refuse(name, resource, &error).await;
                return;
            }
        };
        if known.is_some_and(|(known, _)| known != uid) {
            self.delete(name).await;
        }
        match self.running.get_mut(name) {
            Some(running) => {
                running.generation = generation;
                self.tell(name, K::revised(plan)).await;
            }
            None => self.start(name, (uid, generation), plan, stop),
        }
    }

    /// The last good definition goes on, if there is one.
    async fn refuse(&mut self, name: &QualifiedName, resource: &Resource, error: &Error) {
        let generation = Generation(resource.generation);
        if let Some(running) = self.running.get_mut(name) {
            running.generation = generation;
            self.tell(name, K::refused(error.message().to_owned())).await;
            return;
        }
        let status = K::refusal(generation, error);
        let told = self.mesh.set_status(K::KIND, name, ResourceUid(resource.uid), status).await;
        if let Err(error) = told {
            warn!(kind = K::WORD, %name, %error, "cannot report the status");
        }
    }

    async fn tell(&self, name: &QualifiedName, order: K::Order) {
        if let Some(running) = self.running.get(name) {
            // One that ended needs no order.
            running.orders_tx.send(order).await.ok();
        }
    }

    fn start(
        &mut self,
        name: &QualifiedName,
        (uid, generation): (ResourceUid, Generation),
        plan: K::Plan,
        stop: &CancellationToken,
    ) {
        info!(kind = K::WORD, %name, %generation, "found");
        let (orders_tx, orders_rx) = mpsc::channel(ORDERS_LEN);
        let has_ended = CancellationToken::new();
        let running = Running { uid, generation, orders_tx, has_ended: has_ended.clone() };
        // One of the same name may still be finishing, with subscriptions of the same names.
        let before = self.ending.remove(name);
        self.running.insert(name.clone(), running);
        let run = self.kind.run(plan, self.seeds.next(), orders_rx, stop.clone());
        let task = async move {
            let _ended = has_ended.drop_guard();
            if let Some(before) = before {
                before.cancelled().await;
            }
            run.await;
        };
        self.ended.push(self.tracker.spawn(task.instrument(K::span(name))));
    }

    async fn delete(&mut self, name: &QualifiedName) {
        if let Some(running) = self.running.remove(name) {
            info!(kind = K::WORD, %name, "deleted");
            running.orders_tx.send(K::deleted()).await.ok();
            self.ending.retain(|_, has_ended| !has_ended.is_cancelled());
            self.ending.insert(name.clone(), running.has_ended);
        }
    }

    /// Deletes subscriptions of resources that went while no dispatcher ran.
    async fn delete_orphans(&self, there: &BTreeSet<QualifiedName>) -> Result<()> {
        for subscription in self.mesh.list(SUBSCRIPTION).await? {
            let Some(owner) = subscription.labels.get(K::LABEL) else { continue };
            let Ok(name) = name_of(&subscription) else { continue };
            let Ok(owner) = owner.parse() else { continue };
            let owner = QualifiedName { namespace: name.namespace.clone(), name: owner };
            if there.contains(&owner) || self.mesh.get(K::KIND, &owner).await?.is_some() {
                continue;
            }
            info!(subscription = %name, kind = K::WORD, %owner, "deleting what belonged to it");
            self.mesh.delete(SUBSCRIPTION, &name).await?;
        }
        Ok(())
    }
}

fn panicked<K: Runs>(error: JoinError) -> Error {
    Error::internal(format!("the task of a {} panicked", K::WORD)).with_source(error)
}
