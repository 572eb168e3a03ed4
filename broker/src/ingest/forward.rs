//! Between nodes: requests that reached a node which does not lead their group.
//!
//! *Owns* one ordered stream of appends to each other node. When it breaks, the fate of what was
//! on its way is unknown, and says so.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use weft_proto::internal::forward_client::ForwardClient;
use weft_proto::internal::forward_server;
use weft_proto::{
    Error, GroupId, NodeId, Offset, PartitionId, PartitionUid, Principal, Reason, ResourceUid,
    Result, SchemaId, Timestamp, internal, v1,
};

use super::{Ingest, Outcome, Submitted, subject_bytes};
use crate::data::{Placed, SchemaIds, lock};
use crate::entry::{Content, Entry};
use crate::lend::Lender;
use crate::peer::Peer;
use crate::peer::grpc::{Badge, Grpc, Lane};
use crate::room::{Room, Taken};
use crate::subscription::desk::Whereabouts;
use crate::tasks::Tasks;

/// Appends on their way to one node; the senders wait beyond it.
const QUEUE_LEN: usize = 256;
/// Appends of one other node that may wait for their answer here.
const ANSWERS_MAX: usize = 1_024;
/// Largest message: a full batch and its frame.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A command that is not answered by then has an unknown fate.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// A question to a desk; without an answer, that is not known.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of appends to all other nodes that are not answered.
const ROOM_BYTES: usize = 64 << 20;

/// Where the answer to an append goes, and the room that it takes until then.
type Answer = (oneshot::Sender<Result<Outcome>>, Taken);
type Forwarded = (internal::ForwardedAppend, Answer);
type Waiting = Arc<Mutex<BTreeMap<u64, Answer>>>;

/// Passes requests on; clones share the streams.
#[derive(Clone, Debug)]
pub struct Forwarder {
    transport: Grpc,
    addresses: Arc<Mutex<BTreeMap<NodeId, String>>>,
    lanes: Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Forwarded>>>>,
    room: Room,
    tasks: Tasks,
}

impl Forwarder {
    /// A forwarder to nodes at these peer addresses.
    pub fn new(transport: Grpc, addresses: BTreeMap<NodeId, String>, tasks: Tasks) -> Self {
        let room = Room::new("forward", ROOM_BYTES);
        Self {
            transport,
            addresses: Arc::new(Mutex::new(addresses)),
            lanes: Arc::default(),
            room,
            tasks,
        }
    }

    /// Learns where a node is that joined.
    pub fn learn(&self, node: NodeId, address: &str) {
        let mut addresses = lock(&self.addresses);
        if addresses.get(&node).is_none_or(|known| known != address) {
            addresses.insert(node, address.to_owned());
        }
    }

    /// Queues an append to another node, in order.
    pub(super) async fn append(
        &self,
        to: NodeId,
        append: internal::ForwardedAppend,
    ) -> Result<Submitted> {
        let events: usize = append.events.iter().map(Bytes::len).sum();
        let bytes = events.saturating_add(subject_bytes(&append.expected_subjects));
        let room = self.room.take(bytes, append.events.len()).await?;
        let (answer, receiver) = oneshot::channel();
        let lane = self.lane(to);
        let stopping = |_closed| Error::unavailable("this node is stopping").with_not_applied();
        lane.send((append, (answer, room))).await.map_err(stopping)?;
        Ok(Box::pin(async move { receiver.await.map_err(|_closed| broken(to))? }))
    }

    /// Passes a command on and waits for the answer.
    pub(super) async fn command(
        &self,
        to: NodeId,
        caller: &Principal,
        group: GroupId,
        payload: Bytes,
    ) -> Result<Bytes> {
        let principal = caller.name().to_owned();
        let command = internal::ForwardedCommand { principal, group: group.get(), payload };
        let mut request = Request::new(command);
        request.set_timeout(COMMAND_TIMEOUT);
        let answer = self.client(to)?.command(request).await;
        let reply = answer.map_err(|status| unanswered(to, status))?.into_inner();
        match reply.outcome {
            Some(internal::forwarded_reply::Outcome::Reply(reply)) => Ok(reply),
            Some(internal::forwarded_reply::Outcome::Failure(failure)) => Err(failure.into()),
            None => Err(Error::internal("a node answered with nothing")),
        }
    }

