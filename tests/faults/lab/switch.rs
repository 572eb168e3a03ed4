//! The network between nodes: every packet passes through this process, which may delay or drop it.
//!
//! The kernels that we test on have no `netem`; a TUN interface for each node and a few threads do
//! the same, count what they drop, and need no package.

#![expect(clippy::disallowed_methods, reason = "packets are due at real times")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Larger than any packet of an interface with the usual 1,500 bytes.
const PACKET_BYTES: usize = 4_096;
/// Packets that may be under way when a link is slow.
const DELAYED_MAX: usize = 50_000;
/// Where an IPv4 header has its addresses.
const SOURCE: usize = 12;
const TARGET: usize = 16;

/// What happens to packets from one port to another.
#[derive(Debug, Default)]
struct Link {
    cut: AtomicBool,
    delay_us: AtomicU64,
    /// Packets that were dropped or delayed.
    hits: AtomicU64,
    passed: AtomicU64,
}

/// The switch; ports are numbered, the last octet of an address tells its port.
#[derive(Debug)]
pub(crate) struct Switch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ports: Vec<File>,
    octets: Vec<u8>,
    links: Vec<Link>,
    delayed: Mutex<BinaryHeap<Reverse<Delayed>>>,
    due: Condvar,
}

/// A packet that waits: when, in which order, to which port.
type Delayed = (Instant, u64, usize, Vec<u8>);

impl Switch {
    /// Starts to forward between these interfaces. The threads end when the interfaces go.
    pub(crate) fn start(ports: Vec<(File, u8)>) -> Self {
        let (ports, octets): (Vec<_>, Vec<_>) = ports.into_iter().unzip();
        let links = (0..ports.len() * ports.len()).map(|_| Link::default()).collect();
        let shared = Arc::new(Shared {
            ports,
            octets,
            links,
            delayed: Mutex::default(),
            due: Condvar::new(),
        });
        for port in 0..shared.ports.len() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.forward(port));
        }
        let late = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            while let Some(shared) = late.upgrade() {
                shared.release();
            }
        });
        Self { shared }
    }

    /// Drops all packets in one direction, or lets them pass again.
    pub(crate) fn cut(&self, from: usize, to: usize, cut: bool) {
        self.link(from, to).cut.store(cut, Ordering::Relaxed);
    }

    /// Holds packets back in one direction.
    pub(crate) fn delay(&self, from: usize, to: usize, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.link(from, to).delay_us.store(micros, Ordering::Relaxed);
    }

    /// Packets that were dropped or held back so far, on all links.
    pub(crate) fn hits(&self) -> u64 {
        self.shared.links.iter().map(|link| link.hits.load(Ordering::Relaxed)).sum()
    }

    /// Lets everything pass at once.
    pub(crate) fn heal(&self) {
        for link in &self.shared.links {
            link.cut.store(false, Ordering::Relaxed);
            link.delay_us.store(0, Ordering::Relaxed);
        }
    }

    fn link(&self, from: usize, to: usize) -> &Link {
        &self.shared.links[from * self.shared.ports.len() + to]
    }
}

impl Shared {
    fn forward(&self, from: usize) {
        let mut port = &self.ports[from];
        let mut packet = [0; PACKET_BYTES];
        let mut order = 0;
        // Reading fails when the interface is gone.
        while let Ok(length) = port.read(&mut packet) {
            let packet = &packet[..length];
            let Some(to) = self.target(from, packet) else { continue };
            let link = &self.links[from * self.ports.len() + to];
            if link.cut.load(Ordering::Relaxed) {
                link.hits.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let delay = link.delay_us.load(Ordering::Relaxed);
            if delay == 0 {
                link.passed.fetch_add(1, Ordering::Relaxed);
                self.send(to, packet);
                continue;
            }
            link.hits.fetch_add(1, Ordering::Relaxed);
            order += 1;
            let due = Instant::now() + Duration::from_micros(delay);
            let mut delayed = self.delayed.lock().unwrap_or_else(PoisonError::into_inner);
            if delayed.len() < DELAYED_MAX {
                delayed.push(Reverse((due, order, to, packet.to_vec())));
                self.due.notify_one();
            }
        }
    }

    /// The port to which a packet goes. Whoever sends under a wrong address, or not IPv4, is ignored.
    fn target(&self, from: usize, packet: &[u8]) -> Option<usize> {
        let last_octet = |at: usize| packet.get(at + 3).copied();
        let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
        if !is_v4 || last_octet(SOURCE)? != self.octets[from] {
            return None;
        }
        let target = last_octet(TARGET)?;
        self.octets.iter().position(|octet| *octet == target)
    }

    fn send(&self, to: usize, packet: &[u8]) {
        // A full queue drops packets, as networks do.
        _ = (&self.ports[to]).write(packet);
    }

    /// Sends what is due, or waits a little.
    fn release(&self) {
        let mut delayed = self.delayed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while let Some(Reverse((due, ..))) = delayed.peek()
            && *due <= now
        {
            if let Some(Reverse((_, _, to, packet))) = delayed.pop() {
                self.send(to, &packet);
            }
        }
        let wait = delayed.peek().map_or(IDLE, |Reverse((due, ..))| (*due - now).min(IDLE));
        drop(self.due.wait_timeout(delayed, wait).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Between two looks of the thread that has nothing to do.
const IDLE: Duration = Duration::from_millis(100);
