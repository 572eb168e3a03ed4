//! Ports of a node.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

/// Below the range from which Linux picks ports for outgoing connections, so that none of them
/// takes the port of a node while it is down; and apart from what `weft demo` and `weft bench` use.
const FREE: std::ops::Range<u16> = 14_000..20_000;
const ATTEMPTS: usize = 1_000;
/// Handed out already: a port that no process holds yet may belong to another test all the same.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// For clients.
    pub(crate) grpc: u16,
    /// For health and metrics.
    pub(crate) http: u16,
    /// For the other nodes.
    pub(crate) peer: u16,
}

impl Ports {
    /// Ports that nobody uses at this moment, and no other test ever.
    pub(crate) fn free(nodes: usize) -> Vec<Self> {
        // Held until all are found, so that none is found twice.
        let mut held = Vec::new();
        let mut taken = TAKEN.lock().unwrap();
        for _ in 0..ATTEMPTS {
            if held.len() == nodes * 3 {
                break;
            }
            let port = rand::random_range(FREE);
            if taken.contains(&port) {
                continue;
            }
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                taken.insert(port);
                held.push((port, listener));
            }
        }
        assert_eq!(held.len(), nodes * 3, "there are not enough free ports in {FREE:?}");
        let three = |three: &[(u16, TcpListener)]| Self {
            grpc: three[0].0,
            http: three[1].0,
            peer: three[2].0,
        };
        held.chunks_exact(3).map(three).collect()
    }
}

/// As in a configuration.
pub(crate) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
