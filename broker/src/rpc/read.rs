//! `weft.v1.Read`: resolves positions and turns what a reader finds into frames.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use weft_proto::event::EventView;
use weft_proto::filter::{self, Filter};
use weft_proto::v1::read_server::Read;
use weft_proto::{Error, Offset, PartitionId, Principal, Reason, Result, Timestamp, v1};

use super::{caller_of, until_stop};
use crate::access::{Action, authorize};
use crate::data::{Bounds, DataGroup};
use crate::ingest::Ingest;
use crate::metrics as names;
use crate::read::{History, Run, Tape, locate};
use crate::resources::{Placement, Resources, StreamView};

/// Bytes of events in one frame, about: one more event may go over it.
const FRAME_BYTES: usize = 256 << 10;
/// For a replica to catch up.
const LAG_RETRY: Duration = Duration::from_millis(200);
/// The end of an open range.
const END: Offset = Offset(u64::MAX);

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    ingest: Ingest,
    history: History,
    stop: CancellationToken,
}

type Frames = super::Frames<v1::ReadResponse>;

impl Service {
    /// The service over this node's groups.
    pub fn new(ingest: Ingest, history: History, stop: CancellationToken) -> Self {
        Self { ingest, history, stop }
    }

    async fn open(&self, caller: &Principal, request: v1::ReadRequest) -> Result<Frames> {
        let resources = self.ingest.resources();
        resources.wait_for(request.min_generation).await?;
        let stream = resources.stream_named(&request.stream)?;
        authorize(caller, Action::Read, &stream.name)?;
        let filters = filter::from_wire(request.filters)?;
        let follows = request.to.is_none();
        let mut ranges = Vec::new();
        let mut parts = Vec::new();
        for partition in chosen(&stream, &request.partitions)? {
            let placement = stream.placement(partition)?;
            let group = self.ingest.group(placement.group)?.clone();
            let bounds = group.bounds(placement.uid);
            let from =
                self.resolve(&group, &placement, bounds, request.from.as_ref(), Offset(0)).await?;
            let to = match &request.to {
                Some(_) => {
                    let to = self
                        .resolve(&group, &placement, bounds, request.to.as_ref(), bounds.end)
                        .await?;
                    to.min(bounds.end).max(from)
                }
                None => END,
            };
            check_start(partition, from, bounds)?;
            ranges.push(v1::PartitionRange {
                partition: partition.get(),
                from: from.get(),
                to: (!follows).then_some(to.get()),
            });
            let tape = Tape::new(group, placement.uid, self.history.clone(), from);
            parts.push(Part { tape, partition, to, caught_up: bounds.end, announced: !follows });
        }
        let started = v1::read_response::Frame::Started(v1::ReadStarted { ranges });
        let first = stream::once(std::future::ready(Ok(frame(started))));
        let shared = Shared { resources: resources.clone(), filters };
        let rest = follow(parts, shared, request.events_max);
        Ok(until_stop(first.chain(rest), self.stop.clone()))
    }

    async fn resolve(
        &self,
        group: &DataGroup,
        placement: &Placement,
        bounds: Bounds,
        position: Option<&v1::Position>,
        absent: Offset,
    ) -> Result<Offset> {
        use v1::position::At;
        let Some(position) = position else { return Ok(absent.max(bounds.floor)) };
        match &position.at {
            None | Some(At::Earliest(_)) => Ok(bounds.floor),
            Some(At::Latest(_)) => Ok(bounds.end),
            Some(At::Offset(offset)) => Ok(Offset(*offset)),
            Some(At::Time(time)) => {
                let time = Timestamp::try_from(*time)
                    .map_err(|error| Error::invalid(error.to_string()).with_field("time"))?;
                locate(group, placement.uid, &self.history, time).await
            }
        }
    }

