//! The task of one desk: it carries out what the desk decides.
//!
//! It lives while this node leads the group and somebody is attached. When it ends, members are
//! told and attach again, wherever the leader is then.

mod delivery;
mod frames;
mod opening;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weft_proto::{Offset, Result, Timestamp};

use super::lane::{Lane, offsets};
use super::link::ended;
use super::replicate::{Letter, Writing};
use super::wait::Waits;
use super::{Answers, Join, LaneKey, Lender, Request, dead, elsewhere};
use crate::catalog::Subscription;
use crate::data::DataGroup;
use crate::entry::{Member, OffsetRange};
use crate::raft::group::Leadership;
use crate::resources::{Placement, SubscriptionView};
use crate::subscription::Credit;
use crate::subscription::desk::{Change, ChangeNo, MemberId, Whereabouts};
use crate::{clock, metrics as names};

/// Frames of members that are taken at once.
const ASKS_MAX: usize = 256;
/// What filters passed over is settled this late, if nothing else is: an idle subscription writes
/// little.
const PASSED: Duration = Duration::from_millis(500);
/// Members that had leases from an earlier leader attach by then; nothing is lent before.
const ADOPTION: Duration = Duration::from_millis(400);
/// Members of a desk that was closed so lately, here or by an earlier leader, come back soon.
const LATELY: Duration = Duration::from_secs(10);
/// Positions are told this often at most.
const POSITIONS: Duration = Duration::from_secs(1);
/// Members that are so far behind the end are told.
const BEHIND: u64 = 10_000;

/// What a desk is asked.
#[derive(Debug)]
pub enum Ask {
    /// A member attaches.
    Attach(Box<Attach>),
    /// A member says something.
    Frame(MemberId, Request),
    /// Somebody wants to know where an event of the partition is.
    Look(Offset, oneshot::Sender<Whereabouts>),
}

/// A member that attaches.
#[derive(Debug)]
pub struct Attach {
    pub(super) join: Join,
    pub(super) answers: Answers,
    pub(super) reply: oneshot::Sender<Result<MemberId>>,
}

/// One attachment.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Attached {
    name: Member,
    answers: Answers,
    credit: Credit,
    /// It was told that there are events for which it has no credit.
    is_offered: bool,
    /// Its session wants back what it does not use.
    is_recalled: bool,
    /// Its leases outlive it.
    lingers: bool,
    /// How long to wait when its answers have no room.
    blocked_for: Duration,
}

/// What was written for a lane.
#[derive(Clone, Copy, Debug)]
enum What {
    /// That it lends.
    Announcement,
    /// What its desk decided.
    Change(ChangeNo),
}

/// The end of a write: for which lane.
type Written = (usize, What, Result<()>);

/// The task of one desk.
pub(super) struct Host {
    lender: Lender,
    subscription: SubscriptionView,
    known: std::sync::Arc<Subscription>,
    placement: Placement,
    group: DataGroup,
    asks: mpsc::Receiver<Ask>,
    term: u64,
    /// The partition, its dead letters if some are delivered again, and replay jobs. The place of each
    /// stays the same.
    lanes: Vec<Lane>,
    members: BTreeMap<MemberId, Attached>,
    next_member: u64,
    waits: Waits,
    writing: FuturesUnordered<BoxFuture<'static, Written>>,
    leaving: FuturesUnordered<BoxFuture<'static, MemberId>>,
    /// Members whose answers had no room.
    blocked: FuturesUnordered<BoxFuture<'static, MemberId>>,
    /// Wall time when it began, and when that was: leases do not end because a clock is set.
    began: (Timestamp, Instant),
    lends_from: Option<Instant>,
    /// There is more to write than what filters passed over.
    is_urgent: bool,
    passes_at: Option<Instant>,
    /// What members were told last, and when they are told the next one.
    position: Option<weft_proto::v1::SubscriptionPosition>,
    positions_at: Option<Instant>,
    /// Who gets all events, as members were told.
    served: Option<MemberId>,
    /// Whether members were told that they see the end.
    caught_up: Option<bool>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("subscription", &self.subscription.name)
            .finish_non_exhaustive()
    }
}

