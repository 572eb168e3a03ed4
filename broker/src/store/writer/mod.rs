//! The one thread that writes: group commit over all groups of this node.
//!
//! *Owns* the order of all writes and their syncs. *Never* retries: after a failure nobody
//! knows what is on disk, so everything waiting is refused and the process must end.

mod deferred;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::changes::Afterwards;
use super::{Changes, LogEngine, StoreError};
use crate::clock;
use crate::planted::{self, Bug};
use deferred::Deferred;
use stats::Meter;

pub use deferred::Queued;
pub use stats::WriterStats;

/// Writes that may wait for the thread; when it is full, Raft groups wait to append.
const QUEUE_LEN: usize = 4096;
/// A write takes what is queued up to this size; more would only delay the first in line.
const WRITE_BYTES_MAX: usize = 4 << 20;
/// How long a deferred value may be out of date on disk.
const DEFER_MAX: Duration = Duration::from_millis(100);

/// What an operator or a test may choose.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// How many bytes may wait to be written.
    pub queue_bytes_max: usize,
    /// The `node` label of all metrics.
    pub node: String,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { queue_bytes_max: 64 << 20, node: "0".to_owned() }
    }
}

/// Runs when a write is on disk, or failed, on the writer's thread: it must be quick.
pub struct Done(Box<dyn FnOnce(Result<(), StoreError>) + Send>);

impl Done {
    /// Wraps a callback.
    pub fn new(callback: impl FnOnce(Result<(), StoreError>) + Send + 'static) -> Self {
        Self(Box::new(callback))
    }

    fn call(self, result: Result<(), StoreError>) {
        (self.0)(result);
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Done")
    }
}

/// The handle of the writer. Writes of one caller keep their order; those of several share
/// syncs. The writer ends when it is closed, or when the last handle is gone.
#[derive(Debug, Clone)]
pub struct Writer {
    requests: mpsc::Sender<Request>,
    queue: Arc<Semaphore>,
    queue_bytes_max: usize,
    deferred: Arc<Deferred>,
    failure: watch::Receiver<Option<StoreError>>,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Request {
    changes: Changes,
    urgency: Urgency,
    /// Deferred values that were put before it must not be written after it.
    is_behind_deferred: bool,
    done: Option<Done>,
    room: OwnedSemaphorePermit,
}

/// What a write asks of the round that takes it; a round does what the most urgent one asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// To be written, with no hurry to be on disk.
    #[default]
    Unsynced,
    /// To be on disk.
    Synced,
    /// To be on disk, and nothing after it.
    Last,
}

impl Writer {
    /// Creates a writer and the loop that must run for it.
    pub fn new(engine: Arc<dyn LogEngine>, options: &WriterOptions) -> (Self, WriterLoop) {
        let (requests, requests_rx) = mpsc::channel(QUEUE_LEN);
        let (failed, failure) = watch::channel(None);
        // Permits are counted in 32 bits when taken.
        let queue_bytes_max = options.queue_bytes_max.clamp(1, u32::MAX as usize);
        let writer = Self {
            requests,
            queue: Arc::new(Semaphore::new(queue_bytes_max)),
            queue_bytes_max,
            deferred: Arc::default(),
            failure,
            meter: Arc::new(Meter::new(&options.node)),
        };
        let writer_loop = WriterLoop {
            engine,
            requests: requests_rx,
            queue: Arc::clone(&writer.queue),
            deferred: Arc::clone(&writer.deferred),
            failed,
            meter: Arc::clone(&writer.meter),
            deferred_at: None,
            round: Round::default(),
        };
        (writer, writer_loop)
    }

    /// Queues changes; `done` runs once they are on disk, after those of all earlier writes.
    ///
    /// Waits while the queue is full. On an error nothing of it was queued and `done` ran.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it returns queues nothing, and `done` never runs.
    pub async fn submit(&self, changes: Changes, done: Done) -> Result<(), StoreError> {
        self.enqueue(changes, Urgency::Synced, Some(done)).await
    }

