//! Publishing many events: in order, batched, with retries that never double.

mod lane;
mod link;
mod receipt;
mod window;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use weft_proto::event::{self, EVENT_BYTES_MAX};
use weft_proto::packed::Codec;
use weft_proto::{AckLevel, Error, Result};

pub use receipt::{BatchOutcome, Pending, PendingBatch, Receipt};

use self::lane::{Command, Events, Job, Lane};
use self::receipt::Indexes;
use crate::client::Client;
use crate::event::IntoEvent;
use crate::spawn::spawn;

/// Largest batch that is made of several events. The server takes 1 MiB; smaller batches let it
/// start while the next one is on its way.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Most events of a batch, as the server has it.
const BATCH_EVENTS_MAX: usize = 4_096;
/// Commands that wait for one partition; their bytes are bounded by `queue_bytes`.
const COMMANDS_LEN: usize = 1_024;
/// What an event costs beside its bytes, so that a queue of tiny events is bounded as well.
const EVENT_COST: usize = 64;

/// How a [`Publisher`] works.
#[derive(Clone, Copy, Debug)]
pub struct PublisherOptions {
    /// Bytes that may be unsettled in the whole publisher; publishing waits at the limit.
    pub queue_bytes: usize,
    /// Bytes sent ahead of their acknowledgement in each partition.
    pub in_flight_bytes: usize,
    /// Longest time to gather events into a batch while others are on their way. The time in use
    /// follows the round trip: half of it. With nothing on its way, nothing waits.
    pub linger_max: Duration,
    /// Compress each batch: it travels, is replicated, stored and read so. Saves disk and network where
    /// they are short, at the price of time on the processor.
    pub compression: Option<Codec>,
    /// When events are acknowledged. With [`AckLevel::Replicated`] a batch is not kept here for another
    /// attempt once it is in the memory of a majority.
    pub ack: AckLevel,
    /// Most events that are joined into one batch, at most 4,096: 1 sends each by itself, which
    /// costs throughput and is of use to measure it.
    pub batch_events_max: usize,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            queue_bytes: 32 << 20,
            in_flight_bytes: 8 << 20,
            linger_max: Duration::from_millis(5),
            compression: None,
            ack: AckLevel::Durable,
            batch_events_max: BATCH_EVENTS_MAX,
        }
    }
}

/// Publishes events to one stream.
///
/// Events of one key (`partitionkey`, else `subject`) that are published one after the other are
/// stored in that order. An event is stored once, however often the publisher has to send it
/// again: batches are numbered, and the broker recognises a number it has seen.
///
/// Dropping it lets what was published go on its way; only [`Publisher::close`] waits for it.
#[derive(Clone, Debug)]
pub struct Publisher {
    stream: Arc<str>,
    lanes: Arc<[mpsc::Sender<Command>]>,
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
    queue_bytes: usize,
}

impl Client {
    /// A publisher for a stream.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown stream; `Unavailable` when no node answers in time.
    pub async fn publisher(&self, stream: &str, options: PublisherOptions) -> Result<Publisher> {
        let partitions = self.route(stream).await?.len();
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
        if partitions == 0 {
            return Err(Error::internal(format!("stream {stream} has no partitions")));
        }
        let producer: [u8; 16] = rand::random();
        let lanes = (0..partitions).map(|partition| {
            let (commands, receiver) = mpsc::channel(COMMANDS_LEN);
            let lane = Lane::new(self.clone(), (stream, partition), producer, options, receiver);
            spawn("publish", lane.run());
            commands
        });
        let queue_bytes = options.queue_bytes.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Publisher {
            stream: stream.into(),
            lanes: lanes.collect(),
            room: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
        })
    }
}

