//! `weft.v1.Publish`: reads requests, calls ingest, writes answers.

mod spans;
mod whole;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::packed::PACKED_BYTES_MAX;
use weft_proto::resource::Verb;
use weft_proto::trace::{TraceContext, Tracer};
use weft_proto::v1::publish_server::Publish;
use weft_proto::{AckLevel, Error, Offset, PartitionId, Reason, Result, event, v1};

use self::spans::{Appending, Publishing};
pub use self::whole::Whole;
use super::find::Finder;
use super::{caller_of, delayed, stream_name, trace_of};
use crate::access::{Caller, authorize};
use crate::data::SchemaIds;
use crate::ingest::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Batch, Ingest, Outcome, Payload, Submitted, identity_in,
    range_out, subject_bytes,
};
use crate::read::History;
use crate::resources::StreamView;
use crate::room::Room;
use crate::tasks::Tasks;

/// Bytes of unacknowledged batches of one stream; the server reads no further beyond it.
const IN_FLIGHT_BYTES_MAX: usize = 16 << 20;
/// Bytes of unacknowledged batches of all callers of this node.
const ROOM_BYTES: usize = 128 << 20;
/// Answers that wait for a slow client before its stream is no longer read.
const ANSWERS_LEN: usize = 64;
/// Subjects of which one request may expect something: each is looked up while its partition waits.
const EXPECTED_SUBJECTS_MAX: usize = 1_000;
/// Longest subject that can be expected.
const SUBJECT_BYTES_MAX: usize = 1_024;

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    ingest: Ingest,
    history: History,
    room: Room,
    tasks: Tasks,
    closing: CancellationToken,
    tracer: Tracer,
}

impl Service {
    /// The service over ingest. Once `closing` is asked for, streams take no more batches, and end
    /// when those that they took are answered.
    pub fn new(ingest: Ingest, history: History, tasks: Tasks, closing: CancellationToken) -> Self {
        let (room, tracer) = (Room::new("publish", ROOM_BYTES), Tracer::default());
        Self { ingest, history, room, tasks, closing, tracer }
    }

