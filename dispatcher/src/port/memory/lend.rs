//! Lending in memory: one partition, at once and for good.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_client::{Held, Nack};
use weft_proto::event::EventView;
use weft_proto::resource::{SubscriptionMode, SubscriptionSpec};
use weft_proto::{Error, QualifiedName, Reason, Result, Timestamp};

use super::super::{Act, Item, Joining, Lent, Membership, Settler};
use super::{MemoryMesh, State};
use crate::delivery::backoff_max;

/// Events of one item.
const ITEM_EVENTS: usize = 64;

#[derive(Debug)]
pub(super) struct Subscription {
    stream: QualifiedName,
    pub(super) spec: SubscriptionSpec,
    start: u64,
    pub(super) settled: BTreeSet<u64>,
    pub(super) dead: BTreeMap<u64, String>,
    /// By lease: which event, and to which session it is lent.
    lent: BTreeMap<u64, (u64, u64)>,
    failures: BTreeMap<u64, u32>,
    waits: BTreeMap<u64, Instant>,
    last_lease: u64,
    last_session: u64,
    /// Older sessions are over.
    first_session: u64,
}

impl Subscription {
    pub(super) fn new(stream: QualifiedName, spec: SubscriptionSpec, start: u64) -> Self {
        Self {
            stream,
            spec,
            start,
            settled: BTreeSet::new(),
            dead: BTreeMap::new(),
            lent: BTreeMap::new(),
            failures: BTreeMap::new(),
            waits: BTreeMap::new(),
            last_lease: 0,
            last_session: 0,
            first_session: 0,
        }
    }

    /// Ends all memberships.
    pub(super) fn disconnect(&mut self) {
        self.lent.clear();
        self.first_session = self.last_session + 1;
    }

    /// The next events that may be lent, at most so many.
    fn next(&self, events: &[bytes::Bytes], most: usize) -> Vec<u64> {
        let out: BTreeSet<u64> = self.lent.values().map(|&(offset, _)| offset).collect();
        let now = Instant::now();
        let (mut keys, mut found) = (BTreeSet::new(), Vec::new());
        for (offset, event) in (0..).zip(events) {
            if offset < self.start || self.settled.contains(&offset) {
                continue;
            }
            if found.len() >= most {
                break;
            }
            let is_head = self.spec.mode != SubscriptionMode::KeyShared
                || EventView::parse(event)
                    .is_none_or(|view| keys.insert(self.spec.key.hash_of(&view)));
            let is_due = self.waits.get(&offset).is_none_or(|&at| at <= now);
            if is_head && is_due && !out.contains(&offset) {
                found.push(offset);
            }
        }
        found
    }

    fn settle(&mut self, lease: u64, act: Act) -> Result<()> {
        let known = self.lent.get(&lease).copied();
        let Some((offset, _)) = known else {
            return Err(Error::new(Reason::Fenced, "the lease has ended"));
        };
        if !matches!(act, Act::Extend) {
            self.lent.remove(&lease);
        }
        match act {
            Act::Extend => {}
            Act::Ack => {
                self.settled.insert(offset);
            }
            Act::Reject(reason) => self.bury(offset, reason),
            Act::Nack(Nack { delay, reason, is_uncounted }) => {
                let failures = self.failures.entry(offset).or_default();
                *failures += u32::from(!is_uncounted);
                let retry = self.spec.retry;
                if retry.attempts > 0 && *failures >= retry.attempts {
                    self.bury(offset, reason);
                } else {
                    let own = backoff_max(retry.base.0, retry.cap.0, *failures);
                    let delay = delay.unwrap_or(if is_uncounted { Duration::ZERO } else { own });
                    self.waits.insert(offset, Instant::now() + delay);
                }
            }
        }
        Ok(())
    }

    fn bury(&mut self, offset: u64, reason: String) {
        self.settled.insert(offset);
        self.dead.insert(offset, reason);
    }
}

/// Membership in a subscription of a [`MemoryMesh`].
#[derive(Debug)]
pub struct MemoryMembership {
    mesh: MemoryMesh,
    name: QualifiedName,
    session: u64,
    events_max: usize,
    has_turn: bool,
    told_lag: Option<u64>,
    changed: watch::Receiver<u64>,
}

