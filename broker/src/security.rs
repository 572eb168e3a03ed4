//! What the `security` section names: certificates and keys, read and checked before
//! anything starts.
//!
//! *Never* reads a file again: a new certificate needs a restart of the node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::clock;
use crate::config::{Config, ConfigError, Security};

/// A TLS handshake must end by then.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node shows, and what others must show to it.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Encrypts the client ports; plain text without.
    pub clients: Option<ClientPorts>,
    /// Encrypts traffic between nodes; plain text without.
    pub peers: Option<PeerTls>,
}

/// One certificate for both ports that clients reach.
#[derive(Debug)]
pub struct ClientPorts {
    /// For gRPC.
    pub grpc: ServerTlsConfig,
    /// For HTTP.
    pub http: Arc<ServerConfig>,
}

/// Both ends of traffic between nodes: each proves who it is.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// For the peer port.
    pub server: ServerTlsConfig,
    /// For calls to other nodes.
    pub client: ClientTlsConfig,
}

impl Secrets {
    /// Reads and checks everything that the configuration names.
    ///
    /// # Errors
    ///
    /// The key whose file cannot be used, with its path.
    pub fn load(config: &Config) -> Result<Self, ConfigError> {
        let security = &config.security;
        let clients = client_ports(security)?;
        let peers = peer_tls(security, &config.listen.peer)?;
        Ok(Self { clients, peers })
    }
}

fn client_ports(security: &Security) -> Result<Option<ClientPorts>, ConfigError> {
    let (Some(certificate), Some(key)) = (&security.certificate, &security.key) else {
        return Ok(None);
    };
    let shown = Shown::read(("security.certificate", certificate), ("security.key", key))?;
    let unusable = |error: rustls::Error| {
        let problem = format!("{} cannot be used: {error}", certificate.display());
        ConfigError { key: "security.certificate", problem }
    };
    let mut http = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(shown.chain.clone(), shown.key.clone_key())
        .map_err(unusable)?;
    http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let grpc = ServerTlsConfig::new().identity(shown.identity()).timeout(HANDSHAKE_TIMEOUT);
    Ok(Some(ClientPorts { grpc, http: Arc::new(http) }))
}

fn peer_tls(security: &Security, address: &str) -> Result<Option<PeerTls>, ConfigError> {
    let (Some(ca), Some(certificate), Some(key)) =
        (&security.peer_ca, &security.peer_certificate, &security.peer_key)
    else {
        return Ok(None);
    };
    let shown =
        Shown::read(("security.peer_certificate", certificate), ("security.peer_key", key))?;
    let ca_pem = read("security.peer_ca", ca)?;
    let roots = roots("security.peer_ca", ca, &ca_pem)?;
    shown.would_convince_peers(roots, address).map_err(|error| {
        let problem = format!(
            "the other nodes would refuse {} ({error}): it must be signed by {}, be valid now, be \
             for servers and for clients, and name the host of listen.peer = {address}",
            certificate.display(),
            ca.display(),
        );
        ConfigError { key: "security.peer_certificate", problem }
    })?;
    let authority = Certificate::from_pem(ca_pem);
    let server = ServerTlsConfig::new()
        .identity(shown.identity())
        .client_ca_root(authority.clone())
        .client_auth_optional(false)
        .timeout(HANDSHAKE_TIMEOUT);
    let client = ClientTlsConfig::new()
        .ca_certificate(authority)
        .identity(shown.identity())
        .timeout(HANDSHAKE_TIMEOUT);
    Ok(Some(PeerTls { server, client }))
}

/// A certificate chain and the key of its first certificate.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate_pem: Vec<u8>,
    key_pem: Vec<u8>,
}

impl Shown {
    fn read(
        (certificate_key, certificate): (&'static str, &Path),
        (key_key, key): (&'static str, &Path),
    ) -> Result<Self, ConfigError> {
        let certificate_pem = read(certificate_key, certificate)?;
        let chain = certificates(certificate_key, certificate, &certificate_pem)?;
        for certificate_der in &chain {
            ParsedCertificate::try_from(certificate_der).map_err(|error| {
                let problem =
                    format!("{} holds no X.509 certificate: {error}", certificate.display());
                ConfigError { key: certificate_key, problem }
            })?;
        }
        let key_pem = read(key_key, key)?;
        let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| {
            let problem = match error {
                pem::Error::NoItemsFound => format!(
                    "{} holds no private key: PEM in PKCS#8, PKCS#1 or SEC1 is read, without a \
                     passphrase",
                    key.display()
                ),
                error => format!("{} is not a PEM file: {error}", key.display()),
            };
            ConfigError { key: key_key, problem }
        })?;
        let matching = CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider());
        matching.map_err(|error| {
            let problem = match error {
                rustls::Error::InconsistentKeys(_) => format!(
                    "{} is not the key of the first certificate in {}",
                    key.display(),
                    certificate.display()
                ),
                error => format!("the key in {} cannot be used: {error}", key.display()),
            };
            ConfigError { key: key_key, problem }
        })?;
        Ok(Self { chain, key: private, certificate_pem, key_pem })
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate_pem, &self.key_pem)
    }

    /// What other nodes will check, now: else a mistake shows as a cluster that is never born.
    fn would_convince_peers(&self, roots: RootCertStore, address: &str) -> Result<(), String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host).map_err(|_error| format!("{host} is no name"))?;
        let Some((own, intermediates)) = self.chain.split_first() else {
            return Err("it is empty".to_owned());
        };
        let now = UnixTime::since_unix_epoch(Duration::from_micros(clock::now().as_micros()));
        let roots = Arc::new(roots);
        let as_server = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|error| error.to_string())?;
        as_server
            .verify_server_cert(own, intermediates, &name, &[], now)
            .map_err(|error| error.to_string())?;
        let as_client = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| error.to_string())?;
        as_client.verify_client_cert(own, intermediates, now).map_err(|error| error.to_string())?;
        Ok(())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| {
        let problem = format!("cannot read {}: {error}", path.display());
        ConfigError { key, problem }
    })
}

fn certificates(
    key: &'static str,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let refuse = |what: String| {
        let problem = format!("{} {what}", path.display());
        Err(ConfigError { key, problem })
    };
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = match certificate {
            Ok(certificate) => certificate,
            Err(error) => return refuse(format!("is not a PEM file: {error}")),
        };
        found.push(certificate);
    }
    if found.is_empty() {
        return refuse("holds no certificate: a PEM file is expected".to_owned());
    }
    Ok(found)
}

fn roots(key: &'static str, path: &Path, text: &[u8]) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, path, text)? {
        roots.add(certificate).map_err(|error| {
            let problem = format!("{} cannot be trusted: {error}", path.display());
            ConfigError { key, problem }
        })?;
    }
    Ok(roots)
}
