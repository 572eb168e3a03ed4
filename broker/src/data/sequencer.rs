//! The one task that proposes to a data group while this node leads it.
//!
//! *Owns* the order of appends and what is in flight. Decisions are pure ([`Admission`]); this
//! task carries them out: it joins batches into entries, keeps a bounded number of them in flight
//! and answers each batch when its entry is applied. There is no timer: while the window is full,
//! batches gather; when it is not, what is there goes out at once.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use weft_proto::{
    Error, GroupId, Offset, PartitionUid, Reason, ResourceUid, Result, SchemaId, Timestamp,
};

use super::{DataMachine, lock};
use crate::entry::{Command, EntryBuilder, NewBatch, Opening, Payload, ProducerBatch};
use crate::partition::{Admission, BatchReply, Decision};
use crate::raft::group::{Group, Leadership, Pending, ProposeError};
use crate::raft::types::Reply as Answer;
use crate::state::Reply;
use crate::tasks::Tasks;
use crate::{clock, metrics as names};

/// Bytes of batches that may wait for one group; beyond it publishers wait.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Batches that may wait, whatever their size.
const QUEUE_LEN: usize = 8_192;
/// An entry takes batches until it has this many bytes.
const ENTRY_BYTES_MAX: usize = 256 << 10;
/// Entries in flight at most: enough to cover a sync and a round trip.
const FLIGHTS_MAX: usize = 8;
/// Bytes in flight at most.
const FLIGHT_BYTES_MAX: usize = 8 << 20;
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

/// A batch to be appended.
#[derive(Debug)]
pub struct NewAppend {
    /// Where it goes.
    pub partition: PartitionUid,
    /// Checked events; never empty.
    pub events: Vec<Bytes>,
    /// What they fitted.
    pub schemas: SchemaIds,
    /// For recognising retries.
    pub producer: Option<ProducerBatch>,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first event.
    pub first: Offset,
    /// Number of its events.
    pub count: u32,
    /// When it was appended.
    pub time: Timestamp,
    /// It had been appended before.
    pub duplicate: bool,
}

/// What the sequencer must know of the catalog; both only grow more exact with time.
pub trait Directory: Send + Sync + 'static {
    /// Partitions that the group shall have.
    fn partitions_of(&self, group: GroupId) -> Vec<PartitionUid>;
    /// Every partition uid below was handed out already, as far as this node knows.
    fn partition_uids_end(&self) -> PartitionUid;
    /// Subscriptions that exist.
    fn subscriptions(&self) -> Vec<ResourceUid>;
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
    Append(Append),
    Command(Command, Answers<Reply>),
}

#[derive(Debug)]
struct Append {
    batch: NewAppend,
    count: NonZeroU32,
    bytes: usize,
    answer: Answers<Appended>,
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
        let permits = u32::try_from(bytes.clamp(1, QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(room) => room,
            Err(_full) => {
                metrics::counter!(names::QUEUE_FULL).increment(1);
                let acquired = Arc::clone(&self.room).acquire_many_owned(permits).await;
                acquired.map_err(|_closed| stopping())?
            }
        };
        let (answer, receiver) = oneshot::channel();
        let append = Append { batch, count, bytes, answer, _room: room };
        self.send(Request::Append(append)).await?;
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

    async fn send(&self, request: Request) -> Result<()> {
        self.requests.send(request).await.map_err(|_closed| stopping())
    }
}

fn stopping() -> Error {
    Error::unavailable("this node is stopping").with_not_applied().with_retry_after(RETRY_AFTER)
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

/// The task behind the handle.
pub struct Loop {
    group: GroupId,
    raft: Group,
    machine: Arc<Mutex<DataMachine>>,
    directory: Arc<dyn Directory>,
    requests: mpsc::Receiver<Request>,
    room: Arc<Semaphore>,
    node: String,
    lead: Lead,
    flights: FuturesOrdered<Pending>,
    manifest: VecDeque<Flight>,
    flight_bytes: usize,
    tasks: Tasks,
    /// A term in which the fate of an entry became unknown: nothing is proposed in it any more.
    dead_term: Option<u64>,
}

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop").field("group", &self.group).finish_non_exhaustive()
    }
}

