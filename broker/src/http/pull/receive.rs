//! Lending to somebody who asks, waits and goes: a member for one request.
//!
//! It takes part in the desks of all partitions under a name of its own, until it has events or
//! patience ends. What it got stays lent without it. If nobody takes the answer, everything is given
//! back as if it had never been lent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http_body::{Frame as Piece, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use weft_proto::{Error, Result, Timestamp, internal, v1};

use super::Part;
use super::settle::{Act, settle};
use super::token::{MemberKey, Token, member};
use crate::clock;
use crate::entry::Member;
use crate::lend::{Answers, Frame, Join, Link, Request};
use crate::rpc::subscribe::lent::credit::Pool;

/// Answers of desks that wait, for each partition.
const ANSWERS_LEN: usize = 256;
/// Bytes of the events of one answer; the last may exceed them.
const BYTES: u64 = 4 << 20;
/// Before a desk is looked for again.
const PAUSE: Duration = Duration::from_millis(200);
/// All desks are asked, however short the wait: this long at most.
const MOMENT: Duration = Duration::from_millis(500);
/// How long a desk may take to say what it lent before it was told to stop.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// An event that was lent.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) token: Token,
    pub(super) event: Bytes,
}

/// A desk as this request sees it.
enum Desk {
    /// To be looked for.
    Gone(Instant),
    Looked,
    Here(Link),
}

/// A member for one request. Dropped before [`Receiving::kept`], it gives back what it got.
pub(super) struct Receiving(Option<Session>);

struct Session {
    part: Part,
    key: MemberKey,
    name: Member,
    desks: Vec<Desk>,
    /// By desk: it has credit of which it has not said what became of it.
    lends: Vec<bool>,
    /// By desk: it has said that nothing is there.
    is_dry: Vec<bool>,
    attaching: FuturesUnordered<BoxFuture<'static, (usize, Result<Link>)>>,
    answers: mpsc::Receiver<(usize, Frame)>,
    to_own: mpsc::Sender<(usize, Frame)>,
    pool: Pool,
    lent: Vec<Lent>,
}

impl Receiving {
    /// Nothing was asked for yet.
    pub(super) fn new(part: Part, key: MemberKey) -> Self {
        let count = part.subscription.stream.placements.len();
        let (to_own, answers) = mpsc::channel(ANSWERS_LEN * count.max(1));
        let now = Instant::now();
        Self(Some(Session {
            name: member(key),
            key,
            desks: (0..count).map(|_| Desk::Gone(now)).collect(),
            lends: vec![false; count],
            is_dry: vec![false; count],
            attaching: FuturesUnordered::new(),
            answers,
            to_own,
            pool: Pool::new(count),
            lent: Vec::new(),
            part,
        }))
    }

    /// Asks for so many events, and waits for the first of them.
    pub(super) async fn ask(&mut self, events: u32, until: Instant) -> Result<()> {
        let Some(session) = &mut self.0 else { return Ok(()) };
        session.pool.add(&v1::Credit { events, bytes: BYTES });
        session.collect(until).await?;
        session.finish().await;
        Ok(())
    }

    /// What was lent, in the care of an answer.
    pub(super) fn kept(mut self) -> (Vec<Lent>, Option<Unsent>) {
        let Some(mut session) = self.0.take() else { return (Vec::new(), None) };
        let lent = std::mem::take(&mut session.lent);
        let tokens = lent.iter().map(|one| one.token.clone()).collect();
        (lent, Some(Unsent { part: session.part.clone(), tokens }))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let Some(mut session) = self.0.take() else { return };
        let tasks = session.part.tasks.clone();
        tasks.spawn_short(async move {
            session.finish().await;
            let tokens = session.lent.iter().map(|one| one.token.clone()).collect();
            undo(&session.part, tokens).await;
        });
    }
}

/// Leases of an answer that nobody has taken.
pub(super) struct Unsent {
    part: Part,
    tokens: Vec<Token>,
}

async fn undo(part: &Part, tokens: Vec<Token>) {
    if tokens.is_empty() {
        return;
    }
    // What cannot be given back ends by its own time.
    if let Err(error) = settle(part, &tokens, &Act::Undo).await {
        tracing::debug!(%error, "leases that nobody took stay until they end");
    }
}

/// The body of an answer with lent events: if it is never read, they are given back.
pub(super) struct LentBody {
    text: Option<Bytes>,
    unsent: Option<Unsent>,
}

impl LentBody {
    pub(super) fn new(text: String, unsent: Option<Unsent>) -> Self {
        Self { text: Some(text.into()), unsent }
    }
}