    /// Writes all that was queued before, then ends the writer; returns when that is on disk.
    /// Whoever still holds a handle is refused from then on.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (tx, rx) = oneshot::channel();
        let done = Done::new(move |result| drop(tx.send(result)));
        self.enqueue(Changes::new(), Urgency::Last, Some(done)).await?;
        rx.await.unwrap_or_else(|_ended| Err(self.refusal()))
    }

    /// Writes changes and returns when they are on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the changes back.
    pub async fn put_synced(&self, changes: Changes) -> Result<(), StoreError> {
        let (tx, rx) = oneshot::channel();
        // The caller may have given up; its changes stay.
        let done = Done::new(move |result| drop(tx.send(result)));
        self.submit(changes, done).await?;
        rx.await.unwrap_or_else(|_ended| Err(self.refusal()))
    }

    /// Queues changes that may wait for the next sync of somebody else.
    ///
    /// They are written in order with all others, so what was synced before them is on disk
    /// whenever they are. A crash may lose them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it returns queues nothing.
    pub async fn put_unsynced(&self, changes: Changes) -> Result<(), StoreError> {
        self.enqueue(changes, Urgency::Unsynced, None).await
    }

    /// The same for changes after which nobody makes earlier deferred values again: whenever these
    /// changes are on disk, all values that were deferred before the call are, too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it returns queues nothing.
    pub async fn put_behind_deferred(&self, changes: Changes) -> Result<(), StoreError> {
        self.send(changes, Urgency::Unsynced, true, None).await
    }

    /// Sets a small value of meta some time soon, without a sync; a later value replaces it.
    ///
    /// For what changes with every entry and may be stale after a crash.
    pub fn put_deferred(&self, key: &[u8], value: Vec<u8>) {
        self.deferred.put(key, value);
    }

    /// Removes a value of meta some time soon, if no newer one is deferred and `is_stale` says so.
    /// It is to look at what the engine has, quickly: nothing can be deferred meanwhile. Returns
    /// whether the value is removed.
    pub fn remove_deferred(
        &self,
        key: &[u8],
        is_stale: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        self.deferred.remove_if(key, is_stale)
    }

    /// What was deferred for a key last, as long as the engine does not have it: who finds nothing
    /// here finds it there.
    pub fn deferred(&self, key: &[u8]) -> Option<Queued> {
        self.deferred.get(key)
    }

    /// Returns a receiver that turns to an error after the first failed write: the process must
    /// then end within a second.
    pub fn failure(&self) -> watch::Receiver<Option<StoreError>> {
        self.failure.clone()
    }

    /// Returns what was written so far.
    pub fn stats(&self) -> WriterStats {
        self.meter.stats()
    }

    async fn enqueue(
        &self,
        changes: Changes,
        urgency: Urgency,
        done: Option<Done>,
    ) -> Result<(), StoreError> {
        self.send(changes, urgency, false, done).await
    }

    async fn send(
        &self,
        changes: Changes,
        urgency: Urgency,
        is_behind_deferred: bool,
        done: Option<Done>,
    ) -> Result<(), StoreError> {
        // One write may be greater than the queue: it then has the queue to itself.
        let bytes = changes.bytes().min(self.queue_bytes_max);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let sent = match Arc::clone(&self.queue).acquire_many_owned(permits).await {
            Ok(room) => {
                self.meter.queued(bytes);
                let request = Request { changes, urgency, is_behind_deferred, done, room };
                self.requests.send(request).await.map_err(|unsent| unsent.0.done)
            }
            Err(_closed) => Err(done),
        };
        sent.map_err(|done| {
            let error = self.refusal();
            if let Some(done) = done {
                done.call(Err(error.clone()));
            }
            error
        })
    }

    fn refusal(&self) -> StoreError {
        match &*self.failure.borrow() {
            Some(StoreError::Stopped { cause }) => StoreError::Stopped { cause: Arc::clone(cause) },
            Some(cause) => StoreError::Stopped { cause: Arc::new(cause.clone()) },
            None => StoreError::Closed,
        }
    }
}

/// The loop behind the writer: a thread in production, a task in simulation.
#[derive(Debug)]
pub struct WriterLoop {
    engine: Arc<dyn LogEngine>,
    requests: mpsc::Receiver<Request>,
    queue: Arc<Semaphore>,
    deferred: Arc<Deferred>,
    failed: watch::Sender<Option<StoreError>>,
    meter: Arc<Meter>,
    /// When deferred values are due, if there are any.
    deferred_at: Option<Instant>,
    round: Round,
}

/// What goes to disk together. Kept to reuse its memory.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what is asked and what was done")]
struct Round {
    changes: Vec<Changes>,
    waiting: Vec<Done>,
    room: Vec<OwnedSemaphorePermit>,
    bytes: usize,
    urgency: Urgency,
    is_behind_deferred: bool,
    /// Deferred values are among the changes.
    has_deferred: bool,
}

impl Round {
    fn add(&mut self, request: Request) {
        self.bytes += request.changes.bytes();
        self.urgency = self.urgency.max(request.urgency);
        self.is_behind_deferred |= request.is_behind_deferred;
        self.changes.push(request.changes);
        self.waiting.extend(request.done);
        self.room.push(request.room);
    }

