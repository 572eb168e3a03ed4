//! The life of one membership in which events are lent: modes `shared` and `key-shared`, and `exclusive`
//! on request.
//!
//! The session stands between the member and the desks of all partitions, wherever these are. It
//! shares the member's credit out, and attaches again when a desk moves: the member keeps what it
//! holds and does not notice.

pub(crate) mod credit;
mod fill;
mod held;
mod slot;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;
use weft_proto::v1::subscribe_request::Frame as Asked;
use weft_proto::v1::subscribe_response::Frame as Told;
use weft_proto::{Error, Result, Timestamp, internal, v1};

use self::credit::Pool;
use self::fill::{Filled, Filler};
use self::slot::Slot;
use super::Answers;
use super::session::Parts;
use crate::clock;
use crate::lend::{self, Frame, Join, Lender, Link, Request};

/// A position frame is sent after this much silence.
const IDLE: Duration = Duration::from_secs(5);
/// A member whose desk cannot be found for so long is told to connect again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Settle frames of a member that are not answered; with more it waits.
const SETTLES_MAX: usize = 256;
/// Tags from here on are those of the session itself.
const OWN_TAGS: u64 = 1 << 63;

/// A settle frame that is not answered.
#[derive(Debug, Default)]
struct Settling {
    left: usize,
    refused: Vec<v1::RefusedLeases>,
}

pub(super) struct Session {
    parts: Parts,
    lender: Lender,
    answers: Answers,
    slots: Vec<Slot>,
    from_desks: mpsc::Receiver<(usize, Frame)>,
    to_own: mpsc::Sender<(usize, Frame)>,
    pool: Pool,
    settling: BTreeMap<u64, Settling>,
    attaching: FuturesUnordered<BoxFuture<'static, (usize, Result<Link>)>>,
    filling: FuturesUnordered<BoxFuture<'static, (usize, Filling)>>,
    next_own_tag: u64,
    since: Timestamp,
}

/// Leases whose events were looked for, and what came of it.
struct Filling {
    filler: Filler,
    granted: internal::Granted,
    found: Result<Filled>,
}

impl Session {
    pub(super) fn new(parts: Parts, lender: Lender, answers: Answers) -> Self {
        let slots: Vec<Slot> =
            parts.subscription.stream.placements.iter().copied().map(Slot::new).collect();
        let (to_own, from_desks) = mpsc::channel(lend::Answers::LEN * slots.len().max(1));
        let pool = Pool::new(slots.len());
        Self {
            parts,
            lender,
            answers,
            slots,
            from_desks,
            to_own,
            pool,
            settling: BTreeMap::new(),
            attaching: FuturesUnordered::new(),
            filling: FuturesUnordered::new(),
            next_own_tag: OWN_TAGS,
            since: clock::now(),
        }
    }

    pub(super) async fn run(mut self, frames: Streaming<v1::SubscribeRequest>) {
        if let Err(error) = self.serve(frames).await {
            // The member may be gone; then nobody needs to know.
            _ = self.answers.send(Err(error.into())).await;
        }
    }

    async fn serve(&mut self, mut frames: Streaming<v1::SubscribeRequest>) -> Result<()> {
        let mut idle = Instant::now() + IDLE;
        loop {
            let again = self.attach();
            self.share().await;
            let takes = self.settling.len() < SETTLES_MAX;
            tokio::select! {
                biased;
                Some((slot, attached)) = self.attaching.next(), if !self.attaching.is_empty() => {
                    self.attached(slot, attached).await?;
                }
                Some((slot, filling)) = self.filling.next(), if !self.filling.is_empty() => {
                    self.filled(slot, filling).await?;
                    idle = Instant::now() + IDLE;
                }
                answer = self.from_desks.recv() => {
                    // It never closes: one end is here.
                    let Some((link, frame)) = answer else { return Ok(()) };
                    if self.handle_answer(link, frame).await? {
                        idle = Instant::now() + IDLE;
                    }
                }
                frame = frames.message(), if takes => match frame {
                    Ok(Some(frame)) => self.handle(frame).await?,
                    // Leases stay for the grace of the subscription: nothing is settled for it.
                    Ok(None) | Err(_) => return Ok(()),
                },
                () = clock::sleep_until(again) => {}
                () = tokio::time::sleep_until(idle) => {
                    self.send_idle().await?;
                    idle = Instant::now() + IDLE;
                }
            }
        }
    }