impl http_body::Body for LentBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Piece<Bytes>, Self::Error>>> {
        self.unsent = None;
        Poll::Ready(self.text.take().map(|text| Ok(Piece::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }
}

impl Drop for LentBody {
    fn drop(&mut self) {
        let Some(Unsent { part, tokens }) = self.unsent.take() else { return };
        let tasks = part.tasks.clone();
        tasks.spawn_short(async move { undo(&part, tokens).await });
    }
}

impl Session {
    async fn collect(&mut self, until: Instant) -> Result<()> {
        let patience = until.max(Instant::now() + MOMENT);
        loop {
            let again = self.attach();
            self.share().await;
            let next = if Instant::now() < until { until } else { patience };
            let wakes_at = again.map_or(next, |again| again.min(next));
            tokio::select! {
                biased;
                Some((number, attached)) = self.attaching.next(), if !self.attaching.is_empty() => {
                    self.attached(number, attached)?;
                }
                Some((number, frame)) = self.answers.recv() => {
                    self.take(number, frame)?;
                    while let Ok((number, frame)) = self.answers.try_recv() {
                        self.take(number, frame)?;
                    }
                }
                () = clock::sleep_until(Some(wakes_at)) => {}
            }
            let now = Instant::now();
            let is_over = now >= until && self.is_dry.iter().all(|is_dry| *is_dry);
            if !self.lent.is_empty() || is_over || now >= patience {
                return Ok(());
            }
        }
    }

    /// Attaches to desks that are not here; says when to look for more.
    fn attach(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut again: Option<Instant> = None;
        let placements = Arc::clone(&self.part.subscription.stream.placements);
        for ((number, desk), &placement) in self.desks.iter_mut().enumerate().zip(placements.iter())
        {
            match desk {
                Desk::Gone(at) if *at > now => {
                    again = Some(again.map_or(*at, |again| again.min(*at)));
                }
                Desk::Gone(_) => {
                    *desk = Desk::Looked;
                    let join = Join {
                        caller: self.part.caller.clone(),
                        subscription: self.part.subscription.clone(),
                        placement,
                        member: self.name.clone(),
                        held: Vec::new(),
                        since: Timestamp::default(),
                        lingers: true,
                    };
                    let answers = Answers::new(number, self.to_own.clone());
                    let lender = self.part.lender.clone();
                    self.attaching.push(Box::pin(async move {
                        (number, lender.attach(join, answers).await)
                    }));
                }
                Desk::Looked | Desk::Here(_) => {}
            }
        }
        again
    }

    fn attached(&mut self, number: usize, attached: Result<Link>) -> Result<()> {
        let Some(desk) = self.desks.get_mut(number) else { return Ok(()) };
        match attached {
            Ok(link) => *desk = Desk::Here(link),
            Err(error) if error.is_retryable() => *desk = Desk::Gone(Instant::now() + PAUSE),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives credit to desks that have events.
    async fn share(&mut self) {
        for (number, desk) in self.desks.iter_mut().enumerate() {
            let Desk::Here(link) = desk else { continue };
            let Some(credit) = self.pool.next_grant(number) else { continue };
            if link.send(Request::Credit(credit)).await.is_ok() {
                if let Some(lends) = self.lends.get_mut(number) {
                    *lends = true;
                }
            } else {
                self.pool.lost(number);
                *desk = Desk::Gone(Instant::now() + PAUSE);
            }
        }
        for number in self.pool.recalls() {
            if let Some(Desk::Here(link)) = self.desks.get(number) {
                // Who is gone gives its credit back by that.
                _ = link.send(Request::Recall(internal::Recall {})).await;
            }
        }
    }

    fn take(&mut self, number: usize, frame: Frame) -> Result<()> {
        match frame {
            Frame::Offer(_) => {
                if let Some(is_dry) = self.is_dry.get_mut(number) {
                    *is_dry = false;
                }
                self.pool.offered(number);
            }
            Frame::Seam(seam) => {
                if let Some(is_dry) = self.is_dry.get_mut(number) {
                    *is_dry = seam.caught_up;
                }
            }
            Frame::Delivery(delivery) => self.deliver(number, &delivery),
            Frame::Returned(left) => {
                self.pool.returned(number, &left);
                self.answered(number);
            }
            Frame::Ended(failure) => {
                self.pool.lost(number);
                self.answered(number);
                if let Some(desk) = self.desks.get_mut(number) {
                    *desk = Desk::Gone(Instant::now() + PAUSE);
                }
                let error = Error::from(failure);
                if !error.is_retryable() {
                    return Err(error);
                }
            }
            // Events come with their leases here: nobody asked for leases alone.
            Frame::Turn(_)
            | Frame::Granted(_)
            | Frame::Opened(_)
            | Frame::Settled(_)
            | Frame::Position(_) => {}
        }
        Ok(())
    }

    /// A desk has said what became of its credit.
    fn answered(&mut self, number: usize) {
        if let Some(lends) = self.lends.get_mut(number) {
            *lends = false;
        }
    }

    fn deliver(&mut self, number: usize, delivery: &v1::Delivery) {
        let (Some(batch), Some(first)) = (&delivery.batch, delivery.first_lease) else { return };
        let bytes: usize = batch.events.iter().map(Bytes::len).sum();
        self.pool.spent(number, batch.events.len() as u64, bytes as u64);
        for (place, event) in batch.events.iter().enumerate() {
            let delta = batch.offset_deltas.get(place).map_or(place as u64, |&delta| delta.into());
            let token = Token {
                subscription: self.part.subscription.uid.get(),
                partition: batch.partition,
                epoch: delivery.epoch,
                lease: first.saturating_add(place as u64),
                offset: batch.first_offset.saturating_add(delta),
                attempt: delivery.attempts.get(place).copied().unwrap_or(1),
                redriven: delivery.redriven,
                replay_job: delivery.replay_job,
                member: self.key,
            };
            self.lent.push(Lent { token, event: event.clone() });
        }
    }

    /// Calls all credit back, and takes what was lent before that was heard.
    async fn finish(&mut self) {
        for (desk, lends) in self.desks.iter().zip(&mut self.lends) {
            if let (Desk::Here(link), true) = (desk, *lends) {
                *lends = link.send(Request::Recall(internal::Recall {})).await.is_ok();
            }
        }
        let heard = async {
            while self.lends.contains(&true) {
                let Some((number, frame)) = self.answers.recv().await else { return };
                // A desk that is gone lends nothing more.
                _ = self.take(number, frame);
            }
        };
        // What a desk lent that does not answer ends by its own time.
        _ = timeout(FINISH_MAX, heard).await;
    }
}
