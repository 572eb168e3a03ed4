//! Certificates of clients and nodes, over real connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Secrets;
use super::watched::Watch;
use crate::config::Config;
use crate::listen::{ClientCertificate, Limits, Listener, Port, Tls};

/// Nothing here takes that long unless it hangs.
const HANGS: Duration = Duration::from_mins(1);

#[path = "../../../tests/harness/pki.rs"]
#[expect(dead_code, reason = "the tests of whole brokers use more of it")]
mod pki;

pub(crate) use pki::{Authority, BOTH, Signed};

/// Files that a configuration names.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What a node of an authority shows to others.
    pub(crate) fn peer(&self, authority: &Authority, shown: &Signed, ids: bool) -> Secrets {
        let mut config = Config::default();
        config.security.peer_ca = Some(self.write("peer-ca.pem", &authority.pem));
        config.security.peer_certificate = Some(self.write("peer.pem", &shown.certificate));
        config.security.peer_key = Some(self.write("peer.key", &shown.key));
        config.security.peer_ids = ids;
        Secrets::load(&config, Watch::default()).unwrap()
    }

    fn client(&self, authority: &Authority, shown: &Signed) -> Config {
        let mut config = Config::default();
        config.security.certificate = Some(self.write("node.pem", &shown.certificate));
        config.security.key = Some(self.write("node.key", &shown.key));
        config.security.client_ca = Some(self.write("client-ca.pem", &authority.pem));
        config
    }
}

fn connector(
    trusted: &Authority,
    shown: Option<&Signed>,
    version: &'static rustls::SupportedProtocolVersion,
) -> TlsConnector {
    TlsConnector::from(Arc::new(pki::client(&trusted.pem, shown, &[version])))
}

/// What the server knows of who connected, or why the client was refused.
async fn meet(
    tls: Tls,
    connector: TlsConnector,
) -> Result<Option<ClientCertificate>, std::io::Error> {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let limits = Limits { connections: 8, per_address: 8, prove_max: HANGS };
    let mut listener = Listener::new(tcp, Port::Grpc, limits, Some(tls));
    let client = async {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = connector.connect(name, tcp).await?;
        // A refusal of its certificate reaches the client only now.
        stream.read_u8().await
    };
    let server = async {
        let mut io = listener.accept().await;
        let certificate = io.connection().certificate().cloned();
        io.write_u8(1).await.unwrap();
        io.flush().await.unwrap();
        (certificate, io)
    };
    let meeting = async {
        tokio::pin!(client, server);
        tokio::select! {
            refused = &mut client => {
                refused?;
                Ok(server.await.0)
            }
            (certificate, _io) = &mut server => {
                client.await?;
                Ok(certificate)
            }
        }
    };
    timeout(HANGS, meeting).await.unwrap()
}

#[tokio::test]
async fn a_client_is_known_by_the_uris_of_its_certificate_or_not_at_all() {
    let (nodes, clients, files) =
        (Authority::new("nodes"), Authority::new("clients"), Files::new());
    let config = files.client(&clients, &nodes.node());
    let secrets = Secrets::load(&config, Watch::default()).unwrap();
    let uris = ["spiffe://weft/ns/a/sa/B", "weft://client/1"];
    let known = clients.sign(&[&["a.example"], &uris[..]].concat(), BOTH);
    let foreign = Authority::new("clients").sign(&[&["a.example"], &uris[..]].concat(), BOTH);
    let (v13, v12) = (&rustls::version::TLS13, &rustls::version::TLS12);

    for tls in [secrets.grpc().unwrap(), secrets.http().unwrap()] {
        let met = meet(Arc::clone(&tls), connector(&nodes, Some(&known), v13)).await.unwrap();
        assert_eq!(met.unwrap().uris, uris);
        let bare = meet(Arc::clone(&tls), connector(&nodes, None, v13)).await.unwrap();
        assert_eq!(bare, None);
        for refused in [connector(&nodes, Some(&foreign), v13), connector(&nodes, None, v12)] {
            assert!(meet(Arc::clone(&tls), refused).await.is_err());
        }
    }
}

