//! Events on loan: the modes in which several members share a subscription.
//!
//! One desk for each partition of a subscription, on the leader of the partition's group, while
//! somebody is attached. What is lent is decided in [`crate::subscription::desk`]; what was settled
//! and how often events failed is in the group's state, so that the next leader goes on from there.
//!
//! *Owns* the desks of this node. *Never* settles anything by itself.

mod dead;
mod host;
mod lane;
mod link;
mod pace;
mod parting;
mod replicate;
mod shelf;
mod trunk;
mod wait;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Streaming;
use weft_proto::resource::{SubscriptionMode, SubscriptionSpec, Verb};
use weft_proto::{
    Error, GroupId, NodeId, Offset, PartitionId, PartitionUid, QualifiedName, ResourceUid, Result,
    Timestamp, internal, v1,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::access::{Caller, authorize};
use crate::data::lock;
use crate::entry::Member;
use crate::ingest::{Forwarder, Ingest};
use crate::read::History;
use crate::resources::{Placement, SubscriptionView};
use crate::subscription::UnsettledMax;
use crate::subscription::desk::{Backoff, Mode, Policy, Whereabouts};
use crate::tasks::Tasks;

pub use dead::{Story, is_of, original, story_of};
pub use link::{Answers, Frame, Link, Request};
use shelf::Budget;

/// Frames of members that wait for a desk.
const ASKS_LEN: usize = 1_024;
/// Bytes of unsettled events of one partition.
const UNSETTLED_BYTES: u64 = 64 << 20;
/// Closed desks are remembered so long.
const CLOSED_FOR: Duration = Duration::from_mins(1);
/// When to try again while a desk is somewhere else.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Who wants events of which partition.
#[derive(Clone, Debug)]
pub struct Join {
    /// Who it is.
    pub caller: Caller,
    /// The subscription.
    pub subscription: SubscriptionView,
    /// The partition.
    pub placement: Placement,
    /// The member's name.
    pub member: Member,
    /// What it has from an earlier leader.
    pub held: Vec<internal::HeldLeases>,
    /// Its leases outlive its attachment; others may be attached under its name beside it.
    pub lingers: bool,
    /// When it began to take part: in mode `exclusive` the newest one is served.
    pub since: Timestamp,
}

/// The desks of this node; clones share them.
#[derive(Clone, Debug)]
pub struct Lender {
    parts: Arc<Parts>,
}

/// Which subscription, which partition.
pub(crate) type DeskKey = (ResourceUid, PartitionUid);

#[derive(Debug)]
struct Parts {
    node: NodeId,
    ingest: Ingest,
    history: History,
    forwarder: Forwarder,
    tasks: Tasks,
    budget: Budget,
    trunks: trunk::Trunks,
    desks: Mutex<BTreeMap<DeskKey, mpsc::Sender<host::Ask>>>,
    /// Desks that were closed under their members, and when.
    closed: Mutex<BTreeMap<DeskKey, Instant>>,
    /// In which term each group was led first from here, and since when desks know it.
    led: Mutex<BTreeMap<GroupId, (u64, Instant)>>,
}

impl Lender {
    /// No desk yet.
    pub fn new(
        node: NodeId,
        ingest: Ingest,
        history: History,
        forwarder: Forwarder,
        tasks: Tasks,
    ) -> Self {
        let parts = Parts {
            node,
            ingest,
            history,
            forwarder,
            tasks,
            budget: Budget::default(),
            trunks: trunk::Trunks::default(),
            desks: Mutex::default(),
            closed: Mutex::default(),
            led: Mutex::default(),
        };
        Self { parts: Arc::new(parts) }
    }

    /// Attaches a member to the desk of a partition, wherever that is. The first answer is
    /// `opened`, the last one `ended`; both may be the same.
    ///
    /// # Errors
    ///
    /// `Unavailable` while the group has no leader; try again.
    pub async fn attach(&self, join: Join, answers: Answers) -> Result<Link> {
        match self.parts.ingest.leader_of(join.placement.group).await? {
            leader if leader == self.parts.node => self.attach_here(join, answers).await,
            leader => {
                let open = internal::LendOpen {
                    principal: join.caller.principal().name().to_owned(),
                    groups: join.caller.groups().to_vec(),
                    subscription: join.subscription.name.to_string(),
                    subscription_uid: join.subscription.uid.get(),
                    partition: join.placement.partition.get(),
                    member: join.member.as_str().to_owned(),
                    held: join.held,
                    without_events: answers.is_bare(),
                    lingers: join.lingers,
                    since_ms: join.since.as_micros() / 1_000,
                };
                let Parts { trunks, forwarder, tasks, .. } = &*self.parts;
                trunks.attach(forwarder, tasks, leader, open, &answers)
            }
        }
    }

    /// The same when another node asks for it.
    ///
    /// # Errors
    ///
    /// Those of [`Lender::attach`], and `Denied`.
    async fn attach_for(&self, open: internal::LendOpen, answers: Answers) -> Result<Link> {
        let caller = self.parts.ingest.access().on_behalf(open.principal, open.groups);
        let resources = self.parts.ingest.resources();
        let name: QualifiedName = open.subscription.parse().map_err(|error| {
            Error::internal("a node sent a name that is none").with_source(error)
        })?;
        authorize(&caller, Verb::Subscribe, &name)?;
        let subscription = resources.subscription_named(&open.subscription)?;
        if subscription.uid.get() != open.subscription_uid {
            return Err(elsewhere());
        }
        let placement = subscription.stream.placement(PartitionId(open.partition))?;
        let member = Member::new(open.member)
            .ok_or_else(|| Error::internal("a node sent a member's name that is none"))?;
        let (held, lingers) = (open.held, open.lingers);
        let since = Timestamp::from_micros(open.since_ms.saturating_mul(1_000));
        let join = Join { caller, subscription, placement, member, held, lingers, since };
        self.attach_here(join, answers).await
    }

    /// Where an event of a partition is that the subscription did not settle, as its desk knows it.
    ///
    /// # Errors
    ///
    /// `Unavailable` while the group has no leader, or it does not answer.
    pub async fn whereabouts(
        &self,
        subscription: ResourceUid,
        placement: &Placement,
        offset: Offset,
    ) -> Result<Whereabouts> {
        match self.parts.ingest.leader_of(placement.group).await? {
            leader if leader == self.parts.node => {
                self.look((subscription, placement.uid), offset).await
            }
            leader => {
                let request = internal::WhereaboutsRequest {
                    subscription_uid: subscription.get(),
                    partition_uid: placement.uid.get(),
                    offset: offset.get(),
                };
                self.parts.forwarder.whereabouts(leader, request).await
            }
        }
    }

    /// The same at the desk of this node; without a desk nobody has been lent anything.
    pub(crate) async fn look(&self, key: DeskKey, offset: Offset) -> Result<Whereabouts> {
        let desk = lock(&self.parts.desks).get(&key).filter(|desk| !desk.is_closed()).cloned();
        let Some(desk) = desk else { return Ok(Whereabouts::Unreached) };
        let (reply, told) = oneshot::channel();
        desk.send(host::Ask::Look(offset, reply)).await.map_err(|_closed| elsewhere())?;
        told.await.map_err(|_closed| elsewhere())
    }

    /// Serves the members of another node.
    pub fn serve(
        &self,
        requests: Streaming<internal::LendRequest>,
    ) -> impl Stream<Item = internal::LendAnswer> + Send + use<> {
        trunk::Service::start(self.clone(), &self.parts.tasks, requests)
    }

    async fn attach_here(&self, join: Join, answers: Answers) -> Result<Link> {
        let (reply, opened) = oneshot::channel();
        let desk = self.desk(&join.subscription, join.placement)?;
        let ask = host::Ask::Attach(Box::new(host::Attach { join, answers, reply }));
        desk.send(ask).await.map_err(|_closed| elsewhere())?;
        let member = opened.await.map_err(|_closed| elsewhere())??;
        Ok(Link::here(member, desk))
    }

    /// The desk of a partition; it is set up if there is none.
    fn desk(
        &self,
        subscription: &SubscriptionView,
        placement: Placement,
    ) -> Result<mpsc::Sender<host::Ask>> {
        let key = (subscription.uid, placement.uid);
        let mut desks = lock(&self.parts.desks);
        if let Some(desk) = desks.get(&key).filter(|desk| !desk.is_closed()) {
            return Ok(desk.clone());
        }
        let (asks_tx, asks) = mpsc::channel(ASKS_LEN);
        let host = host::Host::new(self.clone(), subscription.clone(), placement, asks)?;
        let lender = self.clone();
        self.parts.tasks.spawn_short(async move {
            host.run().await;
            let mut desks = lock(&lender.parts.desks);
            if desks.get(&key).is_some_and(mpsc::Sender::is_closed) {
                desks.remove(&key);
            }
        });
        desks.insert(key, asks_tx.clone());
        Ok(asks_tx)
    }

    /// Whether members of an earlier desk may come back now: it was closed under them lately, or this
    /// node leads the group only since then.
    fn had_members(&self, key: DeskKey, (group, term): (GroupId, u64), lately: Duration) -> bool {
        let was_closed = lock(&self.parts.closed).remove(&key);
        let mut led = lock(&self.parts.led);
        let known = led.entry(group).or_insert_with(|| (term, Instant::now()));
        if known.0 != term {
            *known = (term, Instant::now());
        }
        let is_new = known.1.elapsed() < lately;
        is_new || was_closed.is_some_and(|at| at.elapsed() < lately)
    }

    /// A desk was closed.
    fn closed(&self, subscription: &SubscriptionView, placement: &Placement, had_members: bool) {
        if had_members {
            let mut closed = lock(&self.parts.closed);
            closed.retain(|_, at| at.elapsed() < CLOSED_FOR);
            closed.insert((subscription.uid, placement.uid), Instant::now());
        }
    }
}

/// What is lent at one desk beside the events of the partition, which have the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneKey {
    /// Dead letters that are delivered again.
    pub redriven: bool,
    /// The uid of a replay job, 0 for none.
    pub replay_job: u64,
}

