//! A member of a durable subscription: the cluster keeps what is done.

mod acks;
mod credit;
mod manage;
mod member;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weft_proto::{Epoch, Error, Offset, PartitionId, Reason, Result};

use self::acks::{Ack, Act, Settled};
use self::member::Member;
use crate::batch::Batch;
use crate::client::Client;
use crate::spawn::spawn;

pub use self::acks::Held;
pub use self::manage::Redrive;

/// Acknowledgements that wait for the member's task.
const ACKS_LEN: usize = 4_096;
/// Items handed over; more wait in the member, where they can be taken back.
const ITEMS_LEN: usize = 2;

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct SubscriptionOptions {
    /// Name of this member; a random one by default. Where events are lent, whoever joins under the
    /// same name takes the place of the one before, with what it holds.
    pub member: String,
    /// Events that may be delivered and unacknowledged.
    pub events_max: u32,
    /// Bytes that may be delivered and unacknowledged.
    pub bytes_max: u64,
    /// Mode `exclusive`: have events lent, so that they can be given back, given up and kept for longer;
    /// else they are settled by offset, which is faster. The other modes lend in any case.
    pub leases: bool,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        let member = format!("weft-client-{:08x}", rand::random::<u32>());
        Self { member, events_max: 1_024, bytes_max: 8 << 20, leases: false }
    }
}

/// What a member is told.
#[derive(Clone, Debug)]
pub enum SubscriptionItem {
    /// This member now holds the partition.
    Assigned {
        /// The partition.
        partition: PartitionId,
        /// Names this holding; goes with each acknowledgement.
        epoch: Epoch,
        /// Everything below is settled.
        watermark: Offset,
    },
    /// Events to handle.
    Delivery(Delivery),
    /// The seam between stored events and new ones, where events are lent.
    Seam {
        /// The partition.
        partition: PartitionId,
        /// True: all events up to the end were handed out. False: the members fell far behind.
        caught_up: bool,
        /// One past the last event by then.
        end: Offset,
    },
    /// This member no longer holds the partition: what is not settled is delivered again, here or
    /// elsewhere. Also told for each holding when the connection breaks.
    Revoked {
        /// The partition.
        partition: PartitionId,
        /// The holding that ended.
        epoch: Epoch,
    },
    /// Whose turn it is, in subscriptions with a sole member at a time. What was lent before stays
    /// lent, whoever's turn it is.
    Turn {
        /// The partition.
        partition: PartitionId,
        /// True: this member gets events. False: another one does; this one stands by. Before it
        /// is told anything, it stands by.
        is_own: bool,
    },
    /// Nothing else happened for a while.
    Idle {
        /// Partition, settled offset and end of each held partition.
        positions: Vec<(PartitionId, Offset, Offset)>,
    },
}

/// Events to handle, and what the member knows of them.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The holding under which they come.
    pub epoch: Epoch,
    /// The events.
    pub batch: Batch,
    /// They are dead letters that are delivered again; offsets are those among the dead letters.
    pub is_redriven: bool,
    /// The uid of the replay job for which they come; nothing for events of the subscription itself. They have
    /// the attributes `weftreplayjob`, the name of the job, and `weftoffset`.
    pub replay_job: Option<u64>,
    attempts: Vec<u32>,
    first_lease: Option<u64>,
}

impl Delivery {
    /// All events.
    pub fn all(&self) -> Held {
        let last = self.batch.events.len().saturating_sub(1);
        Held { last: self.number(last), ..self.one(0) }
    }

    /// The event at this place of the batch.
    pub fn one(&self, place: usize) -> Held {
        let number = self.number(place);
        let (partition, epoch) = (self.batch.partition.get(), self.epoch.get());
        let replay_job = self.replay_job.unwrap_or_default();
        let redriven = self.is_redriven;
        Held { partition, epoch, redriven, replay_job, first: number, last: number }
    }

    /// Which delivery of the event at this place it is, from 1.
    pub fn attempt(&self, place: usize) -> u32 {
        self.attempts.get(place).copied().unwrap_or(1)
    }

    /// The lease of the event at this place, numbered from 1 under [`Delivery::epoch`]; nothing
    /// where events are not lent.
    pub fn lease(&self, place: usize) -> Option<u64> {
        self.first_lease.map(|first| first.saturating_add(place as u64))
    }

    /// By what the event is settled: its lease, or its offset where nothing is lent.
    fn number(&self, place: usize) -> u64 {
        match self.first_lease {
            Some(first) => first.saturating_add(place as u64),
            None => self.batch.events.get(place).map_or(0, |(offset, _)| offset.get()),
        }
    }
}

/// How events are given back.
#[derive(Clone, Debug, Default)]
pub struct Nack {
    /// When they may come again, from now; without it by the subscription's backoff, or at once if
    /// it does not count.
    pub delay: Option<Duration>,
    /// Why, for people and dead letters.
    pub reason: String,
    /// They were not tried: this is no failed delivery.
    pub is_uncounted: bool,
}

/// A member of a durable subscription. Every event comes at least once; what is acknowledged does
/// not come again.
///
/// It connects again by itself. Dropping it leaves the subscription.
#[derive(Debug)]
pub struct Subscription {
    items: mpsc::Receiver<Result<SubscriptionItem>>,
    acker: Acker,
}

