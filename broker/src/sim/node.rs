//! A simulated node: the broker's own log, consensus, state machine and sequencer in one process.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use weft_proto::{GroupId, NodeId, PartitionUid, ResourceUid};

use super::disk::Disk;
use super::link::Link;
use super::machine::Watched;
use super::network::{Endpoint, Network};
use super::observer::Observer;
use super::plan::Plan;
use super::process::Process;
use super::random::Random;
use super::violation::Class;
use crate::data::sequencer::{self, Directory};
use crate::data::{DataMachine, Sequencer};
use crate::peer::Peer;
use crate::raft::group::{Group, Parts};
use crate::raft::groups::{Groups, Settings};
use crate::raft::log::{LogReader, Logs};
use crate::raft::snapshot::Checkpoints;
use crate::store::{LogEngine, Writer, WriterOptions};
use crate::tasks::Tasks;

/// The memory of a node for the newest entries of its logs: so little that reads reach the disk.
const TAIL_BYTES: usize = 8 << 10;

/// One group on a node; clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Data {
    pub(crate) id: GroupId,
    pub(crate) raft: Group,
    pub(crate) reader: LogReader,
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
    pub(crate) machine: Arc<Mutex<DataMachine>>,
    pub(crate) sequencer: Sequencer,
}

/// A node while its process runs; clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) process: Arc<Process>,
    pub(crate) tasks: Tasks,
    pub(crate) data: Vec<Data>,
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

    fn subscriptions(&self) -> Vec<ResourceUid> {
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
        let process = Process::new(NodeId(self.id), random, site.plan.yields, site.born);
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
                    site.observer.reads(self.id, data.id, data.reader.clone());
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
    let logs = Logs::new(engine, writer.clone(), TAIL_BYTES);
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
        let (part, reader) = Parts::stored(&logs, group, watched, site.plan.policy(group))?;
        opened.push((group, machine, reader, Arc::clone(&part.checkpoints)));
        parts.push(part);
    }
    let link = Link { node, network: site.network.clone(), observer: Arc::clone(&site.observer) };
    let settings =
        Settings { node: NodeId(node), timers: site.plan.timers, transport: Arc::new(link) };
    let groups = Groups::start(&settings, parts, &tasks).await?;
    let mut data = Vec::new();
    for (id, machine, reader, checkpoints) in opened {
        let raft = groups.get(id).unwrap().clone();
        let changes = watch::Sender::new(0);
        let directory = Arc::new(Fixed { partitions: site.plan.partitions(id), changes });
        let (sequencer, task) = sequencer::new(
            id,
            node.to_string(),
            raft.clone(),
            Arc::clone(&machine),
            directory,
            tasks.clone(),
        );
        tasks.spawn("sequencer", move |stop| task.run(stop));
        data.push(Data { id, raft, reader, checkpoints, machine, sequencer });
    }
    Ok(Running { process, tasks, data, groups })
}

impl Running {
    pub(crate) async fn initialize(&self, voters: &[Peer]) -> Result<(), Failed> {
        self.process.run(self.groups.initialize(voters)).await?;
        Ok(())
    }
}