impl From<&v1::SettledRange> for LaneKey {
    fn from(range: &v1::SettledRange) -> Self {
        Self { redriven: range.redriven, replay_job: range.replay_job }
    }
}

impl From<&v1::Delivery> for LaneKey {
    fn from(delivery: &v1::Delivery) -> Self {
        Self { redriven: delivery.redriven, replay_job: delivery.replay_job }
    }
}

impl From<&internal::HeldLeases> for LaneKey {
    fn from(held: &internal::HeldLeases) -> Self {
        Self { redriven: held.redriven, replay_job: held.replay_job }
    }
}

/// Leaves out of a delivery what goes without saying.
pub fn tidy(delivery: &mut v1::Delivery) {
    if delivery.attempts.iter().all(|&attempt| attempt == 1) {
        delivery.attempts = Vec::new();
    }
    if let Some(batch) = &mut delivery.batch
        && (0..).zip(&batch.offset_deltas).all(|(place, &delta): (u32, &u32)| place == delta)
    {
        batch.offset_deltas = Vec::new();
    }
}

/// The desk is not here, or not yet: look again.
fn elsewhere() -> Error {
    let message = "the partition's events are lent by another node, or by none at present";
    Error::unavailable(message).with_retry_after(RETRY_AFTER)
}

/// The rules of a desk.
fn policy(spec: &SubscriptionSpec) -> Policy {
    let mode = match spec.mode {
        SubscriptionMode::Exclusive => Mode::Exclusive,
        SubscriptionMode::Shared => Mode::Shared,
        SubscriptionMode::KeyShared => Mode::KeyShared,
    };
    let events = usize::try_from(spec.unsettled_max).unwrap_or(usize::MAX);
    Policy {
        mode,
        lease: Some(spec.lease.0),
        grace: spec.grace.0,
        attempts_max: NonZeroU32::new(spec.retry.attempts),
        backoff: Backoff { base: spec.retry.base.0, cap: spec.retry.cap.0 },
        age_max: spec.retry.max_age.map(|age| age.0),
        unsettled_max: UnsettledMax { events, bytes: UNSETTLED_BYTES },
        hold_max: spec.hold_max,
        counts_detach: spec.retry.count_disconnect,
        sole: spec.sole.as_ref().map(|text| xxh3_64(text.as_bytes())),
    }
}
