//! From a caller's events to the group that stores them.
//!
//! *Owns* the checks at the door and the way to the leader. *Never* proposes anything itself: that
//! is the sequencer's.

mod confirm;
mod delayed;
mod forward;
mod gates;
mod guard;
mod later;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use delayed::Rules;
pub use forward::{Forwarder, Remote, outcome_in, outcome_out, range_out};
use futures::future::BoxFuture;
pub use gates::{Gates, Verdicts, compile};
pub use guard::{Guard, Reserve};
use tokio::time::Instant;
use weft_proto::packed::{self, Codec, PACKED_BYTES_MAX};
use weft_proto::resource::Verb;
use weft_proto::{
    AckLevel, Error, GroupId, NodeId, Offset, PartitionId, PartitionUid, Principal, QualifiedName,
    Reason, Result, event, internal, v1,
};

use crate::access::{Access, Caller, Decision, authorize};
use crate::data::{DataGroup, NewAppend, Packed, Placed, SchemaIds, identity_reused};
use crate::delay::{Delays, Mover};
use crate::entry::{Command, ProducerBatch, framed_len};
use crate::metrics as names;
use crate::read::History;
use crate::resources::{Placement, Resources, StreamView};
use crate::state::Reply;
use crate::subjects::{Expectations, ExpectedSubject};

/// Largest request, in bytes of its events.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Most events of one request.
pub const BATCH_EVENTS_MAX: usize = 4_096;
/// How long a request waits for a group without leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);

/// The events of a batch as they came.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One by one.
    Plain(Vec<Bytes>),
    /// Compressed together.
    Packed(v1::PackedEvents),
}

impl Payload {
    /// What came in the two fields of a message.
    ///
    /// # Errors
    ///
    /// `Invalid` when both are there.
    pub fn of(events: Vec<Bytes>, packed: Option<v1::PackedEvents>) -> Result<Self> {
        match packed {
            None => Ok(Self::Plain(events)),
            Some(packed) if events.is_empty() => Ok(Self::Packed(packed)),
            Some(_) => {
                Err(Error::invalid("a batch has either events or packed").with_field("packed"))
            }
        }
    }

    /// Bytes that it takes while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Plain(events) => events.iter().map(Bytes::len).sum(),
            Self::Packed(packed) => packed.body.len(),
        }
    }

    fn split(self) -> (Vec<Bytes>, Option<v1::PackedEvents>) {
        match self {
            Self::Plain(events) => (events, None),
            Self::Packed(packed) => (Vec::new(), Some(packed)),
        }
    }

    /// The events, and how they were compressed.
    fn open(self) -> Result<(Vec<Bytes>, Option<Packed>)> {
        match self {
            Self::Plain(events) => Ok((events, None)),
            Self::Packed(wire) => {
                let events = packed::unpack(&wire, PACKED_BYTES_MAX)?;
                // Readers find the events of a body by their frames. Protobuf allows to write the
                // same list otherwise, with unknown fields or long numbers, always in more bytes:
                // such a list is stored as if its events had come one by one.
                let framed: usize = events.iter().map(|event| framed_len(event.len())).sum();
                let codec = Codec::from_wire(wire.codec)
                    .filter(|_| u32::try_from(framed) == Ok(wire.raw_bytes));
                let kept = |codec| Packed { codec, raw_len: wire.raw_bytes, body: wire.body };
                Ok((events, codec.map(kept)))
            }
        }
    }
}

/// A batch for one partition.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Encoded events, not checked yet.
    pub events: Payload,
    /// For recognising retries.
    pub identity: Option<ProducerBatch>,
    /// One refused event refuses all.
    pub atomic: bool,
    /// Where the first new event must go.
    pub expected_offset: Option<Offset>,
    /// When it is acknowledged.
    pub ack: AckLevel,
    /// Where the last events of subjects must be before it; checked at the door.
    pub expected_subjects: Vec<v1::ExpectedSubject>,
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Where the accepted events are, in the order of the batch.
    pub runs: Vec<Placed>,
    /// What the accepted events fitted.
    pub schemas: SchemaIds,
    /// Which events were refused, and why.
    pub refusals: Vec<v1::IndexedRefusal>,
}

