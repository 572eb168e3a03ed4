//! A simulated node: the broker's own log, consensus, state machine and sequencer in one process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use weft_proto::{GroupId, NodeId, PartitionUid, ResourceUid};

use super::disk::Disk;
use super::link::Link;
use super::machine::Watched;
use super::network::{Endpoint, Network};
use super::observer::Observer;
use super::plan::{self, Plan};
use super::process::Process;
use super::random::Random;
use super::violation::Class;
use crate::data::sequencer::{self, Directory, Inbox};
use crate::data::{DataGroup, DataMachine, lock, reread_window};
use crate::peer::Peer;
use crate::raft::group::Parts;
use crate::raft::groups::{Groups, Settings};
use crate::raft::log::Logs;
use crate::raft::snapshot::SnapshotPolicy;
use crate::read::History;
use crate::retention::{self, Pace, Replica};
use crate::store::{LogEngine, Writer, WriterOptions};
use crate::tasks::Tasks;

/// The memory of a node for the newest entries of its logs: so little that reads reach the disk.
const TAIL_BYTES: usize = 8 << 10;

/// A node while its process runs; clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) process: Arc<Process>,
    pub(crate) tasks: Tasks,
    pub(crate) data: Vec<DataGroup>,
    groups: Groups,
}

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) disk: Disk,
    pub(crate) running: Option<Running>,
    /// Syncs that had failed when the process began.
    pub(crate) failures: u64,
    pub(crate) skew: i64,
}

/// What every start of a node needs.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) observer: Arc<Observer>,
    pub(crate) born: tokio::time::Instant,
}

impl Site {
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let peer = |node| Peer { node: NodeId(node), address: format!("node-{node}") };
        (1..=self.plan.nodes).map(peer).collect()
    }
}

/// A catalog that never changes.
struct Fixed {
    partitions: Vec<PartitionUid>,
    changes: watch::Sender<u64>,
}

impl Directory for Fixed {
    fn partitions_of(&self, _group: GroupId) -> Vec<PartitionUid> {
        self.partitions.clone()
    }

    fn partition_uids_end(&self) -> PartitionUid {
        PartitionUid(0)
    }

    fn cursor_owners(&self) -> Vec<ResourceUid> {
        Vec::new()
    }

