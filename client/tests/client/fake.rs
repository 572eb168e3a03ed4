//! A cluster of two nodes with one shared log in memory, and a list of faults to come.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::InterceptorLayer;
use tonic::{Request, Response, Status, Streaming};
use weft_client::{Client, Error, Options, Reason, Timeouts};
use weft_proto::v1::{
    self, access_server, cluster_server, publish_server, read_server, subscribe_server,
};

/// What happens to the next batch that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The connection breaks, the batch is not stored.
    LoseBefore,
    /// The batch is stored, the connection breaks before the answer.
    LoseAfter,
    /// UNAVAILABLE, certainly not stored.
    NotApplied,
    /// UNAVAILABLE, but stored.
    AppliedAfterAll,
    /// The queue is full.
    Busy,
    /// The answer comes late.
    Slow,
}

/// One partition, by the broker's rules for producers.
#[derive(Default)]
pub(crate) struct Partition {
    pub(crate) log: Vec<Bytes>,
    producer: Option<(Bytes, u64, u64)>,
    /// Sequence and place of each batch.
    batches: Vec<(u64, v1::OffsetRange)>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) partitions: Vec<Partition>,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) duplicates: u32,
    /// Frames of events after which a reading connection breaks.
    pub(crate) read_frames_max: Option<usize>,
    pub(crate) reads: u32,
    pub(crate) subscribed: u64,
    pub(crate) settled: BTreeSet<u64>,
    pub(crate) credit_violations: u32,
    /// Tokens that are let in; without, everybody is.
    pub(crate) tokens: Option<BTreeSet<String>>,
    /// Calls that were let in or not.
    pub(crate) calls: u32,
    /// What the next questions who the caller is are answered with.
    pub(crate) refusals: VecDeque<Reason>,
    /// Each ends one stream.
    pub(crate) lost: Vec<Reason>,
    pub(crate) addresses: Vec<String>,
    /// This node is cut off from the others: it takes streams, and calls itself the leader.
    pub(crate) isolated: Option<usize>,
}

/// One node; all share the state.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<State>>, usize);

impl Fake {
    /// Starts two nodes.
    pub(crate) async fn start(partitions: usize) -> (Self, Client) {
        Self::start_for(partitions, Options::default()).await
    }

