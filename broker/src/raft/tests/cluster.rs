//! Three nodes in one process: over the in-process router, or over gRPC on loopback.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::listen::{Listener, Port};
use crate::peer::grpc::{Grpc, Name};
use crate::peer::router::Router;
use crate::peer::server::{self, Node as PeerNode};
use crate::peer::{self, Introduce, Peer, Transport};
use crate::raft::group::{Group, Parts, ProposeError, Timers};
use crate::raft::groups::{Groups, Settings};
use crate::raft::log::{LogReader, Logs};
use crate::raft::machine::{Applied, Machine, Unreadable};
use crate::raft::snapshot::{Checkpoints, SnapshotPolicy};
use crate::raft::types::Reply;
use crate::store::{Changes, MemoryEngine, Writer, WriterOptions};
use crate::tasks::Tasks;

use weft_proto::{GroupId, NodeId};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);
pub(super) const GROUPS: u32 = 2;

/// Remembers every payload with its index; its state is all of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct List(pub(super) Vec<(u64, Bytes)>);

impl Machine for List {
    fn apply(&mut self, entry: &Applied<'_>) -> Reply {
        self.0.push((entry.index, entry.payload.clone()));
        Reply(entry.payload.clone())
    }

    fn checkpoint(&self) -> Bytes {
        let mut bytes = Vec::new();
        for (index, payload) in &self.0 {
            bytes.extend(index.to_le_bytes());
            bytes.extend((payload.len() as u64).to_le_bytes());
            bytes.extend(payload);
        }
        bytes.into()
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Unreadable> {
        self.0.clear();
        let mut rest = state.unwrap_or_default();
        while let Some((index, tail)) = rest.split_first_chunk::<8>() {
            let (len, tail) = tail.split_first_chunk::<8>().ok_or(Unreadable(String::new()))?;
            let len = usize::try_from(u64::from_le_bytes(*len)).unwrap();
            let (payload, tail) = tail.split_at(len);
            self.0.push((u64::from_le_bytes(*index), Bytes::copy_from_slice(payload)));
            rest = tail;
        }
        Ok(())
    }
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) address: String,
    /// What a node keeps when its process ends.
    disk: Arc<MemoryEngine>,
    /// Present while the node runs.
    pub(super) running: Option<Running>,
}

pub(super) struct Running {
    pub(super) groups: Groups,
    pub(super) machines: Vec<Arc<Mutex<List>>>,
    pub(super) checkpoints: Vec<Arc<dyn Checkpoints>>,
    pub(super) readers: Vec<LogReader>,
    pub(super) tasks: Tasks,
    writer: Writer,
}

impl Running {
    /// Stops everything; what was queued to be written is written then.
    async fn stop(self) -> bool {
        self.groups.shutdown().await;
        self.writer.put_synced(Changes::new()).await.unwrap();
        self.tasks.stop(DEADLINE).await
    }
}

pub(super) enum Net {
    Router(Router),
    Grpc,
}

pub(super) struct Cluster {
    pub(super) net: Net,
    pub(super) nodes: Vec<Node>,
    pub(super) policy: SnapshotPolicy,
}

struct Silent;

impl Introduce for Silent {
    fn identify(
        &self,
        _request: weft_proto::internal::IdentifyRequest,
    ) -> Result<weft_proto::internal::IdentifyResponse, peer::Error> {
        Err(peer::Error::Unreachable("not part of this test".to_owned()))
    }
}

impl Cluster {
    pub(super) async fn start(net: Net, policy: SnapshotPolicy) -> Self {
        // RUST_LOG shows what a failing test did.
        _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let mut nodes = Vec::new();
        let mut listeners = Vec::new();
        for id in 1..=3 {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let disk = Arc::new(MemoryEngine::new());
            nodes.push(Node { id: NodeId(id), address, disk, running: None });
            listeners.push(Some(listener));
        }
        let mut cluster = Self { net, nodes, policy };
        for (index, listener) in listeners.into_iter().enumerate() {
            cluster.boot(index, listener).await;
        }
        let voters = cluster.voters();
        for node in &cluster.nodes {
            node.running.as_ref().unwrap().groups.initialize(&voters).await.unwrap();
        }
        cluster
    }

    pub(super) fn voters(&self) -> Vec<Peer> {
        let peer = |node: &Node| Peer { node: node.id, address: node.address.clone() };
        self.nodes.iter().map(peer).collect()
    }