impl Publisher {
    /// The stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Number of partitions of the stream.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.lanes.len()).unwrap_or(u32::MAX)
    }

    /// Publishes an event and waits for its receipt: it is then on disk at a majority, or as
    /// [`PublisherOptions::ack`] says.
    ///
    /// # Errors
    ///
    /// As [`Pending`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the event back once it is queued.
    pub async fn publish(&self, event: impl IntoEvent) -> Result<Receipt> {
        self.send(event).await?.await
    }

    /// Queues an event; waits only while the queue is full. What it returns waits for the receipt.
    ///
    /// # Errors
    ///
    /// `Invalid` when the event is none; then nothing is queued.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future queues nothing.
    pub async fn send(&self, event: impl IntoEvent) -> Result<Pending> {
        let event = event.into_event()?;
        let partition = self.partition_of(&event)?;
        let (done, receiver) = oneshot::channel();
        self.queue(partition, Events::One(event), done).await?;
        Ok(Pending(receiver))
    }

    /// Queues encoded events with one completion for all; waits only while the queue is full.
    /// Events of one partition keep their order. An event that is refused does not affect the
    /// others.
    ///
    /// # Errors
    ///
    /// Only when the publisher has stopped: its runtime is shutting down.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave some of the events queued.
    pub async fn publish_batch(&self, events: Vec<Bytes>) -> Result<PendingBatch> {
        let mut pending =
            PendingBatch { events: events.len(), jobs: Vec::new(), refused: Vec::new() };
        let fits = |event: &Bytes| event.len() <= EVENT_BYTES_MAX;
        if self.lanes.len() == 1 && events.iter().all(fits) {
            self.queue_all(0, None, events, &mut pending).await?;
            return Ok(pending);
        }
        let mut sorted = vec![(Vec::new(), Vec::new()); self.lanes.len()];
        for (index, event) in events.into_iter().enumerate() {
            match self.partition_of(&event) {
                Ok(partition) => {
                    sorted[partition].0.push(index);
                    sorted[partition].1.push(event);
                }
                Err(error) => pending.refused.push((index, error)),
            }
        }
        for (partition, (indexes, events)) in sorted.into_iter().enumerate() {
            self.queue_all(partition, Some(indexes), events, &mut pending).await?;
        }
        Ok(pending)
    }

    /// Waits until everything that was published before is settled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn flush(&self) {
        let mut waiting = Vec::new();
        for lane in &*self.lanes {
            let (done, receiver) = oneshot::channel();
            if lane.send(Command::Flush(done)).await.is_ok() {
                waiting.push(receiver);
            }
        }
        for receiver in waiting {
            // A lane that has stopped has settled everything.
            _ = receiver.await;
        }
    }

    /// Waits until everything that was published is settled, then lets go of the connections.
    pub async fn close(self) {
        self.flush().await;
    }

    fn partition_of(&self, event: &[u8]) -> Result<usize> {
        // The leader of the only partition checks the event; there is nothing to route. A frame that
        // is too large for the server would end the stream, and its neighbours with it.
        if self.lanes.len() == 1 && event.len() <= EVENT_BYTES_MAX {
            return Ok(0);
        }
        let view = event::check(event, EVENT_BYTES_MAX)?;
        Ok(event::partition_of(&view, self.partitions()).get() as usize)
    }

    /// Cuts the events into jobs that fit into a batch each.
    async fn queue_all(
        &self,
        partition: usize,
        mut indexes: Option<Vec<usize>>,
        mut events: Vec<Bytes>,
        pending: &mut PendingBatch,
    ) -> Result<()> {
        let mut first = 0;
        while !events.is_empty() {
            let count = fitting(&events);
            let rest = events.split_off(count);
            let chunk = match &mut indexes {
                Some(list) => {
                    let rest = list.split_off(count);
                    Indexes::List(std::mem::replace(list, rest))
                }
                None => Indexes::Range(first..first + count),
            };
            let (done, receiver) = oneshot::channel();
            self.queue(partition, Events::Many(events), done).await?;
            pending.jobs.push((chunk, receiver));
            first += count;
            events = rest;
        }
        Ok(())
    }

    async fn queue(&self, partition: usize, events: Events, done: lane::Done) -> Result<()> {
        let stopped = || Error::unavailable("the publisher has stopped").with_not_applied();
        let bytes = events.bytes();
        // Something larger than the whole queue passes alone.
        let cost = (bytes + events.len() * EVENT_COST).min(self.queue_bytes);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(cost).await;
        let room = room.map_err(|_closed| stopped())?;
        let job = Job { events, bytes, done, room };
        let lane = self.lanes.get(partition).ok_or_else(stopped)?;
        lane.send(Command::Publish(job)).await.map_err(|_closed| stopped())
    }
}

/// How many of the events make one batch; at least one.
fn fitting(events: &[Bytes]) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take(BATCH_EVENTS_MAX).take_while(|event| {
        bytes += event.len();
        bytes <= BATCH_BYTES_MAX
    });
    fits.count().max(1)
}
