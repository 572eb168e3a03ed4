//! The one task that proposes to a data group while this node leads it.
//!
//! *Owns* the order of appends and what is in flight. Decisions are pure (`partition::Admission`); this
//! task carries them out: it joins batches into entries, keeps a bounded number of them in flight
//! and answers each batch when its entry is applied. There is no timer: while the window is full,
//! batches gather; when it is not, what is there goes out at once.

mod admit;
mod compare;
mod fate;
mod proposer;
mod reconcile;
mod repeats;
mod subjects;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub use proposer::{Inbox, Loop, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use weft_proto::packed::Codec;
use weft_proto::{
    AckLevel, Error, GroupId, NodeId, Offset, PartitionUid, Reason, ResourceUid, Result, SchemaId,
    Timestamp,
};

use crate::entry::{Command, ProducerBatch, Settles};
use crate::metrics as names;
use crate::state::Reply;
use crate::subjects::{Expectations, SubjectHash};

/// Bytes of batches that may wait for one group; beyond it publishers wait a little, and are then
/// told to come back.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Batches that may wait, whatever their size.
const QUEUE_LEN: usize = 8_192;
/// Longer waits are the caller's to do, out of this memory.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);
/// What a caller is told to wait when the group has no leader.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Schemas that the events of a batch fitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaIds {
    /// The same for all; 0 = none.
    All(SchemaId),
    /// One for each event.
    Each(Vec<SchemaId>),
}

/// Framed events, compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// How.
    pub codec: Codec,
    /// Bytes of the framed events.
    pub raw_len: u32,
    /// The compressed bytes.
    pub body: Bytes,
}

/// A batch to be appended.
#[derive(Debug)]
pub struct NewAppend {
    /// Where it goes.
    pub partition: PartitionUid,
    /// Checked events; never empty.
    pub events: Vec<Bytes>,
    /// The same as they are stored, if they came compressed.
    pub packed: Option<Packed>,
    /// What they fitted.
    pub schemas: SchemaIds,
    /// Hash of partition, source and id of each event; empty where repeats are not looked for.
    pub ids: Vec<u64>,
    /// Hash of the subject of each event; empty where the stream has no index of subjects.
    pub subjects: Vec<SubjectHash>,
    /// For recognising retries.
    pub producer: Option<ProducerBatch>,
    /// What must hold before the first new event; anything else refuses the batch.
    pub expected: Expectations,
    /// One refused event refuses all.
    pub atomic: bool,
    /// When it is acknowledged.
    pub ack: AckLevel,
    /// What it takes the place of, in another partition of the group.
    pub settles: Option<Settles>,
    /// The node at which its publisher asked.
    pub ingest: Option<NodeId>,
}

/// Where some consecutive events of a batch are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Placed {
    /// Offset of the first.
    pub first: Offset,
    /// How many they are.
    pub count: u32,
    /// When they were appended.
    pub time: Timestamp,
    /// They had been appended before.
    pub duplicate: bool,
    /// They wait for their time: the offset is that of the place where they do.
    pub delayed: bool,
}

/// Where the events of a batch are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// In the order of the batch, without those that are refused.
    pub runs: Vec<Placed>,
    /// Events that were refused because another event has their source and id, and where it is.
    pub conflicts: Vec<(u32, Offset)>,
}

impl Appended {
    /// All in one place.
    pub fn whole(placed: Placed) -> Self {
        Self { runs: vec![placed], conflicts: Vec::new() }
    }

    fn events(&self) -> u64 {
        let placed: u64 = self.runs.iter().map(|run| u64::from(run.count)).sum();
        placed.saturating_add(self.conflicts.len() as u64)
    }

    /// Adds the next one.
    pub(crate) fn add(&mut self, next: Placed) {
        if let Some(last) = self.runs.last_mut()
            && last.first.0.saturating_add(last.count.into()) == next.first.0
            && (last.time, last.duplicate, last.delayed)
                == (next.time, next.duplicate, next.delayed)
        {
            last.count = last.count.saturating_add(next.count);
        } else {
            self.runs.push(next);
        }
    }

    /// The same as a retry is told.
    fn again(&self) -> Self {
        let mut again = self.clone();
        again.runs.iter_mut().for_each(|run| run.duplicate = true);
        again
    }
}

/// What the sequencer must know of the catalog; both only grow more exact with time.
pub trait Directory: Send + Sync + 'static {
    /// Partitions that the group shall have.
    fn partitions_of(&self, group: GroupId) -> Vec<PartitionUid>;
    /// Every partition uid below was handed out already, as far as this node knows.
    fn partition_uids_end(&self) -> PartitionUid;
    /// Whoever has cursors that stay.
    fn cursor_owners(&self) -> Vec<ResourceUid>;
    /// Every resource uid below was handed out already, as far as this node knows.
    fn resource_uids_end(&self) -> ResourceUid;
    /// Changes with every change of the catalog.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// The handle to append to a group; clones share one queue.