    /// Attaches to the desks of partitions that have none; says when to try again.
    fn attach(&mut self) -> Option<Instant> {
        let mut again: Option<Instant> = None;
        for number in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(number) else { continue };
            let Some(due) = slot.attach_at() else { continue };
            if due > Instant::now() {
                again = Some(again.map_or(due, |again| again.min(due)));
                continue;
            }
            let join = Join {
                caller: self.parts.caller.clone(),
                subscription: self.parts.subscription.clone(),
                placement: slot.placement,
                member: self.parts.member.clone(),
                held: slot.held.to_wire(),
                lingers: false,
                since: self.since,
            };
            // What an older link still says is told apart by its number.
            let link = number + self.parts.subscription.stream.placements.len() * slot.attaches();
            let answers = lend::Answers::new(link, self.to_own.clone());
            let answers = if slot.is_behind { answers } else { answers.without_events() };
            let lender = self.lender.clone();
            // One that has no leader at present keeps the others waiting for nothing.
            self.attaching
                .push(Box::pin(async move { (number, lender.attach(join, answers).await) }));
        }
        again
    }

    async fn attached(&mut self, number: usize, attached: Result<Link>) -> Result<()> {
        let Some(slot) = self.slots.get_mut(number) else { return Ok(()) };
        match attached {
            Ok(link) => slot.attached(link).await,
            Err(error) if error.is_retryable() && slot.is_patient(PATIENCE) => slot.failed(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives credit to desks that have events.
    async fn share(&mut self) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(credit) = self.pool.next_grant(number) else { continue };
            tracing::trace!(number, ?credit, "shared out");
            if slot.send(Request::Credit(credit)).await.is_err() {
                self.pool.lost(number);
                slot.ended();
            }
        }
        for number in self.pool.recalls() {
            if let Some(slot) = self.slots.get_mut(number) {
                // Who is gone gives its credit back by that.
                _ = slot.send(Request::Recall(internal::Recall {})).await;
            }
        }
    }

    /// Says whether the member was told something.
    async fn handle_answer(&mut self, link: usize, frame: Frame) -> Result<bool> {
        let (number, attachment) = (link % self.slots.len().max(1), link / self.slots.len().max(1));
        let slot = self.slots.get_mut(number).filter(|slot| slot.is_current(attachment));
        let Some(slot) = slot else { return Ok(false) };
        match frame {
            Frame::Opened(opened) => {
                slot.opened(&opened).await;
                self.tell(Told::Assigned(opened.assigned.unwrap_or_default())).await?;
                Ok(true)
            }
            Frame::Offer(_) => {
                self.pool.offered(number);
                Ok(false)
            }
            Frame::Delivery(delivery) => {
                let bytes = delivery.batch.iter().flat_map(|batch| &batch.events);
                let bytes = bytes
                    .fold((0, 0), |(events, sum), event| (events + 1, sum + event.len() as u64));
                self.pool.spent(number, bytes.0, bytes.1);
                slot.held.deliver(&delivery);
                slot.queue.push_back(Frame::Delivery(delivery));
                self.advance(number).await
            }
            Frame::Granted(granted) => {
                let delivery = granted.delivery.as_ref();
                let events = delivery.map_or(0, |delivery| fill::count(delivery) as u64);
                if let Some(delivery) = delivery {
                    slot.held.deliver(delivery);
                }
                if slot.is_behind {
                    // It was on its way when leases before it were given back. Its credit came back with
                    // the link.
                    self.give_back(number, granted).await;
                    return Ok(false);
                }
                self.pool.spent(number, events, granted.bytes);
                slot.queue.push_back(Frame::Granted(granted));
                self.advance(number).await
            }
            Frame::Turn(turn) => {
                self.tell(Told::Turn(turn)).await?;
                Ok(true)
            }
            Frame::Returned(left) => {
                self.pool.returned(number, &left);
                Ok(false)
            }
            Frame::Settled(settled) => {
                slot.answered(settled.tag);
                self.settled(settled).await
            }
            Frame::Position(position) => {
                slot.told(position);
                Ok(false)
            }
            Frame::Seam(seam) => {
                slot.queue.push_back(Frame::Seam(seam));
                self.advance(number).await
            }
            Frame::Ended(failure) => {
                let error = Error::from(failure);
                self.pool.lost(number);
                if !error.is_retryable() || !slot.is_patient(PATIENCE) {
                    return Err(error);
                }
                slot.ended();
                Ok(false)
            }
        }
    }

    /// Tells the member what waits of a partition, up to leases whose events are missing.
    async fn advance(&mut self, number: usize) -> Result<bool> {
        let mut has_told = false;
        loop {
            let Some(slot) = self.slots.get_mut(number) else { return Ok(has_told) };
            if slot.is_filling {
                return Ok(has_told);
            }
            let told = match slot.queue.pop_front() {
                None => return Ok(has_told),
                Some(Frame::Delivery(delivery)) => Told::Delivery(delivery),
                Some(Frame::Seam(seam)) => Told::Seam(seam),
                Some(Frame::Granted(granted)) => {
                    self.look_for(number, granted)?;
                    continue;
                }
                // Nothing else waits.
                Some(_) => continue,
            };
            self.tell(told).await?;
            has_told = true;
        }
    }

    /// Reads the events of leases from this node's replica.
    fn look_for(&mut self, number: usize, granted: internal::Granted) -> Result<()> {
        let Some(slot) = self.slots.get_mut(number) else { return Ok(()) };
        let mut filler = if let Some(filler) = slot.filler.take() {
            filler
        } else {
            let Parts { ingest, history, .. } = &self.parts;
            let group = ingest.group(slot.placement.group)?.clone();
            let resources = ingest.resources().clone();
            Filler::new(group, slot.placement, resources, history.clone())
        };
        slot.is_filling = true;
        self.filling.push(Box::pin(async move {
            let found = match &granted.delivery {
                Some(delivery) => filler.fill(delivery).await,
                None => Ok(Filled::default()),
            };
            (number, Filling { filler, granted, found })
        }));
        Ok(())
    }

    async fn filled(&mut self, number: usize, filling: Filling) -> Result<()> {
        let Filling { filler, granted, found } = filling;
        let Some(slot) = self.slots.get_mut(number) else { return Ok(()) };
        slot.filler = Some(filler);
        slot.is_filling = false;
        match found {
            Ok(Filled { deliveries, gone }) => {
                self.forget(number, &granted, &deliveries, gone).await;
                for delivery in deliveries {
                    self.tell(Told::Delivery(delivery)).await?;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "leases are given back, and come with their events next");
                self.give_back(number, granted).await;
            }
        }
        self.advance(number).await?;
        Ok(())
    }

    /// What retention took is settled, and costs the member nothing.
    async fn forget(
        &mut self,
        number: usize,
        granted: &internal::Granted,
        found: &[v1::Delivery],
        gone: Vec<u64>,
    ) {
        let Some(slot) = self.slots.get_mut(number).filter(|_| !gone.is_empty()) else { return };
        let epoch = granted.delivery.as_ref().map_or(0, |delivery| delivery.epoch);
        let events = found.iter().filter_map(|one| one.batch.as_ref()).flat_map(|one| &one.events);
        let bytes: u64 = events.map(|event| event.len() as u64).sum();
        self.pool.add(&v1::Credit {
            events: u32::try_from(gone.len()).unwrap_or(u32::MAX),
            bytes: granted.bytes.saturating_sub(bytes),
        });
        let acks = gone.into_iter().map(|lease| slot.own(epoch, lease, lease)).collect();
        let settle = v1::Settle { tag: self.next_own_tag, acks, ..v1::Settle::default() };
        self.next_own_tag += 1;
        slot.settle(settle).await;
    }

    /// This replica is behind: leases go back to the desk.
    async fn give_back(&mut self, number: usize, granted: internal::Granted) {
        let Some(slot) = self.slots.get_mut(number) else { return };
        let was_behind = slot.is_behind;
        let (settle, credit) = slot.give_back(self.next_own_tag, granted);
        self.next_own_tag += 1;
        slot.settle(settle).await;
        if !was_behind {
            // Attached once more, it asks for events.
            slot.ended();
            self.pool.lost(number);
            self.pool.add(&credit);
        }
    }

    async fn settled(&mut self, settled: v1::Settled) -> Result<bool> {
        let Some(settling) = self.settling.get_mut(&settled.tag) else { return Ok(false) };
        settling.refused.extend(settled.refused);
        settling.left = settling.left.saturating_sub(1);
        if settling.left > 0 {
            return Ok(false);
        }
        let Settling { refused, .. } = self.settling.remove(&settled.tag).unwrap_or_default();
        let settled = v1::Settled { tag: settled.tag, refused, ..v1::Settled::default() };
        self.tell(Told::Settled(settled)).await?;
        Ok(true)
    }

    async fn handle(&mut self, frame: v1::SubscribeRequest) -> Result<()> {
        match frame.frame {
            Some(Asked::Credit(credit)) => {
                self.pool.add(&credit);
                Ok(())
            }
            Some(Asked::Settle(settle)) => self.settle(settle).await,
            Some(Asked::Open(_)) => Err(Error::invalid("open comes once, as the first frame")),
            None => Ok(()),
        }
    }

    /// Passes a settle frame on to the desks that it is about.
    async fn settle(&mut self, settle: v1::Settle) -> Result<()> {
        let tag = settle.tag;
        if tag >= OWN_TAGS {
            return Err(Error::invalid("tags are below 2^63").with_field("tag"));
        }
        if self.settling.contains_key(&tag) {
            let message = format!("the settle frame {tag} is not answered yet; use another tag");
            return Err(Error::invalid(message).with_field("tag"));
        }
        let parts = slot::split(settle)?;
        let mut left = 0;
        let mut refused = Vec::new();
        for (partition, part) in parts {
            let slot = usize::try_from(partition).ok().and_then(|at| self.slots.get_mut(at));
            let Some(slot) = slot else {
                refused.extend(slot::unknown(&part));
                continue;
            };
            left += 1;
            slot.settle(part).await;
        }
        if left == 0 {
            let settled = v1::Settled { tag, refused, ..v1::Settled::default() };
            return self.tell(Told::Settled(settled)).await;
        }
        self.settling.insert(tag, Settling { left, refused });
        Ok(())
    }

    async fn send_idle(&mut self) -> Result<()> {
        let positions = self.slots.iter().filter_map(Slot::position).collect();
        self.tell(Told::Idle(v1::Idle { positions })).await
    }

    async fn tell(&mut self, frame: Told) -> Result<()> {
        let response = v1::SubscribeResponse { frame: Some(frame) };
        let told = self.answers.send(Ok(response)).await;
        told.map_err(|_gone| Error::unavailable("the member is gone"))
    }
}
