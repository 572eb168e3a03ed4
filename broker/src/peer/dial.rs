//! Encrypted connections to other nodes: with the certificate of the moment, to the node that is
//! meant.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;
use tower::Service;
use weft_proto::NodeId;

use crate::listen::ClientCertificate;
use crate::security::watched::Watched;
use crate::security::{HANDSHAKE_TIMEOUT, NODE_URI, PeerTls, host_of, node_of};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

type Encrypted = TokioIo<TlsStream<TcpStream>>;

/// Makes connections to an address, and to one node alone if it is known which.
pub(super) fn connector(
    tls: Watched<PeerTls>,
    address: String,
    node: Option<NodeId>,
) -> impl Service<Uri, Response = Encrypted, Error = io::Error, Future: Send> + Send + 'static {
    tower::service_fn(move |_uri| {
        let (tls, address) = (tls.current(), address.clone());
        async move {
            let late = |_late| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await;
            let handshake = shake_hands(&tls, tcp.map_err(late)??, &address, node);
            let late = |_late| io::Error::new(io::ErrorKind::TimedOut, "no TLS in time");
            timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(late)?.map(TokioIo::new)
        }
    })
}

async fn shake_hands(
    tls: &PeerTls,
    tcp: TcpStream,
    address: &str,
    node: Option<NodeId>,
) -> io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    // The peer's certificate must be for the host of this address.
    let host = host_of(address).to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::clone(&tls.client)).connect(name, tcp).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| io::Error::other("it shows no certificate"))?;
    let shown = ClientCertificate::read(shown).map_err(io::Error::other)?;
    check(&shown, node, tls.ids).map_err(io::Error::other)?;
    Ok(stream)
}

/// Whether a certificate may be shown by a node.
pub(super) fn check(
    shown: &ClientCertificate,
    node: Option<NodeId>,
    must_name: bool,
) -> Result<(), String> {
    match (node_of(shown)?, node) {
        (Some(named), Some(node)) if named != node => {
            Err(format!("its certificate is that of node {named}, not of node {node}"))
        }
        (None, _) if must_name => {
            Err(format!("its certificate names no node, as {NODE_URI}1 would"))
        }
        _ => Ok(()),
    }
}