impl Host {
    pub(super) fn new(
        lender: Lender,
        subscription: SubscriptionView,
        placement: Placement,
        asks: mpsc::Receiver<Ask>,
    ) -> Result<Self> {
        let group = lender.parts.ingest.group(placement.group)?.clone();
        let known = lender.parts.ingest.resources().subscription_entry(&subscription)?;
        Ok(Self {
            lender,
            subscription,
            known,
            placement,
            group,
            asks,
            term: 0,
            lanes: Vec::new(),
            members: BTreeMap::new(),
            next_member: 1,
            waits: Waits::default(),
            writing: FuturesUnordered::new(),
            leaving: FuturesUnordered::new(),
            blocked: FuturesUnordered::new(),
            began: (clock::now(), Instant::now()),
            lends_from: None,
            is_urgent: false,
            passes_at: None,
            position: None,
            positions_at: None,
            served: None,
            caught_up: None,
        })
    }

    /// Lends until nobody is attached, or this node leads no more.
    pub(super) async fn run(mut self) {
        let error = match self.serve().await {
            Ok(()) => elsewhere(),
            Err(error) => error,
        };
        tracing::debug!(subscription = %self.subscription.name, %error, "a desk closes");
        self.asks.close();
        while let Ok(ask) = self.asks.try_recv() {
            if let Ask::Attach(attach) = ask {
                // It may have given up.
                _ = attach.reply.send(Err(elsewhere()));
            }
        }
        self.lender.closed(&self.subscription, &self.placement, !self.members.is_empty());
        for attached in self.members.values() {
            attached.answers.send(ended(&error));
        }
    }