#[derive(Clone, Debug)]
pub struct Sequencer {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
}

type Answers<T> = oneshot::Sender<Result<T>>;

#[derive(Debug)]
enum Request {
    Append(Box<Append>),
    Command(Command, Answers<Reply>),
}

#[derive(Debug)]
struct Append {
    batch: NewAppend,
    count: NonZeroU32,
    bytes: usize,
    /// Made once some of its events turned out to be there already.
    plan: Option<fate::Plan>,
    /// Where the store has the last events of subjects; kept while the partition waits for this batch.
    found: BTreeMap<SubjectHash, Option<Offset>>,
    /// Gone once it is answered, which can be before it is applied.
    answer: Option<Answers<Appended>>,
    _room: OwnedSemaphorePermit,
}

impl Sequencer {
    /// Queues a batch; batches of one caller keep their order. The receiver answers once the
    /// batch is applied.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future queues nothing. Dropping the receiver does not take the batch back.
    pub async fn append(&self, batch: NewAppend) -> Result<oneshot::Receiver<Result<Appended>>> {
        let count = u32::try_from(batch.events.len()).ok().and_then(NonZeroU32::new);
        let count = count.ok_or_else(|| Error::invalid("a batch has no events or too many"))?;
        let bytes: usize = batch.events.iter().map(Bytes::len).sum();
        let bytes = bytes.saturating_add(batch.expected.bytes());
        let permits = u32::try_from(bytes.clamp(1, QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(room) => room,
            Err(_full) => {
                metrics::counter!(names::QUEUE_FULL).increment(1);
                let acquired = Arc::clone(&self.room).acquire_many_owned(permits);
                let in_time = tokio::time::timeout(ROOM_PATIENCE, acquired).await;
                in_time.map_err(|_elapsed| full())?.map_err(|_closed| stopping())?
            }
        };
        let (answer, receiver) = oneshot::channel();
        let (found, answer) = (BTreeMap::new(), Some(answer));
        let append = Append { batch, count, bytes, plan: None, found, answer, _room: room };
        self.send(Request::Append(Box::new(append))).await?;
        Ok(receiver)
    }

    /// Proposes a change other than an append and waits until it is applied.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the change back.
    pub async fn command(&self, command: Command) -> Result<Reply> {
        let (answer, receiver) = oneshot::channel();
        self.send(Request::Command(command, answer)).await?;
        receiver.await.map_err(|_closed| unknown())?
    }

    /// Bytes of batches that wait or are in flight.
    fn queued_bytes(&self) -> usize {
        QUEUE_BYTES_MAX.saturating_sub(self.room.available_permits())
    }

    async fn send(&self, request: Request) -> Result<()> {
        self.requests.send(request).await.map_err(|_closed| stopping())
    }
}

fn stopping() -> Error {
    Error::unavailable("this node is stopping").with_not_applied().with_retry_after(RETRY_AFTER)
}

fn full() -> Error {
    let message = "more is published than the group can store; its queue is full";
    let error = Error::new(Reason::Overloaded, message);
    error.with_not_applied().with_retry_after(RETRY_AFTER)
}

fn unknown() -> Error {
    Error::unavailable("leadership was lost while the answer was awaited; the fate is unknown")
        .with_retry_after(RETRY_AFTER)
}

fn not_leader(group: GroupId) -> Error {
    Error::unavailable(format!("this node does not lead group {group}"))
        .with_not_applied()
        .with_retry_after(RETRY_AFTER)
}

/// The refusal of an event whose source and id another one has.
pub fn identity_reused(offset: Option<Offset>) -> Error {
    let place = offset.map_or_else(
        || "another event of the batch".to_owned(),
        |offset| format!("the event at offset {offset}"),
    );
    let message = format!("{place} has the same source and id, but says something else");
    let error = Error::new(Reason::IdentityReused, message).with_field("id");
    match offset {
        Some(offset) => error.with_offset(offset.get()),
        None => error,
    }
}

fn reply(mut append: Append, result: Result<Appended>) {
    answer(&mut append, result);
}

/// Answers a batch that is kept; what it is told later goes nowhere.
fn answer(append: &mut Append, result: Result<Appended>) {
    // The caller may have given up; the batch stays where it is.
    if let Some(answer) = append.answer.take() {
        _ = answer.send(result);
    }
}
