//! `weft.v1.Read`: resolves positions and turns what a reader finds into frames.

mod merge;
mod part;
mod tally;
mod test_filter;
mod trace;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use weft_proto::filter::Compiled;
use weft_proto::resource::Verb;
use weft_proto::trace::{Role, Tracer};
use weft_proto::v1::read_server::Read;
use weft_proto::{Error, GroupId, Offset, PartitionId, Reason, Result, v1};

use self::merge::Merge;
use self::part::{END, Part, Shared, Step};
use self::tally::Tally;
use super::find::Finder;
use super::{caller_of, delayed, stream_name, trace_of, until_stop};
use crate::access::{Caller, authorize};
use crate::data::Bounds;
use crate::ingest::Ingest;
use crate::lend::Lender;
use crate::planted::{self, Bug};
use crate::read::{History, Tape, resolve};
use crate::resources::{Placement, StreamView};

/// For a replica to catch up.
const LAG_RETRY: Duration = Duration::from_millis(200);
/// Bytes of events in one frame, about: one more event may go over it.
const FRAME_BYTES: usize = 256 << 10;

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    ingest: Ingest,
    history: History,
    lender: Lender,
    stop: CancellationToken,
    tracer: Tracer,
}

type Frames = super::Frames<v1::ReadResponse>;

impl Service {
    /// The service over this node's groups.
    pub fn new(ingest: Ingest, history: History, lender: Lender, stop: CancellationToken) -> Self {
        Self { ingest, history, lender, stop, tracer: Tracer::default() }
    }

    /// Spans of reads that end go to this tracer.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Begins a read.
    ///
    /// # Errors
    ///
    /// What the caller may not, or what is not there.
    pub(crate) async fn open(
        &self,
        caller: &Caller,
        mut request: v1::ReadRequest,
    ) -> Result<Frames> {
        let resources = self.ingest.resources();
        resources.wait_for(request.min_generation).await?;
        let visible = authorize(caller, Verb::Read, &stream_name(&request.stream)?)?;
        let stream = resources.stream_named(&request.stream)?;
        let filters = Compiled::from_wire(std::mem::take(&mut request.filters))?;
        let follows = request.to.is_none();
        if request.checksum && follows && request.events_max == 0 {
            let message = "a read without end has no checksum: set `to` or `events_max`";
            return Err(Error::invalid(message).with_field("checksum"));
        }
        let chosen = chosen(&stream, &request.partitions)?;
        if request.linearizable {
            self.confirm(chosen.iter().map(|&partition| stream.placement(partition))).await?;
        }
        let mut parts = Vec::new();
        for &partition in &chosen {
            parts.push(self.part(&stream, partition, &request).await?);
        }
        let range = |part: &Part| v1::PartitionRange {
            partition: part.partition.get(),
            from: part.from.get(),
            to: (part.to != END).then_some(part.to.get()),
        };
        let ranges = parts.iter().map(range).collect();
        let started = v1::ReadStarted { ranges, merged: request.merged };
        let started = frame(v1::read_response::Frame::Started(started));
        let first = stream::once(std::future::ready(Ok(started)));
        let accept = request.accept;
        let shared = Shared { resources: resources.clone(), filters, visible, accept };
        // A merged read gives one signal for all partitions.
        let behind = if request.merged { 1 } else { parts.len() };
        let tally = Tally::new(chosen, (request.events_max, behind), request.checksum);
        let rest = frames(parts, shared, tally, request.merged);
        Ok(until_stop(first.chain(rest), self.stop.clone()))
    }