    /// Asks the leader of a group what a read must have.
    pub(super) async fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
        timeout: Duration,
    ) -> Result<u64> {
        use internal::read_index_response::Outcome as Wire;
        let mut request = Request::new(internal::ReadIndexRequest { group: group.get() });
        request.set_timeout(timeout);
        let answer = self.client(to)?.read_index(request).await;
        match answer.map_err(|status| unanswered(to, status))?.into_inner().outcome {
            Some(Wire::Index(index)) => Ok(index),
            Some(Wire::Failure(failure)) => Err(failure.into()),
            None => Err(Error::internal("a node answered with nothing")),
        }
    }

    /// Asks the leader of a group where an event is that a subscription did not settle.
    pub(crate) async fn whereabouts(
        &self,
        to: NodeId,
        request: internal::WhereaboutsRequest,
    ) -> Result<Whereabouts> {
        use internal::whereabouts_response::Outcome as Wire;
        let mut request = Request::new(request);
        request.set_timeout(LOOK_TIMEOUT);
        let answer = self.client(to)?.whereabouts(request).await;
        match answer.map_err(|status| unanswered(to, status))?.into_inner().outcome {
            Some(Wire::Unreached(_)) => Ok(Whereabouts::Unreached),
            Some(Wire::Queued(_)) => Ok(Whereabouts::Queued),
            Some(Wire::Lent(lent)) => Ok(Whereabouts::Lent {
                member: lent.member,
                attempt: lent.attempt,
                ends: (lent.ends_us > 0).then(|| Timestamp::from_micros(lent.ends_us)),
            }),
            Some(Wire::Failure(failure)) => Err(failure.into()),
            None => Err(Error::internal("a node answered with nothing")),
        }
    }

    /// Asks the leader of a group to take delayed events back.
    pub(super) async fn cancel_delayed(
        &self,
        to: NodeId,
        caller: &Principal,
        (group, place): (GroupId, PartitionUid),
        offsets: Vec<Offset>,
    ) -> Result<Vec<Offset>> {
        use internal::delayed_cancelled::Outcome as Wire;
        let mut request = Request::new(internal::DelayedCancellation {
            principal: caller.name().to_owned(),
            group: group.get(),
            partition_uid: place.get(),
            offsets: offsets.into_iter().map(Offset::get).collect(),
        });
        request.set_timeout(COMMAND_TIMEOUT);
        let answer = self.client(to)?.cancel_delayed(request).await;
        match answer.map_err(|status| unanswered(to, status))?.into_inner().outcome {
            Some(Wire::Cancelled(done)) => Ok(done.offsets.into_iter().map(Offset).collect()),
            Some(Wire::Failure(failure)) => Err(failure.into()),
            None => Err(Error::internal("a node answered with nothing")),
        }
    }

    /// Opens the stream for members at desks of another node.
    pub(crate) async fn lend(
        &self,
        to: NodeId,
        requests: ReceiverStream<internal::LendRequest>,
    ) -> Result<Streaming<internal::LendAnswer>> {
        let answers = self.client_on(to, Lane::Loans)?.lend(requests).await;
        Ok(answers.map_err(|status| unanswered(to, status))?.into_inner())
    }

    /// The same for the catalog's group, whose payloads are not those of data groups.
    pub fn catalog<'a>(
        &'a self,
        to: NodeId,
        caller: &'a Principal,
        payload: Bytes,
    ) -> impl Future<Output = Result<Bytes>> + 'a {
        self.command(to, caller, GroupId::CATALOG, payload)
    }

    fn client(&self, to: NodeId) -> Result<ForwardClient<InterceptedService<Channel, Badge>>> {
        self.client_on(to, Lane::Requests)
    }

    fn client_on(
        &self,
        to: NodeId,
        lane: Lane,
    ) -> Result<ForwardClient<InterceptedService<Channel, Badge>>> {
        let unknown = || Error::unavailable(format!("node {to} is not known")).with_not_applied();
        let address = lock(&self.addresses).get(&to).ok_or_else(unknown)?.clone();
        let peer = Peer { node: to, address };
        let channel = self.transport.badged(&peer, lane).map_err(|error| {
            Error::unavailable(format!("node {to} cannot be reached")).with_source(error)
        })?;
        let client = ForwardClient::new(channel);
        Ok(client
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn lane(&self, to: NodeId) -> mpsc::Sender<Forwarded> {
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get(&to).filter(|lane| !lane.is_closed()) {
            return lane.clone();
        }
        let (sender, queue) = mpsc::channel(QUEUE_LEN);
        let forwarder = self.clone();
        self.tasks.spawn_short(async move { forwarder.carry(to, queue).await });
        lanes.insert(to, sender.clone());
        sender
    }

    /// Carries appends to one node until the stream breaks; the next append opens another one.
    async fn carry(&self, to: NodeId, mut queue: mpsc::Receiver<Forwarded>) {
        let waiting = Waiting::default();
        let (requests, stream) = mpsc::channel(QUEUE_LEN);
        let client = self.client(to);
        let opened = async {
            let answers = client?.append(ReceiverStream::new(stream)).await?;
            Ok::<_, Error>(answers.into_inner())
        };
        let mut opened = std::pin::pin!(opened);
        let mut answers: Option<Streaming<internal::ForwardedAnswer>> = None;
        let mut tag = 0_u64;
        // What was sent after this tag is certainly not applied.
        let mut read_upto = u64::MAX;
        loop {
            tokio::select! {
                biased;
                result = &mut opened, if answers.is_none() => match result {
                    Ok(stream) => answers = Some(stream),
                    Err(error) => {
                        // Nothing was read from a stream that was never opened.
                        read_upto = if error.not_applied() { 0 } else { u64::MAX };
                        break;
                    }
                },
                answer = next_of(&mut answers), if answers.is_some() => match answer {
                    Some(internal::ForwardedAnswer {
                        outcome: Some(internal::forwarded_answer::Outcome::ClosedAfter(last)),
                        ..
                    }) => {
                        read_upto = last;
                        break;
                    }
                    Some(answer) => deliver(&waiting, answer),
                    None => break,
                },
                forwarded = queue.recv() => {
                    let Some((mut append, answer)) = forwarded else { break };
                    tag += 1;
                    append.tag = tag;
                    lock(&waiting).insert(tag, answer);
                    if requests.send(append).await.is_err() {
                        break;
                    }
                }
            }
        }
        queue.close();
        let lost = std::mem::take(&mut *lock(&waiting));
        for (tag, (answer, _room)) in lost {
            _ = answer.send(Err(if tag > read_upto { unsent(to) } else { broken(to) }));
        }
        while let Some((_append, (answer, _room))) = queue.recv().await {
            _ = answer.send(Err(unsent(to)));
        }
    }
}

async fn next_of(
    answers: &mut Option<Streaming<internal::ForwardedAnswer>>,
) -> Option<internal::ForwardedAnswer> {
    match answers {
        Some(answers) => answers.message().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

fn deliver(waiting: &Waiting, answer: internal::ForwardedAnswer) {
    if let Some((waiting, _room)) = lock(waiting).remove(&answer.tag) {
        // The caller may have given up.
        _ = waiting.send(outcome_in(answer));
    }
}

/// A command without a reply: failures of the command itself are replies.
fn unanswered(to: NodeId, status: Status) -> Error {
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument => {
            let message = format!("node {to} refuses what is forwarded: {}", status.message());
            Error::unavailable(message).with_not_applied()
        }
        code => {
            let error = Error::from(status);
            if error.not_applied() || !matches!(code, Code::Cancelled | Code::DeadlineExceeded) {
                return error;
            }
            let message = format!("node {to} did not answer in time; the fate is unknown");
            Error::new(Reason::DeadlineExceeded, message)
        }
    }
}

fn unsent(to: NodeId) -> Error {
    Error::unavailable(format!("the connection to node {to} broke before the batch was taken"))
        .with_not_applied()
        .with_retry_after(Duration::from_millis(100))
}

fn broken(to: NodeId) -> Error {
    Error::unavailable(format!("the connection to node {to} broke; the fate is unknown"))
        .with_retry_after(Duration::from_millis(100))
}

/// Consecutive events as callers are told of them.
pub fn range_out(partition: PartitionId, placed: &Placed) -> v1::OffsetRange {
    v1::OffsetRange {
        partition: partition.get(),
        first: placed.first.get(),
        count: placed.count.into(),
        append_time_us: placed.time.as_micros(),
        duplicate: placed.duplicate,
        delayed: placed.delayed,
    }
}

fn range_in(range: &v1::OffsetRange) -> Placed {
    Placed {
        first: Offset(range.first),
        count: u32::try_from(range.count).unwrap_or(u32::MAX),
        time: Timestamp::from_micros(range.append_time_us),
        duplicate: range.duplicate,
        delayed: range.delayed,
    }
}

/// An outcome as it travels between nodes.
pub fn outcome_out(tag: u64, outcome: Result<Outcome>) -> internal::ForwardedAnswer {
    use internal::forwarded_answer::Outcome as Wire;
    let outcome = match outcome {
        Ok(outcome) => Wire::Appended(internal::Appended {
            ranges: outcome.runs.iter().map(|run| range_out(PartitionId(0), run)).collect(),
            schemas: match outcome.schemas {
                SchemaIds::All(SchemaId(0)) => Vec::new(),
                SchemaIds::All(id) => vec![id.get()],
                SchemaIds::Each(ids) => ids.into_iter().map(SchemaId::get).collect(),
            },
            refusals: outcome.refusals,
        }),
        Err(error) => Wire::Failure((&error).into()),
    };
    internal::ForwardedAnswer { tag, outcome: Some(outcome) }
}

/// Reads it again.
pub fn outcome_in(answer: internal::ForwardedAnswer) -> Result<Outcome> {
    use internal::forwarded_answer::Outcome as Wire;
    match answer.outcome {
        Some(Wire::Appended(appended)) => {
            let mut schemas = appended.schemas;
            Ok(Outcome {
                runs: appended.ranges.iter().map(range_in).collect(),
                schemas: if schemas.len() <= 1 {
                    SchemaIds::All(SchemaId(schemas.pop().unwrap_or(0)))
                } else {
                    SchemaIds::Each(schemas.into_iter().map(SchemaId).collect())
                },
                refusals: appended.refusals,
            })
        }
        Some(Wire::Failure(failure)) => Err(failure.into()),
        Some(Wire::ClosedAfter(_)) | None => {
            Err(Error::unavailable("a node answered with nothing; the fate is unknown"))
        }
    }
}

/// What other nodes forward here.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    ingest: Arc<OnceLock<Ingest>>,
    lender: Arc<OnceLock<Lender>>,
    closing: CancellationToken,
    /// Requests that are not answered yet.
    running: TaskTracker,
}

impl Remote {
    /// The receiving end, closed until [`Remote::open`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets requests in; the first call counts.
    pub fn open(&self, ingest: Ingest, lender: Lender) {
        _ = self.lender.set(lender);
        _ = self.ingest.set(ingest);
    }

    /// Reads nothing more, and waits until what was read is answered; other nodes learn what was not
    /// read.
    pub async fn close(&self, deadline: Duration) {
        self.closing.cancel();
        self.running.close();
        if tokio::time::timeout(deadline, self.running.wait()).await.is_err() {
            tracing::warn!("some requests of other nodes stay without an answer");
        }
    }

    fn ingest(&self) -> Result<&Ingest> {
        if self.closing.is_cancelled() {
            return Err(Error::unavailable("this node is stopping").with_not_applied());
        }
        let starting = || Error::unavailable("this node is still starting").with_not_applied();
        self.ingest.get().ok_or_else(starting)
    }

    async fn run(&self, command: internal::ForwardedCommand) -> Result<Bytes> {
        let group = GroupId(command.group);
        let ingest = self.ingest()?;
        if group == GroupId::CATALOG {
            return ingest.resources().propose_here(command.payload).await;
        }
        let unreadable = |error| {
            Error::new(Reason::Internal, "a forwarded command cannot be read").with_source(error)
        };
        let entry = Entry::decode(&command.payload).map_err(unreadable)?;
        let Content::Command(command) = entry.content else {
            return Err(Error::internal("appends are not forwarded as commands"));
        };
        let reply = ingest.group(group)?.sequencer.command(command).await?;
        Ok(reply.encode())
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<internal::ForwardedAnswer, Status>> + Send>>;
type Loans = Pin<Box<dyn Stream<Item = Result<internal::LendAnswer, Status>> + Send>>;

#[tonic::async_trait]
impl forward_server::Forward for Remote {
    type AppendStream = Answers;
    type LendStream = Loans;

    async fn append(
        &self,
        request: Request<Streaming<internal::ForwardedAppend>>,
    ) -> Result<Response<Answers>, Status> {
        let session = Session {
            ingest: self.ingest()?.clone(),
            appends: Some(request.into_inner()),
            waiting: FuturesUnordered::new(),
            closing: self.closing.clone(),
            last: 0,
            tells_last: false,
            _running: self.running.token(),
        };
        let answers = futures::stream::unfold(session, |mut session| async move {
            let answer = session.next().await?;
            Some((Ok(answer), session))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn command(
        &self,
        request: Request<internal::ForwardedCommand>,
    ) -> Result<Response<internal::ForwardedReply>, Status> {
        use internal::forwarded_reply::Outcome as Wire;
        let _running = self.running.token();
        let outcome = match self.run(request.into_inner()).await {
            Ok(reply) => Wire::Reply(reply),
            Err(error) => Wire::Failure(v1::BatchFailure::from(&error)),
        };
        Ok(Response::new(internal::ForwardedReply { outcome: Some(outcome) }))
    }

    async fn read_index(
        &self,
        request: Request<internal::ReadIndexRequest>,
    ) -> Result<Response<internal::ReadIndexResponse>, Status> {
        use internal::read_index_response::Outcome as Wire;
        let group = GroupId(request.into_inner().group);
        let asked = async { self.ingest()?.read_index(group).await };
        let outcome = match asked.await {
            Ok(index) => Wire::Index(index),
            Err(error) => Wire::Failure(v1::BatchFailure::from(&error)),
        };
        Ok(Response::new(internal::ReadIndexResponse { outcome: Some(outcome) }))
    }

    async fn whereabouts(
        &self,
        request: Request<internal::WhereaboutsRequest>,
    ) -> Result<Response<internal::WhereaboutsResponse>, Status> {
        use internal::whereabouts_response::Outcome as Wire;
        let request = request.into_inner();
        let key = (ResourceUid(request.subscription_uid), PartitionUid(request.partition_uid));
        let starting = || Error::unavailable("this node is still starting").with_not_applied();
        let looked = async {
            let lender = self.lender.get().ok_or_else(starting)?;
            lender.look(key, Offset(request.offset)).await
        };
        let outcome = match looked.await {
            Ok(Whereabouts::Unreached) => Wire::Unreached(internal::Unreached {}),
            Ok(Whereabouts::Queued) => Wire::Queued(internal::Queued {}),
            Ok(Whereabouts::Lent { member, attempt, ends }) => {
                let ends_us = ends.map_or(0, Timestamp::as_micros);
                Wire::Lent(internal::LentTo { member, attempt, ends_us })
            }
            Err(error) => Wire::Failure(v1::BatchFailure::from(&error)),
        };
        Ok(Response::new(internal::WhereaboutsResponse { outcome: Some(outcome) }))
    }

    async fn cancel_delayed(
        &self,
        request: Request<internal::DelayedCancellation>,
    ) -> Result<Response<internal::DelayedCancelled>, Status> {
        use internal::delayed_cancelled::Outcome as Wire;
        let _running = self.running.token();
        let request = request.into_inner();
        let (group, place) = (GroupId(request.group), PartitionUid(request.partition_uid));
        let offsets = request.offsets.into_iter().map(Offset).collect();
        let done = async { self.ingest()?.cancel_delayed_here(group, place, offsets).await };
        let outcome = match done.await {
            Ok(done) => {
                let offsets = done.into_iter().map(Offset::get).collect();
                Wire::Cancelled(internal::CancelledOffsets { offsets })
            }
            Err(error) => Wire::Failure(v1::BatchFailure::from(&error)),
        };
        Ok(Response::new(internal::DelayedCancelled { outcome: Some(outcome) }))
    }

    async fn lend(
        &self,
        request: Request<Streaming<internal::LendRequest>>,
    ) -> Result<Response<Loans>, Status> {
        self.ingest()?;
        let starting = || Error::unavailable("this node is still starting").with_not_applied();
        let lender = self.lender.get().ok_or_else(starting)?.clone();
        let answers = lender.serve(request.into_inner()).map(Ok);
        // When the other node is gone, so are its answers, and desks learn it from that.
        let answers = answers.take_until(self.closing.clone().cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The appends of one other node.
struct Session {
    ingest: Ingest,
    /// Absent once they ended, or are read no further.
    appends: Option<Streaming<internal::ForwardedAppend>>,
    waiting: FuturesUnordered<BoxFuture<'static, internal::ForwardedAnswer>>,
    closing: CancellationToken,
    /// The tag that was read last; told at the end if more may have been sent.
    last: u64,
    tells_last: bool,
    _running: TaskTrackerToken,
}

impl Session {
    async fn next(&mut self) -> Option<internal::ForwardedAnswer> {
        loop {
            let takes = self.waiting.len() < ANSWERS_MAX;
            tokio::select! {
                biased;
                Some(answer) = self.waiting.next(), if !self.waiting.is_empty() => {
                    return Some(answer);
                }
                () = self.closing.cancelled(), if self.appends.is_some() => {
                    self.appends = None;
                    self.tells_last = true;
                }
                append = next_append(&mut self.appends), if takes && self.appends.is_some() => {
                    match append {
                        Some(append) => {
                            self.last = append.tag;
                            let answer = answer(&self.ingest, append).await;
                            self.waiting.push(answer);
                        }
                        None => self.appends = None,
                    }
                }
                else => {
                    // Behind all answers.
                    let outcome = internal::forwarded_answer::Outcome::ClosedAfter(self.last);
                    let tells = std::mem::take(&mut self.tells_last);
                    return tells
                        .then_some(internal::ForwardedAnswer { tag: 0, outcome: Some(outcome) });
                }
            }
        }
    }
}

async fn next_append(
    appends: &mut Option<Streaming<internal::ForwardedAppend>>,
) -> Option<internal::ForwardedAppend> {
    appends.as_mut()?.message().await.ok().flatten()
}

/// Queues an append now, in order; what it returns waits for the answer.
async fn answer(
    ingest: &Ingest,
    append: internal::ForwardedAppend,
) -> BoxFuture<'static, internal::ForwardedAnswer> {
    let tag = append.tag;
    match ingest.submit_forwarded(append).await {
        Ok(submitted) => Box::pin(async move { outcome_out(tag, submitted.await) }),
        Err(error) => Box::pin(std::future::ready(outcome_out(tag, Err(error)))),
    }
}
