//! What is known about a connection, for those who answer its requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::Port;
use super::certificate::ClientCertificate;

/// A connection that was accepted. Requests carry it as `Arc<Connection>` in their extensions, on
/// all ports.
#[derive(Debug)]
pub struct Connection {
    port: Port,
    remote: SocketAddr,
    certificate: Option<ClientCertificate>,
    is_proven: AtomicBool,
    /// What is given back when the connection goes.
    held: OnceLock<Held>,
}

/// Something that matters by being dropped.
type Held = Box<dyn std::fmt::Debug + Send + Sync>;

impl Connection {
    /// A connection of which nobody has proved anything yet.
    pub fn new(
        port: Port,
        remote: SocketAddr,
        certificate: Option<ClientCertificate>,
    ) -> Arc<Self> {
        Arc::new(Self {
            port,
            remote,
            certificate,
            is_proven: AtomicBool::new(false),
            held: OnceLock::new(),
        })
    }

    /// Where it was accepted.
    pub fn port(&self) -> Port {
        self.port
    }

    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// What the other end showed in the handshake, verified against the authority of the port.
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }

    /// Says that a request of this connection was authenticated: without, it is closed soon.
    pub fn prove(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    /// Keeps something until the connection goes; the first counts.
    pub fn hold(&self, held: impl std::fmt::Debug + Send + Sync + 'static) {
        // A request beside this one was first: what it has taken is the connection's.
        _ = self.held.set(Box::new(held));
    }

    /// Whether `prove` was called.
    pub fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }
}
