//! TLS between nodes: both ends show a certificate of the same authority, by TLS 1.3 only.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use weft_proto::NodeId;

use super::pem::{Shown, provider, roots};
use super::watched::{Contents, File, Watched};
use super::{Asks, ONLY_13, server, tell_expiry};
use crate::clock;
use crate::config::{ConfigError, Security};
use crate::listen::ClientCertificate;

/// What a node's id in a certificate begins with.
pub const NODE_URI: &str = "weft://node/";

/// Both ends of traffic between nodes: each proves who it is.
#[derive(Debug)]
pub struct PeerTls {
    /// For the peer port.
    pub server: Arc<ServerConfig>,
    /// For calls to other nodes.
    pub client: Arc<ClientConfig>,
    /// A certificate must name its node.
    pub ids: bool,
}

/// The node that a certificate names; `Ok(None)` when it names none.
///
/// # Errors
///
/// When it names several, or something that is no id.
pub fn node_of(certificate: &ClientCertificate) -> Result<Option<NodeId>, String> {
    let mut named = None;
    for uri in &certificate.uris {
        let Some(id) = uri.strip_prefix(NODE_URI) else { continue };
        // One way to write each id: no sign, no leading zero.
        let parsed = id.parse::<u64>().ok().filter(|number| number.to_string() == id);
        let node = parsed.ok_or_else(|| format!("its certificate names no node: {uri:?}"))?;
        if named.replace(NodeId(node)).is_some() {
            return Err("its certificate names several nodes".to_owned());
        }
    }
    Ok(named)
}

/// Reads the files of the section; nothing without an authority.
pub(super) fn load(
    security: &Security,
    address: &str,
) -> Result<Option<Watched<PeerTls>>, ConfigError> {
    let (Some(ca), Some(certificate), Some(key)) =
        (&security.peer_ca, &security.peer_certificate, &security.peer_key)
    else {
        return Ok(None);
    };
    let files = vec![
        File::new("security.peer_certificate", certificate),
        File::new("security.peer_key", key),
        File::new("security.peer_ca", ca),
    ];
    let (address, ids) = (address.to_owned(), security.peer_ids);
    let make = move |files: &[File], contents: &Contents| make(files, contents, &address, ids);
    Watched::load("peers", files, make).map(Some)
}

fn make(
    files: &[File],
    contents: &Contents,
    address: &str,
    ids: bool,
) -> Result<PeerTls, ConfigError> {
    let ([certificate, key, ca], [certificate_pem, key_pem, ca_pem]) = (files, &contents[..])
    else {
        let problem = "no authority is named".to_owned();
        return Err(ConfigError { key: "security.peer_ca", problem });
    };
    let shown = Shown::read((certificate, certificate_pem), (key, key_pem))?;
    let roots = roots(ca, ca_pem)?;
    would_convince_peers(&shown, &roots, address, ids).map_err(|error| {
        let problem = format!(
            "the other nodes would refuse {} ({error}): it must be signed by {}, be valid now, be \
             for servers and for clients, and name the host of listen.peer = {address}",
            certificate.path.display(),
            ca.path.display(),
        );
        ConfigError { key: certificate.key, problem }
    })?;
    let unusable = |error: String| certificate.wrong(format_args!("cannot be used: {error}"));
    let mut server =
        server(&shown, Some((Arc::clone(&roots), Asks::OrElse)), ONLY_13).map_err(unusable)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(ONLY_13)
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(shown.chain.clone(), shown.key.clone_key())
        .map_err(|error| unusable(error.to_string()))?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    tell_expiry("peer", shown.expires());
    Ok(PeerTls { server: Arc::new(server), client: Arc::new(client), ids })
}

/// What other nodes will check, now: else a mistake shows as a cluster that is never born.
fn would_convince_peers(
    shown: &Shown,
    roots: &Arc<RootCertStore>,
    address: &str,
    ids: bool,
) -> Result<(), String> {
    let host = host_of(address);
    let name = ServerName::try_from(host).map_err(|_error| format!("{host} is no name"))?;
    let Some((own, intermediates)) = shown.chain.split_first() else {
        return Err("it is empty".to_owned());
    };
    let now = UnixTime::since_unix_epoch(Duration::from_micros(clock::now().as_micros()));
    let as_server = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|error| error.to_string())?;
    as_server
        .verify_server_cert(own, intermediates, &name, &[], now)
        .map_err(|error| error.to_string())?;
    let as_client = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|error| error.to_string())?;
    as_client.verify_client_cert(own, intermediates, now).map_err(|error| error.to_string())?;
    if node_of(&shown.own)?.is_none() && ids {
        return Err(format!("it has no name like {NODE_URI}1, which peer_ids demands"));
    }
    Ok(())
}

/// The host of an address, as certificates have it.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
    host.trim_matches(['[', ']'])
}