    fn finder(&self) -> Finder<'_> {
        Finder { ingest: &self.ingest, history: &self.history }
    }

    /// One partition of a read: where it begins and ends.
    async fn part(
        &self,
        stream: &StreamView,
        partition: PartitionId,
        request: &v1::ReadRequest,
    ) -> Result<Part> {
        let placement = stream.placement(partition)?;
        let group = self.ingest.group(placement.group)?.clone();
        let bounds = group.bounds(placement.uid);
        let resume = request.resume.iter().find(|range| range.partition == partition.get());
        let offset = |offset| v1::Position { at: Some(v1::position::At::Offset(offset)) };
        let (from, to) = match resume {
            Some(range) => (Some(offset(range.from)), range.to.map(offset)),
            None => (request.from, request.to),
        };
        let from = resolve(&group, placement.uid, &self.history, from.as_ref())
            .await?
            .unwrap_or(bounds.floor);
        let follows = to.is_none();
        let to = match &to {
            Some(_) => {
                let to = resolve(&group, placement.uid, &self.history, to.as_ref()).await?;
                let to = to.unwrap_or(bounds.end);
                to.min(bounds.end).max(from)
            }
            None => END,
        };
        check_start(partition, from, bounds)?;
        Ok(Part {
            tape: Tape::new(group.clone(), placement.uid, self.history.clone(), from),
            group,
            uid: placement.uid,
            partition,
            from,
            to,
            caught_up: bounds.end,
            announced: !follows,
            found: 0,
        })
    }

    /// Waits until this node has all that the groups of these partitions agreed on.
    async fn confirm(&self, placements: impl Iterator<Item = Result<Placement>>) -> Result<()> {
        if planted::is(Bug::StaleLeaderReads) {
            return Ok(());
        }
        let groups = placements.map(|placement| Ok(placement?.group));
        let groups: BTreeSet<GroupId> = groups.collect::<Result<_>>()?;
        let confirmed = groups.into_iter().map(|group| self.ingest.confirm(group));
        futures::future::try_join_all(confirmed).await.map(drop)
    }

    async fn offsets(
        &self,
        caller: &Caller,
        request: v1::LocateRequest,
    ) -> Result<v1::LocateResponse> {
        let resources = self.ingest.resources();
        resources.wait_for(request.min_generation).await?;
        authorize(caller, Verb::Read, &stream_name(&request.stream)?)?;
        let stream = resources.stream_named(&request.stream)?;
        if request.linearizable {
            self.confirm(stream.placements.iter().copied().map(Ok)).await?;
        }
        let mut offsets = Vec::new();
        for placement in stream.placements.iter() {
            let group = self.ingest.group(placement.group)?;
            let bounds = group.bounds(placement.uid);
            let position = request.position.as_ref();
            let offset = resolve(group, placement.uid, &self.history, position).await?;
            let offset = offset.unwrap_or(bounds.floor);
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
    let error = Error::new(Reason::OffsetOutOfRange, message);
    let error = error.with_field("from").with_offset(bounds.floor.get());
    // This replica may only lag; what is below the floor is gone.
    Err(if from > bounds.end { error.with_retry_after(LAG_RETRY) } else { error })
}

/// The frames of a read, until its end.
fn frames(parts: Vec<Part>, shared: Shared, tally: Tally, merged: bool) -> Frames {
    let follows = parts.iter().any(|part| part.to == END);
    let steps = if merged {
        let merge = Merge::new(parts, shared);
        let steps = stream::try_unfold(merge, |mut merge| async move {
            let step = merge.step().await?;
            Ok::<_, Error>(step.map(|step| (step, merge)))
        });
        steps.boxed()
    } else {
        let streams = parts.into_iter().map(|part| {
            let shared = shared.clone();
            let steps = stream::try_unfold((part, shared), |(mut part, shared)| async move {
                let step = part.step(&shared, FRAME_BYTES).await?;
                Ok::<_, Error>(step.map(|step| (step, (part, shared))))
            });
            steps.boxed()
        });
        stream::select_all(streams).boxed()
    };
    let frames =
        stream::unfold((steps, tally, false), move |(mut steps, mut tally, ended)| async move {
            if ended {
                return None;
            }
            loop {
                if tally.is_full() {
                    return Some((vec![Ok(tally.end())], (steps, tally, true)));
                }
                match steps.next().await {
                    Some(Ok(Step::Batches(batches))) => {
                        let frames = tally.take(batches).into_iter().map(Ok).collect();
                        return Some((frames, (steps, tally, false)));
                    }
                    Some(Ok(Step::CaughtUp)) => {
                        if tally.caught_up() {
                            let caught_up = v1::read_response::Frame::CaughtUp(v1::CaughtUp {});
                            return Some((vec![Ok(frame(caught_up))], (steps, tally, false)));
                        }
                    }
                    Some(Err(error)) => {
                        return Some((vec![Err(Status::from(error))], (steps, tally, true)));
                    }
                    None if follows => return None,
                    None => return Some((vec![Ok(tally.end())], (steps, tally, true))),
                }
            }
        });
    frames.flat_map(stream::iter).boxed()
}

fn frame(frame: v1::read_response::Frame) -> v1::ReadResponse {
    v1::ReadResponse { frame: Some(frame) }
}

#[tonic::async_trait]
impl Read for Service {
    type ReadStream = Frames;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Frames>, Status> {
        let caller = caller_of(&request)?;
        let trace = trace_of(&request);
        let request = request.into_inner();
        if request.to.is_none() && request.events_max == 0 {
            return Ok(Response::new(self.open(&caller, request).await?));
        }
        let mut span = self.tracer.begin("replay", Role::Server, || trace);
        span.text("messaging.destination.name", || request.stream.clone());
        let frames = self.open(&caller, request).await.inspect_err(|error| {
            span.fail(|| error.to_string());
        })?;
        // It lasts as long as the answer.
        let frames = frames.inspect(move |frame| match frame {
            Ok(v1::ReadResponse { frame: Some(v1::read_response::Frame::End(end)) }) => {
                span.number("messaging.batch.message_count", end.events);
            }
            Ok(_) => {}
            Err(status) => span.fail(|| status.message().to_owned()),
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn test_filter(
        &self,
        request: Request<v1::TestFilterRequest>,
    ) -> Result<Response<v1::TestFilterResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.test(&caller, request.into_inner()).await?))
    }

    async fn list_delayed(
        &self,
        request: Request<v1::ListDelayedRequest>,
    ) -> Result<Response<v1::ListDelayedResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(delayed::list(self.finder(), &caller, request.into_inner()).await?))
    }

    async fn trace_event(
        &self,
        request: Request<v1::TraceEventRequest>,
    ) -> Result<Response<v1::TraceEventResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.trace(&caller, request.into_inner()).await?))
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.offsets(&caller, request.into_inner()).await?))
    }
}
