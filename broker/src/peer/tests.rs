//! The peer port over loopback: who is let in, and what arrives whole.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt as _, stream};
use tokio::net::TcpListener;
use weft_proto::NodeId;
use weft_proto::internal as wire;
use weft_proto::internal::forward_client::ForwardClient;

use super::grpc::{Grpc, Lane, Name};
use super::server::{Node, serve};
use super::{Directory, Error, Handler, Introduce, Messages, Peer, Transport as _};
use crate::ingest::Remote;
use crate::listen::{Listener, Port};
use crate::tasks::Tasks;

/// Echoes what it gets.
#[derive(Default)]
pub(super) struct Echo {
    snapshot: Mutex<Option<Bytes>>,
}

impl Handler for Arc<Echo> {
    fn append(&self, requests: Messages<wire::AppendRequest>) -> Messages<wire::AppendResponse> {
        requests.map(|request| response(&request)).boxed()
    }

    fn heartbeat(&self, request: wire::AppendRequest) -> BoxFuture<'static, wire::AppendResponse> {
        Box::pin(async move { response(&request) })
    }

    fn vote(
        &self,
        request: wire::VoteRequest,
    ) -> BoxFuture<'static, Result<wire::VoteResponse, Error>> {
        let vote = wire::VoteResponse { vote: request.vote, granted: true, last: request.last };
        Box::pin(async move { Ok(vote) })
    }

    fn transfer_leader(
        &self,
        _request: wire::TransferLeaderRequest,
    ) -> BoxFuture<'static, Result<wire::TransferLeaderResponse, Error>> {
        Box::pin(async { Err(Error::Unreachable("not now".to_owned())) })
    }

    fn install_snapshot(
        &self,
        head: wire::SnapshotHead,
        data: Bytes,
    ) -> BoxFuture<'static, Result<wire::SnapshotResponse, Error>> {
        *self.snapshot.lock().unwrap() = Some(data);
        Box::pin(async move { Ok(wire::SnapshotResponse { vote: head.vote }) })
    }
}

impl Directory for Echo {
    fn address_of(&self, _node: NodeId) -> Option<String> {
        None
    }
}

impl Introduce for Echo {
    fn identify(&self, request: wire::IdentifyRequest) -> Result<wire::IdentifyResponse, Error> {
        if request.address.is_empty() {
            return Err(Error::Refused("no address".to_owned()));
        }
        Ok(wire::IdentifyResponse { node_uid: "uid".to_owned(), ..Default::default() })
    }
}

fn response(request: &wire::AppendRequest) -> wire::AppendResponse {
    let matched = wire::Matched { log_id: request.commit };
    wire::AppendResponse { outcome: Some(wire::append_response::Outcome::Matched(matched)) }
}

fn request(index: u64) -> wire::AppendRequest {
    wire::AppendRequest { commit: Some(wire::LogId { term: 1, index }), ..Default::default() }
}

struct Server {
    peer: Peer,
    node: Node,
    echo: Arc<Echo>,
    tasks: Tasks,
}

/// A listener that only introduces itself.
async fn unborn() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (echo, tasks) = (Arc::new(Echo::default()), Tasks::new());
    let node = Node::new(Arc::clone(&echo) as _);
    let serving = node.clone();
    tasks.spawn("peers", move |stop| {
        serve(Listener::plain(listener, Port::Peer), serving, Remote::new(), stop)
    });
    Server { peer: Peer { node: NodeId(2), address }, node, echo, tasks }
}

/// A member of cluster `c`, with the id 2.
async fn member() -> Server {
    let server = unborn().await;
    let name = Name { cluster_uid: "c".to_owned(), node: NodeId(2) };
    server.node.join(name, Arc::new(Arc::clone(&server.echo)), Arc::clone(&server.echo) as _);
    server
}

fn client(server: &Server, cluster: &str, node: u64) -> Grpc {
    let name = Name { cluster_uid: cluster.to_owned(), node: NodeId(node) };
    Grpc::new(name, None, server.tasks.clone())
}

#[tokio::test]
async fn answers_keep_the_order_of_requests() {
    let server = member().await;
    let requests = stream::iter((1..=500).map(request)).boxed();

    let answers = client(&server, "c", 1).append(&server.peer, requests).await.unwrap();

    let expected: Vec<_> = (1..=500).map(|index| Ok(response(&request(index)))).collect();
    assert_eq!(answers.collect::<Vec<_>>().await, expected);
}