impl Outcome {
    /// Refuses accepted events whose identity another event has. `accepted` has the index in the
    /// batch of each event that had passed the gate; none: all had.
    fn without(mut self, conflicts: &[(u32, Offset)], accepted: Option<&[u32]>) -> Self {
        if conflicts.is_empty() {
            return self;
        }
        let refused: BTreeMap<u32, Offset> = conflicts.iter().copied().collect();
        if let SchemaIds::Each(schemas) = &mut self.schemas {
            let mut number = 0;
            schemas.retain(|_| {
                number += 1;
                !refused.contains_key(&(number - 1))
            });
        }
        for (number, offset) in refused {
            let place = usize::try_from(number).ok();
            let index = place.and_then(|at| accepted?.get(at).copied()).unwrap_or(number);
            let refusal = Some(identity_reused(Some(offset)).to_refusal());
            self.refusals.push(v1::IndexedRefusal { index, refusal });
        }
        self.refusals.sort_by_key(|refusal| refusal.index);
        self
    }
}

/// A submitted batch: resolves when it is stored, refused, or its fate is unknown.
pub type Submitted = BoxFuture<'static, Result<Outcome>>;

/// Takes events of callers; clones share everything.
#[derive(Clone, Debug)]
pub struct Ingest {
    parts: Arc<Parts>,
    delays: Delays,
}

/// What ingest is made of.
#[derive(Debug)]
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// Its data groups.
    pub groups: BTreeMap<GroupId, DataGroup>,
    /// Streams and schemas.
    pub resources: Resources,
    /// The checks of each stream.
    pub gates: Gates,
    /// The way to other nodes.
    pub forwarder: Forwarder,
    /// Whether the disk has room.
    pub guard: Guard,
    /// Who may do what.
    pub access: Access,
}

