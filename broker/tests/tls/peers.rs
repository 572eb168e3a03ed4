//! The peer port: only those with a certificate of the nodes' authority get an answer.

use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use weft_broker::config::Config;
use weft_broker::identity::FORMAT;
use weft_proto::internal::forward_client::ForwardClient;
use weft_proto::internal::peer_client::PeerClient;
use weft_proto::internal::{ForwardedCommand, IdentifyRequest};

use crate::node::{Files, HANGS, Running, configs};
use crate::pki::{Authority, Signed, connector};

async fn started() -> (Files, Authority, Config, Running) {
    let (files, peers) = (Files::new(), Authority::new("peers"));
    let mut config = configs(1, &files).remove(0);
    let clients = Authority::new("clients");
    config.security = files.security(&clients.node(), &peers.pem, &peers.node());
    let running = Running::start(config.clone());
    let listening = async {
        while TcpStream::connect(&config.listen.peer).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HANGS, listening).await.unwrap();
    (files, peers, config, running)
}

fn channel(config: &Config, tls: Option<ClientTlsConfig>) -> Channel {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{}", config.listen.peer)).unwrap();
    let endpoint = endpoint.connect_timeout(HANGS);
    match tls {
        Some(tls) => endpoint.tls_config(tls).unwrap().connect_lazy(),
        None => endpoint.connect_lazy(),
    }
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem))
}

fn showing(tls: ClientTlsConfig, own: &Signed) -> ClientTlsConfig {
    tls.identity(Identity::from_pem(&own.certificate, &own.key))
}

async fn identify(channel: Channel, config: &Config) -> Result<String, Status> {
    let address = config.listen.peer.clone();
    let mut request = Request::new(IdentifyRequest {
        node_uid: "n".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        founders: vec![address],
        format: FORMAT,
        run: None,
        joins: false,
    });
    request.set_timeout(HANGS);
    Ok(PeerClient::new(channel).identify(request).await?.into_inner().node_uid)
}

/// Everything that is known about a failure.
fn told(status: &Status) -> String {
    let mut text = status.to_string();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_get_an_answer() {
    let (_files, peers, config, running) = started().await;
    let other = Authority::new("peers");

    let node = channel(&config, Some(showing(trusting(&peers), &peers.node())));
    let uid = identify(node, &config).await.unwrap();
    let bare = identify(channel(&config, Some(trusting(&peers))), &config).await.unwrap_err();
    let foreign = showing(trusting(&peers), &other.node());
    let foreign = identify(channel(&config, Some(foreign)), &config).await.unwrap_err();
    let plain = identify(channel(&config, None), &config).await.unwrap_err();
    let mistrusting = showing(trusting(&other), &peers.node());
    let mistrusting = identify(channel(&config, Some(mistrusting)), &config).await.unwrap_err();

    assert!(!uid.is_empty());
    assert!(told(&mistrusting).contains("invalid peer certificate"), "{}", told(&mistrusting));
    assert_eq!(mistrusting.code(), Code::Unavailable);
    // Made by this side's transport: the service never answered.
    for refused in [&bare, &foreign, &plain] {
        assert!(std::error::Error::source(refused).is_some(), "{}", told(refused));
    }
    running.stop().await;
}

/// How the peer port ends a connection of somebody who shows this.
async fn alert(config: &Config, trusted: &Authority, shown: Option<&Signed>) -> String {
    let tcp = TcpStream::connect(&config.listen.peer).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector(trusted, shown).connect(name, tcp).await.unwrap();
    // Up to here the client believes that it is let in.
    stream.read_u8().await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_told_what_is_wrong_with_their_certificate() {
    let (_files, peers, config, running) = started().await;
    let (other, namesake) = (Authority::new("others"), Authority::new("peers"));
    // Signed by the right authority, but not to be shown by a client.
    let servers_only = peers.sign(&["127.0.0.1"], &[ExtendedKeyUsagePurpose::ServerAuth]);

    for (shown, expected) in [
        (None, "CertificateRequired"),
        (Some(&other.node()), "UnknownCA"),
        // Found by its name, but its signature is not that of the authority.
        (Some(&namesake.node()), "DecryptError"),
        (Some(&servers_only), "fatal alert"),
    ] {
        let alert = alert(&config, &peers, shown).await;
        assert!(alert.contains(expected), "{expected}: {alert}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_forwards_nothing() {
    let (_files, peers, config, running) = started().await;
    let node = channel(&config, Some(showing(trusting(&peers), &peers.node())));
    let mut client = ForwardClient::new(node);

    let mut call = Request::new(ForwardedCommand::default());
    let metadata = call.metadata_mut();
    metadata.insert("weft-cluster", "another".parse().unwrap());
    metadata.insert("weft-from", 2.into());
    metadata.insert("weft-to", 1.into());
    let refused = async {
        loop {
            let status = client.command(again(&call)).await.unwrap_err();
            // Until it knows its own cluster it cannot tell.
            if !status.message().contains("starting") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let status = timeout(HANGS, refused).await.unwrap();

    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("comes from cluster another"), "{status}");
    running.stop().await;
}

fn again(call: &Request<ForwardedCommand>) -> Request<ForwardedCommand> {
    let mut request = Request::new(call.get_ref().clone());
    *request.metadata_mut() = call.metadata().clone();
    request.set_timeout(HANGS);
    request
}