    async fn offsets(
        &self,
        caller: &Principal,
        request: v1::LocateRequest,
    ) -> Result<v1::LocateResponse> {
        let resources = self.ingest.resources();
        resources.wait_for(request.min_generation).await?;
        let stream = resources.stream_named(&request.stream)?;
        authorize(caller, Action::Read, &stream.name)?;
        let mut offsets = Vec::new();
        for placement in stream.placements.iter() {
            let group = self.ingest.group(placement.group)?;
            let bounds = group.bounds(placement.uid);
            let position = request.position.as_ref();
            let offset = self.resolve(group, placement, bounds, position, bounds.floor).await?;
            offsets.push(v1::PartitionOffset {
                partition: placement.partition.get(),
                offset: offset.get(),
                earliest: bounds.floor.get(),
                latest: bounds.end.get(),
            });
        }
        Ok(v1::LocateResponse { offsets })
    }
}

fn chosen(stream: &StreamView, partitions: &[u32]) -> Result<Vec<PartitionId>> {
    if partitions.is_empty() {
        return Ok((0..stream.partitions()).map(PartitionId).collect());
    }
    let mut chosen: Vec<PartitionId> = partitions.iter().copied().map(PartitionId).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen.iter().try_for_each(|&partition| stream.placement(partition).map(drop))?;
    Ok(chosen)
}

/// Reading starts within what is stored, or just after it; never silently elsewhere.
fn check_start(partition: PartitionId, from: Offset, bounds: Bounds) -> Result<()> {
    if from >= bounds.floor && from <= bounds.end {
        return Ok(());
    }
    let message = format!(
        "offset {from} of partition {partition} is not stored; the earliest is {}, the next to come is {}",
        bounds.floor, bounds.end
    );
    let error = Error::new(Reason::OffsetOutOfRange, message).with_field("from");
    // This replica may only lag; what is below the floor is gone.
    Err(if from > bounds.end { error.with_retry_after(LAG_RETRY) } else { error })
}

/// One partition of a read.
struct Part {
    tape: Tape,
    partition: PartitionId,
    to: Offset,
    /// The end when the read began.
    caught_up: Offset,
    /// The client knows that this partition reached it, or does not care.
    announced: bool,
}

#[derive(Clone)]
struct Shared {
    resources: Resources,
    filters: Vec<Filter>,
}

/// What a partition gives next.
enum Step {
    Batches(Vec<v1::EventBatch>),
    CaughtUp,
}

impl Part {
    /// The next step, or nothing at the end of the range.
    async fn step(&mut self, shared: &Shared) -> Result<Option<Step>> {
        loop {
            if self.tape.next() >= self.to {
                return Ok(None);
            }
            if !self.announced && self.tape.next() >= self.caught_up {
                self.announced = true;
                return Ok(Some(Step::CaughtUp));
            }
            let runs = self.tape.read(self.to, FRAME_BYTES).await?;
            if runs.is_empty() {
                self.tape.wait().await?;
                continue;
            }
            let batches: Vec<_> = runs
                .into_iter()
                .filter_map(|run| batch(self.partition, run, &shared.resources, &shared.filters))
                .collect();
            if !batches.is_empty() {
                return Ok(Some(Step::Batches(batches)));
            }
        }
    }
}

/// A run as it goes over the wire, without what the filters leave out.
pub(super) fn batch(
    partition: PartitionId,
    run: Run,
    resources: &Resources,
    filters: &[Filter],
) -> Option<v1::EventBatch> {
    let mut batch = v1::EventBatch {
        partition: partition.get(),
        first_offset: run.first.get(),
        append_time_us: run.time.as_micros(),
        schema: resources.schema_ref(run.schema),
        ..v1::EventBatch::default()
    };
    if filters.is_empty() {
        batch.events = run.events;
        return Some(batch);
    }
    let all = run.events.len();
    let passes = |event: &Bytes| {
        EventView::parse(event).is_some_and(|view| filter::passes_all(filters, &view))
    };
    let mut deltas = Vec::new();
    for (delta, event) in (0_u32..).zip(run.events) {
        if passes(&event) {
            deltas.push(delta);
            batch.events.push(event);
        }
    }
    if batch.events.is_empty() {
        return None;
    }
    if batch.events.len() < all {
        batch.offset_deltas = deltas;
    }
    Some(batch)
}

