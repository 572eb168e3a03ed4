//! The task that proposes: keeps entries in flight and answers for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use weft_proto::{AckLevel, Error, Offset, PartitionUid, Result, Timestamp};

use super::repeats::{Checked, Held};
use super::{
    Answers, Append, Appended, Directory, NewAppend, Packed, Placed, QUEUE_BYTES_MAX, QUEUE_LEN,
    Request, SchemaIds, Sequencer, answer, not_leader, reply, unknown,
};
use crate::data::{DataGroup, lock};
use crate::dedup::Table;
use crate::entry::{Command, EntryBuilder, NewBatch, Payload};
use crate::partition::{Admission, BatchReply};
use crate::planted::{self, Bug};
use crate::raft::group::{Leadership, Pending, ProposeError};
use crate::raft::types::{Reply as Answer, leader_time_micros};
use crate::read::History;
use crate::state::Reply;
use crate::subjects::Claims;
use crate::tasks::Tasks;
use crate::{clock, metrics as names};

/// An entry takes batches until it has this many bytes.
const ENTRY_BYTES_MAX: usize = 256 << 10;
/// Entries in flight at most: enough to cover a sync and a round trip.
const FLIGHTS_MAX: usize = 8;
/// Before a refused change of this task's own is tried again: a lease that expired needs a heartbeat.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
/// Followers go on telling what they have in memory for so long after it was last of use.
const RECEIPTS_FOR: Duration = Duration::from_secs(1);
/// Bytes in flight at most.
const FLIGHT_BYTES_MAX: usize = 8 << 20;

/// The task behind the handle.
pub struct Loop {
    pub(super) group: DataGroup,
    pub(super) history: History,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) node: String,
    pub(super) lead: Lead,
    pub(super) flights: FuturesOrdered<Pending>,
    pub(super) manifest: VecDeque<Flight>,
    pub(super) flight_bytes: usize,
    pub(super) checks: FuturesUnordered<BoxFuture<'static, Checked>>,
    pub(super) tickets: u64,
    pub(super) tasks: Tasks,
    /// A term in which the fate of an entry became unknown: nothing is proposed in it any more.
    pub(super) dead_term: Option<u64>,
    /// The time of the last entry.
    stamped: Timestamp,
    /// How long followers are to tell what they have in memory.
    receipts_until: Instant,
}

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop").field("group", &self.group.id).finish_non_exhaustive()
    }
}

/// What exists only while this node leads, for one term.
#[derive(Default)]
pub(super) struct Lead {
    pub(super) term: Option<u64>,
    pub(super) admission: Admission,
    /// Identities seen lately; nothing is admitted before the group's window was read.
    ids: Option<Table>,
    /// Subjects of what is in flight.
    pub(super) subjects: Claims,
    /// Partitions that wait until a batch was compared with stored events.
    pub(super) held: BTreeMap<PartitionUid, Held>,
    pub(super) building: Vec<(Append, Offset)>,
    pub(super) building_bytes: usize,
    /// Batches that may not be admitted yet: their partition drains, or is not open.
    pub(super) backlog: BTreeMap<PartitionUid, VecDeque<Append>>,
    /// Retries of what is in flight.
    pub(super) waiting: BTreeMap<(PartitionUid, Offset), Vec<Append>>,
    pub(super) opening: bool,
    /// When to look again, because a change of this task's own was refused.
    reopen: Option<Instant>,
}

impl Lead {
    /// Identities seen lately.
    pub(super) fn ids(&mut self) -> &mut Table {
        self.ids.get_or_insert_default()
    }

    /// A batch is in flight no more, for it was not appended.
    fn release(&mut self, batch: &NewAppend, base: Offset) {
        self.ids().release(&batch.ids, base);
        self.subjects.release(batch.partition, &batch.subjects, base);
    }
}

pub(super) struct Flight {
    term: u64,
    /// Names the entry; see `Receipts`.
    time: u64,
    bytes: usize,
    since: Instant,
    cargo: Cargo,
    /// A batch of it is to be acknowledged once a majority has it in memory, and is not yet.
    is_early: bool,
}

impl Flight {
    /// Whether what comes after it may be void because of it.
    fn decides_about_others(&self) -> bool {
        matches!(self.cargo, Cargo::Command { changes_partitions: true, .. })
    }
}