    fn resource_uids_end(&self) -> ResourceUid {
        ResourceUid(0)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Node {
    /// Starts the process of the node over what its disk has.
    pub(crate) async fn boot(&mut self, site: &Site, random: Random) {
        let process = Process::new(random, site.plan.yields, site.born);
        process.skew(self.skew);
        self.failures = self.disk.failures();
        site.observer.note(format_args!("{} boots", self.id));
        site.observer.boots(self.id, self.disk.clone());
        let start = start(self.id, site.clone(), self.disk.clone(), Arc::clone(&process));
        match process.run(start).await {
            Ok(running) => {
                let handler = Arc::new(running.groups.clone());
                site.network.join(self.id, Endpoint { handler, process });
                for data in &running.data {
                    site.observer.reads(self.id, data.id, data.log.clone());
                }
                self.running = Some(running);
            }
            Err(error) => {
                let detail = format!("node {} does not start: {error}", self.id);
                site.observer.fail(Class::LogDamaged, detail);
            }
        }
    }

    /// Ends the process between two steps; of what was not synced a random beginning stays.
    pub(crate) fn kill(&mut self, site: &Site) {
        let Some(running) = self.running.take() else { return };
        site.observer.note(format_args!("{} dies", self.id));
        running.process.kill();
        let all: Vec<u64> = (1..=site.plan.nodes).collect();
        site.network.leave(self.id, &all);
        running.tasks.token().cancel();
        self.disk = self.disk.cut();
        site.observer.boots(self.id, self.disk.clone());
        site.observer.ends(self.id);
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn start(
    node: u64,
    site: Site,
    disk: Disk,
    process: Arc<Process>,
) -> Result<Running, Failed> {
    let tasks = Tasks::new();
    let engine: Arc<dyn LogEngine> = Arc::new(disk);
    let options = WriterOptions { node: node.to_string(), ..WriterOptions::default() };
    let (writer, writer_loop) = Writer::new(Arc::clone(&engine), &options);
    tasks.spawn("writer", move |_stop| writer_loop.run());
    let logs = Logs::new(Arc::clone(&engine), writer.clone(), TAIL_BYTES);
    let (mut parts, mut opened) = (Vec::new(), Vec::new());
    for group in site.plan.groups() {
        let machine = Arc::new(Mutex::new(DataMachine::new(group, writer.clone())));
        let watched = Watched {
            node,
            group,
            machine: Arc::clone(&machine),
            observer: Arc::clone(&site.observer),
            last: None,
        };
        let watched = Arc::new(Mutex::new(watched));
        let (mut part, reader) = Parts::stored(&logs, group, watched, plan::policy(group))?;
        part.checkpoint_bytes = site.plan.checkpoint_bytes;
        if plan::policy(group) == SnapshotPolicy::AtFloor
            && let Some(purged) = reader.purged()
        {
            let base = retention::base_of(&*engine, group, purged)?;
            lock(&machine).raise_base(base);
        }
        opened.push((group, machine, reader));
        parts.push(part);
    }
    let link = Link { node, network: site.network.clone(), observer: Arc::clone(&site.observer) };
    let settings =
        Settings { node: NodeId(node), timers: site.plan.timers, transport: Arc::new(link) };
    let groups = Groups::start(&settings, parts, &tasks).await?;
    let history = History::in_task(&tasks);
    let mut data = Vec::new();
    for (id, machine, log) in opened {
        let raft = groups.get(id).unwrap().clone();
        let (sequencer, inbox) = sequencer::channel();
        let engine = Arc::clone(&engine);
        let writer = writer.clone();
        let group = DataGroup { id, raft, log, engine, writer, sequencer, machine };
        let own = (site.plan.clone(), tasks.clone());
        start_group(own, node, &group, inbox, (history.clone(), group.writer.clone()));
        data.push(group);
    }
    Ok(Running { process, tasks, data, groups })
}

/// Starts the tasks of a group, as `node.rs` does.
fn start_group(
    (plan, tasks): (Plan, Tasks),
    node: u64,
    group: &DataGroup,
    inbox: Inbox,
    (history, writer): (History, Writer),
) {
    let (reread, reads) = (group.clone(), history.clone());
    tasks.spawn("identities", move |stop| async move {
        match stop.run_until_cancelled(reread_window(reread, reads)).await {
            Some(Err(error)) => Err(error),
            Some(Ok(())) => {
                stop.cancelled().await;
                Ok(())
            }
            None => Ok(()),
        }
    });
    let changes = watch::Sender::new(0);
    let directory = Arc::new(Fixed { partitions: plan::partitions(group.id), changes });
    let task = sequencer::Loop::new(
        inbox,
        group.clone(),
        history.clone(),
        node.to_string(),
        directory,
        tasks.clone(),
    );
    tasks.spawn("sequencer", move |stop| task.run(stop));
    let policies = Arc::new(plan.clone());
    let pace = Pace { tick: plan.retention_tick, log_kept: Duration::ZERO };
    let bytes = plan.checkpoint_bytes;
    let leader = retention::Leader::new(group.clone(), policies, history.clone(), pace, bytes);
    tasks.spawn("retention", move |stop| leader.run(stop));
    let replica = Replica::new(group.clone(), history, writer);
    tasks.spawn("trim", move |stop| replica.run(stop));
}

impl Running {
    pub(crate) async fn initialize(&self, voters: &[Peer]) -> Result<(), Failed> {
        self.process.run(self.groups.initialize(voters)).await?;
        Ok(())
    }
}
