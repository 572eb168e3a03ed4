//! Every certificate, key and authority of a cluster replaced on disk, one node at a time, while
//! others publish and read: nobody notices, and what was good before is refused at the end.

use std::collections::BTreeSet;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use weft_client::{Client, ReadItem, ReadOptions, Reader};
use weft_proto::event::EventView;

use super::checker::Fate;
use super::harness::node::{Node, quoted};
use super::harness::pki::{Authority, BOTH, Signed, connector};
use super::harness::ports::address;
use super::harness::{Cluster, eventually, within};
use super::planned::{Publishers, STREAMS};

/// Files are looked at every five seconds; the machine may be busy.
const SOON: Duration = Duration::from_mins(1);

/// Who signs what clients see, and what nodes show each other.
struct Authorities {
    servers: Authority,
    peers: Authority,
}

impl Authorities {
    fn new() -> Self {
        Self { servers: Authority::new("servers"), peers: Authority::new("peers") }
    }

    /// Writes what a node shows; the keys of its configuration.
    fn show(&self, node: &Node) -> String {
        let (server, peer) = (self.servers.node(), self.peers.node());
        let write = |name: &str, text: &str| quoted(&node.write(name, text));
        format!(
            "certificate = {}\nkey = {}\npeer_certificate = {}\npeer_key = {}\n",
            write("server.pem", &server.certificate),
            write("server.key", &server.key),
            write("peer.pem", &peer.certificate),
            write("peer.key", &peer.key),
        )
    }
}

/// Whether a port has a certificate of an authority, and lets in who shows this.
async fn lets_in(port: u16, trusted: &Authority, shown: Option<&Signed>) -> bool {
    let meeting = async {
        let tcp = TcpStream::connect(address(port)).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = connector(trusted, shown).connect(name, tcp).await?;
        // A refusal comes after the handshake of the client; the settings of HTTP/2 do not wait.
        stream.read_u8().await
    };
    timeout(SOON, meeting).await.unwrap().is_ok()
}

/// Reads what comes, without end, and counts it: nothing twice, and no failure.
async fn follow(mut reader: Reader, read: watch::Sender<BTreeSet<String>>) {
    while let Some(item) = reader.next().await.unwrap() {
        let ReadItem::Batch(batch) = item else { continue };
        read.send_modify(|ids| {
            for record in batch.into_records() {
                let view = EventView::parse(&record.event).unwrap();
                assert!(ids.insert(view.id.to_owned()), "{} came twice", view.id);
            }
        });
    }
}

