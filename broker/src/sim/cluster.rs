//! The nodes of a run, and what can be done to them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use weft_proto::{GroupId, NodeId};

use super::disk::Disk;
use super::faults::End;
use super::node::{Node, Running, Site};
use super::panics;
use super::plan;
use super::process::Life;
use super::random::Random;
use super::violation::Class;
use crate::data::DataGroup;
use crate::raft::group::Status;
use crate::raft::snapshot::SnapshotPolicy;

pub(crate) struct Cluster {
    pub(crate) site: Site,
    random: Random,
    nodes: Vec<Node>,
    /// Shared with the clients.
    pub(crate) directory: Arc<Mutex<Vec<Running>>>,
    marks: BTreeMap<(u64, GroupId), Marks>,
    /// Cores that panicked in a known way.
    pub(crate) known_panics: u64,
}

/// How far a group was on a node, in one life of its process.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    term: u64,
    committed: u64,
    applied: u64,
}

impl Cluster {
    /// Starts all nodes, with empty disks.
    pub(crate) async fn start(site: Site, mut random: Random) -> Self {
        let mut nodes = Vec::new();
        for id in 1..=site.plan.nodes {
            let plant = site.observer.plant;
            let disk = Disk::new(random.fork(), site.plan.sync_millis.clone(), plant);
            let mut node = Node { id, disk, running: None, failures: 0, skew: 0 };
            node.boot(&site, random.fork()).await;
            nodes.push(node);
        }
        let cluster = Self {
            site,
            random,
            nodes,
            directory: Arc::default(),
            marks: BTreeMap::new(),
            known_panics: 0,
        };
        let voters = cluster.site.peers();
        for node in &cluster.nodes {
            node.running.as_ref().unwrap().initialize(&voters).await.unwrap();
        }
        cluster.publish();
        cluster
    }

    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        self.site.observer.note(what);
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (u64, &Running)> {
        self.nodes.iter().filter_map(|node| Some((node.id, node.running.as_ref()?)))
    }

    /// A node that says it leads.
    pub(crate) fn leader(&self) -> Option<u64> {
        let leads = |running: &Running| {
            running.data.iter().any(|data| data.raft.leader_watch().borrow().is_self_ready)
        };
        self.nodes().find(|(_, running)| leads(running)).map(|(node, _)| node)
    }

    pub(crate) fn running(&self, node: u64) -> Option<&Running> {
        self.node(node).running.as_ref()
    }

    pub(crate) fn disk(&self, node: u64) -> &Disk {
        &self.node(node).disk
    }

    fn node(&self, node: u64) -> &Node {
        &self.nodes[usize::try_from(node - 1).unwrap()]
    }

