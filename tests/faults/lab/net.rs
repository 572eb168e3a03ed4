//! Addresses of the nodes: network namespaces of their own where this is allowed, else loopback.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::{self, Command};

use anyhow::{Context as _, bail};

use super::kernel;
use super::switch::Switch;
use super::tools::run;

/// The last octet of the address of the clients; nodes count from 1.
const CLIENTS: u8 = 254;

/// A network of nodes and clients.
#[derive(Debug)]
pub(crate) struct Net {
    /// Unique on this machine.
    name: String,
    prefix: [u8; 3],
    nodes: usize,
    /// Port `nodes` is that of the clients.
    pub(crate) switch: Switch,
}

impl Net {
    /// Makes namespaces, interfaces and the switch. Needs root.
    pub(crate) fn new(nodes: usize) -> anyhow::Result<Self> {
        let id = process::id();
        let octets = [10, u8::try_from(64 + (id >> 8) % 64)?, u8::try_from(id % 256)?];
        // From here on whatever was made is removed when this is dropped.
        let mut net = Self {
            name: format!("weft{id}"),
            prefix: octets,
            nodes,
            switch: Switch::start(Vec::new()),
        };
        let mut ports = Vec::new();
        for node in 0..nodes {
            let octet = u8::try_from(node + 1)?;
            ports.push((net.add_node(node)?, octet));
        }
        ports.push((net.add_clients()?, CLIENTS));
        net.switch = Switch::start(ports);
        Ok(net)
    }

    fn add_node(&self, node: usize) -> anyhow::Result<File> {
        let namespace = self.namespace(node);
        let interface = format!("{}n{node}", self.name);
        run(&["ip", "netns", "add", &namespace])?;
        let file = kernel::tun(&interface).context("cannot make a TUN interface")?;
        run(&["ip", "link", "set", &interface, "netns", &namespace])?;
        let address = format!("{}/24", self.address(node));
        run(&["ip", "-n", &namespace, "addr", "add", &address, "dev", &interface])?;
        run(&["ip", "-n", &namespace, "link", "set", &interface, "up"])?;
        run(&["ip", "-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(file)
    }

    fn add_clients(&self) -> anyhow::Result<File> {
        let interface = format!("{}c", self.name);
        let file = kernel::tun(&interface).context("cannot make a TUN interface")?;
        let [a, b, c] = self.prefix;
        let address = format!("{a}.{b}.{c}.{CLIENTS}/24");
        run(&["ip", "addr", "add", &address, "dev", &interface])?;
        run(&["ip", "link", "set", &interface, "up"])?;
        Ok(file)
    }

    pub(crate) fn address(&self, node: usize) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, u8::try_from(node + 1).unwrap_or(u8::MAX))
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    /// The port of the clients on the switch.
    pub(crate) fn clients(&self) -> usize {
        self.nodes
    }

    /// The beginning of a command that runs in the network of a node.
    pub(crate) fn enter(&self, node: usize) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(node))).arg("--");
        command
    }

    /// Cuts or joins two nodes in both directions.
    pub(crate) fn cut_both(&self, one: usize, other: usize, cut: bool) {
        self.switch.cut(one, other, cut);
        self.switch.cut(other, one, cut);
    }

    /// Whether packets pass from here to all nodes, and stop when they shall.
    #[expect(clippy::disallowed_methods, reason = "nothing else runs yet")]
    pub(crate) fn probe(&self) -> anyhow::Result<()> {
        let before = self.switch.hits();
        self.switch.cut(self.clients(), 0, true);
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"probe", (self.address(0), 9))?;
        std::thread::sleep(std::time::Duration::from_millis(100));
        self.switch.cut(self.clients(), 0, false);
        if self.switch.hits() == before {
            bail!("packets do not pass through the switch");
        }
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            // One that was not made cannot be removed.
            _ = run(&["ip", "netns", "del", &self.namespace(node)]);
        }
        _ = run(&["ip", "link", "del", &format!("{}c", self.name)]);
    }
}