    /// Spans of requests go to this tracer.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    async fn unary(
        &self,
        caller: &Caller,
        request: v1::PublishRequest,
        trace: Option<TraceContext>,
    ) -> Result<v1::PublishResponse> {
        let publishing = Publishing::begin(&self.tracer, &request.stream, trace, &request.events);
        let result = self.published(caller, request, &publishing).await;
        publishing.end(result.as_ref().err());
        result
    }

    async fn published(
        &self,
        caller: &Caller,
        mut request: v1::PublishRequest,
        publishing: &Publishing,
    ) -> Result<v1::PublishResponse> {
        self.ingest.resources().wait_for(request.min_generation).await?;
        authorize(caller, Verb::Publish, &stream_name(&request.stream)?)?;
        let stream = self.ingest.resources().stream_named(&request.stream)?;
        publishing.put(&stream, &mut request.events);
        let count = request.events.len();
        let bytes: usize = request.events.iter().map(Bytes::len).sum();
        let bytes = bytes.saturating_add(subject_bytes(&request.expected_subjects));
        let _room = self.room.take(bytes, count).await?;
        let identity = request.identity.map(identity_in).transpose()?;
        let ack = AckLevel::from_wire(request.ack)?;
        if identity.is_some() && request.partition.is_none() {
            let message = "a batch with an identity must name its partition";
            return Err(Error::invalid(message).with_field("partition"));
        }
        let parcels = sort(&stream, request.events, request.partition, request.atomic)?;
        let expected = expectations(&request.expected, |partition| {
            parcels.by_partition.contains_key(&partition)
        })?;
        let default = request.partition.map(PartitionId);
        let mut subjects =
            expected_subjects(&stream, request.expected_subjects, default, |partition| {
                parcels.by_partition.contains_key(&partition)
            })?;
        let mut results = vec![None; count];
        for (index, refusal) in parcels.refused {
            results[index] = Some(refused(refusal.to_refusal()));
        }
        let mut submitted = Vec::new();
        for (partition, parcel) in parcels.by_partition {
            let expected_offset = expected.get(&partition).copied();
            let batch = Batch {
                events: Payload::Plain(parcel.events),
                identity,
                atomic: request.atomic,
                expected_offset,
                ack,
                expected_subjects: subjects.remove(&partition).unwrap_or_default(),
            };
            let appending = publishing.append(partition);
            let waiting = self.ingest.submit(caller, &stream, partition, batch).await;
            submitted.push((partition, parcel.indexes, waiting, appending));
        }
        let alone =
            submitted.len() == 1 && submitted.first().is_some_and(|one| one.1.len() == count);
        for (partition, indexes, waiting, appending) in submitted {
            match outcome_of(waiting, appending).await {
                Ok(outcome) => self.receipts(partition, &indexes, &outcome, &mut results),
                // With one partition, the call fails as a whole and says so by its status.
                Err(error) if alone => return Err(error),
                Err(error) => {
                    let mut refusal = error.to_refusal();
                    for index in indexes {
                        results[index] = Some(refused(refusal.clone()));
                        // Once is enough: there may be thousands of either.
                        refusal.unmet.clear();
                    }
                }
            }
        }
        let results = results.into_iter().map(Option::unwrap_or_default).collect();
        Ok(v1::PublishResponse { results })
    }

    fn receipts(
        &self,
        partition: PartitionId,
        indexes: &[usize],
        outcome: &Outcome,
        results: &mut [Option<v1::PublishResult>],
    ) {
        let refusals: BTreeMap<u32, &v1::IndexedRefusal> =
            outcome.refusals.iter().map(|refusal| (refusal.index, refusal)).collect();
        let mut places = outcome.runs.iter().flat_map(|run| {
            (0..u64::from(run.count))
                .map(move |number| (run.first.get().saturating_add(number), run))
        });
        let mut accepted = 0_usize;
        for (number, &index) in (0_u32..).zip(indexes) {
            if let Some(refusal) = refusals.get(&number) {
                results[index] = Some(refused(refusal.refusal.clone().unwrap_or_default()));
                continue;
            }
            let id = match &outcome.schemas {
                SchemaIds::All(id) => *id,
                SchemaIds::Each(ids) => ids.get(accepted).copied().unwrap_or_default(),
            };
            let Some((offset, run)) = places.next() else { continue };
            let receipt = v1::Receipt {
                partition: partition.get(),
                offset,
                append_time: Some(run.time.into()),
                duplicate: run.duplicate,
                delayed: run.delayed,
                schema: self.ingest.resources().schema_ref(id),
            };
            accepted += 1;
            let outcome = Some(v1::publish_result::Outcome::Receipt(receipt));
            results[index] = Some(v1::PublishResult { outcome });
        }
    }
}

/// What became of a batch that was queued, or was not.
async fn outcome_of(submitted: Result<Submitted>, appending: Appending) -> Result<Outcome> {
    let outcome = match submitted {
        Ok(submitted) => submitted.await,
        Err(error) => Err(error),
    };
    appending.end(&outcome);
    outcome
}

fn refused(refusal: v1::Refusal) -> v1::PublishResult {
    v1::PublishResult { outcome: Some(v1::publish_result::Outcome::Refusal(refusal)) }
}

/// Events sorted by the partition they go to.
#[derive(Default)]
struct Parcels {
    by_partition: BTreeMap<PartitionId, Parcel>,
    refused: Vec<(usize, Error)>,
}

#[derive(Default)]
struct Parcel {
    indexes: Vec<usize>,
    events: Vec<Bytes>,
}

fn sort(
    stream: &StreamView,
    events: Vec<Bytes>,
    partition: Option<u32>,
    atomic: bool,
) -> Result<Parcels> {
    if events.is_empty() {
        return Err(Error::invalid("the request has no events").with_field("events"));
    }
    let mut parcels = Parcels::default();
    // One partition needs no routing; its leader checks the events.
    let only =
        partition.map(PartitionId).or_else(|| (stream.partitions() == 1).then_some(PartitionId(0)));
    if let Some(partition) = only {
        let parcel = Parcel { indexes: (0..events.len()).collect(), events };
        parcels.by_partition.insert(partition, parcel);
        return Ok(parcels);
    }
    let routes = Ingest::route(stream, &events);
    for ((index, event), route) in events.into_iter().enumerate().zip(routes) {
        match route {
            Ok(partition) => {
                let parcel = parcels.by_partition.entry(partition).or_default();
                parcel.indexes.push(index);
                parcel.events.push(event);
            }
            Err(error) if atomic => {
                return Err(error.with_prefix(&format!("event {index} refuses the batch: ")));
            }
            Err(error) => parcels.refused.push((index, error)),
        }
    }
    if atomic && parcels.by_partition.len() > 1 {
        let message = "an atomic request must stay in one partition";
        return Err(Error::new(Reason::AtomicScope, message).with_field("atomic"));
    }
    Ok(parcels)
}