#[tokio::test]
async fn tls12_is_spoken_where_it_is_asked_for_and_never_between_nodes() {
    let (nodes, clients, files) =
        (Authority::new("nodes"), Authority::new("clients"), Files::new());
    let own = nodes.node();
    let mut config = files.client(&clients, &own);
    config.security.tls12 = true;
    let secrets = Secrets::load(&config, Watch::default()).unwrap();
    let known = clients.sign(&["a.example", "weft://client/1"], BOTH);
    let v12 = &rustls::version::TLS12;

    let met = meet(secrets.grpc().unwrap(), connector(&nodes, Some(&known), v12)).await.unwrap();
    assert_eq!(met.unwrap().uris, ["weft://client/1"]);

    let peers = files.peer(&nodes, &own, false).peer().unwrap();
    let refused = meet(peers, connector(&nodes, Some(&own), v12)).await.unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn new_files_are_used_for_new_connections_and_bad_ones_are_not() {
    let (nodes, clients, files) =
        (Authority::new("nodes"), Authority::new("clients"), Files::new());
    let config = files.client(&clients, &nodes.node());
    let watch = Watch::default();
    let secrets = Secrets::load(&config, watch.clone()).unwrap();
    let tls = secrets.grpc().unwrap();
    let (later, other) = (Authority::new("later"), Authority::new("other"));
    let v13 = &rustls::version::TLS13;
    let trusts = async |authority: &Authority, shown: Option<&Signed>| {
        meet(Arc::clone(&tls), connector(authority, shown, v13)).await.is_ok()
    };
    assert!(trusts(&nodes, None).await && !trusts(&later, None).await);

    // Half of a new pair is no pair.
    let new = later.node();
    files.write("node.pem", &new.certificate);
    watch.look();
    watch.look();
    assert!(trusts(&nodes, None).await && !trusts(&later, None).await);
    files.write("node.key", &new.key);
    watch.look();
    assert!(!trusts(&nodes, None).await && trusts(&later, None).await);

    // The authority of clients: added, then alone.
    let (old, new) = (clients.sign(&["c"], BOTH), other.sign(&["c"], BOTH));
    assert!(trusts(&later, Some(&old)).await && !trusts(&later, Some(&new)).await);
    files.write("client-ca.pem", &format!("{}{}", clients.pem, other.pem));
    watch.look();
    assert!(trusts(&later, Some(&old)).await && trusts(&later, Some(&new)).await);
    files.write("client-ca.pem", "junk");
    watch.look();
    assert!(trusts(&later, Some(&old)).await && trusts(&later, Some(&new)).await);
    files.write("client-ca.pem", &other.pem);
    watch.look();
    assert!(!trusts(&later, Some(&old)).await && trusts(&later, Some(&new)).await);
}

#[test]
fn a_node_is_named_by_one_uri_in_one_way() {
    let authority = Authority::new("nodes");
    for (uris, expected) in [
        (&[][..], Ok(None)),
        (&["weft://node/7"], Ok(Some(7))),
        (&["https://weft/node/7", "weft://node/7"], Ok(Some(7))),
        (&["weft://node/07"], Err(())),
        (&["weft://node/+7"], Err(())),
        (&["weft://node/"], Err(())),
        (&["weft://node/7/x"], Err(())),
        (&["weft://node/7", "weft://node/8"], Err(())),
        (&["WEFT://NODE/7"], Ok(None)),
    ] {
        let der = authority.sign(&[&["h"], uris].concat(), BOTH).certificate;
        let der = CertificateDer::from_pem_slice(der.as_bytes()).unwrap();
        let named = super::node_of(&ClientCertificate::read(&der).unwrap());
        let named = named.map(|node| node.map(weft_proto::NodeId::get)).map_err(|_problem| ());
        assert_eq!(named, expected, "{uris:?}");
    }
}
