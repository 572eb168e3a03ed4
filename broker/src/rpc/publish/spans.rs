//! The spans of a request that publishes, and of what becomes of each of its batches. Without a
//! recorder they are nothing, and cost nothing.

use bytes::Bytes;
use weft_proto::event::EventView;
use weft_proto::packed::{self, Codec, PACKED_BYTES_MAX};
use weft_proto::trace::{Role, Span, TraceContext, Tracer};
use weft_proto::{Error, PartitionId, Result, v1};

use crate::ingest::{BATCH_BYTES_MAX, Outcome};
use crate::resources::StreamView;

const STREAM: &str = "messaging.destination.name";
const PARTITION: &str = "messaging.destination.partition.id";
const COUNT: &str = "messaging.batch.message_count";

/// A request.
pub(super) struct Publishing {
    tracer: Tracer,
    span: Span,
    /// What events get that do not say where their trace began.
    start: Option<TraceContext>,
}

impl Publishing {
    /// A request that came with this context, or that of its only event.
    pub(super) fn begin(
        tracer: &Tracer,
        stream: &str,
        trace: Option<TraceContext>,
        events: &[Bytes],
    ) -> Self {
        Self::of_message(tracer, || stream.to_owned(), trace, events)
    }

    /// The same, where the name of the stream has to be made.
    pub(super) fn of_message(
        tracer: &Tracer,
        stream: impl FnOnce() -> String,
        trace: Option<TraceContext>,
        events: &[Bytes],
    ) -> Self {
        let parent = || trace.clone().or_else(|| of_only(events));
        let mut span = tracer.begin("publish", Role::Server, parent);
        span.text(STREAM, stream);
        span.number(COUNT, events.len() as u64);
        let state = || trace.as_ref().and_then(TraceContext::tracestate).map(str::to_owned);
        let own = span.context().map(|own| TraceContext::new(own, state()));
        Self { tracer: tracer.clone(), span, start: trace.or(own) }
    }

    /// A batch of a stream of batches that was opened with this context.
    pub(super) fn of_batch(
        tracer: &Tracer,
        stream: impl FnOnce() -> String,
        trace: Option<TraceContext>,
        batch: &v1::PublishBatch,
    ) -> Self {
        let mut publishing = Self::of_message(tracer, stream, trace, &batch.events);
        if let Some(packed) = &batch.packed {
            publishing.span.number(COUNT, packed.count.into());
        }
        publishing
    }

    /// Gives events the context that they began in, unless they have one, or would become too large.
    pub(super) fn put(&self, stream: &StreamView, events: &mut [Bytes]) {
        if let Some(start) = &self.start {
            start.put_all(events, stream.event_bytes_max, BATCH_BYTES_MAX);
        }
    }

    /// The same with compressed events, which are compressed again, if the stream of batches was
    /// opened with a context. What cannot be decompressed stays what it is, for the leader to refuse.
    ///
    /// # Errors
    ///
    /// `Internal` when they cannot be compressed.
    pub(super) fn put_packed(
        stream: &StreamView,
        trace: Option<&TraceContext>,
        packed: &mut v1::PackedEvents,
    ) -> Result<()> {
        let Some((trace, codec)) = trace.zip(Codec::from_wire(packed.codec)) else { return Ok(()) };
        let Ok(mut events) = packed::unpack(packed, PACKED_BYTES_MAX) else { return Ok(()) };
        let bytes = |events: &[Bytes]| events.iter().map(Bytes::len).sum::<usize>();
        let before = bytes(&events);
        trace.put_all(&mut events, stream.event_bytes_max, BATCH_BYTES_MAX);
        if bytes(&events) > before {
            *packed = packed::pack(codec, events)?;
        }
        Ok(())
    }

    /// A batch of it is appended to a partition.
    pub(super) fn append(&self, partition: PartitionId) -> Appending {
        let Some(parent) = self.span.context() else { return Appending(Span::default()) };
        let parent = || Some(TraceContext::new(parent, None));
        let mut span = self.tracer.begin("append", Role::Internal, parent);
        span.text(PARTITION, || partition.to_string());
        Appending(span)
    }

    /// It is answered.
    pub(super) fn end(mut self, error: Option<&Error>) {
        if let Some(error) = error {
            self.span.fail(|| error.to_string());
        }
    }
}

/// From the door to the answer of the leader: checks, log, disks of a majority.
pub(super) struct Appending(Span);

impl Appending {
    /// What became of it is known.
    pub(super) fn end(mut self, outcome: &Result<Outcome>) {
        match outcome {
            Ok(outcome) => {
                if let Some(run) = outcome.runs.first() {
                    self.0.number("weft.offset", run.first.get());
                }
                self.0.number("weft.refused", outcome.refusals.len() as u64);
            }
            Err(error) => self.0.fail(|| error.to_string()),
        }
    }
}

/// Several events may have begun in several traces.
fn of_only(events: &[Bytes]) -> Option<TraceContext> {
    let [event] = events else { return None };
    TraceContext::of_event(&EventView::parse(event)?)
}
