//! The way in: accepts the connections of all three ports, within limits.
//!
//! *Owns* the listening sockets and the count of connections. *Never* looks into a request: who is
//! behind a connection is found out by those who answer it, who then call [`Connection::prove`].

mod certificate;
mod connection;
mod handshakes;
mod io;
mod only_grpc;
mod places;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use metrics::counter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

pub use certificate::{ClientCertificate, Unreadable};
pub use connection::Connection;
pub use io::Io;
pub use only_grpc::OnlyGrpc;
pub use places::network;

use self::handshakes::Handshakes;
use self::places::Places;
use crate::clock::sleep_until;
use crate::config::Listen;
use crate::metrics::REFUSED_CONNECTIONS;

/// A connection on which nobody proved who they are is closed after this.
pub const PROVE_MAX: Duration = Duration::from_secs(10);
/// After an accept error such as too many open files: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Of the peer port: four for each of a hundred nodes, and as many again while they reconnect.
const PEER_CONNECTIONS: usize = 1_024;
/// One part of so many of the process's file descriptors is for files, and so is as much for each
/// port.
const FILES_SHARE: usize = 4;

/// The TLS settings for the next connection: they may change while the port is open.
pub type Tls = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// Which port; names it in metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Clients, by gRPC.
    Grpc,
    /// Clients, by HTTP.
    Http,
    /// Other nodes.
    Peer,
}

impl Port {
    /// As metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Peer => "peer",
        }
    }
}

/// How many may come in, and how long they may stay unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one port.
    pub connections: usize,
    /// Of these from one address; an IPv6 network of 64 bits counts as one.
    pub per_address: usize,
    /// Until somebody on a connection has proved who they are.
    pub prove_max: Duration,
}

impl Limits {
    /// The limits of a port, and below what the process may open.
    pub fn new(port: Port, listen: &Listen) -> Self {
        let share = open_files_max() / FILES_SHARE;
        let (connections, per_address) = match port {
            Port::Grpc | Port::Http => (listen.connections, listen.connections_per_address),
            // Several nodes may share a machine.
            Port::Peer => (PEER_CONNECTIONS, PEER_CONNECTIONS),
        };
        let connections = connections.min(share);
        Self { connections, per_address: per_address.min(connections), prove_max: PROVE_MAX }
    }
}

/// Raises the process's soft limit of open files to the hard one: the soft one is low for the sake
/// of programs that count in bits of a word, which this is not.
pub fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}

fn open_files_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// An open port.
pub struct Listener {
    tcp: TcpListener,
    port: Port,
    limits: Limits,
    tls: Option<Tls>,
    places: Places,
    handshakes: Handshakes,
    paused_until: Option<Instant>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Listener");
        shown.field("port", &self.port).field("limits", &self.limits);
        shown.field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Listener {
    /// A port on a socket that is bound; plain text without `tls`.
    pub fn new(tcp: TcpListener, port: Port, limits: Limits, tls: Option<Tls>) -> Self {
        let places = Places::new(limits.connections, limits.per_address);
        let handshakes = Handshakes::default();
        Self { tcp, port, limits, tls, places, handshakes, paused_until: None }
    }

    /// A port in plain text with the usual limits.
    #[cfg(test)]
    pub(crate) fn plain(tcp: TcpListener, port: Port) -> Self {
        Self::new(tcp, port, Limits::new(port, &Listen::default()), None)
    }

    /// The next connection whose handshake is done; a slow one holds up nobody.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: handshakes go on with the next call.
    pub async fn accept(&mut self) -> Io {
        loop {
            tokio::select! {
                done = self.handshakes.next() => {
                    if let Some(io) = done {
                        return io;
                    }
                    refused(self.port, "handshake");
                }
                () = sleep_until(self.paused_until), if self.paused_until.is_some() => {
                    self.paused_until = None;
                }
                accepted = self.tcp.accept(), if self.paused_until.is_none() => match accepted {
                    Ok((stream, remote)) => if let Some(io) = self.admit(stream, remote) {
                        return io;
                    },
                    Err(error) => self.pause(&error),
                }
            }
        }
    }

    /// The connections as a stream that never ends.
    pub fn incoming(self) -> impl Stream<Item = Result<Io, Infallible>> + Send {
        futures::stream::unfold(self, |mut listener| async move {
            let io = listener.accept().await;
            Some((Ok(io), listener))
        })
    }

    /// A connection that is ready at once; nothing when it is refused or shakes hands first.
    fn admit(&mut self, stream: TcpStream, remote: SocketAddr) -> Option<Io> {
        let place = match self.places.take(remote.ip()) {
            Ok(place) => place,
            Err(reason) => {
                refused(self.port, reason);
                return None;
            }
        };
        // A connection that is gone already is noticed by whoever reads from it.
        _ = stream.set_nodelay(true);
        let (port, prove_max) = (self.port, self.limits.prove_max);
        let Some(tls) = &self.tls else {
            return Some(Io::plain(stream, Connection::new(port, remote, None), prove_max, place));
        };
        let evicted = self.handshakes.start(tls(), stream, move |stream, certificate| {
            // Nobody without a certificate of the nodes' authority comes this far.
            let is_known = port == Port::Peer && certificate.is_some();
            let connection = Connection::new(port, remote, certificate);
            if is_known {
                connection.prove();
            }
            Io::tls(stream, connection, prove_max, place)
        });
        if evicted {
            refused(self.port, "handshakes");
        }
        None
    }

    /// Accepts nothing for a while; handshakes go on.
    fn pause(&mut self, error: &std::io::Error) {
        refused(self.port, "accept");
        tracing::debug!(port = self.port.name(), %error, "a connection could not be accepted");
        self.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
    }
}

pub(crate) fn refused(port: Port, reason: &'static str) {
    counter!(REFUSED_CONNECTIONS, "port" => port.name(), "reason" => reason).increment(1);
}