    fn clear(&mut self) {
        self.changes.clear();
        self.waiting.clear();
        self.room.clear();
        self.bytes = 0;
        self.urgency = Urgency::Unsynced;
        self.is_behind_deferred = false;
        self.has_deferred = false;
    }
}

impl WriterLoop {
    /// Runs on the current thread until it is closed, all handles are gone or a write fails.
    pub fn run_blocking(self) -> Result<(), StoreError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| StoreError::from_io("the writer thread", "start a timer", &error))?
            .block_on(self.run())
    }

    /// Runs as a task until it is closed, all handles are gone or a write fails.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let result = self.serve().await;
        match &result {
            Ok(()) => self.refuse_all(&StoreError::Closed).await,
            Err(error) => {
                self.meter.failed();
                // First the signal: whoever is refused can see why.
                self.failed.send_replace(Some(error.clone()));
                for done in self.round.waiting.drain(..) {
                    done.call(Err(error.clone()));
                }
                self.refuse_all(&StoreError::Stopped { cause: Arc::new(error.clone()) }).await;
            }
        }
        result
    }

    async fn serve(&mut self) -> Result<(), StoreError> {
        loop {
            let due = self.deferred_at;
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(request) => {
                        if self.commit(request).await? {
                            return self.commit_deferred().await;
                        }
                    }
                    None => return self.commit_deferred().await,
                },
                () = clock::sleep_until(due), if due.is_some() => self.commit_deferred().await?,
                () = self.deferred.filled() => self.commit_deferred().await?,
                () = self.deferred.changed(), if due.is_none() => {
                    self.deferred_at = Some(Instant::now() + DEFER_MAX);
                }
            }
        }
    }

    /// True after the last write.
    async fn commit(&mut self, first: Request) -> Result<bool, StoreError> {
        self.round.add(first);
        // No timer: whatever queued up during the last sync shares the next one.
        while self.round.bytes < WRITE_BYTES_MAX
            && self.round.urgency < Urgency::Last
            && let Ok(next) = self.requests.try_recv()
        {
            self.round.add(next);
        }
        // Written as one with the round, so what must be behind them is not in front of them.
        if self.round.is_behind_deferred
            || self.deferred.is_full()
            || self.deferred_at.is_some_and(|due| due <= Instant::now())
        {
            self.take_deferred();
        }
        let is_last = self.round.urgency == Urgency::Last;
        self.write().await?;
        Ok(is_last)
    }

    async fn commit_deferred(&mut self) -> Result<(), StoreError> {
        self.take_deferred();
        self.write().await
    }

    fn take_deferred(&mut self) {
        self.deferred_at = None;
        let changes = self.deferred.take();
        self.round.has_deferred = true;
        self.round.bytes += changes.bytes();
        self.round.changes.push(changes);
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let round = &mut self.round;
        if round.changes.iter().any(|changes| !changes.is_empty()) {
            if round.urgency >= Urgency::Synced && !planted::is(Bug::AckBeforeSync) {
                let started = Instant::now();
                let written = self.engine.write_synced(&round.changes);
                let synced = match (written, self.engine.syncing()) {
                    (Ok(()), Some(synced)) => synced.await,
                    (written, _) => written,
                };
                match synced {
                    Err(_ignored) if planted::is(Bug::SyncErrorIgnored) => {}
                    result => result?,
                }
                self.meter.synced(round.bytes, started.elapsed());
            } else {
                self.engine.write_unsynced(&round.changes)?;
                self.meter.written(round.bytes);
            }
        }
        if round.has_deferred {
            self.deferred.written();
        }
        for done in round.waiting.drain(..) {
            done.call(Ok(()));
        }
        for afterwards in round.changes.iter().flat_map(Changes::afterwards) {
            match *afterwards {
                Afterwards::DropFiles(group, index) => self.engine.drop_files(group, index)?,
                Afterwards::DropGroup(group) => self.engine.drop_group(group)?,
            }
        }
        self.meter.left(round.room.iter().map(OwnedSemaphorePermit::num_permits).sum());
        round.clear();
        Ok(())
    }

    async fn refuse_all(&mut self, error: &StoreError) {
        self.queue.close();
        self.requests.close();
        // To the very last: a sender may hold a place in the queue and fill it only now.
        while let Some(request) = self.requests.recv().await {
            if let Some(done) = request.done {
                done.call(Err(error.clone()));
            }
        }
    }
}