impl Ingest {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), delays: Delays::default() }
    }

    /// Delivers the delayed events of a group of this node.
    pub fn mover(&self, group: &DataGroup, history: History) -> Mover {
        let Parts { resources, gates, .. } = &*self.parts;
        Mover::new(group.clone(), resources.clone(), history, gates.clone(), self.delays.clone())
    }

    /// Streams and schemas.
    pub fn resources(&self) -> &Resources {
        &self.parts.resources
    }

    /// The data groups of this node.
    pub fn groups(&self) -> impl Iterator<Item = &DataGroup> {
        self.parts.groups.values()
    }

    /// A data group of this node.
    pub fn group(&self, group: GroupId) -> Result<&DataGroup> {
        let unknown = || Error::internal(format!("this node has no group {group}"));
        self.parts.groups.get(&group).ok_or_else(unknown)
    }

    /// The checks of each stream.
    pub fn gates(&self) -> &Gates {
        &self.parts.gates
    }

    /// Which partition each event goes to; refuses what is no event.
    pub fn route(
        stream: &StreamView,
        events: &[Bytes],
    ) -> Vec<std::result::Result<PartitionId, Error>> {
        let route = |bytes: &Bytes| {
            let view = event::check(bytes, stream.event_bytes_max)?;
            Ok(event::partition_of(&view, stream.partitions()))
        };
        events.iter().map(route).collect()
    }

    /// Queues a batch at the leader of its partition. Batches of one caller keep their order
    /// when each call is awaited before the next.
    ///
    /// # Errors
    ///
    /// Before anything is queued: every error says `not_applied`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready queues nothing. Dropping what it returns does not
    /// take the batch back.
    pub async fn submit(
        &self,
        caller: &Caller,
        stream: &StreamView,
        partition: PartitionId,
        batch: Batch,
    ) -> Result<Submitted> {
        let allowed = authorize(caller, Verb::Publish, &stream.name)?;
        if let Payload::Plain(events) = &batch.events {
            check_size(events)?;
        }
        let placement = stream.placement(partition)?;
        let (meter, limits) = (caller.meter(), caller.limits());
        let flight = meter.in_flight(caller.principal(), &limits, batch.events.bytes() as u64)?;
        let submitted = match self.leader_of(placement.group).await? {
            leader if leader == self.parts.node => {
                let to = (stream, partition, leader);
                self.submit_here(caller, &allowed, to, batch).await?
            }
            leader => {
                let (events, packed) = batch.events.split();
                let append = internal::ForwardedAppend {
                    tag: 0,
                    events,
                    packed,
                    principal: caller.principal().name().to_owned(),
                    groups: caller.groups().to_vec(),
                    stream: stream.name.to_string(),
                    stream_uid: stream.uid.get(),
                    partition: partition.get(),
                    identity: batch.identity.map(identity_out),
                    atomic: batch.atomic,
                    expected_offset: batch.expected_offset.map(Offset::get),
                    ack: batch.ack.to_wire().into(),
                    expected_subjects: batch.expected_subjects,
                    ingest: self.parts.node.get(),
                };
                self.parts.forwarder.append(leader, append).await?
            }
        };
        Ok(Box::pin(async move {
            let outcome = submitted.await;
            drop(flight);
            outcome
        }))
    }

    /// The same when another node forwarded it here.
    pub async fn submit_forwarded(&self, append: internal::ForwardedAppend) -> Result<Submitted> {
        let caller = self.parts.access.on_behalf(append.principal, append.groups);
        let name: QualifiedName = append.stream.parse().map_err(|error| {
            Error::internal("a node forwarded a name that is none").with_source(error)
        })?;
        let stream = self.parts.resources.stream_by_uid(&name, append.stream_uid).await?;
        let allowed = authorize(&caller, Verb::Publish, &stream.name)?;
        let identity = append.identity.map(identity_in).transpose()?;
        let events = Payload::of(append.events, append.packed)?;
        let ack = AckLevel::from_wire(append.ack)?;
        let batch = Batch {
            events,
            identity,
            atomic: append.atomic,
            expected_offset: append.expected_offset.map(Offset),
            expected_subjects: append.expected_subjects,
            ack,
        };
        let to = (&stream, PartitionId(append.partition), NodeId(append.ingest));
        self.submit_here(&caller, &allowed, to, batch).await
    }

    async fn submit_here(
        &self,
        caller: &Caller,
        allowed: &Decision,
        (stream, partition, ingest): (&StreamView, PartitionId, NodeId),
        batch: Batch,
    ) -> Result<Submitted> {
        self.parts.guard.check()?;
        let placement = stream.placement(partition)?;
        let group = self.group(placement.group)?;
        let rules = Rules::of(&batch, ingest);
        let (events, packed) = batch.events.open()?;
        check_size(&events)?;
        let bytes = events.iter().map(Bytes::len).sum::<usize>() as u64;
        caller.meter().publish(caller.principal(), &caller.limits(), bytes)?;
        let verdicts = self.parts.gates.check(stream, &placement, events, allowed)?;
        // What is stored is what was accepted.
        let packed = packed.filter(|_| verdicts.refusals.is_empty() && verdicts.unchanged);
        if !verdicts.refusals.is_empty() {
            let refused = verdicts.refusals.len() as u64;
            metrics::counter!(names::REFUSED_EVENTS, "reason" => "event").increment(refused);
        }
        if batch.atomic
            && let Some(first) = verdicts.refusals.first()
        {
            let refusal = first.refusal.clone().unwrap_or_default();
            let mut error = Error::from_refusal(refusal);
            error = error.with_prefix(&format!("event {} refuses the batch: ", first.index));
            return Err(error);
        }
        let Verdicts { events, schemas, ids, subjects, accepted, refusals, delayed, .. } = verdicts;
        if events.is_empty() {
            let outcome = Outcome { runs: Vec::new(), schemas, refusals };
            return Ok(Box::pin(std::future::ready(Ok(outcome))));
        }
        if let Some(delayed) = delayed {
            let parts = later::split(&delayed, events, &schemas, &ids, &subjects);
            let appending = self.append_parts(group.clone(), placement, rules, parts).await?;
            return Ok(Box::pin(async move {
                let (now, later) = appending.await?;
                let appended = later::merge(&delayed, &now, &later);
                let outcome = Outcome { runs: appended.runs, schemas, refusals };
                Ok(outcome.without(&appended.conflicts, accepted.as_deref()))
            }));
        }
        let append = NewAppend {
            partition: placement.uid,
            events,
            packed,
            schemas: schemas.clone(),
            ids,
            subjects,
            producer: batch.identity,
            expected: self.expectations(partition, batch.expected_offset, batch.expected_subjects),
            atomic: batch.atomic,
            ack: batch.ack,
            settles: None,
            ingest: Some(ingest),
        };
        let answer = group.sequencer.append(append).await?;
        Ok(Box::pin(async move {
            let appended = answer.await.map_err(lost)??;
            let outcome = Outcome { runs: appended.runs, schemas, refusals };
            Ok(outcome.without(&appended.conflicts, accepted.as_deref()))
        }))
    }

    /// What the leader of a partition would refuse of these events, as far as this node knows, before
    /// any is appended; and whether some are to be delivered later.
    ///
    /// # Errors
    ///
    /// `Internal`, as for the leader.
    pub fn foresee(
        &self,
        stream: &StreamView,
        events: &[Bytes],
        allowed: &Decision,
    ) -> Result<(Vec<v1::IndexedRefusal>, bool)> {
        // Which one does not matter for what may pass.
        let placement = stream.placement(PartitionId(0))?;
        let verdicts = self.parts.gates.check(stream, &placement, events.to_vec(), allowed)?;
        Ok((verdicts.refusals, verdicts.delayed.is_some()))
    }

    fn expectations(
        &self,
        partition: PartitionId,
        end: Option<Offset>,
        subjects: Vec<v1::ExpectedSubject>,
    ) -> Expectations {
        let subject = |one: v1::ExpectedSubject| ExpectedSubject {
            hash: self.parts.gates.hash_of_subject(&one.subject),
            subject: one.subject,
            offset: one.offset.map(Offset),
        };
        Expectations { partition, end, subjects: subjects.into_iter().map(subject).collect() }
    }

    /// Changes a group's state at its leader.
    pub async fn command(
        &self,
        caller: &Principal,
        group: GroupId,
        command: Command,
    ) -> Result<Reply> {
        match self.leader_of(group).await? {
            leader if leader == self.parts.node => {
                self.group(group)?.sequencer.command(command).await
            }
            leader => {
                let payload = command.encode(crate::clock::now());
                let reply = self.parts.forwarder.command(leader, caller, group, payload).await?;
                Reply::decode(&reply).map_err(|error| {
                    Error::internal("a node's reply cannot be read").with_source(error)
                })
            }
        }
    }

    /// Takes delayed events back, at the leader of their group; answers which of them waited where they
    /// were said to be.
    ///
    /// # Errors
    ///
    /// `Overloaded`; `Unavailable`, after which the fate may not be known: asking again is harmless.
    pub async fn cancel_delayed(
        &self,
        caller: &Principal,
        placement: Placement,
        offsets: Vec<Offset>,
    ) -> Result<Vec<Offset>> {
        let (group, place) = (placement.group, placement.delayed);
        match self.leader_of(group).await? {
            leader if leader == self.parts.node => self.delays.cancel(group, place, offsets).await,
            leader => {
                let forwarder = &self.parts.forwarder;
                forwarder.cancel_delayed(leader, caller, (group, place), offsets).await
            }
        }
    }

    /// The same for another node, which takes this one for the leader.
    pub(super) async fn cancel_delayed_here(
        &self,
        group: GroupId,
        place: PartitionUid,
        offsets: Vec<Offset>,
    ) -> Result<Vec<Offset>> {
        if self.group(group)?.raft.leader() != Some(self.parts.node) {
            return Err(Error::unavailable("this node does not lead the group").with_not_applied());
        }
        self.delays.cancel(group, place, offsets).await
    }

    /// Who may do what.
    pub fn access(&self) -> &Access {
        &self.parts.access
    }

    /// Who leads a group; waits a while when nobody does.
    pub(crate) async fn leader_of(&self, group: GroupId) -> Result<NodeId> {
        let raft = &self.group(group)?.raft;
        let mut leadership = raft.leader_watch();
        let until = Instant::now() + LEADER_PATIENCE;
        let found = tokio::time::timeout_at(until, leadership.wait_for(|now| now.leader.is_some()));
        let none = || {
            Error::unavailable(format!("group {group} has no leader at present"))
                .with_not_applied()
                .with_retry_after(Duration::from_millis(500))
        };
        let found = found.await.map_err(|_elapsed| none())?.map_err(|_closed| none())?;
        found.leader.ok_or_else(none)
    }
}

