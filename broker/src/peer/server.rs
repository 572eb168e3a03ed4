//! The peer listener: takes other nodes' messages, and checks that they come from the own cluster.
//!
//! It binds before the cluster is born and answers `Identify` then; Raft messages are answered
//! once the groups run.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::Extensions;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::internal as wire;
use weft_proto::internal::peer_server::{self, PeerServer};
use weft_proto::{Error as Failure, NodeId};

use weft_proto::internal::forward_server::ForwardServer;

use super::grpc::{CLUSTER_KEY, FROM_KEY, MESSAGE_BYTES_MAX, Name, TO_KEY};
use super::{Admit, Directory, Error, Handler, Introduce, Messages, dial, heartbeat};
use crate::ingest::Remote;
use crate::listen::{Connection, Listener, OnlyGrpc};
use crate::security::host_of;

/// Largest snapshot that is taken; it is held in memory once.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// Streams of one peer: one per group and lane, and votes.
const STREAMS_MAX: u32 = 256;
const HEADER_BYTES_MAX: u32 = 16 << 10;
const FRAME_BYTES_MAX: u32 = 16 << 10;
/// How long connections may take to end once this node stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const UNARY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the listener knows of this node; filled while the node starts.
#[derive(Clone)]
pub struct Node {
    introduce: Arc<dyn Introduce>,
    member: Arc<OnceLock<Member>>,
    admission: Arc<OnceLock<Arc<dyn Admit>>>,
    /// Certificates must name their node.
    must_name: bool,
    /// Ends the streams, which would otherwise go on while the connection lives.
    stop: CancellationToken,
}

struct Member {
    name: Name,
    handler: Arc<dyn Handler>,
    directory: Arc<dyn Directory>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.member.get().map(|member| &member.name);
        f.debug_struct("Node").field("name", &name).finish_non_exhaustive()
    }
}

impl Node {
    /// Creates a node that only introduces itself.
    pub fn new(introduce: Arc<dyn Introduce>) -> Self {
        let (member, admission) = (Arc::default(), Arc::default());
        Self { introduce, member, admission, must_name: false, stop: CancellationToken::new() }
    }

    /// Whether a certificate must name its node.
    #[must_use]
    pub fn demanding_ids(self, must_name: bool) -> Self {
        Self { must_name, ..self }
    }

    /// Lets nodes join the cluster by this one; the first call counts.
    pub fn admit_by(&self, admission: Arc<dyn Admit>) {
        _ = self.admission.set(admission);
    }

    /// Lets the node take part in its cluster; the first call counts.
    pub fn join(&self, name: Name, handler: Arc<dyn Handler>, directory: Arc<dyn Directory>) {
        _ = self.member.set(Member { name, handler, directory });
    }

    /// Checks that a call comes from the own cluster and is meant for this node.
    fn handler<T>(&self, request: &Request<T>) -> Result<Arc<dyn Handler>, Status> {
        let member = self.admit(request.metadata(), request.extensions())?;
        Ok(Arc::clone(&member.handler))
    }

    fn admit(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<&Member, Status> {
        let not_now = |message| Failure::unavailable(message).with_not_applied();
        if self.stop.is_cancelled() {
            return Err(not_now("this node stops").into());
        }
        let member = self.member.get().ok_or_else(|| not_now("this node is still starting"))?;
        let text = |key| {
            let value = metadata.get(key).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| Status::invalid_argument(format!("the call has no {key}")))
        };
        let cluster = text(CLUSTER_KEY)?;
        if cluster != member.name.cluster_uid {
            return Err(Status::failed_precondition(format!(
                "node {} belongs to cluster {}, the call comes from cluster {cluster}",
                member.name.node, member.name.cluster_uid
            )));
        }
        let to = text(TO_KEY)?;
        if to.parse() != Ok(member.name.node.get()) {
            return Err(Status::failed_precondition(format!(
                "node {} listens here, the call is for node {to}",
                member.name.node
            )));
        }
        match text(FROM_KEY)?.parse::<u64>() {
            Ok(from) if from == member.name.node.get() => Err(Status::failed_precondition(
                format!("the call says it comes from node {from}, which is this one"),
            )),
            Ok(from) => {
                if let Some(connection) = extensions.get::<Arc<Connection>>() {
                    self.pin(connection, member, NodeId(from))?;
                    connection.prove();
                }
                Ok(member)
            }
            Err(_error) => Err(Status::invalid_argument("the caller's node id is no number")),
        }
    }
}

impl Node {
    /// Checks that whoever shows a certificate is the node that it says.
    fn pin(&self, connection: &Connection, member: &Member, from: NodeId) -> Result<(), Status> {
        // Plain text, which only this machine can reach.
        let Some(certificate) = connection.certificate() else { return Ok(()) };
        let denied = |problem: String| {
            Status::permission_denied(format!(
                "the call says it comes from node {from}, but {problem}"
            ))
        };
        dial::check(certificate, Some(from), self.must_name).map_err(denied)?;
        let Some(address) = member.directory.address_of(from) else {
            let unknown = format!("this node does not know a node {from}");
            return Err(Failure::unavailable(unknown).with_not_applied().into());
        };
        let host = host_of(&address);
        if certificate.covers(host) {
            return Ok(());
        }
        Err(denied(format!("its certificate is not for {host}, where node {from} is")))
    }

