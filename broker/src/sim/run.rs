//! One run: a seed makes the plan, faults happen, then everything must come right.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use weft_proto::ProducerId;

use super::checks::{self, Shown};
use super::clients::{self, Producer};
use super::cluster::Cluster;
use super::faults::{CALM, Faults};
use super::network::Network;
use super::node::Site;
use super::observer::Observer;
use super::panics;
use super::plan::{Plan, partitions};
use super::plant::Plant;
use super::random::Random;
use super::trace::Trace;
use super::violation::{Class, Violation};

/// How often the nodes are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What a run showed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) violation: Option<Violation>,
    pub(crate) digest: u64,
    /// The last lines, or all.
    pub(crate) lines: Vec<String>,
    pub(crate) seen: Seen,
}

/// How much happened; a run in which nothing happens proves nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) lines: u64,
    pub(crate) faults: u64,
    pub(crate) terms: u64,
    pub(crate) entries: u64,
    pub(crate) events: u64,
    pub(crate) voids: u64,
    pub(crate) checkpoints: u64,
    pub(crate) snapshots: u64,
    pub(crate) sync_failures: u64,
    pub(crate) known_panics: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.faults += other.faults;
        self.terms += other.terms;
        self.entries += other.entries;
        self.events += other.events;
        self.voids += other.voids;
        self.checkpoints += other.checkpoints;
        self.snapshots += other.snapshots;
        self.sync_failures += other.sync_failures;
        self.known_panics += other.known_panics;
    }
}

/// Runs a seed.
pub(crate) fn run(seed: u64, plant: Option<Plant>, keep_all: bool) -> Report {
    panics::install();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(play(Random::new(seed), plant, keep_all))
}

async fn play(mut random: Random, plant: Option<Plant>, keep_all: bool) -> Report {
    let born = Instant::now();
    let plan = Plan::new(&mut random);
    let voters = usize::try_from(plan.nodes).unwrap();
    let observer = Observer::new(voters, plant, Trace::new(born, keep_all));
    observer.note(format_args!("{plan:?}"));
    let network = Network::new(random.fork(), plan.delay_millis.clone());
    let site = Site { plan, network, observer: Arc::clone(&observer), born };
    let mut cluster = Cluster::start(site, random.fork()).await;
    let directory = clients::Directory {
        running: Arc::clone(&cluster.directory),
        observer: Arc::clone(&observer),
        stopping: Arc::new(Mutex::new(false)),
    };
    let mut clients = start_clients(&cluster, &directory, &mut random);
    let mut faults = Faults::new(random.fork());
    let mut shown = Shown::default();

    let calm_at = born + cluster.site.plan.faulty;
    while Instant::now() < calm_at && observer.violation().is_none() {
        step(&mut cluster, &mut faults, &mut shown).await;
        for end in faults.ended() {
            cluster.end(end).await;
        }
        if faults.is_due(&cluster) {
            faults.strike(&mut cluster).await;
        }
    }
    if observer.violation().is_none() {
        *directory.stopping.lock().unwrap() = true;
        come_right(&mut cluster, &mut faults, &mut shown, &mut clients).await;
    }
    report(&cluster, &faults)
}

/// Lets time pass, then looks at everything.
async fn step(cluster: &mut Cluster, faults: &mut Faults, shown: &mut Shown) {
    tokio::time::sleep(LOOK).await;
    let longest = 500;
    for node in cluster.look() {
        cluster.kill(node);
        faults.down(node, longest);
    }
    checks::logs_match(cluster);
    shown.read(cluster);
}

/// Without faults the cluster serves everybody and all replicas become equal.
async fn come_right(
    cluster: &mut Cluster,
    faults: &mut Faults,
    shown: &mut Shown,
    clients: &mut JoinSet<()>,
) {
    let observer = Arc::clone(&cluster.site.observer);
    cluster.heal().await;
    let deadline = Instant::now() + CALM;
    loop {
        step(cluster, faults, shown).await;
        if observer.violation().is_some() {
            return;
        }
        cluster.heal_down().await;
        while clients.try_join_next().is_some() {}
        let has_converged = clients.is_empty() && checks::has_converged(cluster);
        let lost = if has_converged { checks::not_durable(cluster) } else { None };
        if has_converged && lost.is_none() {
            break;
        }
        if Instant::now() > deadline {
            if let Some(lost) = lost {
                return observer.fail(Class::CommitNotDurable, lost);
            }
            let left = clients.len();
            let detail = format!("{left} clients still wait {CALM:?} after the last fault");
            return observer.fail(Class::NotLive, detail);
        }
    }
    checks::replicas_are_whole(cluster);
    shown.prove(cluster, true);
}

fn start_clients(
    cluster: &Cluster,
    directory: &clients::Directory,
    random: &mut Random,
) -> JoinSet<()> {
    let plan = &cluster.site.plan;
    let mut clients = JoinSet::new();
    for group in plan.groups() {
        let partitions = partitions(group);
        for number in 0..plan.producers {
            let producer = Producer {
                directory: directory.clone(),
                random: random.fork(),
                group,
                partition: partitions[number % partitions.len()],
                id: ProducerId(u128::from(group.get()) * 100 + number as u128),
                window: plan.window,
                pause_millis: plan.pause_millis.clone(),
            };
            clients.spawn(producer.run());
        }
        let (once, settled) = (partitions[0], partitions[1]);
        clients.spawn(clients::publish_once(directory.clone(), random.fork(), group, once));
        clients.spawn(clients::settle(directory.clone(), random.fork(), group, settled));
    }
    clients
}

fn report(cluster: &Cluster, faults: &Faults) -> Report {
    let observer = &cluster.site.observer;
    let mut seen = observer.seen();
    seen.faults = faults.count;
    seen.known_panics = cluster.known_panics;
    seen.sync_failures =
        (1..=cluster.site.plan.nodes).map(|node| cluster.disk(node).failures()).sum();
    let trace = observer.trace();
    seen.lines = trace.len();
    Report { violation: observer.violation(), digest: trace.digest(), lines: trace.lines(), seen }
}