enum Cargo {
    Batches(Vec<(Append, Offset)>),
    Command {
        answer: Option<Answers<Reply>>,
        changes_partitions: bool,
    },
    /// The number of a held batch.
    Pass(PartitionUid, u64),
}

/// The receiving end of a sequencer.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Request>);

/// Makes the handle of a group's sequencer; [`Loop::new`] takes the other end.
pub fn channel() -> (Sequencer, Inbox) {
    let (requests_tx, requests) = mpsc::channel(QUEUE_LEN);
    let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
    (Sequencer { requests: requests_tx, room }, Inbox(requests))
}

impl Loop {
    /// The task of a group on this node.
    pub fn new(
        Inbox(requests): Inbox,
        group: DataGroup,
        history: History,
        node: String,
        directory: Arc<dyn Directory>,
        tasks: Tasks,
    ) -> Self {
        Self {
            group,
            history,
            directory,
            requests,
            node,
            lead: Lead::default(),
            flights: FuturesOrdered::new(),
            manifest: VecDeque::new(),
            flight_bytes: 0,
            checks: FuturesUnordered::new(),
            tickets: 0,
            tasks,
            dead_term: None,
            stamped: Timestamp::default(),
            receipts_until: Instant::now(),
        }
    }

    /// Runs until the node stops.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut leadership = self.group.raft.leader_watch();
        let mut catalog = self.directory.changes();
        let mut window = lock(&self.group.machine).window_read();
        let mut receipts = self.group.raft.receipts().news();
        loop {
            let now = *leadership.borrow_and_update();
            self.lead_or_follow(now);
            if self.lead.term.is_some() && self.lead.ids.is_none() && *window.borrow_and_update() {
                let seen = lock(&self.group.machine).window().clone();
                self.lead.ids = Some(Table::new(&seen));
            }
            self.propose_while_there_is_room().await;
            // A leader that is not ready yet leaves requests where they are: it soon will be.
            let known = *leadership.borrow();
            let is_leader = known.leader == Some(self.group.raft.node());
            let waits = is_leader && !(known.is_self_ready && self.lead.ids.is_some());
            // Without a leadership that may propose, callers are told so at once.
            let waits = waits && self.dead_term != Some(known.term);
            let takes = !waits && self.lead.building_bytes < ENTRY_BYTES_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = leadership.changed() => if changed.is_err() { return Ok(()) },
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => self.land(landed),
                changed = receipts.changed(), if self.manifest.iter().any(|flight| flight.is_early) => {
                    if changed.is_err() { return Ok(()) }
                    self.answer_early();
                }
                changed = catalog.changed(), if self.lead.term.is_some() => {
                    if changed.is_err() { return Ok(()) }
                    self.reconcile().await;
                }
                Some(checked) = self.checks.next(), if !self.checks.is_empty() => {
                    self.checked(checked).await;
                }
                changed = window.changed(), if self.lead.term.is_some() && self.lead.ids.is_none() => {
                    if changed.is_err() { return Ok(()) }
                }
                () = clock::sleep_until(self.lead.reopen), if self.lead.reopen.is_some() => {
                    self.lead.reopen = None;
                    self.lead.opening = true;
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
                (Request::Append(append), Some(_)) => self.admit(*append),
                (Request::Append(append), None) => reply(*append, Err(not_leader(self.group.id))),
                (Request::Command(command, answer), Some(term)) => {
                    self.propose_batches().await;
                    self.propose_command(term, &command, Some(answer)).await;
                }
                (Request::Command(_, answer), None) => {
                    _ = answer.send(Err(not_leader(self.group.id)));
                }
            }
            let room = self.lead.building_bytes < ENTRY_BYTES_MAX;
            next = if room { self.requests.try_recv().ok() } else { None };
        }
        let queued = self.group.sequencer.queued_bytes();
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!(names::QUEUE_BYTES, "node" => self.node.clone(), "group" => self.group.id.to_string())
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
        let held = before.held.into_values().map(|held| held.append);
        for append in queued.chain(parked).chain(held) {
            reply(append, Err(not_leader(self.group.id)));
        }
        // These are retries of what may have been stored.
        before.waiting.into_values().flatten().for_each(|append| reply(append, Err(unknown())));
        self.lead.term = term;
        self.group.raft.receipts().want(false);
        metrics::gauge!(names::LEADS, "node" => self.node.clone(), "group" => self.group.id.to_string())
            .set(f64::from(u8::from(term.is_some())));
        if term.is_some() {
            self.lead.opening = true;
        }
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
        let time = self.stamp();
        match build(&cargo, time) {
            Ok(payload) => self.launch(term, payload, Cargo::Batches(cargo)).await,
            // Limits at the door keep this from happening; if it does, nobody is left waiting.
            Err(message) => {
                for (append, base) in cargo {
                    self.lead.admission.fail(append.batch.partition, base);
                    self.lead.release(&append.batch, base);
                    reply(append, Err(Error::internal(message.clone())));
                }
            }
        }
    }

    pub(super) async fn propose_command(
        &mut self,
        term: u64,
        command: &Command,
        answer: Option<Answers<Reply>>,
    ) {
        let time = self.stamp();
        let changes_partitions =
            matches!(command, Command::Open(_) | Command::Seal(_) | Command::Drop(_));
        let cargo = Cargo::Command { answer, changes_partitions };
        self.launch(term, command.encode(time), cargo).await;
    }

    pub(super) async fn propose_pass(
        &mut self,
        command: Command,
        partition: PartitionUid,
        ticket: u64,
    ) {
        let Some(term) = self.lead.term else { return };
        let time = self.stamp();
        self.launch(term, command.encode(time), Cargo::Pass(partition, ticket)).await;
    }

    /// The time of the next entry: later than that of every entry before, so that a reader who has
    /// all up to one knows what cannot come any more.
    fn stamp(&mut self) -> Timestamp {
        let known = lock(&self.group.machine).state().time();
        let least = known.max(self.stamped).as_micros().saturating_add(1);
        self.stamped = Timestamp::from_micros(clock::now().as_micros().max(least));
        self.stamped
    }

    async fn launch(&mut self, term: u64, payload: Bytes, cargo: Cargo) {
        let (bytes, time) = (payload.len(), leader_time_micros(&payload));
        let is_early = match &cargo {
            Cargo::Batches(cargo) => cargo.iter().any(|(append, _)| is_early(append)),
            Cargo::Command { .. } | Cargo::Pass(..) => false,
        };
        let since = Instant::now();
        if is_early {
            self.receipts_until = since + RECEIPTS_FOR;
        }
        // Before it is proposed: the log and the followers tell of what comes after they were asked.
        self.group.raft.receipts().want(since < self.receipts_until);
        let flight = Flight { term, time, bytes, since, cargo, is_early };
        match self.group.raft.propose_in(term, payload).await {
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
            (Cargo::Command { answer, .. }, decoded) => {
                if let Some(answer) = answer {
                    let reply = decoded.map_err(|error| {
                        Error::internal("the state machine's reply cannot be read")
                            .with_source(error)
                    });
                    _ = answer.send(reply);
                }
                self.readmit();
            }
            (Cargo::Pass(partition, ticket), _) => {
                self.passed(partition, ticket, Ok(()));
                self.readmit();
            }
        }
    }

    /// Acknowledges batches that a majority has in memory to those who asked for no more.
    ///
    /// INVARIANT: what is acknowledged here gets this very offset if any of that majority goes on.
    /// All flights before it are in the log too, none of them may turn it void, and none was lost.
    fn answer_early(&mut self) {
        let Some(term) = self.lead.term else { return };
        let upto = self.group.raft.in_memory_upto(term);
        let receipts = self.group.raft.receipts();
        for flight in &mut self.manifest {
            let is_there = flight.term == term && flight.time <= upto;
            // A leader whose lease is over refuses an entry and may take the one after it.
            if !is_there || !receipts.has_own(flight.time) || flight.decides_about_others() {
                break;
            }
            let Cargo::Batches(cargo) = &mut flight.cargo else { continue };
            flight.is_early = false;
            for (append, base) in cargo {
                if is_early(append) && !self.lead.admission.is_draining(append.batch.partition) {
                    let appended = appended(append, *base, Timestamp::from_micros(flight.time));
                    answer(append, Ok(appended));
                }
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
                // Applied, so the index has them.
                self.lead.subjects.release(partition, &append.batch.subjects, base);
            }
            let count = append.count.get();
            metrics::counter!(names::APPENDED_EVENTS, "node" => self.node.clone())
                .increment(count.into());
            metrics::counter!(names::APPENDED_BYTES, "node" => self.node.clone())
                .increment(append.bytes as u64);
            let appended = appended(&append, base, time);
            for retry in waiting {
                // A retry has as many events, or it is none.
                let is_same = appended.events() == u64::from(retry.count.get());
                reply(retry, if is_same { Ok(appended.again()) } else { Err(unknown()) });
            }
            reply(append, Ok(appended));
        } else if current {
            // Void: it took no offset. It is still here, so it is proposed again, in order.
            self.lead.admission.fail(partition, base);
            self.lead.release(&append.batch, base);
            std::iter::once(append).chain(waiting).for_each(|append| self.park(append));
        } else {
            std::iter::once(append)
                .chain(waiting)
                .for_each(|append| reply(append, Err(not_leader(self.group.id))));
        }
    }

    fn lost(&mut self, flight: Flight, error: &ProposeError) {
        let certain = matches!(error, ProposeError::NotLeader { .. });
        let why = || if certain { not_leader(self.group.id) } else { unknown() };
        let current = self.lead.term == Some(flight.term);
        match flight.cargo {
            Cargo::Batches(cargo) if planted::is(Bug::OffsetAtReceive) => {
                for (append, base) in cargo {
                    let (count, time) = (append.count.get(), clock::now());
                    let placed =
                        Placed { first: base, count, time, duplicate: false, delayed: false };
                    reply(append, Ok(Appended::whole(placed)));
                }
            }
            Cargo::Batches(cargo) => {
                for (append, base) in cargo {
                    let partition = append.batch.partition;
                    let waiting = self.lead.waiting.remove(&(partition, base)).unwrap_or_default();
                    if current {
                        self.lead.admission.fail(partition, base);
                        self.lead.release(&append.batch, base);
                    }
                    std::iter::once(append)
                        .chain(waiting)
                        .for_each(|append| reply(append, Err(why())));
                }
            }
            Cargo::Command { answer, .. } => {
                if let Some(answer) = answer {
                    _ = answer.send(Err(why()));
                } else if current {
                    // Batches may be parked until it is done, and nobody else asks for it.
                    self.lead.reopen = Some(Instant::now() + REOPEN_PAUSE);
                }
            }
            Cargo::Pass(partition, ticket) => {
                let error = why();
                self.passed(partition, ticket, Err(error));
            }
        }
        if current && !certain {
            // Admission may not build on what may or may not be in the log: wait for a new term.
            warn!(group = self.group.id.get(), "the fate of an entry is unknown; proposing stops");
            self.dead_term = self.lead.term;
        }
    }
}