/// The events of a payload, and the entry that a leader makes of them, for `tests/fuzz`.
///
/// # Errors
///
/// As a publisher gets them.
#[cfg(feature = "fuzzing")]
pub fn entry_of(payload: Payload) -> Result<(Vec<Bytes>, Bytes)> {
    use crate::entry::{EntryBuilder, NewBatch, Payload as Stored};
    let (events, packed) = payload.open()?;
    check_size(&events)?;
    let count = u32::try_from(events.len()).ok().and_then(std::num::NonZeroU32::new);
    let stored = match (&packed, count) {
        (Some(Packed { codec, raw_len, body }), Some(count)) => {
            Stored::Packed { count, codec: *codec, raw_len: *raw_len, body }
        }
        _ => Stored::Events(&events),
    };
    let mut builder = EntryBuilder::new();
    let batch = NewBatch::new(PartitionUid(1), Offset(0), stored);
    builder.push(batch).map_err(|error| Error::internal(error.to_string()))?;
    let entry = builder.finish(weft_proto::Timestamp::from_micros(1));
    Ok((events, entry))
}

/// Bytes that expectations take while they wait.
pub fn subject_bytes(expected: &[v1::ExpectedSubject]) -> usize {
    let of_one = |one: &v1::ExpectedSubject| one.subject.len() + size_of::<v1::ExpectedSubject>();
    expected.iter().map(of_one).sum()
}

