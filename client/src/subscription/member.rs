//! The task of one member. It owns the connection, the credit and the acknowledgements.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_proto::v1::subscribe_client::SubscribeClient;
use weft_proto::v1::subscribe_request::Frame as RequestFrame;
use weft_proto::v1::subscribe_response::Frame as ResponseFrame;
use weft_proto::{Epoch, Error, ErrorKind, Offset, PartitionId, Reason, Result, v1};

use super::acks::{Ack, Acks, Act};
use super::credit::Credit;
use super::{Delivery, SubscriptionItem, SubscriptionOptions, Waiter};
use crate::batch::Batch;
use crate::channels::error_of;
use crate::client::{Client, MESSAGE_BYTES_MAX};
use crate::retry::Backoff;

/// Acknowledgements wait for others this long while an answer is due; else they go at once.
const JOIN: Duration = Duration::from_millis(5);
/// So many acknowledgements go at once in any case.
const JOIN_LEN: usize = 256;
const FRAMES_LEN: usize = 16;

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Member {
    client: Client,
    open: v1::SubscribeOpen,
    items: mpsc::Sender<Result<SubscriptionItem>>,
    /// Items that the program has not taken; bounded by the credit.
    outbox: VecDeque<SubscriptionItem>,
    /// Partitions that are held, and under which epoch.
    held: BTreeMap<u32, u64>,
    acks: Acks<Waiter>,
    credit: Credit,
    /// When the oldest waiting acknowledgement must go.
    join_until: Option<Instant>,
    backoff: Backoff,
    failing_since: Option<Instant>,
    was_connected: bool,
    /// Events come with leases.
    is_lent: bool,
    /// The credential that the connection showed.
    shown: u64,
}

struct Session {
    /// The endpoint that serves it.
    place: usize,
    frames: mpsc::Sender<v1::SubscribeRequest>,
    answers: Streaming<v1::SubscribeResponse>,
}

/// Why a session ended.
enum Ended {
    /// The program is done with the member.
    Left,
    Broken(Error),
}

impl Member {
    pub(super) fn new(
        client: Client,
        subscription: &str,
        options: SubscriptionOptions,
        items: mpsc::Sender<Result<SubscriptionItem>>,
    ) -> Self {
        let open = v1::SubscribeOpen {
            subscription: subscription.to_owned(),
            member: options.member,
            min_generation: 0,
            leases: options.leases,
        };
        Self {
            client,
            open,
            items,
            outbox: VecDeque::new(),
            held: BTreeMap::new(),
            acks: Acks::new(),
            credit: Credit::new(options.events_max.max(1), options.bytes_max.max(1)),
            join_until: None,
            backoff: Backoff::default(),
            failing_since: None,
            was_connected: false,
            is_lent: false,
            shown: 0,
        }
    }

