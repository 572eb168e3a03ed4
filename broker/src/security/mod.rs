//! What the `security` section names: certificates and keys, read and checked before anything
//! starts, and looked at again while the node runs.

mod clients;
mod peers;
mod pem;
#[cfg(test)]
pub(crate) mod tests;
pub mod watched;

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};
use weft_proto::Timestamp;

pub use clients::ClientPorts;
pub(crate) use peers::host_of;
pub use peers::{NODE_URI, PeerTls, node_of};

use self::pem::{Shown, provider};
use self::watched::{Watch, Watched};
use crate::config::{Config, ConfigError};
use crate::listen::Tls;
use crate::metrics::CERTIFICATE_EXPIRES;

/// A TLS handshake must end by then.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node shows, and what others must show to it.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Encrypts the client ports; plain text without.
    pub clients: Option<Watched<ClientPorts>>,
    /// Encrypts traffic between nodes; plain text without.
    pub peers: Option<Watched<PeerTls>>,
    /// Looks at the files again; more can be added to it.
    pub watch: Watch,
}

impl Secrets {
    /// Reads and checks everything that the configuration names; `watch` looks at it again.
    ///
    /// # Errors
    ///
    /// The key whose file cannot be used, with its path.
    pub fn load(config: &Config, watch: Watch) -> Result<Self, ConfigError> {
        let security = &config.security;
        let clients = clients::load(security)?;
        let peers = peers::load(security, &config.listen.peer)?;
        if let Some(clients) = &clients {
            watch.add(Arc::new(clients.clone()));
        }
        if let Some(peers) = &peers {
            watch.add(Arc::new(peers.clone()));
        }
        Ok(Self { clients, peers, watch })
    }

    /// For the gRPC port.
    pub fn grpc(&self) -> Option<Tls> {
        let clients = self.clients.clone()?;
        Some(Arc::new(move || Arc::clone(&clients.current().grpc)))
    }

    /// For the HTTP port.
    pub fn http(&self) -> Option<Tls> {
        let clients = self.clients.clone()?;
        Some(Arc::new(move || Arc::clone(&clients.current().http)))
    }

    /// For the peer port.
    pub fn peer(&self) -> Option<Tls> {
        let peers = self.peers.clone()?;
        Some(Arc::new(move || Arc::clone(&peers.current().server)))
    }
}

const ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];
const FROM_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Whom a port asks for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// Everybody, and lets in those who have none.
    Everybody,
    /// Everybody, and lets in nobody without.
    OrElse,
}

/// The settings of a port, without a protocol chosen yet.
fn server(
    shown: &Shown,
    roots: Option<(Arc<RootCertStore>, Asks)>,
    versions: &'static [&'static SupportedProtocolVersion],
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match roots {
        Some((roots, asks)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match asks {
                Asks::Everybody => verifier.allow_unauthenticated(),
                Asks::OrElse => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(shown.chain.clone(), shown.key.clone_key())
        .map_err(|error| error.to_string())?;
    // A resumed session would be as good as the certificate was when it began.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Tells the metrics when the certificate in use expires.
fn tell_expiry(port: &'static str, expires: Timestamp) {
    let seconds = Duration::from_micros(expires.as_micros()).as_secs_f64();
    gauge!(CERTIFICATE_EXPIRES, "port" => port).set(seconds);
}