fn lost(_closed: tokio::sync::oneshot::error::RecvError) -> Error {
    Error::unavailable("this node is stopping; the fate is unknown")
}

/// Whether a request has events, and not too many.
///
/// # Errors
///
/// `Invalid`, `TooLarge`.
pub fn check_size(events: &[Bytes]) -> Result<()> {
    if events.is_empty() {
        return Err(Error::invalid("the batch has no events").with_field("events"));
    }
    let count = events.len();
    if count > BATCH_EVENTS_MAX {
        let message = format!("the batch has {count} events, more than {BATCH_EVENTS_MAX}");
        return Err(Error::new(Reason::TooLarge, message).with_field("events"));
    }
    let bytes: usize = events.iter().map(Bytes::len).sum();
    // A single event has its own limit, and its own answer.
    if bytes > BATCH_BYTES_MAX && count > 1 {
        let message = format!("the batch has {bytes} bytes, more than {BATCH_BYTES_MAX}");
        return Err(Error::new(Reason::TooLarge, message).with_field("events"));
    }
    Ok(())
}

/// Reads the identity of a batch.
///
/// # Errors
///
/// `Invalid` when the producer has not 16 bytes or the sequence is 0.
#[expect(clippy::needless_pass_by_value, reason = "a wire message is consumed")]
pub fn identity_in(identity: v1::BatchIdentity) -> Result<ProducerBatch> {
    let Some(id) = weft_proto::ProducerId::from_bytes(&identity.producer) else {
        let message =
            format!("the producer id has {} bytes instead of 16", identity.producer.len());
        return Err(Error::invalid(message).with_field("identity.producer"));
    };
    if identity.sequence == 0 || identity.previous >= identity.sequence {
        let message = "sequences start at 1, and previous is lower than the batch's own";
        return Err(Error::invalid(message).with_field("identity.sequence"));
    }
    Ok(ProducerBatch {
        id,
        epoch: weft_proto::Epoch(identity.epoch),
        sequence: weft_proto::Sequence(identity.sequence),
        previous: weft_proto::Sequence(identity.previous),
    })
}

fn identity_out(batch: ProducerBatch) -> v1::BatchIdentity {
    v1::BatchIdentity {
        producer: batch.id.to_bytes().to_vec().into(),
        epoch: batch.epoch.get(),
        sequence: batch.sequence.get(),
        previous: batch.previous.get(),
    }
}

#[cfg(test)]
mod forward_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_readers_could_not_split_is_stored_event_by_event() {
        let events = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let raw = |codec: Codec, raw: &[u8]| v1::PackedEvents {
            codec: codec.to_wire().into(),
            count: 2,
            raw_bytes: u32::try_from(raw.len()).unwrap(),
            body: codec.compress(raw).unwrap().into(),
        };
        let ours = b"\x12\x03one\x12\x03two";
        let others: [&[u8]; 4] = [
            b"\x08\x01\x12\x03one\x12\x03two",
            b"\x12\x83\x00one\x12\x03two",
            b"\x92\x00\x03one\x12\x03two",
            b"\x12\x03one\x12\x03two\x1a\x00",
        ];
        for codec in [Codec::Lz4, Codec::Zstd] {
            let (found, packed) = Payload::Packed(raw(codec, ours)).open().unwrap();
            assert_eq!((found, packed.is_some()), (events.clone(), true));
            for other in others {
                let (found, packed) = Payload::Packed(raw(codec, other)).open().unwrap();
                assert_eq!((found, packed), (events.clone(), None), "{other:?}");
            }
        }
    }
}