#[expect(clippy::needless_pass_by_value, reason = "each partition's stream keeps a copy")]
fn follow(
    parts: Vec<Part>,
    shared: Shared,
    events_max: u64,
) -> impl Stream<Item = Result<v1::ReadResponse, Status>> + Send {
    let count = parts.len();
    let follows = parts.iter().any(|part| part.to == END);
    let streams = parts.into_iter().map(|part| {
        let shared = shared.clone();
        Box::pin(stream::unfold(Some(part), move |part| {
            let shared = shared.clone();
            async move {
                let mut part = part?;
                match part.step(&shared).await {
                    Ok(Some(step)) => Some((Ok(step), Some(part))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            }
        }))
    });
    let merged = stream::select_all(streams);
    let tally = Tally { events: 0, bytes: 0, behind: count, events_max };
    let frames =
        stream::unfold((merged, tally, false), move |(mut merged, mut tally, ended)| async move {
            if ended {
                return None;
            }
            loop {
                if tally.is_full() {
                    return Some((vec![Ok(tally.end())], (merged, tally, true)));
                }
                match merged.next().await {
                    Some(Ok(Step::Batches(batches))) => {
                        let frames = batches.into_iter().filter_map(|batch| tally.take(batch));
                        let frames = frames.map(Ok).collect();
                        return Some((frames, (merged, tally, false)));
                    }
                    Some(Ok(Step::CaughtUp)) => {
                        tally.behind = tally.behind.saturating_sub(1);
                        if tally.behind == 0 {
                            let caught_up = v1::read_response::Frame::CaughtUp(v1::CaughtUp {});
                            return Some((vec![Ok(frame(caught_up))], (merged, tally, false)));
                        }
                    }
                    Some(Err(error)) => {
                        return Some((vec![Err(Status::from(error))], (merged, tally, true)));
                    }
                    None if follows => return None,
                    None => return Some((vec![Ok(tally.end())], (merged, tally, true))),
                }
            }
        });
    frames.flat_map(stream::iter)
}

/// What was sent so far.
struct Tally {
    events: u64,
    bytes: u64,
    behind: usize,
    events_max: u64,
}

impl Tally {
    fn is_full(&self) -> bool {
        self.events_max > 0 && self.events >= self.events_max
    }

    fn take(&mut self, mut batch: v1::EventBatch) -> Option<v1::ReadResponse> {
        if self.events_max > 0 {
            let left = usize::try_from(self.events_max - self.events.min(self.events_max));
            batch.events.truncate(left.unwrap_or(usize::MAX));
            batch.offset_deltas.truncate(batch.events.len());
        }
        if batch.events.is_empty() {
            return None;
        }
        let bytes: usize = batch.events.iter().map(Bytes::len).sum();
        self.events += batch.events.len() as u64;
        self.bytes += bytes as u64;
        metrics::counter!(names::READ_EVENTS).increment(batch.events.len() as u64);
        metrics::counter!(names::READ_BYTES).increment(bytes as u64);
        Some(frame(v1::read_response::Frame::Batch(batch)))
    }

    fn end(&self) -> v1::ReadResponse {
        frame(v1::read_response::Frame::End(v1::ReadEnd { events: self.events, bytes: self.bytes }))
    }
}

fn frame(frame: v1::read_response::Frame) -> v1::ReadResponse {
    v1::ReadResponse { frame: Some(frame) }
}

#[tonic::async_trait]
impl Read for Service {
    type ReadStream = Frames;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Frames>, Status> {
        let caller = caller_of(&request);
        Ok(Response::new(self.open(&caller, request.into_inner()).await?))
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateResponse>, Status> {
        let caller = caller_of(&request);
        Ok(Response::new(self.offsets(&caller, request.into_inner()).await?))
    }
}