/// What exists only while this node leads, for one term.
#[derive(Default)]
struct Lead {
    term: Option<u64>,
    admission: Admission,
    building: Vec<(Append, Offset)>,
    building_bytes: usize,
    /// Batches that may not be admitted yet: their partition drains, or is not open.
    backlog: BTreeMap<PartitionUid, VecDeque<Append>>,
    /// Retries of what is in flight.
    waiting: BTreeMap<(PartitionUid, Offset), Vec<Append>>,
    opening: bool,
}

struct Flight {
    term: u64,
    bytes: usize,
    since: Instant,
    cargo: Cargo,
}

enum Cargo {
    Batches(Vec<(Append, Offset)>),
    Command(Option<Answers<Reply>>),
}

/// Makes the handle and the task of a group.
pub fn new(
    group: GroupId,
    node: String,
    raft: Group,
    machine: Arc<Mutex<DataMachine>>,
    directory: Arc<dyn Directory>,
    tasks: Tasks,
) -> (Sequencer, Loop) {
    let (requests_tx, requests) = mpsc::channel(QUEUE_LEN);
    let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
    let handle = Sequencer { requests: requests_tx, room: Arc::clone(&room) };
    let flights = FuturesOrdered::new();
    let (manifest, lead) = (VecDeque::new(), Lead::default());
    let task = Loop {
        group,
        raft,
        machine,
        directory,
        requests,
        room,
        node,
        lead,
        flights,
        manifest,
        flight_bytes: 0,
        tasks,
        dead_term: None,
    };
    (handle, task)
}