/// Acknowledges events. Clones serve the same member.
#[derive(Clone, Debug)]
pub struct Acker {
    acks: mpsc::Sender<Ack<Waiter>>,
}

type Waiter = oneshot::Sender<Result<Settled>>;

/// An acknowledgement on its way; resolves after the cluster has stored it. It need not be awaited.
///
/// It is `Ok` as well when the event turns out to be settled already, by this lease or a later one:
/// the leader that stored it may have been lost before it answered. [`Settling::done`] tells them
/// apart.
///
/// # Errors
///
/// `Conflict` with [`Reason::Fenced`] when the holding or the lease has ended: the events are
/// delivered again, or were given up.
/// `Unavailable` when the member stopped first.
#[derive(Debug)]
pub struct Settling(oneshot::Receiver<Result<Settled>>);

/// What became of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// This act settled, gave back or extended it.
    Now,
    /// The event was settled before, by this lease or a later one; it does not come again.
    Before,
}

impl Settling {
    /// What became of it.
    ///
    /// # Errors
    ///
    /// The same as awaiting it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the act back.
    pub async fn done(self) -> Result<Done> {
        let settled = self.0.await;
        done(settled)
    }
}

fn done(settled: Result<Result<Settled>, oneshot::error::RecvError>) -> Result<Done> {
    let message = match settled {
        Ok(Ok(Settled::Done)) => return Ok(Done::Now),
        Ok(Ok(Settled::Before)) => return Ok(Done::Before),
        Ok(Ok(Settled::Fenced)) => "another holding of the partition began; the events come again",
        Ok(Ok(Settled::Expired)) => "the lease has ended; the events come again, or were given up",
        Ok(Ok(Settled::Unknown)) => "nobody knows of the lease any more; the events may come again",
        Ok(Err(error)) => return Err(error),
        Err(_stopped) => {
            return Err(Error::unavailable("the member stopped before the answer came"));
        }
    };
    Err(Error::new(Reason::Fenced, message))
}

impl Future for Settling {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let settled = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(done(settled).map(drop))
    }
}

impl Client {
    /// Joins a durable subscription, which must exist in the catalog. Errors come with the first
    /// [`Subscription::next`].
    pub fn subscribe(&self, subscription: &str, options: SubscriptionOptions) -> Subscription {
        let (acks, ack_receiver) = mpsc::channel(ACKS_LEN);
        let (item_sender, items) = mpsc::channel(ITEMS_LEN);
        let member = Member::new(self.clone(), subscription, options, item_sender);
        spawn("subscribe", member.run(ack_receiver));
        Subscription { items, acker: Acker { acks } }
    }
}

impl Subscription {
    /// What comes next.
    ///
    /// # Errors
    ///
    /// `NotFound` when the subscription does not exist; `Denied`. The member is then over.
    /// `Unavailable` when the cluster could not be reached at all.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<SubscriptionItem> {
        let over = || Error::unavailable("the member has stopped");
        self.items.recv().await.unwrap_or_else(|| Err(over()))
    }

    /// Acknowledges from anywhere.
    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// Leaves the subscription after all acknowledgements are answered.
    pub async fn close(self) {
        let Self { mut items, acker } = self;
        drop(acker);
        // The member ends when all ackers are gone and their acknowledgements are answered.
        while items.recv().await.is_some() {}
    }
}

impl Acker {
    /// Acknowledges events for good; waits only while the member's queue is full. Neighbouring
    /// acknowledgements travel together.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the member has stopped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future acknowledges nothing; dropping what it returns changes nothing.
    pub async fn ack(&self, held: Held) -> Result<Settling> {
        self.act(held, Act::Ack).await
    }

    /// Gives events back: they are delivered again, to any member. Modes `shared` and `key-shared`.
    ///
    /// # Errors
    ///
    /// As [`Acker::ack`].
    pub async fn nack(&self, held: Held, nack: Nack) -> Result<Settling> {
        let Nack { delay, reason, is_uncounted: uncounted } = nack;
        let delay_ms = delay.map(millis);
        self.act(held, Act::Nack { delay_ms, reason, uncounted }).await
    }

    /// Gives events up: they are dead letters now. Modes `shared` and `key-shared`.
    ///
    /// # Errors
    ///
    /// As [`Acker::ack`].
    pub async fn reject(&self, held: Held, reason: impl Into<String>) -> Result<Settling> {
        self.act(held, Act::Reject { reason: reason.into() }).await
    }

    /// Keeps events for so much longer, or for as long as a new lease. Modes `shared` and `key-shared`.
    ///
    /// # Errors
    ///
    /// As [`Acker::ack`].
    pub async fn extend(&self, held: Held, by: Option<Duration>) -> Result<Settling> {
        self.act(held, Act::Extend { by_ms: by.map(millis) }).await
    }

    async fn act(&self, held: Held, act: Act) -> Result<Settling> {
        let (waiter, receiver) = oneshot::channel();
        let ack = Ack { held, act, waiter };
        let stopped = |_closed| Error::unavailable("the member has stopped").with_not_applied();
        self.acks.send(ack).await.map_err(stopped)?;
        Ok(Settling(receiver))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
