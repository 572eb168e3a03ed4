//! Ports of a node.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// Below the range from which Linux picks ports for outgoing connections, so that none of them
/// takes the port of a node while it is down.
const FREE: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: u32 = 1_000;
/// From a node's client port to its peer port.
const PEER_STEP: u16 = 200;

/// Ports of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// For clients.
    pub(crate) grpc: u16,
    /// For health and metrics.
    pub(crate) http: u16,
    /// For the other nodes.
    pub(crate) peer: u16,
}

impl Ports {
    /// Consecutive ports for nodes, from these on.
    pub(crate) fn consecutive(grpc: u16, http: u16, nodes: u16) -> anyhow::Result<Vec<Self>> {
        let of = |place: u16| {
            let grpc = grpc.checked_add(place)?;
            let peer = grpc.checked_add(PEER_STEP)?;
            Some(Self { grpc, http: http.checked_add(place)?, peer })
        };
        let ports: Option<Vec<_>> = (0..nodes).map(of).collect();
        let Some(ports) = ports else { bail!("ports end at 65535: choose lower ones") };
        let all = ports.iter().flat_map(|ports| [ports.grpc, ports.http, ports.peer]);
        let mut all: Vec<u16> = all.collect();
        all.sort_unstable();
        if all.first() == Some(&0) || all.windows(2).any(|pair| pair[0] == pair[1]) {
            bail!(
                "the ports from {grpc} (gRPC), {http} (HTTP) and {} (peers) collide: choose others",
                grpc.saturating_add(PEER_STEP)
            );
        }
        Ok(ports)
    }

    /// Ports that nobody uses at this moment.
    pub(crate) fn free(nodes: usize) -> anyhow::Result<Vec<Self>> {
        // Held until all are found, so that none is found twice.
        let mut held = Vec::new();
        for _ in 0..ATTEMPTS {
            if held.len() == nodes * 3 {
                break;
            }
            let port = rand::random_range(FREE);
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                held.push((port, listener));
            }
        }
        if held.len() < nodes * 3 {
            bail!("there are not enough free ports from {} to {}", FREE.start, FREE.end);
        }
        let ports = held.chunks_exact(3).map(|three| Self {
            grpc: three[0].0,
            http: three[1].0,
            peer: three[2].0,
        });
        Ok(ports.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_ports_start_where_they_are_told() {
        let ports = Ports::consecutive(7_400, 7_500, 3).unwrap();

        assert_eq!(ports[0], Ports { grpc: 7_400, http: 7_500, peer: 7_600 });
        assert_eq!(ports[2], Ports { grpc: 7_402, http: 7_502, peer: 7_602 });
    }

    #[test]
    fn ports_that_collide_or_end_are_refused() {
        assert!(Ports::consecutive(7_400, 7_402, 3).is_err());
        assert!(Ports::consecutive(7_400, 7_600, 1).is_err());
        assert!(Ports::consecutive(65_400, 7_500, 1).is_err());
        assert!(Ports::consecutive(0, 7_500, 1).is_err());
    }

    #[test]
    fn free_ports_differ() {
        let ports = Ports::free(3).unwrap();
        let mut all: Vec<u16> = ports.iter().flat_map(|p| [p.grpc, p.http, p.peer]).collect();
        all.sort_unstable();
        all.dedup();

        assert_eq!(all.len(), 9);
    }
}
