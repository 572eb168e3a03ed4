//! A runner for each webhook of the catalog.

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
use weft_client::{Change, Client, Options, Secret, Tls};
use weft_proto::resource::{Kind, WEBHOOK_LABEL};
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, QualifiedName, ResourceUid, Result};

use super::Outside;
use super::plan::{Plan, disabled};
use super::report::{Now, Report};
use super::runner::{self, Order, Parts};
use crate::Config;
use crate::delivery::{Random, backoff_max};
use crate::function::name_of;

/// Orders that may wait for a runner.
const ORDERS_LEN: usize = 8;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(10);

struct Running {
    uid: ResourceUid,
    generation: Generation,
    orders_tx: mpsc::Sender<Order>,
    has_ended: CancellationToken,
}

/// All webhooks of a mesh.
pub(crate) struct Webhooks {
    client: Client,
    outside: Arc<Outside>,
    tracker: TaskTracker,
    member: String,
    seeds: Random,
    running: BTreeMap<QualifiedName, Running>,
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

impl Webhooks {
    /// Prepares for the webhooks of a mesh.
    ///
    /// # Errors
    ///
    /// `Invalid` when the settings cannot work.
    pub(crate) fn new(config: &Config, tracker: TaskTracker) -> Result<Self> {
        let mut seeds = Random::new(rand::random());
        Ok(Self {
            client: Client::connect(&options(config)?)?,
            outside: Arc::new(Outside::new(&config.webhooks)?),
            tracker,
            member: format!("dispatcher-{:016x}", seeds.next()),
            seeds,
            running: BTreeMap::new(),
            ending: BTreeMap::new(),
            ended: FuturesUnordered::new(),
        })
    }