impl Loop {
    /// Runs until the node stops.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut leadership = self.raft.leader_watch();
        let mut catalog = self.directory.changes();
        loop {
            self.lead_or_follow(*leadership.borrow_and_update());
            self.propose_while_there_is_room().await;
            // A leader that is not ready yet leaves requests where they are: it soon will be.
            let known = *leadership.borrow();
            let waits = known.leader == Some(self.raft.node()) && !known.is_self_ready;
            let takes = !waits && self.lead.building_bytes < ENTRY_BYTES_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = leadership.changed() => if changed.is_err() { return Ok(()) },
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => self.land(landed),
                changed = catalog.changed(), if self.lead.term.is_some() => {
                    if changed.is_err() { return Ok(()) }
                    self.reconcile().await;
                }
                request = self.requests.recv(), if takes => match request {
                    Some(request) => self.take(request).await,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Takes what is queued, up to the size of an entry.
    async fn take(&mut self, first: Request) {
        let mut next = Some(first);
        while let Some(request) = next {
            match (request, self.lead.term) {
                (Request::Append(append), Some(_)) => self.admit(append),
                (Request::Append(append), None) => reply(append, Err(not_leader(self.group))),
                (Request::Command(command, answer), Some(term)) => {
                    self.propose_batches().await;
                    self.propose_command(term, &command, Some(answer)).await;
                }
                (Request::Command(_, answer), None) => {
                    _ = answer.send(Err(not_leader(self.group)));
                }
            }
            let room = self.lead.building_bytes < ENTRY_BYTES_MAX;
            next = if room { self.requests.try_recv().ok() } else { None };
        }
        let queued = QUEUE_BYTES_MAX.saturating_sub(self.room.available_permits());
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!(names::QUEUE_BYTES, "node" => self.node.clone(), "group" => self.group.to_string())
            .set(queued as f64);
    }

    fn lead_or_follow(&mut self, now: Leadership) {
        let term =
            now.is_self_ready.then_some(now.term).filter(|&term| self.dead_term != Some(term));
        if term == self.lead.term {
            return;
        }
        // What was not proposed yet is certainly not in the log.
        let before = std::mem::take(&mut self.lead);
        let queued = before.building.into_iter().map(|(append, _)| append);
        let parked = before.backlog.into_values().flatten();
        for append in queued.chain(parked) {
            reply(append, Err(not_leader(self.group)));
        }
        // These are retries of what may have been stored.
        before.waiting.into_values().flatten().for_each(|append| reply(append, Err(unknown())));
        self.lead.term = term;
        metrics::gauge!(names::LEADS, "node" => self.node.clone(), "group" => self.group.to_string())
            .set(f64::from(u8::from(term.is_some())));
        if term.is_some() {
            self.lead.opening = true;
        }
    }

    fn admit(&mut self, append: Append) {
        let (partition, producer) = (append.batch.partition, append.batch.producer);
        if let Some(parked) = self.lead.backlog.get_mut(&partition) {
            parked.push_back(append);
            return;
        }
        let decision = {
            let machine = lock(&self.machine);
            let partitions = machine.state().partitions();
            self.lead.admission.admit(partitions, partition, append.count, producer)
        };
        match decision {
            Decision::Append { base } => {
                self.lead.building_bytes = self.lead.building_bytes.saturating_add(append.bytes);
                self.lead.building.push((append, base));
            }
            Decision::Duplicate { first, count, time } => {
                reply(append, Ok(Appended { first, count: count.get(), time, duplicate: true }));
            }
            Decision::Pending { base, .. } => {
                self.lead.waiting.entry((partition, base)).or_default().push(append);
            }
            Decision::Draining => self.park(append),
            Decision::NotOpen => {
                self.lead.opening = true;
                self.park(append);
            }
            Decision::Full => {
                reply(append, Err(Error::internal("the partition has no offsets left")));
            }
            // A deposed leader that does not know it yet may be wrong about the rest.
            Decision::Closed => {
                self.refuse(append, Error::new(Reason::UnknownStream, "the partition is closed"));
            }
            Decision::Fenced { epoch } => {
                let message = format!("a newer run of this producer (epoch {epoch}) took over");
                self.refuse(append, Error::new(Reason::Fenced, message));
            }
            Decision::OutOfOrder { last } => {
                let message =
                    format!("the last batch of this producer here is {last}; send what follows it");
                self.refuse(append, Error::new(Reason::OutOfOrder, message));
            }
            Decision::UnknownProducer => {
                let message =
                    "this producer is not remembered any more: look up whether the batch is stored";
                self.refuse(append, Error::new(Reason::UnknownProducer, message));
            }
        }
    }

    fn park(&mut self, append: Append) {
        self.lead.backlog.entry(append.batch.partition).or_default().push_back(append);
    }

    /// Refuses for good, once a majority confirmed that this node still leads.
    fn refuse(&self, append: Append, error: Error) {
        let raft = self.raft.clone();
        self.tasks.spawn_short(async move {
            let confirmed = raft.ensure_linearizable().await.is_ok();
            reply(append, Err(if confirmed { error } else { unknown() }));
        });
    }

    async fn propose_while_there_is_room(&mut self) {
        if std::mem::take(&mut self.lead.opening) {
            self.reconcile().await;
        }
        if self.flights.len() < FLIGHTS_MAX && self.flight_bytes < FLIGHT_BYTES_MAX {
            self.propose_batches().await;
        }
    }

    async fn propose_batches(&mut self) {
        let Some(term) = self.lead.term else { return };
        if self.lead.building.is_empty() {
            return;
        }
        let cargo = std::mem::take(&mut self.lead.building);
        self.lead.building_bytes = 0;
        match build(&cargo) {
            Ok(payload) => self.launch(term, payload, Cargo::Batches(cargo)).await,
            // Limits at the door keep this from happening; if it does, nobody is left waiting.
            Err(message) => {
                for (append, base) in cargo {
                    self.lead.admission.fail(append.batch.partition, base);
                    reply(append, Err(Error::internal(message.clone())));
                }
            }
        }
    }

    async fn propose_command(
        &mut self,
        term: u64,
        command: &Command,
        answer: Option<Answers<Reply>>,
    ) {
        self.launch(term, command.encode(clock::now()), Cargo::Command(answer)).await;
    }

    async fn launch(&mut self, term: u64, payload: Bytes, cargo: Cargo) {
        let bytes = payload.len();
        let flight = Flight { term, bytes, since: Instant::now(), cargo };
        match self.raft.propose_in(term, payload).await {
            Ok(pending) => {
                #[expect(clippy::cast_precision_loss, reason = "a histogram")]
                metrics::histogram!(names::ENTRY_BYTES, "node" => self.node.clone())
                    .record(bytes as f64);
                self.flight_bytes = self.flight_bytes.saturating_add(bytes);
                self.manifest.push_back(flight);
                self.flights.push_back(pending);
            }
            Err(error) => self.lost(flight, &error),
        }
    }

    fn land(&mut self, landed: Result<(u64, Answer), ProposeError>) {
        let Some(flight) = self.manifest.pop_front() else { return };
        self.flight_bytes = self.flight_bytes.saturating_sub(flight.bytes);
        metrics::histogram!(names::COMMIT_SECONDS, "node" => self.node.clone())
            .record(flight.since.elapsed());
        let (_index, answer) = match landed {
            Ok(landed) => landed,
            Err(error) => return self.lost(flight, &error),
        };
        match (flight.cargo, Reply::decode(&answer.0)) {
            (Cargo::Batches(cargo), Ok(Reply::Batches { time, batches })) => {
                let current = self.lead.term == Some(flight.term);
                for ((append, base), outcome) in cargo.into_iter().zip(batches) {
                    self.settle(append, base, outcome, time, current);
                }
                self.readmit();
            }
            (Cargo::Batches(cargo), _) => {
                for (append, _) in cargo {
                    reply(append, Err(unknown()));
                }
            }
            (Cargo::Command(answer), decoded) => {
                if let Some(answer) = answer {
                    let reply = decoded.map_err(|error| {
                        Error::internal("the state machine's reply cannot be read")
                            .with_source(error)
                    });
                    _ = answer.send(reply);
                }
                self.readmit();
            }
        }
    }

    fn settle(
        &mut self,
        append: Append,
        base: Offset,
        outcome: BatchReply,
        time: Timestamp,
        current: bool,
    ) {
        let partition = append.batch.partition;
        let waiting = self.lead.waiting.remove(&(partition, base)).unwrap_or_default();
        if let BatchReply::Appended { base } = outcome {
            if current {
                self.lead.admission.confirm(partition, base);
            }
            let count = append.count.get();
            metrics::counter!(names::APPENDED_EVENTS, "node" => self.node.clone())
                .increment(count.into());
            metrics::counter!(names::APPENDED_BYTES, "node" => self.node.clone())
                .increment(append.bytes as u64);
            let appended = Appended { first: base, count, time, duplicate: false };
            reply(append, Ok(appended));
            let again = Appended { duplicate: true, ..appended };
            for append in waiting {
                reply(append, Ok(again));
            }
        } else if current {
            // Void: it took no offset. It is still here, so it is proposed again, in order.
            self.lead.admission.fail(partition, base);
            std::iter::once(append).chain(waiting).for_each(|append| self.park(append));
        } else {
            std::iter::once(append)
                .chain(waiting)
                .for_each(|append| reply(append, Err(not_leader(self.group))));
        }
    }

    fn lost(&mut self, flight: Flight, error: &ProposeError) {
        let certain = matches!(error, ProposeError::NotLeader { .. });
        let why = || if certain { not_leader(self.group) } else { unknown() };
        let current = self.lead.term == Some(flight.term);
        match flight.cargo {
            Cargo::Batches(cargo) => {
                for (append, base) in cargo {
                    let partition = append.batch.partition;
                    let waiting = self.lead.waiting.remove(&(partition, base)).unwrap_or_default();
                    if current {
                        self.lead.admission.fail(partition, base);
                    }
                    std::iter::once(append)
                        .chain(waiting)
                        .for_each(|append| reply(append, Err(why())));
                }
            }
            Cargo::Command(answer) => {
                if let Some(answer) = answer {
                    _ = answer.send(Err(why()));
                }
            }
        }
        if current && !certain {
            // Admission may not build on what may or may not be in the log: wait for a new term.
            warn!(group = self.group.get(), "the fate of an entry is unknown; proposing stops");
            self.dead_term = self.lead.term;
        }
    }

    /// Admits again what was parked in partitions that no longer drain.
    fn readmit(&mut self) {
        let parked: Vec<PartitionUid> = self.lead.backlog.keys().copied().collect();
        for partition in parked {
            if self.lead.admission.is_draining(partition) {
                continue;
            }
            let open = lock(&self.machine).state().partitions().get(partition).is_some();
            if open && let Some(appends) = self.lead.backlog.remove(&partition) {
                for append in appends {
                    self.admit(append);
                }
            }
        }
    }

    /// Opens what the catalog has and this group lacks; drops what the catalog has no more.
    async fn reconcile(&mut self) {
        let Some(term) = self.lead.term else { return };
        let wanted = self.directory.partitions_of(self.group);
        // A node whose catalog lags must not take what is new for what is gone.
        let (partitions_end, resources_end) =
            (self.directory.partition_uids_end(), self.directory.resource_uids_end());
        let subscriptions = self.directory.subscriptions();
        let (missing, gone, forgotten) = {
            let machine = lock(&self.machine);
            let state = machine.state();
            let known = state.partitions();
            let missing: Vec<Opening> = wanted
                .iter()
                .filter(|&&partition| known.get(partition).is_none())
                .map(|&partition| Opening { partition, start: Offset(0) })
                .collect();
            let gone: Vec<PartitionUid> = known
                .iter()
                .map(|(uid, _)| uid)
                .filter(|uid| *uid < partitions_end && !wanted.contains(uid))
                .collect();
            let mut forgotten: Vec<ResourceUid> = state
                .cursors()
                .subscriptions()
                .filter(|uid| *uid < resources_end && !subscriptions.contains(uid))
                .collect();
            forgotten.dedup();
            (missing, gone, forgotten)
        };
        if !missing.is_empty() {
            self.propose_command(term, &Command::Open(missing), None).await;
        }
        if !gone.is_empty() {
            self.propose_command(term, &Command::Drop(gone.clone()), None).await;
        }
        for subscription in forgotten {
            self.propose_command(term, &Command::Forget(subscription), None).await;
        }
        // Appends to partitions that nobody will open.
        let parked: Vec<PartitionUid> = self.lead.backlog.keys().copied().collect();
        for partition in parked {
            if partition < partitions_end && !wanted.contains(&partition) {
                let appends = self.lead.backlog.remove(&partition).unwrap_or_default();
                for append in appends {
                    reply(append, Err(Error::new(Reason::UnknownStream, "the stream was deleted")));
                }
            }
        }
    }
}

fn build(cargo: &[(Append, Offset)]) -> Result<Bytes, String> {
    let mut builder = EntryBuilder::new();
    for (append, base) in cargo {
        let batch = &append.batch;
        let mut new = NewBatch::new(batch.partition, *base, Payload::Events(&batch.events));
        match &batch.schemas {
            SchemaIds::All(schema) => new.schema = *schema,
            SchemaIds::Each(schemas) => new.event_schemas = schemas,
        }
        new.producer = batch.producer;
        builder.push(new).map_err(|error| error.to_string())?;
    }
    Ok(builder.finish(clock::now()))
}

fn reply(append: Append, result: Result<Appended>) {
    // The caller may have given up; the batch stays where it is.
    _ = append.answer.send(result);
}