impl MemoryMesh {
    /// Takes part in a subscription; an older member is replaced.
    pub fn take_part(&self, subscription: &QualifiedName, joining: &Joining) -> MemoryMembership {
        let mut state = self.state();
        let session = state.subscriptions.get_mut(subscription).map_or(0, |found| {
            found.disconnect();
            found.last_session += 1;
            found.last_session
        });
        drop(state);
        self.touch();
        MemoryMembership {
            mesh: self.clone(),
            name: subscription.clone(),
            session,
            events_max: usize::try_from(joining.events_max).unwrap_or(usize::MAX),
            has_turn: false,
            told_lag: None,
            changed: self.changed.subscribe(),
        }
    }

    /// Settles a lease of a subscription.
    ///
    /// # Errors
    ///
    /// `Conflict` when it has ended.
    pub fn settle(&self, subscription: &QualifiedName, lease: u64, act: Act) -> Result<()> {
        let mut state = self.state();
        let is_lost = state.settle_losses > 0 && !matches!(act, Act::Extend);
        if is_lost {
            state.settle_losses -= 1;
        }
        let found = state.subscriptions.get_mut(subscription);
        let found = found.ok_or_else(|| Error::new(Reason::UnknownResource, "unknown"))?;
        let settled = found.settle(lease, act);
        if is_lost {
            found.disconnect();
        }
        drop(state);
        self.touch();
        if is_lost { Err(Error::unavailable("the connection broke")) } else { settled }
    }
}

impl MemoryMembership {
    fn step(&mut self) -> Result<Option<Item>> {
        let mut state = self.mesh.state();
        let State { subscriptions, streams, .. } = &mut *state;
        let found = subscriptions.get_mut(&self.name);
        let found = found.ok_or_else(|| Error::new(Reason::UnknownResource, "unknown"))?;
        if self.session < found.first_session {
            return Err(Error::unavailable("the connection broke"));
        }
        if !std::mem::replace(&mut self.has_turn, true) {
            return Ok(Some(Item::Turn { partition: 0, is_own: true }));
        }
        let events = streams.get(&found.stream).map(Vec::as_slice).unwrap_or_default();
        let own = found.lent.values().filter(|&&(_, session)| session == self.session).count();
        let offsets = found.next(events, self.events_max.saturating_sub(own).min(ITEM_EVENTS));
        if offsets.is_empty() {
            let settled = found.settled.range(found.start..).count() as u64;
            let lag = (events.len() as u64).saturating_sub(found.start).saturating_sub(settled);
            let is_news = self.told_lag.replace(lag) != Some(lag);
            return Ok(is_news.then(|| Item::Lags(vec![(0, lag)])));
        }
        let mut lent = Vec::new();
        for offset in offsets {
            found.last_lease += 1;
            found.lent.insert(found.last_lease, (offset, self.session));
            let event = usize::try_from(offset).ok().and_then(|at| events.get(at)).cloned();
            lent.push(Lent {
                held: Held::of_lease(0, 1, found.last_lease),
                partition: 0,
                offset,
                appended: Timestamp::default(),
                event: event.unwrap_or_default(),
                attempt: found.failures.get(&offset).copied().unwrap_or_default() + 1,
                is_redriven: false,
                replay_job: None,
            });
        }
        Ok(Some(Item::Lent(lent)))
    }

    /// When something that waits is due.
    fn due(&self) -> Option<Instant> {
        let state = self.mesh.state();
        let found = state.subscriptions.get(&self.name)?;
        found.waits.values().copied().filter(|&at| at > Instant::now()).min()
    }
}

#[derive(Debug)]
struct MemorySettler {
    mesh: MemoryMesh,
    name: QualifiedName,
}

impl Settler for MemorySettler {
    fn settle(&self, held: Held, act: Act) -> BoxFuture<'static, Result<()>> {
        let settled = self.mesh.settle(&self.name, held.first(), act);
        Box::pin(async move { settled })
    }
}

impl Membership for MemoryMembership {
    fn next(&mut self) -> BoxFuture<'_, Result<Item>> {
        Box::pin(async {
            loop {
                self.changed.mark_unchanged();
                if let Some(item) = self.step()? {
                    return Ok(item);
                }
                let due = self.due();
                let due = async {
                    match due {
                        Some(due) => sleep_until(due).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    changed = self.changed.changed() => drop(changed),
                    () = due => {}
                }
            }
        })
    }

    fn settler(&self) -> Arc<dyn Settler> {
        Arc::new(MemorySettler { mesh: self.mesh.clone(), name: self.name.clone() })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        let mut state = self.mesh.state();
        if let Some(found) = state.subscriptions.get_mut(&self.name) {
            found.lent.retain(|_, &mut (_, session)| session != self.session);
        }
        drop(state);
        self.mesh.touch();
        Box::pin(async {})
    }
}