    /// Checks that whoever shows a certificate may listen at the address that it says. Members who only
    /// want to know whether this node answers say none.
    fn check_address(
        extensions: &Extensions,
        request: &wire::IdentifyRequest,
    ) -> Result<(), Status> {
        let address = &request.address;
        let Some(connection) = extensions.get::<Arc<Connection>>() else { return Ok(()) };
        if let Some(certificate) = connection.certificate() {
            let denied = |problem| Status::permission_denied(format!("{address}: {problem}"));
            // A node that joins has no id that its certificate could name.
            dial::check(certificate, None, false).map_err(denied)?;
            let says_where = request.joins || !address.is_empty();
            if says_where && !certificate.covers(host_of(address)) {
                return Err(denied(
                    "the certificate of the caller is not for this host".to_owned(),
                ));
            }
        }
        connection.prove();
        Ok(())
    }
}

/// The same check in front of a service that does not do it itself.
impl Interceptor for Node {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.admit(request.metadata(), request.extensions())?;
        Ok(request)
    }
}

fn status(error: Error) -> Status {
    match error {
        Error::Unreachable(message) => Status::unavailable(message),
        Error::Broken(message) => Status::internal(message),
        Error::Refused(message) => Status::failed_precondition(message),
    }
}

/// Ends a stream of requests at its first transport error.
fn readable<T: Send + 'static>(requests: Streaming<T>) -> Messages<T> {
    let whole = requests.scan((), |(), request| std::future::ready(request.ok()));
    whole.boxed()
}

#[tonic::async_trait]
impl peer_server::Peer for Node {
    type AppendStream = Messages<Result<wire::AppendResponse, Status>>;
    type HeartbeatStream = Messages<Result<wire::HeartbeatResponseBatch, Status>>;

    async fn identify(
        &self,
        request: Request<wire::IdentifyRequest>,
    ) -> Result<Response<wire::IdentifyResponse>, Status> {
        Self::check_address(request.extensions(), request.get_ref())?;
        let request = request.into_inner();
        let joins = request.joins.then(|| (request.node_uid.clone(), request.address.clone()));
        let mut answer = self.introduce.identify(request).map_err(status)?;
        if let Some((node_uid, address)) = joins {
            let starting = || Error::Unreachable("it is still starting".to_owned());
            let admission = self.admission.get().ok_or_else(starting).map_err(status)?;
            answer.admitted = admission.admit(node_uid, address).await.map_err(status)?.get();
        }
        Ok(Response::new(answer))
    }

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let handler = self.handler(&request)?;
        let answers = handler.append(readable(request.into_inner())).map(Ok);
        Ok(Response::new(answers.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<wire::HeartbeatBatch>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let handler = self.handler(&request)?;
        let answers = heartbeat::answer(handler, request.into_inner());
        Ok(Response::new(answers.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let answer = self.handler(&request)?.vote(request.into_inner()).await;
        answer.map(Response::new).map_err(status)
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let answer = self.handler(&request)?.transfer_leader(request.into_inner()).await;
        answer.map(Response::new).map_err(status)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        let handler = self.handler(&request)?;
        let (head, data) = gather(request.into_inner()).await?;
        let answer = handler.install_snapshot(head, data.freeze()).await;
        answer.map(Response::new).map_err(status)
    }
}

async fn gather(
    mut chunks: Streaming<wire::SnapshotChunk>,
) -> Result<(wire::SnapshotHead, BytesMut), Status> {
    let headless = || Status::invalid_argument("the snapshot does not begin with its head");
    let first = chunks.message().await?.ok_or_else(headless)?;
    let head = first.head.ok_or_else(headless)?;
    if head.length > SNAPSHOT_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "the snapshot has {} bytes, more than {SNAPSHOT_BYTES_MAX}",
            head.length
        )));
    }
    let mut data = BytesMut::from(first.data.as_ref());
    while let Some(chunk) = chunks.message().await? {
        data.extend_from_slice(&chunk.data);
        if data.len() as u64 > head.length {
            break;
        }
    }
    if data.len() as u64 != head.length {
        return Err(Status::invalid_argument(format!(
            "the snapshot should have {} bytes, {} or more came",
            head.length,
            data.len()
        )));
    }
    Ok((head, data))
}

/// Returns a server with the limits of the peer port; further services can be added to it.
///
/// tonic removes hyper's own limits, so each one is set here (RUSTSEC-2024-0003).
pub fn limited() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        // As many as there are streams: between nodes nothing may wait for something else. No
        // greatest age either, for a leader's streams of entries last as long as its term.
        .concurrency_limit_per_connection(STREAMS_MAX as usize)
        .accept_http1(false)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .timeout(UNARY_TIMEOUT)
}

/// Returns the Raft service of a node.
pub fn service(node: Node) -> PeerServer<Node> {
    PeerServer::new(node)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Serves the peer port until `stop`.
pub async fn serve(
    listener: Listener,
    mut node: Node,
    remote: Remote,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    node.stop = stop.clone();
    let forward = ForwardServer::new(remote)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let forward = InterceptedService::new(forward, node.clone());
    let mut server = limited().layer(tower::layer::layer_fn(OnlyGrpc::new));
    let server = server.add_service(service(node)).add_service(forward);
    let serving =
        server.serve_with_incoming_shutdown(listener.incoming(), stop.clone().cancelled_owned());
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        result = serving => result,
        // A connection that does not end is left to the end of the process.
        () = late => Ok(()),
    }
}