#[expect(clippy::too_many_lines, reason = "one story")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_certificates_and_authorities_are_replaced_and_nobody_notices() {
    let (old, new) = (Authorities::new(), Authorities::new());
    let mut cluster = Cluster::new(3).await;
    for node in &mut cluster.nodes {
        let shown = old.show(node);
        let peer_ca = quoted(&node.write("peer-ca.pem", &old.peers.pem));
        node.sections = format!("[security]\npeer_ca = {peer_ca}\n{shown}");
        node.trusted = Some(format!("{}{}", old.servers.pem, new.servers.pem));
    }
    cluster.start_all().await;
    let publishers = Publishers::start(&cluster).await;
    let (sender, mut read) = watch::channel(BTreeSet::new());
    let reads = cluster.client();
    let reading = reads.read(ReadOptions {
        from: weft_client::Position::Earliest,
        ..ReadOptions::follow(STREAMS[0])
    });
    let mut readers = tokio::task::JoinSet::new();
    readers.spawn(follow(reading.await.unwrap(), sender));
    let (old_peer, new_peer) = (old.peers.node(), new.peers.node());

    // Both authorities are trusted before anybody shows what the new one signed.
    for node in &cluster.nodes {
        assert!(!lets_in(node.ports.peer, &old.peers, Some(&new_peer)).await);
        node.write("peer-ca.pem", &format!("{}{}", old.peers.pem, new.peers.pem));
        eventually(SOON, "trust in the new authority", async || {
            lets_in(node.ports.peer, &old.peers, Some(&new_peer)).await.then_some(())
        })
        .await;
        publishers.progress().await;
    }
    for node in &cluster.nodes {
        new.show(node);
        eventually(SOON, "the new certificates", async || {
            let clients = lets_in(node.ports.grpc, &new.servers, None).await;
            let nodes = lets_in(node.ports.peer, &new.peers, Some(&old_peer)).await;
            (clients && nodes).then_some(())
        })
        .await;
        publishers.progress().await;
    }
    for node in &cluster.nodes {
        node.write("peer-ca.pem", &new.peers.pem);
        eventually(SOON, "the end of the old authority", async || {
            let is_out = !lets_in(node.ports.peer, &new.peers, Some(&old_peer)).await;
            is_out.then_some(())
        })
        .await;
        publishers.progress().await;
    }
    // Connections that were open go on; after this there is none that is older than the files.
    for node in &mut cluster.nodes {
        assert_eq!(node.stop().await.code(), Some(0));
        publishers.progress().await;
        node.start();
        node.ready().await;
        publishers.progress().await;
    }

    for node in &cluster.nodes {
        assert!(lets_in(node.ports.peer, &new.peers, Some(&new_peer)).await);
        assert!(!lets_in(node.ports.peer, &new.peers, Some(&old_peer)).await);
        assert!(!lets_in(node.ports.peer, &old.peers, Some(&new_peer)).await);
        assert!(!lets_in(node.ports.grpc, &old.servers, None).await);
    }
    let attempts = publishers.finish(&cluster).await;
    let acknowledged = attempts.iter().filter(|one| matches!(one.fate, Fate::Acked(..)));
    let wanted: BTreeSet<String> = acknowledged.map(|one| one.id.to_string()).collect();
    let all = async {
        tokio::select! {
            complete = read.wait_for(|ids| ids.is_superset(&wanted)) => drop(complete.unwrap()),
            ended = readers.join_next() => panic!("the reader ended: {ended:?}"),
        }
    };
    within(SOON, "that the reader has everything", all).await;
    readers.shutdown().await;
    // Whoever only trusts what there was before is not served any more.
    let stale = weft_client::Options {
        tls: Some(weft_client::Tls { ca_pem: old.servers.pem, ..weft_client::Tls::default() }),
        timeouts: weft_client::Timeouts { call: Duration::from_secs(2), ..Default::default() },
        ..cluster.options()
    };
    assert!(Client::connect(&stale).unwrap().status().await.is_err());
}

/// The authority of clients is replaced like all others: both are trusted for a while, then one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_of_clients_is_replaced() {
    let servers = Authorities::new();
    let (old, new) = (Authority::new("old clients"), Authority::new("new clients"));
    let mut cluster = Cluster::new(1).await;
    let node = &mut cluster.nodes[0];
    let client_ca = quoted(&node.write("client-ca.pem", &old.pem));
    let peer_ca = quoted(&node.write("peer-ca.pem", &servers.peers.pem));
    let shown = servers.show(node);
    node.sections = format!("[security]\nclient_ca = {client_ca}\npeer_ca = {peer_ca}\n{shown}");
    node.trusted = Some(servers.servers.pem.clone());
    cluster.start_all().await;
    let node = &cluster.nodes[0];
    let [old_client, new_client] =
        [&old, &new].map(|authority| authority.sign(&["weft://client/1"], BOTH));
    let is_in =
        async |client: &Signed| lets_in(node.ports.grpc, &servers.servers, Some(client)).await;

    assert!(is_in(&old_client).await && !is_in(&new_client).await);
    node.write("client-ca.pem", &format!("{}{}", old.pem, new.pem));
    eventually(SOON, "trust in both", async || is_in(&new_client).await.then_some(())).await;
    assert!(is_in(&old_client).await);
    node.write("client-ca.pem", &new.pem);
    eventually(SOON, "the end of the old one", async || (!is_in(&old_client).await).then_some(()))
        .await;

    assert!(is_in(&new_client).await);
    // What is no authority changes nothing.
    node.write("client-ca.pem", "no certificate");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(is_in(&new_client).await && !is_in(&old_client).await);
}