    /// Starts a node over what its disk holds.
    pub(super) async fn boot(&mut self, index: usize, listener: Option<tokio::net::TcpListener>) {
        let policy = self.policy;
        let node = &mut self.nodes[index];
        let tasks = Tasks::new();
        let name = Name { cluster_uid: "test".to_owned(), node: node.id };
        let transport: Arc<dyn Transport> = match &self.net {
            Net::Router(router) => router.transport(&node.address),
            Net::Grpc => Arc::new(Grpc::new(name.clone(), None, tasks.clone())),
        };
        let machines: Vec<Arc<Mutex<List>>> = (0..GROUPS).map(|_| Arc::default()).collect();
        let disk = Arc::clone(&node.disk) as _;
        let (writer, writer_loop) = Writer::new(Arc::clone(&disk), &WriterOptions::default());
        #[expect(clippy::disallowed_methods, reason = "it ends with the last handle of a test")]
        tokio::spawn(writer_loop.run());
        let logs = Logs::new(disk, writer.clone(), Logs::TAIL_BYTES_SMALL);
        let (mut parts, mut readers, mut checkpoints) = (Vec::new(), Vec::new(), Vec::new());
        for (group, machine) in (0..).map(GroupId).zip(&machines) {
            let machine = Arc::clone(machine) as _;
            let (part, reader) = Parts::stored(&logs, group, machine, policy).unwrap();
            checkpoints.push(Arc::clone(&part.checkpoints));
            parts.push(part);
            readers.push(reader);
        }
        drop(logs);
        let settings = Settings { node: node.id, timers: Timers::default(), transport };
        let groups = Groups::start(&settings, parts, &tasks).await.unwrap();
        match &self.net {
            Net::Router(router) => router.serve(&node.address, Arc::new(groups.clone())),
            Net::Grpc => {
                let listener = match listener {
                    Some(listener) => listener,
                    None => tokio::net::TcpListener::bind(&node.address).await.unwrap(),
                };
                let serving = PeerNode::new(Arc::new(Silent));
                serving.join(name, Arc::new(groups.clone()), Arc::new(groups.clone()));
                tasks.spawn("peers", move |stop| {
                    let listener = Listener::plain(listener, Port::Peer);
                    server::serve(listener, serving, crate::ingest::Remote::new(), stop)
                });
            }
        }
        node.running = Some(Running { groups, machines, checkpoints, readers, tasks, writer });
    }

    /// Ends a node without a word, as `kill -9` would; its disk stays.
    pub(super) async fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let running = node.running.take().unwrap();
        if let Net::Router(router) = &self.net {
            router.cut(&node.address);
            router.remove(&node.address);
        }
        running.stop().await;
        if let Net::Router(router) = &self.net {
            router.heal();
        }
    }

    /// Gives a stopped node an empty disk.
    pub(super) fn wipe(&mut self, index: usize) {
        self.nodes[index].disk = Arc::default();
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (usize, &Running)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(index, node)| Some((index, node.running.as_ref()?)))
    }

    /// Waits until one running node leads a group and is ready to.
    pub(super) async fn leader(&self, group: GroupId) -> (usize, Group) {
        let waits = self.running().map(|(index, running)| {
            let group = running.groups.get(group).unwrap().clone();
            Box::pin(async move {
                let mut leadership = group.leader_watch();
                leadership.wait_for(|now| now.is_self_ready).await.unwrap();
                (index, group)
            })
        });
        let first = futures::future::select_all(waits);
        tokio::time::timeout(DEADLINE, first).await.unwrap().0
    }

    /// Proposes with retries until the entry is known to be applied.
    pub(super) async fn must_propose(&self, group: GroupId, payload: &Bytes) -> u64 {
        let until = tokio::time::Instant::now() + DEADLINE;
        loop {
            assert!(tokio::time::Instant::now() < until, "no leader takes the entry");
            let (_, leader) = self.leader(group).await;
            match leader.propose(payload.clone()).await {
                Ok(pending) => match tokio::time::timeout(DEADLINE, pending).await.unwrap() {
                    Ok((index, reply)) => {
                        assert_eq!(reply.0, *payload);
                        return index;
                    }
                    Err(ProposeError::NotLeader { .. } | ProposeError::Unknown) => {}
                    Err(ProposeError::Fatal) => panic!("the group stopped"),
                },
                Err(ProposeError::NotLeader { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all running replicas applied up to an index, and returns their states.
    pub(super) async fn states(&self, group: GroupId, index: u64) -> Vec<List> {
        let mut states = Vec::new();
        for (_, running) in self.running() {
            let mut applied = running.groups.get(group).unwrap().applied_watch();
            let reached = applied.wait_for(|upto| upto.index >= index);
            tokio::time::timeout(DEADLINE, reached).await.unwrap().unwrap();
            states.push(running.machines[group.get() as usize].lock().unwrap().clone());
        }
        states
    }

    pub(super) async fn stop(mut self) {
        for node in &mut self.nodes {
            if let Net::Router(router) = &self.net {
                router.remove(&node.address);
            }
            if let Some(running) = node.running.take() {
                let tasks = running.tasks.clone();
                assert!(running.stop().await);
                assert_eq!(tasks.failure(), None);
            }
        }
    }
}

pub(super) fn payload(number: u64) -> Bytes {
    Bytes::from(format!("payload {number:06}"))
}
