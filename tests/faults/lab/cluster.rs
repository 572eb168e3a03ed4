//! Brokers that form a cluster.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use weft_client::{Client, Options};

use super::Lab;
use super::disk::{Disk, Kind};
use super::node::{Addresses, Node, Program};
use super::ports::{Ports, address};

/// The processes end before their disks go.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) lab: Arc<Lab>,
    pub(crate) program: Program,
}

impl Cluster {
    /// A new cluster with no process started.
    pub(crate) fn new(
        lab: Arc<Lab>,
        program: Program,
        folder: &Path,
        nodes: usize,
        kind: Kind,
    ) -> anyhow::Result<Self> {
        let places: Vec<Addresses> = match &lab.net {
            Some(net) => (0..nodes).map(|node| in_namespace(net.address(node))).collect(),
            None => Ports::free(nodes).into_iter().map(on_loopback).collect(),
        };
        let founders: Vec<_> = places.iter().map(|place| place.peer.clone()).collect();
        let mut cluster = Self { nodes: Vec::new(), lab, program };
        for (number, addresses) in places.into_iter().enumerate() {
            let folder = folder.join(format!("node-{number}"));
            let disk = Disk::new(kind, &folder)?;
            cluster.nodes.push(Node::new(number, folder, disk, addresses, founders.clone())?);
        }
        Ok(cluster)
    }

    /// Starts what does not run.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            if !node.is_running() {
                node.start(&self.program, &self.lab)?;
            }
        }
        Ok(())
    }

    /// Starts one node.
    pub(crate) fn start_one(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].start(&self.program, &self.lab)
    }

    /// Waits until all can serve.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(self.nodes.iter().map(Node::endpoint))
    }

    /// The node that leads the group of this partition, if anybody knows.
    pub(crate) async fn leader(&self, stream: &str) -> Option<usize> {
        let options = Options {
            timeouts: weft_client::Timeouts {
                connect: std::time::Duration::from_millis(500),
                attempt: std::time::Duration::from_secs(1),
                call: std::time::Duration::from_secs(3),
                ..weft_client::Timeouts::default()
            },
            ..self.options()
        };
        let routes = Client::connect(&options).ok()?.route(stream).await.ok()?;
        let leader = routes.first()?.leader_address.clone()?;
        self.nodes.iter().position(|node| node.addresses.grpc == leader)
    }

    /// Ends that nobody asked for, and panics in the logs.
    pub(crate) fn complaints(&mut self) -> anyhow::Result<Vec<String>> {
        let mut complaints = Vec::new();
        for node in &mut self.nodes {
            complaints.append(&mut node.crashes);
            let log = std::fs::read_to_string(node.log_file())
                .with_context(|| format!("node {} has no log", node.number))?;
            let panics = log.lines().filter(|line| line.contains("panicked at"));
            complaints.extend(panics.take(3).map(|line| format!("node {}: {line}", node.number)));
        }
        Ok(complaints)
    }
}

fn in_namespace(ip: std::net::Ipv4Addr) -> Addresses {
    Addresses { grpc: format!("{ip}:7400"), http: format!("{ip}:7500"), peer: format!("{ip}:7600") }
}

fn on_loopback(ports: Ports) -> Addresses {
    Addresses { grpc: address(ports.grpc), http: address(ports.http), peer: address(ports.peer) }
}