    async fn serve(&mut self) -> Result<()> {
        let mut leadership = self.group.raft.leader_watch();
        self.lead(*leadership.borrow_and_update())?;
        self.open().await?;
        let mut catalog = self.lender.parts.ingest.resources().changes();
        let mut bells: Vec<watch::Receiver<()>> =
            vec![self.group.bell(self.placement.uid), self.group.bell(self.placement.dead)];
        loop {
            let reads_on = self.read().await?;
            self.lend().await?;
            // Who gave credit back may have to ask for it again.
            let has_given = self.give_back();
            self.launch().await?;
            if self.is_done() {
                return Ok(());
            }
            self.tell_turn();
            self.tell_seam();
            self.tell_positions();
            let timer = self.next_timer();
            let (own, dead) = bells.split_at_mut(1);
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    changed.map_err(|_closed| elsewhere())?;
                    self.lead(*leadership.borrow_and_update())?;
                }
                Some(written) = self.writing.next(), if !self.writing.is_empty() => {
                    self.written(written)?;
                }
                Some(member) = self.leaving.next(), if !self.leaving.is_empty() => {
                    self.leave(member);
                }
                Some(member) = self.blocked.next(), if !self.blocked.is_empty() => {
                    self.want(member);
                }
                ask = self.asks.recv() => {
                    let Some(ask) = ask else { return Ok(()) };
                    self.take(ask);
                }
                () = std::future::ready(()), if reads_on || has_given => {}
                changed = own[0].changed() => {
                    changed.map_err(|_closed| elsewhere())?;
                    self.check_cursors()?;
                    self.wet();
                }
                changed = dead[0].changed() => {
                    changed.map_err(|_closed| elsewhere())?;
                    self.check_cursors()?;
                    self.check_redriven()?;
                }
                changed = catalog.changed() => {
                    changed.map_err(|_closed| elsewhere())?;
                    self.look_at_catalog().await?;
                }
                () = clock::sleep_until(timer) => {
                    let now = self.now();
                    self.lanes.iter_mut().for_each(|lane| lane.desk.tick(now));
                    self.is_urgent = true;
                }
            }
        }
    }

    /// The time as leases see it.
    fn now(&self) -> Timestamp {
        let (wall, began) = self.began;
        wall.saturating_add(began.elapsed())
    }

    fn instant(&self, time: Timestamp) -> Instant {
        let (wall, began) = self.began;
        let after = time.as_micros().saturating_sub(wall.as_micros());
        // A year is as good as for ever, and instants end somewhere.
        began + Duration::from_micros(after).min(Duration::from_hours(24 * 365))
    }

    fn next_timer(&self) -> Option<Instant> {
        let desks = self.lanes.iter().filter_map(|lane| lane.desk.next_timer());
        let desk = desks.min().map(|time| self.instant(time));
        let reads = self.lanes.iter().filter_map(Lane::reads_at).min();
        let read = reads.map(|time| self.instant(time));
        let others = [self.positions_at, self.lends_from, self.passes_at];
        others.into_iter().chain([desk, read]).flatten().min()
    }

    /// Notes a leadership.
    ///
    /// # Errors
    ///
    /// `Unavailable` when it is not that of this node, or another one than before.
    fn lead(&mut self, now: Leadership) -> Result<()> {
        let is_own = now.leader == Some(self.lender.parts.node) && now.is_self_ready;
        if is_own && (self.term == 0 || self.term == now.term) {
            self.term = now.term;
            return Ok(());
        }
        Err(elsewhere())
    }

    /// Nobody is here, and nothing is on its way.
    fn is_done(&self) -> bool {
        self.members.is_empty()
            && self.writing.is_empty()
            && self.waits.is_empty()
            && self.lanes.iter().all(|lane| lane.desk.lent() == 0 || lane.is_over())
            && self.asks.is_empty()
    }

    /// A lane and its place; nothing for one that is over.
    fn lane(&mut self, key: LaneKey) -> Option<(usize, &mut Lane)> {
        let all = (0..).zip(&mut self.lanes);
        all.filter(|(_, lane)| !lane.is_over()).find(|(_, lane)| lane.key() == key)
    }

    fn wet(&mut self) {
        if let Some(own) = self.lanes.first_mut() {
            own.wet();
        }
    }

    /// Looks whether somebody moved a cursor, or wants dead letters delivered again.
    ///
    /// # Errors
    ///
    /// `Unavailable`: the next desk begins with what is stored now, and members keep what they hold.
    fn check_cursors(&self) -> Result<()> {
        let subscription = self.subscription.uid;
        let is_current = self.group.with_state(|state| {
            let cursor = |partition| state.cursors().get(subscription, partition);
            let same = self.lanes.iter().all(|lane| {
                let cursor = state.cursors().get(lane.cursor, lane.partition);
                lane.is_over() || cursor.is_some_and(|cursor| cursor.epoch() == lane.desk.epoch())
            });
            let redriven = cursor(self.placement.dead).is_some_and(|one| !one.parked().is_empty());
            same && (self.lanes.iter().any(Lane::is_redriven) || !redriven)
        });
        if is_current { Ok(()) } else { Err(elsewhere()) }
    }

    /// Looks whether somebody wants more dead letters delivered again.
    ///
    /// # Errors
    ///
    /// `Unavailable`: the next desk begins with all of them.
    fn check_redriven(&self) -> Result<()> {
        let lacks = self.group.with_state(|state| {
            let cursor = state.cursors().get(self.subscription.uid, self.placement.dead);
            cursor.is_some_and(|cursor| self.lanes.iter().any(|lane| lane.lacks(cursor.parked())))
        });
        if lacks { Err(elsewhere()) } else { Ok(()) }
    }

    async fn read(&mut self) -> Result<bool> {
        let is_wanted = self.members.values().any(|member| member.credit.events() > 0);
        let mut reads_on = false;
        if self.members.is_empty() {
            self.lanes.iter_mut().for_each(Lane::rest);
            return Ok(false);
        }
        let now = self.now();
        for lane in &mut self.lanes {
            reads_on |= lane.read(is_wanted, now).await?;
        }
        Ok(reads_on)
    }

    /// Writes what is settled, one change of each lane at a time.
    async fn launch(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_due = self.is_urgent || self.passes_at.is_some_and(|at| at <= now);
        if !is_due {
            let has_passed = self.lanes.iter().any(|lane| lane.desk.has_news());
            // Nobody waits for it: what filters passed over.
            if self.passes_at.is_none() && has_passed {
                self.passes_at = Some(now + PASSED);
            }
            return Ok(());
        }
        self.is_urgent = false;
        self.passes_at = None;
        for number in 0..self.lanes.len() {
            let lane = self.lanes.get_mut(number).filter(|lane| !lane.is_over());
            let change = lane.and_then(|lane| lane.desk.next_change());
            if let Some(change) = change {
                self.write(number, change).await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self, number: usize, change: Change) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(number) else { return Ok(()) };
        let Change { no, mut settled, parked, dead } = change;
        let mut letters = Vec::with_capacity(dead.len());
        let places: Vec<_> = dead.iter().map(|letter| letter.offset).collect();
        let origin = dead::Origin {
            stream: self.subscription.stream.name.clone(),
            subscription: self.subscription.name.clone(),
            partition: self.placement.partition,
            replay_job: lane.replays().map(|job| job.name.clone()),
        };
        for (letter, stored) in dead.iter().zip(lane.stored(&places).await?) {
            match stored {
                Some(stored) => letters.push(Letter {
                    offset: letter.offset,
                    event: dead::letter(&stored.event, &origin, letter),
                    schema: stored.schema,
                }),
                // Retention was faster.
                None => {
                    settled.extend(OffsetRange::new(letter.offset, letter.offset));
                }
            }
        }
        metrics::counter!(names::DEAD_LETTERS).increment(letters.len() as u64);
        let nothing = lane.writing(self.placement.dead);
        let writing = Writing { settled, parked, letters, ..nothing };
        let done = What::Change(no);
        self.writing.push(Box::pin(async move { (number, done, writing.write().await) }));
        Ok(())
    }

    /// Writes that a lane lends, once.
    fn announce(&mut self, number: usize) {
        let Some(lane) = self.lanes.get_mut(number) else { return };
        if !lane.announces() {
            return;
        }
        let mut writing = lane.writing(self.placement.dead);
        writing.settlement.lends = true;
        self.writing
            .push(Box::pin(async move { (number, What::Announcement, writing.write().await) }));
    }

    fn written(&mut self, (number, what, result): Written) -> Result<()> {
        result?;
        tracing::trace!(partition = %self.placement.uid, number, ?what, "written");
        let Some(lane) = self.lanes.get_mut(number) else { return Ok(()) };
        match what {
            What::Announcement => lane.desk.announced(),
            What::Change(no) => {
                lane.desk.committed(no);
                for (member, settled) in self.waits.committed((number, no)) {
                    self.answer(member, super::Frame::Settled(settled));
                }
                self.is_urgent = true;
            }
        }
        Ok(())
    }

    async fn look_at_catalog(&mut self) -> Result<()> {
        let resources = self.lender.parts.ingest.resources();
        let now = resources.subscription_entry(&self.subscription)?;
        if std::sync::Arc::ptr_eq(&now, &self.known) || now.spec == self.known.spec {
            return self.update_replays().await;
        }
        // Other filters, or other rules: a new desk begins with them.
        Err(elsewhere())
    }

    /// Has a member named when there is something for it.
    fn want(&mut self, member: MemberId) {
        if self.members.contains_key(&member) {
            self.lanes.iter_mut().for_each(|lane| lane.desk.wants(member, true));
        }
    }

    fn leave(&mut self, member: MemberId) {
        let now = self.now();
        if self.members.remove(&member).is_some() {
            self.lanes.iter_mut().for_each(|lane| lane.desk.detach(member, now));
            self.is_urgent = true;
        }
    }

    /// Answers a member; one that takes nothing any more is let go.
    fn answer(&mut self, member: MemberId, frame: super::Frame) {
        let Some(attached) = self.members.get(&member) else { return };
        if !attached.answers.send(frame) {
            let answers = attached.answers.clone();
            self.leave(member);
            // It takes too little: it learns so when it can, and attaches again.
            self.lender.parts.tasks.spawn_short(async move { answers.end(&elsewhere()).await });
        }
    }
}