    pub(super) async fn run(mut self, mut acks: mpsc::Receiver<Ack<Waiter>>) {
        loop {
            let error = match self.connect().await {
                Ok(session) => {
                    let place = session.place;
                    match self.serve(session, &mut acks).await {
                        Ended::Left => return,
                        Ended::Broken(error) => {
                            // A node that is cut off from the others takes members in as well.
                            self.client.avoid(place);
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            self.broken();
            let leaving = acks.is_closed() && acks.is_empty();
            if leaving && self.acks.is_empty() {
                return;
            }
            if let Err(error) = self.pause(error, leaving).await {
                for waiter in self.acks.into_waiters() {
                    // Who does not wait does not care.
                    _ = waiter.send(Err(Error::unavailable(error.message())));
                }
                _ = self.items.send(Err(error)).await;
                return;
            }
        }
    }

    async fn connect(&mut self) -> Result<Session> {
        self.shown = self.client.shows();
        let open =
            v1::SubscribeOpen { min_generation: self.client.generation(), ..self.open.clone() };
        let (transport, place) = self.client.any_node()?;
        let mut client =
            SubscribeClient::new(transport).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (frames, receiver) = mpsc::channel(FRAMES_LEN);
        // The channel is new and has room.
        _ = frames.try_send(v1::SubscribeRequest { frame: Some(RequestFrame::Open(open)) });
        let limit = self.client.timeouts().attempt;
        let opening = client.subscribe(ReceiverStream::new(receiver));
        match timeout(limit, opening).await {
            Ok(Ok(response)) => Ok(Session { place, frames, answers: response.into_inner() }),
            Ok(Err(status)) => {
                self.client.avoid(place);
                Err(error_of(status))
            }
            Err(_elapsed) => {
                self.client.avoid(place);
                Err(Error::new(Reason::DeadlineExceeded, "the node did not answer in time"))
            }
        }
    }

    async fn serve(
        &mut self,
        mut session: Session,
        acks: &mut mpsc::Receiver<Ack<Waiter>>,
    ) -> Ended {
        let mut taken = Vec::new();
        let mut next: Option<RequestFrame> = None;
        let mut leaving = false;
        let items = self.items.clone();
        loop {
            if leaving && next.is_none() && self.acks.is_empty() {
                return Ended::Left;
            }
            if next.is_none() {
                next = self.next_frame(leaving);
            }
            let wake = self.join_until.filter(|_| next.is_none());
            tokio::select! {
                biased;
                answer = session.answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Err(error) = self.handle(answer) {
                            return Ended::Broken(error);
                        }
                    }
                    Ok(None) => {
                        return Ended::Broken(Error::unavailable("the node ended the stream"));
                    }
                    Err(status) => return Ended::Broken(error_of(status)),
                },
                permit = session.frames.reserve(), if next.is_some() => match permit {
                    Ok(permit) => permit.send(v1::SubscribeRequest { frame: next.take() }),
                    Err(_closed) => {
                        return Ended::Broken(Error::unavailable("the connection broke"));
                    }
                },
                permit = items.reserve(), if !self.outbox.is_empty() && !leaving => {
                    match (permit, self.outbox.pop_front()) {
                        (Ok(permit), Some(item)) => permit.send(Ok(item)),
                        // Nobody takes items any more, but ackers may be left.
                        _ => self.outbox.clear(),
                    }
                }
                count = acks.recv_many(&mut taken, JOIN_LEN), if !leaving => {
                    leaving = count == 0;
                    taken.drain(..).for_each(|ack| self.add(ack));
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn add(&mut self, ack: Ack<Waiter>) {
        if !matches!(ack.act, Act::Extend { .. }) {
            self.credit.handle_ack(&ack.held);
        }
        self.acks.add(ack);
        self.join_until.get_or_insert_with(|| Instant::now() + JOIN);
    }

    fn next_frame(&mut self, leaving: bool) -> Option<RequestFrame> {
        let due = self.acks.is_idle()
            || leaving
            || self.acks.waiting() >= JOIN_LEN
            || self.join_until.is_some_and(|until| until <= Instant::now());
        if due && let Some(settle) = self.acks.poll_settle() {
            self.join_until = (self.acks.waiting() > 0).then(Instant::now);
            return Some(RequestFrame::Settle(settle));
        }
        self.credit.poll_credit().map(RequestFrame::Credit)
    }

    fn handle(&mut self, answer: v1::SubscribeResponse) -> Result<()> {
        self.was_connected = true;
        self.failing_since = None;
        self.backoff.reset();
        match answer.frame {
            Some(ResponseFrame::Assigned(assigned)) => {
                self.held.insert(assigned.partition, assigned.epoch);
                self.outbox.push_back(SubscriptionItem::Assigned {
                    partition: PartitionId(assigned.partition),
                    epoch: Epoch(assigned.epoch),
                    watermark: Offset(assigned.watermark),
                });
            }
            Some(ResponseFrame::Delivery(delivery)) => {
                let wire = delivery.batch.unwrap_or_default();
                let partition = wire.partition;
                let batch = Batch::from_wire(wire, 0)?;
                let delivery = Delivery {
                    epoch: Epoch(delivery.epoch),
                    batch,
                    attempts: delivery.attempts,
                    is_redriven: delivery.redriven,
                    replay_job: (delivery.replay_job > 0).then_some(delivery.replay_job),
                    first_lease: delivery.first_lease,
                };
                self.is_lent |= delivery.first_lease.is_some();
                let events = delivery.batch.events.iter().enumerate();
                let sizes = events.map(|(place, (_, event))| (delivery.number(place), event.len()));
                let replay_job = delivery.replay_job.unwrap_or_default();
                let holding = (partition, delivery.epoch.get(), delivery.is_redriven, replay_job);
                self.credit.handle_delivery(holding, sizes);
                self.outbox.push_back(SubscriptionItem::Delivery(delivery));
            }
            Some(ResponseFrame::Settled(settled)) => {
                for (waiter, fate) in self.acks.handle_settled(&settled) {
                    // Who does not wait does not care.
                    _ = waiter.send(Ok(fate));
                }
            }
            Some(ResponseFrame::Revoked(revoked)) => {
                self.revoked(revoked.partition, revoked.epoch);
            }
            Some(ResponseFrame::Turn(turn)) => {
                let partition = PartitionId(turn.partition);
                self.outbox.push_back(SubscriptionItem::Turn { partition, is_own: turn.own });
            }
            Some(ResponseFrame::Idle(idle)) => {
                let waits = |item: &SubscriptionItem| matches!(item, SubscriptionItem::Idle { .. });
                // An unread older one says nothing more.
                self.outbox.retain(|item| !waits(item));
                let positions = idle
                    .positions
                    .iter()
                    .map(|at| (PartitionId(at.partition), Offset(at.watermark), Offset(at.end)));
                self.outbox.push_back(SubscriptionItem::Idle { positions: positions.collect() });
            }
            Some(ResponseFrame::Seam(seam)) => self.outbox.push_back(SubscriptionItem::Seam {
                partition: PartitionId(seam.partition),
                caught_up: seam.caught_up,
                end: Offset(seam.end),
            }),
            // A frame of a newer server.
            None => {}
        }
        Ok(())
    }

    /// Takes back what the program has not seen of a holding that ended.
    fn revoked(&mut self, partition: u32, epoch: u64) {
        self.credit.handle_revoked(partition, epoch);
        if self.held.get(&partition) == Some(&epoch) {
            self.held.remove(&partition);
        }
        self.outbox.retain(|item| match item {
            SubscriptionItem::Delivery(delivery) => {
                (delivery.batch.partition.get(), delivery.epoch.get()) != (partition, epoch)
            }
            _ => true,
        });
        let (partition, epoch) = (PartitionId(partition), Epoch(epoch));
        self.outbox.push_back(SubscriptionItem::Revoked { partition, epoch });
    }

    fn broken(&mut self) {
        let held = std::mem::take(&mut self.held);
        // Events that were lent stay so for a while: whoever comes back in time settles them.
        if !self.is_lent {
            for (partition, epoch) in held {
                self.revoked(partition, epoch);
            }
        }
        self.credit.handle_broken();
        self.acks.handle_broken();
    }

    /// Waits before the next connection, or gives the error back if none makes sense.
    async fn pause(&mut self, error: Error, leaving: bool) -> Result<()> {
        if self.client.shows_another(&error, self.shown) {
            return Ok(());
        }
        // Fenced by a newer member: it would be rude, and endless, to take the partitions back.
        if !error.is_retryable() && error.kind() != ErrorKind::Internal {
            return Err(error);
        }
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let delay = self.backoff.next(error.retry_after(), rand::random());
        let patient = self.was_connected && !leaving;
        if !patient && since.elapsed() + delay > self.client.timeouts().call {
            return Err(error);
        }
        tracing::debug!(subscription = self.open.subscription, %error, "connecting again");
        let until = Instant::now() + delay;
        // What the program has not taken yet, it can take meanwhile.
        while !self.outbox.is_empty() {
            tokio::select! {
                biased;
                () = sleep_until(until) => return Ok(()),
                permit = self.items.reserve() => match (permit, self.outbox.pop_front()) {
                    (Ok(permit), Some(item)) => permit.send(Ok(item)),
                    _ => self.outbox.clear(),
                },
            }
        }
        sleep_until(until).await;
        Ok(())
    }
}
