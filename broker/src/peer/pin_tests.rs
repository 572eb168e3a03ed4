//! Who may say that it is which node: certificates against claims, in both directions.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::net::TcpListener;
use weft_proto::NodeId;
use weft_proto::internal as wire;

use super::grpc::{Grpc, Name};
use super::server::{Node, serve};
use super::tests::Echo;
use super::{Directory, Error, Peer, Transport as _};
use crate::config::Listen;
use crate::ingest::Remote;
use crate::listen::{Limits, Listener, Port};
use crate::security::tests::{Authority, BOTH, Files, Signed};
use crate::tasks::Tasks;

/// Where nodes are.
struct Known(BTreeMap<u64, &'static str>);

impl Directory for Known {
    fn address_of(&self, node: NodeId) -> Option<String> {
        self.0.get(&node.get()).map(|&address| address.to_owned())
    }
}

struct Cluster {
    authority: Authority,
    peer: Peer,
    tasks: Tasks,
}

/// Node 2, which knows nodes 1 and 3.
async fn node_two(shown: &[&str], ids: bool) -> Cluster {
    let (authority, files, tasks) = (Authority::new("nodes"), Files::new(), Tasks::new());
    let secrets =
        files.peer(&authority, &authority.sign(&[&["127.0.0.1"], shown].concat(), BOTH), ids);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let limits = Limits::new(Port::Peer, &Listen::default());
    let listener = Listener::new(tcp, Port::Peer, limits, secrets.peer());
    let echo = Arc::new(Echo::default());
    let node = Node::new(Arc::clone(&echo) as _).demanding_ids(ids);
    let known = Known([(1, "127.0.0.1:1"), (3, "10.9.9.9:1")].into());
    let name = Name { cluster_uid: "c".to_owned(), node: NodeId(2) };
    node.join(name, Arc::new(echo), Arc::new(known));
    tasks.spawn("peers", move |stop| serve(listener, node, Remote::new(), stop));
    Cluster { authority, peer: Peer { node: NodeId(2), address }, tasks }
}

impl Cluster {
    /// How node 2 answers to somebody who shows this and says to be that node.
    async fn call(&self, shown: &Signed, claims: u64) -> Result<(), Error> {
        let secrets = Files::new().peer(&self.authority, shown, false);
        let name = Name { cluster_uid: "c".to_owned(), node: NodeId(claims) };
        let client = Grpc::new(name, secrets.peers, self.tasks.clone());
        client.vote(&self.peer, wire::VoteRequest::default()).await.map(|_vote| ())
    }

    async fn identify(&self, shown: &Signed, address: &str, joins: bool) -> Result<(), Error> {
        let secrets = Files::new().peer(&self.authority, shown, false);
        let client = Grpc::nameless(secrets.peers, self.tasks.clone());
        let address = address.to_owned();
        let request = wire::IdentifyRequest { address, joins, ..Default::default() };
        client.identify(&self.peer.address, request).await.map(|_answer| ())
    }
}

fn told(outcome: Result<(), Error>) -> String {
    outcome.map_or_else(|error| error.to_string(), |()| "answered".to_owned())
}

#[tokio::test]
async fn a_node_cannot_say_that_it_is_another_one() {
    for ids in [false, true] {
        let cluster = node_two(&["weft://node/2"], ids).await;
        let sign = |uris: &[&str]| cluster.authority.sign(&[&["127.0.0.1"], uris].concat(), BOTH);
        let bare = if ids { "names no node" } else { "answered" };
        for (uris, claims, expected) in [
            (&[][..], 1, bare),
            (&["weft://node/1"], 1, "answered"),
            (&["weft://node/3"], 1, "is that of node 3, not of node 1"),
            (&["weft://node/1"], 3, "is that of node 1, not of node 3"),
            // The right name, but not where that node is.
            (&["weft://node/3"], 3, "is not for 10.9.9.9"),
            (&["weft://node/9"], 9, "does not know a node 9"),
        ] {
            let told = told(cluster.call(&sign(uris), claims).await);
            assert!(told.contains(expected), "{uris:?} as {claims}: {told}");
        }
    }
}

#[tokio::test]
async fn who_asks_for_an_identity_must_be_where_it_says() {
    let cluster = node_two(&[], false).await;
    let shown = cluster.authority.node();

    // To join, or to be told whether the node answers.
    for joins in [false, true] {
        let there = told(cluster.identify(&shown, "127.0.0.1:9", joins).await);
        let elsewhere = told(cluster.identify(&shown, "10.9.9.9:9", joins).await);
        let nowhere = told(cluster.identify(&shown, "", joins).await);

        // Nobody admits nodes here.
        assert!(there.contains(if joins { "starting" } else { "answered" }), "{there}");
        assert!(elsewhere.contains("not for this host"), "{elsewhere}");
        // The certificate is enough to ask; what is answered is up to the node behind it.
        let asked = if joins { "not for this host" } else { "no address" };
        assert!(nowhere.contains(asked), "{nowhere}");
    }
}

#[tokio::test]
async fn a_node_does_not_talk_to_another_one_than_it_means() {
    let cluster = node_two(&["weft://node/7"], false).await;
    let shown = cluster.authority.sign(&["127.0.0.1", "weft://node/1"], BOTH);

    let wrong = told(cluster.call(&shown, 1).await);

    assert!(wrong.contains("is that of node 7, not of node 2"), "{wrong}");
}

#[tokio::test]
async fn a_connection_takes_the_certificate_of_the_moment() {
    let cluster = node_two(&["weft://node/2"], true).await;
    let files = Files::new();
    let secrets = files.peer(&cluster.authority, &cluster.authority.node(), false);
    let watch = secrets.watch.clone();
    let name = Name { cluster_uid: "c".to_owned(), node: NodeId(1) };
    let vote = async || {
        // A transport of its own each time: connections that work are kept.
        let client = Grpc::new(name.clone(), secrets.peers.clone(), cluster.tasks.clone());
        told(client.vote(&cluster.peer, wire::VoteRequest::default()).await.map(|_vote| ()))
    };
    let before = vote().await;

    let named = cluster.authority.sign(&["127.0.0.1", "weft://node/1"], BOTH);
    files.write("peer.pem", &named.certificate);
    files.write("peer.key", &named.key);
    watch.look();

    assert!(before.contains("names no node"), "{before}");
    assert_eq!(vote().await, "answered");
}