    fn node_mut(&mut self, node: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(node - 1).unwrap()]
    }

    /// Ends a node's process; false if it does not run.
    pub(crate) fn kill(&mut self, node: u64) -> bool {
        let site = self.site.clone();
        let was_running = self.node(node).running.is_some();
        self.node_mut(node).kill(&site);
        self.marks.retain(|(owner, _), _| *owner != node);
        self.publish();
        was_running
    }

    pub(crate) async fn end(&mut self, end: End) {
        match end {
            End::Boot(node) => {
                if self.node(node).running.is_none() {
                    let (site, random) = (self.site.clone(), self.random.fork());
                    self.node_mut(node).boot(&site, random).await;
                    self.publish();
                }
            }
            End::Resume(node) => {
                if let Some(running) = self.running(node) {
                    running.process.resume();
                    self.note(format_args!("{node} goes on"));
                }
            }
            End::Open(ways) => {
                self.note(format_args!("{ways:?} are open"));
                for way in ways {
                    self.site.network.open(way);
                }
            }
        }
    }

    /// Ends all faults.
    pub(crate) async fn heal(&mut self) {
        self.note(format_args!("all faults end"));
        self.site.network.heal();
        for node in 1..=self.site.plan.nodes {
            self.disk(node).heal();
            self.end(End::Resume(node)).await;
            self.end(End::Boot(node)).await;
        }
    }

    /// Starts what ended by itself after the last fault.
    pub(crate) async fn heal_down(&mut self) {
        for node in 1..=self.site.plan.nodes {
            self.end(End::Boot(node)).await;
        }
    }

    /// The wall clock error of a node.
    pub(crate) fn skew(&self, node: u64) -> i64 {
        self.node(node).skew
    }

    pub(crate) fn set_skew(&mut self, node: u64, micros: i64) {
        let node = self.node_mut(node);
        node.skew = micros;
        if let Some(running) = &node.running {
            running.process.skew(micros);
        }
    }

    /// Lets a node forget the log of groups that are all state, as the catalog is. Data groups have
    /// their retention.
    pub(crate) fn trim(&self, node: u64) {
        let Some(running) = self.running(node) else { return };
        for data in &running.data {
            if plan::policy(data.id) != SnapshotPolicy::AtApplied {
                continue;
            }
            let raft = data.raft.clone();
            let index = raft.applied_watch().borrow().index;
            self.note(format_args!("{node} g{} is trimmed up to {index}", data.id));
            running.process.enter(|| {
                running.tasks.spawn_short(async move {
                    // It is late where a majority is away, and stops with its node.
                    _ = raft.trim_log(index).await;
                });
            });
        }
    }

    /// Asks a leader to hand over.
    pub(crate) async fn transfer(&mut self, from: u64, to: u64) {
        let Some(running) = self.running(from).cloned() else { return };
        if running.process.life() != Life::Running {
            return;
        }
        for data in &running.data {
            if data.raft.leader() == Some(NodeId(from)) {
                self.note(format_args!("{from} {} is asked to hand over to {to}", data.id));
                let asked = data.raft.transfer_leader(NodeId(to), std::time::Duration::ZERO);
                // Nobody waits for it.
                _ = running.process.run(asked).await;
            }
        }
    }

    /// Looks at all nodes; returns those whose process has ended by itself.
    pub(crate) fn look(&mut self) -> Vec<u64> {
        let mut ended = Vec::new();
        for at in 0..self.nodes.len() {
            let (id, failures) = (self.nodes[at].id, self.nodes[at].failures);
            let Some(running) = self.nodes[at].running.clone() else { continue };
            for message in running.process.take_panics() {
                if panics::is_known(&message) {
                    self.known_panics += 1;
                } else {
                    self.site.observer.fail(Class::Panic, format!("node {id}: {message}"));
                }
            }
            if running.tasks.token().is_cancelled() {
                if self.nodes[at].disk.failures() == failures {
                    let why = running.tasks.failure().unwrap_or("nothing said why").to_owned();
                    self.site.observer.fail(Class::GroupStopped, format!("node {id}: {why}"));
                }
                ended.push(id);
                continue;
            }
            for data in &running.data {
                self.look_at(id, data);
            }
        }
        ended
    }

    fn look_at(&mut self, node: u64, data: &DataGroup) {
        let Status { term, committed, applied, last, .. } = data.raft.status();
        let (committed, applied) = (committed.unwrap_or(0), applied.unwrap_or(0));
        let now = Marks { term, committed, applied };
        let before = self.marks.insert((node, data.id), now).unwrap_or_default();
        let observer = &self.site.observer;
        if now.term < before.term || committed < before.committed || applied < before.applied {
            let detail = format!("node {node} {}: {before:?}, then {now:?}", data.id);
            observer.fail(Class::WentBack, detail);
        }
        let fresh = data.raft.applied_watch().borrow().index;
        let purged = data.log.first_index().saturating_sub(1);
        if applied > committed || last.is_some_and(|last| committed > last) || purged > fresh {
            let detail = format!(
                "node {node} {}: purged {purged}, applied {applied} ({fresh}), committed \
                 {committed}, last {last:?}",
                data.id
            );
            observer.fail(Class::MarksOutOfOrder, detail);
        }
    }

    fn publish(&self) {
        let running = self.nodes().map(|(_, running)| running.clone()).collect();
        *self.directory.lock().unwrap() = running;
    }
}
