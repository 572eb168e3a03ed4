//! Peers over gRPC: three connections per peer, so that entries and snapshots never delay votes.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, TryStreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use weft_proto::NodeId;
use weft_proto::internal as wire;
use weft_proto::internal::peer_client::PeerClient;

use super::heartbeat::{self, Beat};
use super::{Error, Messages, Peer, Transport, dial};
use crate::security::PeerTls;
use crate::security::watched::Watched;
use crate::tasks::Tasks;

/// Longest message between nodes; the longest entry and its company stay far below.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Snapshots travel in pieces of this size.
const CHUNK_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(2);
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Names of the metadata on every call but `Identify`.
pub(super) const CLUSTER_KEY: &str = "weft-cluster";
pub(super) const FROM_KEY: &str = "weft-from";
pub(super) const TO_KEY: &str = "weft-to";

/// Who this node is to its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The cluster it belongs to.
    pub cluster_uid: String,
    /// Its id there.
    pub node: NodeId,
}

/// What a connection is for; they never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Entries.
    Entries,
    /// Heartbeats, votes and whatever else must not wait behind entries.
    Control,
    /// Snapshots.
    Snapshots,
    /// Requests of clients that are passed on to a leader.
    Requests,
    /// Events on loan to members on the other node, each of them with a stream of its own.
    Loans,
}

/// Where a connection leads: a node, once it is known which one is meant, at an address.
type Way = (String, Option<NodeId>, Lane);

/// The gRPC transport of one node.
#[derive(Clone)]
pub struct Grpc {
    shared: Arc<Shared>,
}

struct Shared {
    name: Option<Name>,
    /// Without, everything travels in plain text.
    tls: Option<Watched<PeerTls>>,
    tasks: Tasks,
    channels: Mutex<BTreeMap<Way, Channel>>,
    beats: Mutex<BTreeMap<Peer, mpsc::Sender<Beat>>>,
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

type Client = PeerClient<InterceptedService<Channel, Badge>>;

/// Puts the names of both ends on a call.
#[derive(Clone, Debug)]
pub struct Badge {
    cluster: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl Interceptor for Badge {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_KEY, self.cluster.clone());
        metadata.insert(FROM_KEY, self.from.clone());
        metadata.insert(TO_KEY, self.to.clone());
        Ok(request)
    }
}

impl Grpc {
    /// Creates the transport of a member of a cluster.
    pub fn new(name: Name, tls: Option<Watched<PeerTls>>, tasks: Tasks) -> Self {
        Self::with_name(Some(name), tls, tasks)
    }

    /// Creates a transport that can only `identify`: for a node whose cluster is not born yet.
    pub fn nameless(tls: Option<Watched<PeerTls>>, tasks: Tasks) -> Self {
        Self::with_name(None, tls, tasks)
    }