/// Where partitions shall end, by partition.
///
/// # Errors
///
/// `Invalid` for a partition that gets no event of the request, or is there twice.
fn expectations(
    expected: &[v1::ExpectedOffset],
    gets_events: impl Fn(PartitionId) -> bool,
) -> Result<BTreeMap<PartitionId, Offset>> {
    let mut offsets = BTreeMap::new();
    for (place, one) in expected.iter().enumerate() {
        let partition = PartitionId(one.partition);
        let field = format!("expected[{place}].partition");
        if !gets_events(partition) {
            let message = format!("no event of the request goes to partition {partition}");
            return Err(Error::invalid(message).with_field(field));
        }
        if offsets.insert(partition, Offset(one.offset)).is_some() {
            let message = format!("partition {partition} is there twice");
            return Err(Error::invalid(message).with_field(field));
        }
    }
    Ok(offsets)
}

/// Where the last events of subjects shall be, by partition; what has no partition gets `default`, or
/// the one that its subject is routed to.
///
/// # Errors
///
/// `Invalid` for a subject that cannot be one, or is there twice, and as [`expectations`];
/// `FailedPrecondition` when the stream has no index of subjects.
fn expected_subjects(
    stream: &StreamView,
    expected: Vec<v1::ExpectedSubject>,
    default: Option<PartitionId>,
    gets_events: impl Fn(PartitionId) -> bool,
) -> Result<BTreeMap<PartitionId, Vec<v1::ExpectedSubject>>> {
    let mut by_partition: BTreeMap<_, Vec<v1::ExpectedSubject>> = BTreeMap::new();
    if expected.is_empty() {
        return Ok(by_partition);
    }
    if !stream.subject_index {
        let message = format!(
            "the stream {} has no index of subjects, so no offset of a subject can be expected; \
             create a stream with `subject_index: true` (weft stream create --subject-index)",
            stream.name
        );
        return Err(Error::new(Reason::FailedPrecondition, message).with_field("expected_subjects"));
    }
    if expected.len() > EXPECTED_SUBJECTS_MAX {
        let message =
            format!("{} subjects are expected, more than {EXPECTED_SUBJECTS_MAX}", expected.len());
        return Err(Error::new(Reason::TooLarge, message).with_field("expected_subjects"));
    }
    let mut seen = BTreeSet::new();
    for (place, one) in expected.into_iter().enumerate() {
        let field = |name: &str| format!("expected_subjects[{place}].{name}");
        let len = one.subject.len();
        if len == 0 {
            let message = "the subject is empty; events have one that is not, or none";
            return Err(Error::invalid(message).with_field(field("subject")));
        }
        if len > SUBJECT_BYTES_MAX {
            let message = format!("the subject has {len} bytes, more than {SUBJECT_BYTES_MAX}");
            return Err(Error::new(Reason::TooLarge, message).with_field(field("subject")));
        }
        let routed = || event::partition_of_key(&one.subject, stream.partitions());
        let named = one.partition.map(PartitionId);
        let partition = named.or(default).unwrap_or_else(routed);
        if !gets_events(partition) {
            let subject = &one.subject;
            let message = match named {
                Some(_) => format!("no event of the request goes to partition {partition}"),
                None => format!(
                    "no event of the request goes to partition {partition}, which is that of \
                     subject {subject:?}; events with a `partitionkey` go elsewhere: name their \
                     partition"
                ),
            };
            return Err(Error::invalid(message).with_field(field("partition")));
        }
        if !seen.insert((partition, one.subject.clone())) {
            let subject = &one.subject;
            let message = format!("subject {subject:?} is there twice for partition {partition}");
            return Err(Error::invalid(message).with_field(field("subject")));
        }
        by_partition.entry(partition).or_default().push(one);
    }
    Ok(by_partition)
}