fn is_early(append: &Append) -> bool {
    append.batch.ack == AckLevel::Replicated && append.answer.is_some()
}

/// What a batch is told that was appended there and then.
fn appended(append: &Append, base: Offset, time: Timestamp) -> Appended {
    let count = append.count.get();
    match &append.plan {
        Some(plan) => plan.answer(base, time),
        None => {
            Appended::whole(Placed { first: base, count, time, duplicate: false, delayed: false })
        }
    }
}

fn build(cargo: &[(Append, Offset)], time: Timestamp) -> Result<Bytes, String> {
    let mut builder = EntryBuilder::new();
    for (append, base) in cargo {
        let batch = &append.batch;
        let payload = match &batch.packed {
            Some(Packed { codec, raw_len, body }) => {
                Payload::Packed { count: append.count, codec: *codec, raw_len: *raw_len, body }
            }
            None => Payload::Events(&batch.events),
        };
        let mut new = NewBatch::new(batch.partition, *base, payload);
        match &batch.schemas {
            SchemaIds::All(schema) => new.schema = *schema,
            SchemaIds::Each(schemas) => new.event_schemas = schemas,
        }
        new.id_hashes = &batch.ids;
        new.subject_hashes = &batch.subjects;
        new.producer = batch.producer;
        new.settles = batch.settles.as_ref();
        new.ingest = batch.ingest;
        builder.push(new).map_err(|error| error.to_string())?;
    }
    Ok(builder.finish(time))
}