    /// Starts two nodes, for a client with these options.
    pub(crate) async fn start_for(partitions: usize, options: Options) -> (Self, Client) {
        let fake = Self(Arc::default(), 0);
        fake.state().partitions.resize_with(partitions, Partition::default);
        for node in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            fake.state().addresses.push(address);
            Self(Arc::clone(&fake.0), node).serve(listener);
        }
        let addresses = fake.state().addresses.clone();
        let timeouts = Timeouts { publish: Duration::from_secs(20), ..Timeouts::default() };
        let options = Options { timeouts, endpoints: addresses, ..options };
        let client = Client::connect(&options).unwrap();
        (fake, client)
    }

    #[expect(clippy::disallowed_methods, reason = "the nodes of a test end with its runtime")]
    fn serve(self, listener: TcpListener) {
        let door = self.clone();
        let server = tonic::transport::Server::builder()
            .layer(InterceptorLayer::new(move |request| door.admit(request)))
            .add_service(access_server::AccessServer::new(self.clone()))
            .add_service(publish_server::PublishServer::new(self.clone()))
            .add_service(cluster_server::ClusterServer::new(self.clone()))
            .add_service(read_server::ReadServer::new(self.clone()))
            .add_service(subscribe_server::SubscribeServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn admit(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let mut state = self.state();
        state.calls += 1;
        let shown = request.metadata().get("authorization");
        let shown = shown.and_then(|shown| shown.to_str().ok()?.strip_prefix("Bearer "));
        match &state.tokens {
            Some(tokens) if !shown.is_some_and(|shown| tokens.contains(shown)) => {
                Err(Error::new(Reason::Unauthenticated, "the credential is not valid").into())
            }
            _ => Ok(request),
        }
    }

    /// Waits until this stream shall end.
    async fn lost(&self) -> Status {
        loop {
            if let Some(reason) = self.state().lost.pop() {
                return Error::new(reason, "lost").into();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The next frame, if there is one and the stream shall not end.
    async fn next<T, A>(
        &self,
        frames: &mut Streaming<T>,
        answers: &mpsc::Sender<Result<A, Status>>,
    ) -> Option<T> {
        tokio::select! {
            frame = frames.message() => frame.ok().flatten(),
            lost = self.lost() => {
                _ = answers.send(Err(lost)).await;
                None
            }
        }
    }

    fn is_isolated(&self) -> bool {
        self.is_isolated_in(&self.state())
    }

    fn is_isolated_in(&self, state: &State) -> bool {
        state.isolated == Some(self.1)
    }
}

impl Partition {
    /// Events whose bytes contain `bad` are refused.
    fn append(&mut self, partition: u32, batch: &v1::PublishBatch) -> (v1::PublishAck, bool) {
        let identity = batch.identity.clone().unwrap();
        let mut ack = v1::PublishAck { tag: batch.tag, ..v1::PublishAck::default() };
        let mut fits = Vec::new();
        for (index, event) in (0..).zip(&batch.events) {
            if event.windows(3).any(|part| part == b"bad") {
                let message = "bad ".repeat(400);
                let error = Error::new(Reason::SchemaViolation, message).with_field("/a");
                let refusal = Some(error.to_refusal());
                ack.refusals.push(v1::IndexedRefusal { index, refusal });
            } else {
                fits.push(event.clone());
            }
        }
        if fits.is_empty() {
            return (ack, false);
        }
        if let Some((_, range)) = self.batches.iter().find(|(s, _)| *s == identity.sequence) {
            ack.ranges.push(v1::OffsetRange { duplicate: true, ..*range });
            return (ack, true);
        }
        let last = match &self.producer {
            Some((id, epoch, last)) if *id == identity.producer && *epoch == identity.epoch => {
                *last
            }
            _ => 0,
        };
        if identity.previous != last {
            return (
                failure(batch.tag, &Error::new(Reason::OutOfOrder, "a batch is missing")),
                false,
            );
        }
        let (first, count) = (self.log.len() as u64, fits.len() as u64);
        self.log.extend(fits);
        self.producer = Some((identity.producer, identity.epoch, identity.sequence));
        let range = v1::OffsetRange { partition, first, count, ..v1::OffsetRange::default() };
        self.batches.push((identity.sequence, range));
        ack.ranges.push(range);
        (ack, false)
    }
}

fn failure(tag: u64, error: &Error) -> v1::PublishAck {
    v1::PublishAck { tag, failure: Some(error.into()), ..v1::PublishAck::default() }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Runs `work` beside the answer that it feeds.
#[expect(clippy::disallowed_methods, reason = "ends with the connection it serves")]
fn answer<T: Send + 'static, F>(
    work: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F,
) -> Response<Answers<T>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (answers, receiver) = mpsc::channel(16);
    tokio::spawn(work(answers));
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

#[tonic::async_trait]
impl publish_server::Publish for Fake {
    async fn cancel_delayed(
        &self,
        _request: Request<v1::CancelDelayedRequest>,
    ) -> Result<Response<v1::CancelDelayedResponse>, Status> {
        Err(Status::unimplemented("the tests do not use it"))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let log = &mut self.state().partitions[0].log;
        let first = log.len();
        log.extend(request.into_inner().events);
        let receipt = |offset: usize| {
            let offset = u64::try_from(offset).unwrap();
            let receipt = v1::Receipt { offset, ..v1::Receipt::default() };
            v1::PublishResult { outcome: Some(v1::publish_result::Outcome::Receipt(receipt)) }
        };
        let results = (first..log.len()).map(receipt).collect();
        Ok(Response::new(v1::PublishResponse { results }))
    }

    type PublishStreamStream = Answers<v1::PublishStreamResponse>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let mut frames = request.into_inner();
        frames.message().await?;
        let fake = self.clone();
        Ok(answer(|answers| async move {
            let opened = v1::publish_stream_response::Frame::Opened(v1::PublishOpened::default());
            let send = |frame| answers.send(Ok(v1::PublishStreamResponse { frame: Some(frame) }));
            _ = send(opened).await;
            loop {
                let Some(frame) = fake.next(&mut frames, &answers).await else { return };
                let Some(v1::publish_stream_request::Frame::Batch(batch)) = frame.frame else {
                    return;
                };
                let fault = fake.state().faults.pop_front().unwrap_or(Fault::None);
                let lost = Status::unavailable("connection reset");
                match fake.take(&batch, fault) {
                    None => {
                        _ = answers.send(Err(lost)).await;
                        return;
                    }
                    Some(ack) => {
                        if fault == Fault::Slow {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        let acks = v1::PublishAcks { acks: vec![ack] };
                        _ = send(v1::publish_stream_response::Frame::Acks(acks)).await;
                    }
                }
            }
        }))
    }
}

impl Fake {
    fn take(&self, batch: &v1::PublishBatch, fault: Fault) -> Option<v1::PublishAck> {
        let unavailable = || Error::unavailable("no leader");
        if self.is_isolated() {
            return Some(failure(batch.tag, &unavailable()));
        }
        match fault {
            Fault::LoseBefore => return None,
            Fault::NotApplied => {
                return Some(failure(batch.tag, &unavailable().with_not_applied()));
            }
            Fault::Busy => {
                return Some(failure(batch.tag, &Error::new(Reason::Overloaded, "full")));
            }
            _ => {}
        }
        let mut state = self.state();
        let number = batch.partition.unwrap();
        let partition = &mut state.partitions[number as usize];
        let (ack, duplicate) = partition.append(number, batch);
        state.duplicates += u32::from(duplicate);
        match fault {
            Fault::LoseAfter => None,
            Fault::AppliedAfterAll => Some(failure(batch.tag, &unavailable())),
            _ => Some(ack),
        }
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Fake {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn drain(
        &self,
        _: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn route(
        &self,
        request: Request<v1::RouteRequest>,
    ) -> Result<Response<v1::RouteResponse>, Status> {
        if request.into_inner().stream != "orders" {
            return Err(Error::new(Reason::UnknownStream, "no such stream").into());
        }
        let isolated = self.is_isolated();
        let state = self.state();
        let leader = |partition: usize| match state.isolated {
            Some(_) if isolated => self.1,
            Some(node) => 1 - node,
            None => partition % 2,
        };
        let route = |partition: usize| v1::PartitionRoute {
            partition: u32::try_from(partition).unwrap(),
            leader_address: Some(state.addresses[leader(partition)].clone()),
            leader: None,
        };
        let partitions = (0..state.partitions.len()).map(route).collect();
        Ok(Response::new(v1::RouteResponse { partitions }))
    }
}

#[tonic::async_trait]
impl read_server::Read for Fake {
    type ReadStream = Answers<v1::ReadResponse>;

    async fn list_delayed(
        &self,
        _request: Request<v1::ListDelayedRequest>,
    ) -> Result<Response<v1::ListDelayedResponse>, Status> {
        Err(Status::unimplemented("the tests do not use it"))
    }

    async fn trace_event(
        &self,
        _request: Request<v1::TraceEventRequest>,
    ) -> Result<Response<v1::TraceEventResponse>, Status> {
        Err(Status::unimplemented("the tests do not use it"))
    }

    async fn test_filter(
        &self,
        _request: Request<v1::TestFilterRequest>,
    ) -> Result<Response<v1::TestFilterResponse>, Status> {
        Err(Status::unimplemented("the tests do not use it"))
    }

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        use v1::position::At;
        let request = request.into_inner();
        let partition = request.partitions[0];
        let follows = request.to.is_none();
        let mut state = self.state();
        state.reads += 1;
        let log = state.partitions[partition as usize].log.clone();
        let frames_max = state.read_frames_max;
        let end = log.len() as u64;
        let resolve = |position: Option<v1::Position>, absent| match position.and_then(|p| p.at) {
            Some(At::Offset(offset)) => offset,
            Some(At::Latest(_)) => end,
            _ => absent,
        };
        let from = resolve(request.from, 0);
        let to = resolve(request.to, end);
        let isolated = self.is_isolated_in(&state);
        let fake = self.clone();
        Ok(answer(|answers| async move {
            use v1::read_response::Frame;
            if isolated {
                _ = answers.send(Err(Error::unavailable("no majority").into())).await;
                return;
            }
            let send = |frame| answers.send(Ok(v1::ReadResponse { frame: Some(frame) }));
            let range = v1::PartitionRange { partition, from, to: (!follows).then_some(to) };
            _ = send(Frame::Started(v1::ReadStarted { ranges: vec![range], merged: false })).await;
            let mut offset = from;
            let mut frames = 0;
            while offset < to {
                let until = (offset + 3).min(to);
                let index = |offset: u64| usize::try_from(offset).unwrap();
                let events = log[index(offset)..index(until)].to_vec();
                let batch = v1::EventBatch {
                    partition,
                    first_offset: offset,
                    events,
                    append_time_us: offset,
                    ..v1::EventBatch::default()
                };
                _ = send(Frame::Batch(batch)).await;
                offset = until;
                frames += 1;
                if frames_max.is_some_and(|max| frames >= max) {
                    _ = answers.send(Err(Status::unavailable("connection reset"))).await;
                    return;
                }
            }
            if follows {
                _ = send(Frame::CaughtUp(v1::CaughtUp {})).await;
                tokio::select! {
                    () = answers.closed() => {}
                    lost = fake.lost() => {
                        _ = answers.send(Err(lost)).await;
                    }
                }
            } else {
                _ = send(Frame::End(v1::ReadEnd::default())).await;
            }
        }))
    }

    async fn locate(
        &self,
        _: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl subscribe_server::Subscribe for Fake {
    type SubscribeStream = Answers<v1::SubscribeResponse>;

    async fn seek(
        &self,
        _request: Request<v1::SeekRequest>,
    ) -> Result<Response<v1::SeekResponse>, Status> {
        Err(Status::unimplemented("the tests do not use it"))
    }

    async fn list_dead_letters(
        &self,
        _request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        Err(Status::unimplemented("the tests do not use it"))
    }

    async fn get_progress(
        &self,
        _request: Request<v1::GetProgressRequest>,
    ) -> Result<Response<v1::GetProgressResponse>, Status> {
        Err(Status::unimplemented("the tests do not use it"))
    }

    async fn redrive(
        &self,
        _request: Request<v1::RedriveRequest>,
    ) -> Result<Response<v1::RedriveResponse>, Status> {
        Err(Status::unimplemented("the tests do not use it"))
    }

    /// Delivers what is not settled, two events a frame, as far as the credit goes; every
    /// connection but the fifth breaks after its third acknowledgement, before the answer.
    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut frames = request.into_inner();
        frames.message().await?;
        let fake = self.clone();
        Ok(answer(|answers| async move {
            use v1::subscribe_request::Frame as In;
            use v1::subscribe_response::Frame as Out;
            if fake.is_isolated() {
                _ = answers.send(Err(Error::unavailable("no leader").into())).await;
                return;
            }
            let epoch = {
                let mut state = fake.state();
                state.subscribed += 1;
                state.subscribed
            };
            let send = |frame| answers.send(Ok(v1::SubscribeResponse { frame: Some(frame) }));
            _ = send(Out::Assigned(v1::Assigned { partition: 0, epoch, watermark: 0 })).await;
            let (mut credit, mut next, mut settles) = (0_u32, 0_u64, 0);
            loop {
                let todo: Vec<(u64, Bytes)> = {
                    let state = fake.state();
                    let log = (0_u64..).zip(state.partitions[0].log.iter().cloned());
                    log.filter(|(offset, _)| *offset >= next && !state.settled.contains(offset))
                        .take(2.min(credit as usize))
                        .collect()
                };
                if let (Some((first, _)), Some((last, _))) = (todo.first(), todo.last()) {
                    next = last + 1;
                    credit -= u32::try_from(todo.len()).unwrap();
                    let offset_deltas =
                        todo.iter().map(|(o, _)| u32::try_from(o - first).unwrap()).collect();
                    let batch = v1::EventBatch {
                        first_offset: *first,
                        offset_deltas,
                        events: todo.into_iter().map(|(_, event)| event).collect(),
                        ..v1::EventBatch::default()
                    };
                    let delivery =
                        v1::Delivery { epoch, batch: Some(batch), ..v1::Delivery::default() };
                    _ = send(Out::Delivery(delivery)).await;
                    continue;
                }
                match fake.next(&mut frames, &answers).await {
                    Some(v1::SubscribeRequest { frame: Some(In::Credit(more)) }) => {
                        credit += more.events;
                        fake.state().credit_violations += u32::from(credit > 8);
                    }
                    Some(v1::SubscribeRequest { frame: Some(In::Settle(settle)) }) => {
                        settles += 1;
                        if settles == 3 && epoch != 5 {
                            _ = answers.send(Err(Status::unavailable("reset"))).await;
                            return;
                        }
                        let mut fenced = Vec::new();
                        for range in settle.acks {
                            if range.epoch == epoch {
                                fake.state().settled.extend(range.first..=range.last);
                            } else {
                                fenced = vec![range.partition];
                            }
                        }
                        let tag = settle.tag;
                        let settled = v1::Settled { tag, fenced, ..v1::Settled::default() };
                        _ = send(Out::Settled(settled)).await;
                    }
                    _ => return,
                }
            }
        }))
    }
}

#[tonic::async_trait]
impl access_server::Access for Fake {
    async fn who_am_i(
        &self,
        _: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        if let Some(reason) = self.state().refusals.pop_front() {
            let error = Error::new(reason, "not now");
            return Err(error.with_retry_after(Duration::from_millis(30)).into());
        }
        Ok(Response::new(v1::WhoAmIResponse { enforced: true, ..v1::WhoAmIResponse::default() }))
    }

    /// The connection breaks after the key was made.
    async fn create_key(
        &self,
        _: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyResponse>, Status> {
        Err(Status::unavailable("connection reset"))
    }

    async fn list_keys(
        &self,
        _: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn revoke_key(
        &self,
        _: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::RevokeKeyResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn explain(
        &self,
        _: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