    /// Runs them until stopped, then finishes what is in flight.
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
                Err(Interrupted::Panic(error)) => {
                    let message = "the task of a webhook panicked";
                    return Err(Error::internal(message).with_source(error));
                }
                Err(Interrupted::Mesh(error)) => {
                    if !error.is_retryable() && failures == 0 {
                        warn!(%error, "cannot follow the webhooks of the catalog");
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
            let panicked = |error| Error::internal("a webhook panicked").with_source(error);
            ended.map_err(panicked)?;
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        stop: &CancellationToken,
        failures: &mut u32,
    ) -> Result<(), Interrupted> {
        let mut changes = self.client.catalog().watch(&[Kind::Webhook], "").await?;
        let mut seen = Some(BTreeSet::new());
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.ended.next() => ended.map_err(Interrupted::Panic)?,
                change = changes.next() => {
                    let change = change?;
                    *failures = 0;
                    self.handle(change, &mut seen, stop).await?;
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
            Change::Deleted(deleted) => {
                let resource = Resource {
                    namespace: deleted.namespace,
                    name: deleted.name,
                    ..Resource::default()
                };
                let Ok(name) = name_of(&resource) else { return Ok(()) };
                if self.running.get(&name).is_some_and(|running| running.uid.get() == deleted.uid) {
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

    /// Starts or changes a webhook.
    async fn put(&mut self, name: &QualifiedName, resource: &Resource, stop: &CancellationToken) {
        let uid = ResourceUid(resource.uid);
        let generation = Generation(resource.generation);
        let known = self.running.get(name).map(|running| (running.uid, running.generation));
        // Only the status changed.
        if known == Some((uid, generation)) {
            self.take_note(name, resource).await;
            return;
        }
        let plan = match Plan::of(resource) {
            Ok(plan) => plan,
            Err(error) => {
                warn!(webhook = %name, %error, "the webhook cannot be run");
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
                running.orders_tx.send(Order::Revise(Box::new(plan))).await.ok();
            }
            None => self.start(plan, stop),
        }
    }

    /// Another dispatcher may have been told that the receiver is gone.
    async fn take_note(&mut self, name: &QualifiedName, resource: &Resource) {
        let disabled = disabled(resource);
        if let Some((disabled, running)) = disabled.zip(self.running.get_mut(name)) {
            running.orders_tx.send(Order::Disable(disabled)).await.ok();
        }
    }

    /// The last good definition goes on, if there is one.
    async fn refuse(&mut self, name: &QualifiedName, resource: &Resource, error: &Error) {
        let message = error.message().to_owned();
        if let Some(running) = self.running.get_mut(name) {
            running.generation = Generation(resource.generation);
            running.orders_tx.send(Order::Refuse(message)).await.ok();
            return;
        }
        let mut report = Report::default();
        report.spec_trouble = Some(message);
        let generation = Generation(resource.generation);
        let status = report.status(Now { generation, circuit: "closed", ..Now::default() });
        let catalog = self.client.catalog();
        let told =
            catalog.set_status(Kind::Webhook, &name.to_string(), resource.uid, &status).await;
        if let Err(error) = told {
            warn!(webhook = %name, %error, "cannot report the status");
        }
    }

    fn start(&mut self, plan: Plan, stop: &CancellationToken) {
        let name = plan.name.clone();
        info!(webhook = %name, generation = %plan.generation, "webhook found");
        let (orders_tx, orders_rx) = mpsc::channel(ORDERS_LEN);
        let has_ended = CancellationToken::new();
        let running = Running {
            uid: plan.uid,
            generation: plan.generation,
            orders_tx,
            has_ended: has_ended.clone(),
        };
        // One of the same name may still be finishing, with the same subscription.
        let before = self.ending.remove(&name);
        self.running.insert(name.clone(), running);
        let parts = Parts {
            client: self.client.clone(),
            outside: Arc::clone(&self.outside),
            tasks: self.tracker.clone(),
            member: self.member.clone(),
            seed: self.seeds.next(),
        };
        let stop = stop.clone();
        let task = async move {
            let _ended = has_ended.drop_guard();
            if let Some(before) = before {
                before.cancelled().await;
            }
            runner::run(plan, parts, orders_rx, stop).await;
        };
        let handle = self.tracker.spawn(task.instrument(info_span!("webhook", %name)));
        self.ended.push(handle);
    }

    async fn delete(&mut self, name: &QualifiedName) {
        if let Some(running) = self.running.remove(name) {
            info!(webhook = %name, "webhook deleted");
            running.orders_tx.send(Order::Delete).await.ok();
            self.ending.retain(|_, has_ended| !has_ended.is_cancelled());
            self.ending.insert(name.clone(), running.has_ended);
        }
    }

    /// Deletes subscriptions of webhooks that went while no dispatcher ran.
    async fn delete_orphans(&self, webhooks: &BTreeSet<QualifiedName>) -> Result<()> {
        let catalog = self.client.catalog();
        for subscription in catalog.list(Kind::Subscription, "").await? {
            let Some(webhook) = subscription.labels.get(WEBHOOK_LABEL) else { continue };
            let Ok(name) = name_of(&subscription) else { continue };
            let Ok(webhook) = webhook.parse() else { continue };
            let webhook = QualifiedName { namespace: name.namespace.clone(), name: webhook };
            let is_there = webhooks.contains(&webhook)
                || catalog.find(Kind::Webhook, &webhook.to_string()).await?.is_some();
            if is_there {
                continue;
            }
            info!(subscription = %name, %webhook, "deleting the subscription of a gone webhook");
            catalog.delete(Kind::Subscription, &name.to_string(), None).await?;
        }
        Ok(())
    }
}

/// How this dispatcher reaches the brokers, for the client library.
fn options(config: &Config) -> Result<Options> {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|error| {
            Error::invalid(format!("cannot read {}: {error}", path.display())).with_source(error)
        })
    };
    let mut options = Options::new(config.endpoints.iter().cloned());
    options.token_file.clone_from(&config.token_file);
    if config.tls.enabled {
        let identity = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, Secret::new(read(key)?))),
            _ => None,
        };
        let ca_pem = config.tls.ca_file.as_deref().map(read).transpose()?.unwrap_or_default();
        options.tls = Some(Tls { ca_pem, identity_pem: identity, server_name: None });
    }
    Ok(options)
}