#[tokio::test]
async fn heartbeats_of_many_groups_share_a_stream() {
    let server = member().await;
    let client = client(&server, "c", 1);

    let beats = (1..=100).map(|index| client.heartbeat(&server.peer, request(index)));
    let answers = futures::future::join_all(beats).await;

    let expected: Vec<_> = (1..=100).map(|index| Ok(response(&request(index)))).collect();
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn heartbeats_reach_a_peer_that_came_back() {
    let server = member().await;
    let client = client(&server, "c", 1);
    client.heartbeat(&server.peer, request(1)).await.unwrap();
    // Its tasks end with it, the client's do not.
    let (peer, tasks) = (server.peer.clone(), Tasks::new());
    let lasting = Grpc::new(Name { cluster_uid: "c".to_owned(), node: NodeId(1) }, None, tasks);
    lasting.heartbeat(&peer, request(2)).await.unwrap();

    server.tasks.stop(std::time::Duration::from_secs(5)).await;
    let down = lasting.heartbeat(&peer, request(3)).await;
    let listener = TcpListener::bind(&peer.address).await.unwrap();
    let (serving, again) = (server.node.clone(), Tasks::new());
    again.spawn("peers", move |stop| {
        serve(Listener::plain(listener, Port::Peer), serving, Remote::new(), stop)
    });

    assert!(down.is_err());
    let back = async {
        while lasting.heartbeat(&peer, request(4)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), back).await.unwrap();
}

#[tokio::test]
async fn snapshot_arrives_whole() {
    let server = member().await;
    let data = Bytes::from((0..3_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>());
    let head = wire::SnapshotHead { length: data.len() as u64, ..Default::default() };

    client(&server, "c", 1).install_snapshot(&server.peer, head, data.clone()).await.unwrap();

    assert_eq!(*server.echo.snapshot.lock().unwrap(), Some(data));
}

#[tokio::test]
async fn snapshot_of_another_length_is_refused() {
    let server = member().await;
    let head = wire::SnapshotHead { length: 9, ..Default::default() };
    let data = Bytes::from_static(b"eight by");

    let refused = client(&server, "c", 1).install_snapshot(&server.peer, head, data).await;

    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert_eq!(*server.echo.snapshot.lock().unwrap(), None);
}

#[tokio::test]
async fn strangers_are_refused() {
    let server = member().await;
    let mut elsewhere = server.peer.clone();
    elsewhere.node = NodeId(3);
    let cases = [
        (client(&server, "d", 1), &server.peer, "belongs to cluster c, the call comes from"),
        (client(&server, "c", 1), &elsewhere, "node 2 listens here, the call is for node 3"),
        (client(&server, "c", 2), &server.peer, "comes from node 2, which is this one"),
    ];
    for (client, peer, expected) in cases {
        let vote = client.vote(peer, wire::VoteRequest::default()).await.unwrap_err();
        let append = client.append(peer, stream::iter([request(1)]).boxed()).await;
        let beat = client.heartbeat(peer, request(1)).await.unwrap_err();
        let forward = client.badged(peer, Lane::Requests).unwrap();
        let forward = ForwardClient::new(forward).command(wire::ForwardedCommand::default()).await;
        let forward = super::grpc::error(forward.unwrap_err());

        for error in [vote, append.err().unwrap(), beat, forward] {
            assert!(matches!(error, Error::Refused(_)), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

#[tokio::test]
async fn forwarded_calls_must_name_their_cluster() {
    let server = member().await;
    let command = wire::ForwardedCommand::default;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.peer.address))
            .unwrap()
            .connect_lazy();

    let named = client(&server, "c", 1).badged(&server.peer, Lane::Requests).unwrap();
    let admitted = ForwardClient::new(named).command(command()).await.unwrap().into_inner();
    let nameless = ForwardClient::new(channel).command(command()).await.unwrap_err();

    // Nothing is behind it in this test, which is an answer of the service itself.
    assert!(matches!(admitted.outcome, Some(wire::forwarded_reply::Outcome::Failure(_))));
    assert_eq!(nameless.code(), tonic::Code::InvalidArgument, "{nameless}");
    assert!(nameless.message().contains("weft-cluster"), "{nameless}");
}

#[tokio::test]
async fn unborn_node_only_introduces_itself() {
    let server = unborn().await;
    let nameless = Grpc::nameless(None, server.tasks.clone());

    let vote = client(&server, "c", 1).vote(&server.peer, wire::VoteRequest::default()).await;
    let unnamed = nameless.vote(&server.peer, wire::VoteRequest::default()).await;
    let known = wire::IdentifyRequest { address: "a:1".to_owned(), ..Default::default() };
    let known = nameless.identify(&server.peer.address, known).await.unwrap();
    let refused = nameless.identify(&server.peer.address, wire::IdentifyRequest::default()).await;

    assert!(matches!(vote, Err(Error::Unreachable(_))));
    assert!(matches!(unnamed, Err(Error::Refused(_))));
    assert_eq!(known.node_uid, "uid");
    assert_eq!(refused, Err(Error::Refused("no address".to_owned())));
}

#[tokio::test]
async fn silent_address_is_unreachable() {
    let server = unborn().await;
    let nameless = Grpc::nameless(None, server.tasks.clone());
    // Bound and dropped: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);

    let answer = nameless.identify(&address, wire::IdentifyRequest::default()).await;

    assert!(matches!(answer, Err(Error::Unreachable(_))), "{answer:?}");
}