#[tonic::async_trait]
impl Publish for Service {
    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let caller = caller_of(&request)?;
        let trace = trace_of(&request);
        Ok(Response::new(self.unary(&caller, request.into_inner(), trace).await?))
    }

    async fn cancel_delayed(
        &self,
        request: Request<v1::CancelDelayedRequest>,
    ) -> Result<Response<v1::CancelDelayedResponse>, Status> {
        let caller = caller_of(&request)?;
        let finder = Finder { ingest: &self.ingest, history: &self.history };
        Ok(Response::new(delayed::cancel(finder, &caller, request.into_inner()).await?))
    }

    type PublishStreamStream = ReceiverStream<Result<v1::PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let caller = caller_of(&request)?;
        let trace = trace_of(&request);
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|first| first.frame);
        let Some(v1::publish_stream_request::Frame::Open(open)) = first else {
            return Err(Error::invalid("the first frame must be open").into());
        };
        self.ingest.resources().wait_for(open.min_generation).await?;
        authorize(&caller, Verb::Publish, &stream_name(&open.stream)?)?;
        let stream = self.ingest.resources().stream_named(&open.stream)?;
        let (answers, receiver) = mpsc::channel(ANSWERS_LEN);
        let opened = v1::PublishOpened {
            partitions: stream.partitions(),
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX as u64,
            batch_bytes_max: BATCH_BYTES_MAX as u64,
            batch_events_max: u32::try_from(BATCH_EVENTS_MAX).unwrap_or(u32::MAX),
        };
        let frame = Some(v1::publish_stream_response::Frame::Opened(opened));
        // The channel is new and has room.
        _ = answers.send(Ok(v1::PublishStreamResponse { frame })).await;
        let room = self.room.clone();
        let (ingest, tracer) = (self.ingest.clone(), self.tracer.clone());
        let session = Session { ingest, room, caller, stream, answers, tracer, trace };
        self.tasks.spawn_short(session.run(frames, self.closing.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// What one stream may have unacknowledged while so much of the node's room is taken: with less
/// left, many streams together do not run into refusals.
const fn credit(used: usize, bytes_max: usize) -> usize {
    if used < bytes_max / 2 {
        IN_FLIGHT_BYTES_MAX
    } else if used < bytes_max / 4 * 3 {
        IN_FLIGHT_BYTES_MAX / 8
    } else {
        IN_FLIGHT_BYTES_MAX / 64
    }
}

fn limits(in_flight_bytes_max: usize) -> v1::publish_stream_response::Frame {
    let in_flight_bytes_max = in_flight_bytes_max as u64;
    v1::publish_stream_response::Frame::Limits(v1::PublishLimits { in_flight_bytes_max })
}

/// One publishing stream.
struct Session {
    ingest: Ingest,
    room: Room,
    caller: Caller,
    stream: StreamView,
    answers: mpsc::Sender<Result<v1::PublishStreamResponse, Status>>,
    tracer: Tracer,
    /// What the stream was opened with: the context of its events that have none.
    trace: Option<TraceContext>,
}

/// The answer to one frame, and the bytes it held.
type Landing = futures::future::BoxFuture<'static, (usize, v1::PublishAck)>;

impl Session {
    async fn run(
        self,
        mut frames: Streaming<v1::PublishStreamRequest>,
        closing: CancellationToken,
    ) {
        let mut waiting: FuturesUnordered<Landing> = FuturesUnordered::new();
        let mut bytes = 0_usize;
        let mut ended = false;
        let mut limit = IN_FLIGHT_BYTES_MAX;
        while !ended || !waiting.is_empty() {
            let now = credit(self.room.used(), self.room.bytes_max());
            if now != limit && self.answer(limits(now)).await.is_err() {
                return;
            }
            limit = now;
            let reads = !ended && bytes < limit;
            tokio::select! {
                biased;
                Some(landed) = waiting.next(), if !waiting.is_empty() => {
                    let mut acks = Vec::new();
                    let mut next = Some(landed);
                    // Whatever else is there already goes into the same frame.
                    while let Some((freed, ack)) = next {
                        bytes = bytes.saturating_sub(freed);
                        acks.push(ack);
                        next = waiting.next().now_or_never().flatten();
                    }
                    acks.sort_by_key(|ack| ack.tag);
                    let acks = v1::publish_stream_response::Frame::Acks(v1::PublishAcks { acks });
                    if self.answer(acks).await.is_err() {
                        return;
                    }
                }
                () = closing.cancelled(), if !ended => ended = true,
                frame = frames.message(), if reads => match frame {
                    Ok(Some(v1::PublishStreamRequest {
                        frame: Some(v1::publish_stream_request::Frame::Batch(batch)),
                    })) => {
                        let size = held_bytes(&batch);
                        bytes += size;
                        let landing = self.take(size, batch).await;
                        waiting.push(landing);
                    }
                    Ok(Some(_)) => {
                        let error = Error::invalid("after open, every frame must be a batch");
                        _ = self.answers.send(Err(error.into())).await;
                        ended = true;
                    }
                    Ok(None) | Err(_) => ended = true,
                },
            }
        }
    }

    async fn answer(
        &self,
        frame: v1::publish_stream_response::Frame,
    ) -> Result<(), mpsc::error::SendError<()>> {
        let frame = Some(frame);
        let sent = self.answers.send(Ok(v1::PublishStreamResponse { frame })).await;
        sent.map_err(|_gone| mpsc::error::SendError(()))
    }

    /// Queues a batch now, so that batches keep their order; what it returns waits.
    async fn take(&self, size: usize, mut batch: v1::PublishBatch) -> Landing {
        let tag = batch.tag;
        let stream = || self.stream.name.to_string();
        let trace = self.trace.clone();
        let publishing = Publishing::of_batch(&self.tracer, stream, trace, &batch);
        publishing.put(&self.stream, &mut batch.events);
        let submitted = async {
            let room = self.room.take(size, batch.events.len()).await?;
            if let Some(packed) = &mut batch.packed {
                Publishing::put_packed(&self.stream, self.trace.as_ref(), packed)?;
            }
            Ok::<_, Error>((room, self.submit(batch, &publishing).await?))
        };
        match submitted.await {
            Ok((room, (refused, submitted))) => Box::pin(async move {
                let ack = gather(tag, refused, submitted).await;
                publishing.end(ack.failure.clone().map(Error::from).as_ref());
                drop(room);
                (size, ack)
            }),
            Err(error) => {
                publishing.end(Some(&error));
                Box::pin(std::future::ready((size, failed(tag, &error))))
            }
        }
    }

    async fn submit(
        &self,
        batch: v1::PublishBatch,
        publishing: &Publishing,
    ) -> Result<(Vec<(usize, Error)>, Vec<Part>)> {
        needs_partition(&batch)?;
        let identity = batch.identity.map(identity_in).transpose()?;
        let ack = AckLevel::from_wire(batch.ack)?;
        let (parcels, refused) = match (batch.partition, batch.packed) {
            (Some(partition), Some(packed)) => {
                if packed.count as usize > BATCH_EVENTS_MAX {
                    let message = format!(
                        "the batch has {} events, more than {BATCH_EVENTS_MAX}",
                        packed.count
                    );
                    return Err(Error::new(Reason::TooLarge, message).with_field("packed.count"));
                }
                let indexes = (0..packed.count as usize).collect();
                // Only the leader decompresses.
                let events = Payload::of(batch.events, Some(packed))?;
                (vec![(PartitionId(partition), indexes, events)], Vec::new())
            }
            (partition, _) => {
                let Parcels { by_partition, refused } =
                    sort(&self.stream, batch.events, partition, false)?;
                let parcels = by_partition.into_iter();
                let plain = |(partition, Parcel { indexes, events }): (_, _)| {
                    (partition, indexes, Payload::Plain(events))
                };
                (parcels.map(plain).collect(), refused)
            }
        };
        let expected = expectations(&batch.expected, |partition| {
            parcels.iter().any(|parcel| parcel.0 == partition)
        })?;
        let default = batch.partition.map(PartitionId);
        let mut subjects =
            expected_subjects(&self.stream, batch.expected_subjects, default, |partition| {
                parcels.iter().any(|parcel| parcel.0 == partition)
            })?;
        let mut parts = Vec::with_capacity(parcels.len());
        for (partition, indexes, events) in parcels {
            let batch = Batch {
                events,
                identity,
                atomic: false,
                expected_offset: expected.get(&partition).copied(),
                expected_subjects: subjects.remove(&partition).unwrap_or_default(),
                ack,
            };
            let appending = publishing.append(partition);
            let waiting = self.ingest.submit(&self.caller, &self.stream, partition, batch).await?;
            parts.push(Part { partition, indexes, waiting, appending });
        }
        Ok((refused, parts))
    }
}

/// Bytes that a batch takes here until it is answered.
fn held_bytes(batch: &v1::PublishBatch) -> usize {
    let packed = batch.packed.as_ref().map_or(0, |packed| packed.raw_bytes as usize);
    let plain: usize = batch.events.iter().map(Bytes::len).sum();
    let events = plain.saturating_add(packed.min(PACKED_BYTES_MAX));
    events.saturating_add(subject_bytes(&batch.expected_subjects))
}

/// What only makes sense within one partition must name it.
fn needs_partition(batch: &v1::PublishBatch) -> Result<()> {
    let what = match batch {
        v1::PublishBatch { partition: Some(_), .. } => return Ok(()),
        v1::PublishBatch { identity: Some(_), .. } => "with an identity",
        v1::PublishBatch { packed: Some(_), .. } => "that is compressed",
        batch if !batch.expected.is_empty() => "that expects an offset",
        batch if !batch.expected_subjects.is_empty() => "that expects an offset of a subject",
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("a batch {what} must name its partition")).with_field("partition"))
}

/// What a batch goes through before ingest has it, for `tests/fuzz`: the events of each partition.
///
/// # Errors
///
/// As a publisher gets them.
#[cfg(feature = "fuzzing")]
pub fn check_batch(
    stream: &StreamView,
    batch: v1::PublishBatch,
) -> Result<BTreeMap<PartitionId, Payload>> {
    let _bytes = held_bytes(&batch);
    needs_partition(&batch)?;
    batch.identity.map(identity_in).transpose()?;
    AckLevel::from_wire(batch.ack)?;
    let parcels: BTreeMap<_, _> = match (batch.partition, batch.packed) {
        (Some(partition), Some(packed)) => {
            [(PartitionId(partition), Payload::of(batch.events, Some(packed))?)].into()
        }
        (partition, _) => {
            let parcels = sort(stream, batch.events, partition, false)?.by_partition;
            parcels.into_iter().map(|(to, parcel)| (to, Payload::Plain(parcel.events))).collect()
        }
    };
    let gets_events = |partition| parcels.contains_key(&partition);
    expectations(&batch.expected, gets_events)?;
    let default = batch.partition.map(PartitionId);
    expected_subjects(stream, batch.expected_subjects, default, gets_events)?;
    Ok(parcels)
}

struct Part {
    partition: PartitionId,
    indexes: Vec<usize>,
    waiting: Submitted,
    appending: Appending,
}

fn failed(tag: u64, error: &Error) -> v1::PublishAck {
    v1::PublishAck { tag, failure: Some(error.into()), ..v1::PublishAck::default() }
}

async fn gather(tag: u64, refused: Vec<(usize, Error)>, parts: Vec<Part>) -> v1::PublishAck {
    let index = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    let refusals = refused.into_iter().map(|(place, error)| v1::IndexedRefusal {
        index: index(place),
        refusal: Some(error.to_refusal()),
    });
    let mut ack = v1::PublishAck { tag, refusals: refusals.collect(), ..v1::PublishAck::default() };
    for part in parts {
        let outcome = match outcome_of(Ok(part.waiting), part.appending).await {
            Ok(outcome) => outcome,
            // The client sends the batch again; parts that are stored are recognised or doubled,
            // which is why a batch with an identity stays in one partition.
            Err(error) => return failed(tag, &error),
        };
        ack.ranges.extend(outcome.runs.iter().map(|run| range_out(part.partition, run)));
        let refusals = outcome.refusals.into_iter().map(|refusal| {
            let place = usize::try_from(refusal.index).ok();
            let place = place.and_then(|place| part.indexes.get(place)).copied();
            v1::IndexedRefusal { index: place.map_or(refusal.index, index), ..refusal }
        });
        ack.refusals.extend(refusals);
    }
    ack
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_gets_less_the_more_is_taken_and_never_nothing() {
        let credits: Vec<usize> = (0..=100).map(|used| credit(used, 100)).collect();

        assert!(credits.is_sorted_by(|more, less| more >= less));
        assert_eq!(credits[0], IN_FLIGHT_BYTES_MAX);
        assert!(credits[100] > 0 && credits[100] < IN_FLIGHT_BYTES_MAX);
    }
}