    fn with_name(name: Option<Name>, tls: Option<Watched<PeerTls>>, tasks: Tasks) -> Self {
        let (channels, beats) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { name, tls, tasks, channels, beats }) }
    }

    /// Returns a connection to an address; it is made when first used, and again when it broke.
    fn channel(&self, address: &str, node: Option<NodeId>, lane: Lane) -> Result<Channel, Error> {
        let mut channels = self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let way = (address.to_owned(), node, lane);
        if let Some(channel) = channels.get(&way) {
            return Ok(channel.clone());
        }
        let wrong = |error: tonic::transport::Error| {
            Error::Refused(with_cause(&format!("{address} is no address"), Some(&error)))
        };
        // Encrypted below what tonic knows of, so that each connection takes the settings of then.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(wrong)?
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = match &self.shared.tls {
            Some(tls) => {
                let connector = dial::connector(tls.clone(), address.to_owned(), node);
                endpoint.connect_with_connector_lazy(connector)
            }
            None => endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy(),
        };
        channels.insert(way, channel.clone());
        Ok(channel)
    }

    /// Returns a connection to a peer that puts the names of both ends on every call.
    pub fn badged(
        &self,
        to: &Peer,
        lane: Lane,
    ) -> Result<InterceptedService<Channel, Badge>, Error> {
        let nameless = || Error::Refused("this node belongs to no cluster yet".to_owned());
        let name = self.shared.name.as_ref().ok_or_else(nameless)?;
        let cluster = name.cluster_uid.parse();
        let badge = Badge {
            cluster: cluster
                .map_err(|_error| Error::Refused("cluster uid is no text".to_owned()))?,
            from: name.node.get().into(),
            to: to.node.get().into(),
        };
        Ok(InterceptedService::new(self.channel(&to.address, Some(to.node), lane)?, badge))
    }

    fn client(&self, to: &Peer, lane: Lane) -> Result<Client, Error> {
        Ok(PeerClient::new(self.badged(to, lane)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The queue of heartbeats to a peer; its task starts with the first one.
    fn beats(&self, to: &Peer) -> mpsc::Sender<Beat> {
        let mut beats = self.shared.beats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = beats.get(to) {
            return queue.clone();
        }
        let (beats_tx, beats_rx) = heartbeat::queue();
        beats.insert(to.clone(), beats_tx.clone());
        // A clone would keep the queue open for ever: the map owns the sender.
        let (transport, peer) = (Arc::downgrade(&self.shared), to.clone());
        let connect = move |batches| {
            let (transport, peer) = (transport.upgrade(), peer.clone());
            async move {
                let gone = || Error::Unreachable("this node stops".to_owned());
                let transport = Self { shared: transport.ok_or_else(gone)? };
                let mut client = transport.client(&peer, Lane::Control)?;
                let answers = client.heartbeat(batches).await.map_err(error)?;
                Ok(answers.into_inner())
            }
        };
        self.shared.tasks.spawn_short(heartbeat::run(beats_rx, connect));
        beats_tx
    }
}

/// Tells a peer that does not answer from a connection that broke and a peer that refuses.
#[expect(clippy::needless_pass_by_value, reason = "so that it can be passed to map_err")]
pub(super) fn error(status: Status) -> Error {
    let message = with_cause(status.message(), std::error::Error::source(&status));
    match status.code() {
        Code::Unavailable => Error::Unreachable(message),
        Code::FailedPrecondition | Code::PermissionDenied | Code::InvalidArgument => {
            Error::Refused(message)
        }
        _ => Error::Broken(format!("{}: {message}", status.code())),
    }
}

/// A sentence and the innermost cause; what is between only says that there is one.
fn with_cause(sentence: &str, source: Option<&(dyn std::error::Error + 'static)>) -> String {
    let Some(mut cause) = source else { return sentence.to_owned() };
    while let Some(next) = cause.source() {
        cause = next;
    }
    let cause = cause.to_string();
    if sentence.contains(&cause) { sentence.to_owned() } else { format!("{sentence}: {cause}") }
}

type Answers = Messages<Result<wire::AppendResponse, Error>>;

async fn open_append(
    client: Result<Client, Error>,
    requests: Messages<wire::AppendRequest>,
) -> Result<Answers, Error> {
    let answers =
        client?.append(Outgoing(requests)).await.map_err(|status| match error(status) {
            // It never was in use: a peer that hangs up, as over a certificate, gets a pause.
            Error::Broken(message) => Error::Unreachable(message),
            other => other,
        })?;
    Ok(Box::pin(answers.into_inner().map_err(error)))
}

/// Names the type of the requests: rustc cannot prove `Send` of a call with a boxed stream.
struct Outgoing(Messages<wire::AppendRequest>);

impl Stream for Outgoing {
    type Item = wire::AppendRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl Transport for Grpc {
    fn append(
        &self,
        to: &Peer,
        requests: Messages<wire::AppendRequest>,
    ) -> BoxFuture<'static, Result<Answers, Error>> {
        let client = self.client(to, Lane::Entries);
        Box::pin(open_append(client, requests))
    }

    fn heartbeat(
        &self,
        to: &Peer,
        request: wire::AppendRequest,
    ) -> BoxFuture<'static, Result<wire::AppendResponse, Error>> {
        let queue = self.beats(to);
        Box::pin(async move {
            let (answer_tx, answer_rx) = oneshot::channel();
            let stops = || Error::Unreachable("this node stops".to_owned());
            let beat = Beat { request, answer: answer_tx };
            queue.send(beat).await.map_err(|_closed| stops())?;
            answer_rx.await.map_err(|_lost| Error::Broken("the heartbeat was lost".to_owned()))?
        })
    }

    fn vote(
        &self,
        to: &Peer,
        request: wire::VoteRequest,
    ) -> BoxFuture<'static, Result<wire::VoteResponse, Error>> {
        let client = self.client(to, Lane::Control);
        Box::pin(async move {
            let answer = client?.vote(request).await;
            answer.map(tonic::Response::into_inner).map_err(error)
        })
    }

    fn transfer_leader(
        &self,
        to: &Peer,
        request: wire::TransferLeaderRequest,
    ) -> BoxFuture<'static, Result<wire::TransferLeaderResponse, Error>> {
        let client = self.client(to, Lane::Control);
        Box::pin(async move {
            let answer = client?.transfer_leader(request).await;
            answer.map(tonic::Response::into_inner).map_err(error)
        })
    }

    fn install_snapshot(
        &self,
        to: &Peer,
        head: wire::SnapshotHead,
        data: Bytes,
    ) -> BoxFuture<'static, Result<wire::SnapshotResponse, Error>> {
        let client = self.client(to, Lane::Snapshots);
        Box::pin(async move {
            let head = wire::SnapshotChunk { head: Some(head), data: Bytes::new() };
            let pieces = (0..data.len()).step_by(CHUNK_BYTES).map(move |start| {
                let end = data.len().min(start + CHUNK_BYTES);
                wire::SnapshotChunk { head: None, data: data.slice(start..end) }
            });
            let chunks = futures::stream::iter(std::iter::once(head).chain(pieces));
            let answer = client?.install_snapshot(chunks).await;
            answer.map(tonic::Response::into_inner).map_err(error)
        })
    }

    fn identify(
        &self,
        address: &str,
        request: wire::IdentifyRequest,
    ) -> BoxFuture<'static, Result<wire::IdentifyResponse, Error>> {
        let channel = self.channel(address, None, Lane::Control);
        Box::pin(async move {
            let mut request = Request::new(request);
            // An id for a node that joins is a change of the catalog.
            let joins = request.get_ref().joins;
            request.set_timeout(if joins { JOIN_TIMEOUT } else { IDENTIFY_TIMEOUT });
            let answer = PeerClient::new(channel?).identify(request).await;
            answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
                // Somebody who speaks gRPC, but is no Weft node.
                Code::Unimplemented => Error::Refused("no Weft node listens there".to_owned()),
                Code::Cancelled | Code::DeadlineExceeded => {
                    Error::Unreachable("no answer in time".to_owned())
                }
                _ => error(status),
            })
        })
    }
}
