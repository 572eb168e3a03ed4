//! A cluster of broker processes on this machine, for `dev`, `demo` and `bench`.

mod node;
mod ports;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::{join_all, select_all};
use tokio::time::{Instant, sleep};
use weft_broker::config::{Cluster as Membership, Config, Listen, Node as Place, Profile, Store};
use weft_proto::trace::Telemetry;

use self::node::Node;
pub(crate) use self::ports::Ports;

/// Between two looks at a node that is not ready.
const POLL: Duration = Duration::from_millis(50);
/// A first start makes a cluster; on a slow disk that takes a while.
const READY_MAX: Duration = Duration::from_secs(30);
const HOST: &str = "127.0.0.1";

/// What a cluster shall be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Holds a folder `node-i` for each node.
    pub(crate) dir: PathBuf,
    /// One entry for each node.
    pub(crate) ports: Vec<Ports>,
    /// Raft groups that carry the streams' partitions.
    pub(crate) data_groups: u32,
    /// Size of the stores.
    pub(crate) profile: Profile,
    /// Where spans and metrics go, of brokers and dispatcher alike.
    pub(crate) telemetry: Telemetry,
}

impl Plan {
    /// The settings of a node; nodes count from 1.
    pub(crate) fn config(&self, number: usize) -> Option<Config> {
        let ports = self.ports.get(number.checked_sub(1)?)?;
        let founders = match self.ports.len() {
            // A node alone needs no list.
            1 => Vec::new(),
            _ => self.ports.iter().map(|ports| address(ports.peer)).collect(),
        };
        Some(Config {
            node: Place { data: self.folder(number).join("data") },
            listen: Listen {
                grpc: address(ports.grpc),
                http: address(ports.http),
                peer: address(ports.peer),
                ..Listen::default()
            },
            cluster: Membership {
                founders,
                data_groups: self.data_groups,
                ..Membership::default()
            },
            store: Store { profile: self.profile },
            telemetry: self.telemetry.clone(),
            ..Config::default()
        })
    }

    /// Where everything of a node is.
    pub(crate) fn folder(&self, number: usize) -> PathBuf {
        self.dir.join(format!("node-{number}"))
    }

    /// Client addresses, for [`weft_client::Options`].
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.ports.iter().map(|ports| format!("http://{}", address(ports.grpc))).collect()
    }

    /// Settings of a dispatcher that may start functions from the folder of this program.
    pub(crate) fn dispatcher(&self) -> anyhow::Result<weft_dispatcher::Config> {
        let program = program()?;
        let folder = program.parent().context("this program is in no folder")?.to_owned();
        Ok(weft_dispatcher::Config {
            endpoints: self.ports.iter().map(|ports| address(ports.grpc)).collect(),
            process: weft_dispatcher::Process {
                enabled: true,
                directories: vec![folder],
                ..weft_dispatcher::Process::default()
            },
            telemetry: self.telemetry.clone(),
            ..weft_dispatcher::Config::default()
        })
    }
}

/// This program, for children of its own kind.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program")
}

fn address(port: u16) -> String {
    format!("{HOST}:{port}")
}

/// Waits until a node says that it can serve, or fails after a while.
pub(crate) async fn ready(http_port: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_MAX;
    while !node::answers_ready(http_port).await {
        if Instant::now() >= deadline {
            let seconds = READY_MAX.as_secs();
            bail!("http://{}/readyz was not ready within {seconds} s", address(http_port));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Broker processes of this process. They end with it, however it ends.
#[derive(Debug)]
pub(crate) struct Cluster {
    plan: Plan,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts all nodes and waits until each can serve.
    pub(crate) async fn start(plan: Plan) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for number in 1..=plan.ports.len() {
            let config = plan.config(number).context("there is no such node")?;
            nodes.push(Node::start(number, plan.folder(number), config)?);
        }
        let mut cluster = Self { plan, nodes };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// What it was made from.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Process ids of the nodes that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(Node::pid).collect()
    }

    /// The node that clients reach at this address.
    pub(crate) fn number_of(&self, grpc_address: &str) -> Option<usize> {
        self.nodes.iter().find(|node| node.config().listen.grpc == grpc_address).map(Node::number)
    }

    /// Waits until all nodes that run can serve; fails at once when one of them ends.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_MAX;
        for node in &mut self.nodes {
            node.ready(deadline).await?;
        }
        Ok(())
    }

    /// Ends a node at once, as a power cut of its process would. Answers its process id.
    pub(crate) async fn kill(&mut self, number: usize) -> anyhow::Result<u32> {
        self.node(number)?.kill().await
    }

    /// Starts a node that ended, with its data, and waits until it can serve.
    pub(crate) async fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        let node = self.node(number)?;
        node.restart()?;
        node.ready(Instant::now() + READY_MAX).await
    }

    /// Waits until a node ends by itself; answers its number and how it ended. Never ends when no
    /// node runs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn ended(&mut self) -> (usize, ExitStatus) {
        let running = self.nodes.iter_mut().filter(|node| node.pid().is_some());
        let waits: Vec<_> = running.map(|node| Box::pin(node.ended())).collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        select_all(waits).await.0
    }

    /// The last lines of a node's log.
    pub(crate) fn log_of(&self, number: usize) -> String {
        let node = number.checked_sub(1).and_then(|place| self.nodes.get(place));
        node.map(Node::log_end).unwrap_or_default()
    }

    /// Asks all nodes to stop and waits for them; fails with what the first one logged that did
    /// not stop in order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        join_all(self.nodes.iter_mut().map(Node::stop)).await.into_iter().collect()
    }

    fn node(&mut self, number: usize) -> anyhow::Result<&mut Node> {
        let node = number.checked_sub(1).and_then(|place| self.nodes.get_mut(place));
        node.with_context(|| format!("there is no node {number}"))
    }
}
