//! Which node shall lead which group, and the task that moves leadership there.
//!
//! *Decides* by what a leader knows alone: every leader comes to the same spread, so that nobody
//! has to be told. *Never* takes leadership; it only gives away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_proto::{GroupId, NodeId};

use super::group::Group;
use super::groups::Groups;
use crate::metrics as names;

/// A replica that lacks so few entries has them before anybody notices that nobody leads.
const LAG_MAX: u64 = 64;
/// A transfer takes milliseconds, or does not happen.
const TRANSFER_MAX: Duration = Duration::from_secs(2);
/// Between two looks at who answers.
const LOOK: Duration = Duration::from_millis(100);
/// How often in each period it is asked who shall lead.
const LOOKS: u32 = 10;

/// How leadership is spread over the nodes.
#[derive(Clone)]
pub struct Balance {
    /// Whoever leads a group keeps it for so long; zero = leadership stays where it is.
    pub period: Duration,
    /// Nodes that shall lead nothing.
    pub draining: Arc<dyn Fn() -> BTreeSet<NodeId> + Send + Sync>,
}

impl std::fmt::Debug for Balance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Balance").field("period", &self.period).finish_non_exhaustive()
    }
}

/// Spreads the groups over the nodes that are able to lead: with the same voters everywhere, no
/// node gets more than one group more than another.
///
/// A group goes home, to the voter that its number names; only groups whose home is not able are
/// given to those with the fewest. So the loss of a node moves its own groups and no others.
pub fn preferred(
    groups: &BTreeMap<GroupId, BTreeSet<NodeId>>,
    able: &BTreeSet<NodeId>,
) -> BTreeMap<GroupId, NodeId> {
    let mut leaders = BTreeMap::new();
    let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (&group, voters) in groups {
        if let Some(home) = by_number(group, voters).next().filter(|home| able.contains(home)) {
            leaders.insert(group, home);
            *load.entry(home).or_default() += 1;
        }
    }
    for (&group, voters) in groups {
        if leaders.contains_key(&group) {
            continue;
        }
        let candidates = by_number(group, voters).filter(|voter| able.contains(voter));
        let least = candidates.min_by_key(|voter| load.get(voter).copied().unwrap_or_default());
        if let Some(least) = least {
            leaders.insert(group, least);
            *load.entry(least).or_default() += 1;
        }
    }
    leaders
}

/// The voters of a group, each group beginning with another one.
fn by_number(group: GroupId, voters: &BTreeSet<NodeId>) -> impl Iterator<Item = NodeId> {
    let first = (group.get() as usize).checked_rem(voters.len()).unwrap_or_default();
    voters.iter().skip(first).chain(voters.iter().take(first)).copied()
}

impl Groups {
    /// Gives leadership away where another node is preferred, and looks after followers that come
    /// back, until the node stops.
    ///
    /// # Errors
    ///
    /// Never.
    pub async fn balance(
        self,
        rules: Balance,
        stop: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known: BTreeMap<GroupId, Led> = BTreeMap::new();
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            for group in self.iter() {
                watch_followers(group, &mut known).await;
            }
            if rules.period.is_zero() || looked.elapsed() < rules.period / LOOKS {
                continue;
            }
            looked = Instant::now();
            let draining = (rules.draining)();
            for group in self.iter() {
                let Some(led) = known.get_mut(&group.id()) else { continue };
                let leaves = draining.contains(&group.node());
                if (leaves || led.since.elapsed() >= rules.period)
                    && let Some(heir) = self.heir_of(group, &draining)
                {
                    led.since = Instant::now();
                    give(group, heir).await;
                }
            }
        }
    }

    /// Who shall lead a group instead of this node, if somebody can.
    fn heir_of(&self, group: &Group, draining: &BTreeSet<NodeId>) -> Option<NodeId> {
        let able: BTreeSet<NodeId> = group.answering().difference(draining).copied().collect();
        let voters = |group: &Group| group.status().voters.into_iter().collect();
        let groups = self.iter().map(|group| (group.id(), voters(group))).collect();
        let heir = *preferred(&groups, &able).get(&group.id())?;
        let status = group.status();
        let matched = status.matched.get(&heir).copied().flatten().unwrap_or_default();
        let lag = status.last.unwrap_or_default().saturating_sub(matched);
        (heir != group.node() && lag <= LAG_MAX).then_some(heir)
    }
}

/// What is known of a group while this node leads it.
struct Led {
    term: u64,
    since: Instant,
    answering: BTreeSet<NodeId>,
}

/// Sends to a follower at once when it is back: after an absence, its entries would wait for the
/// end of a pause of up to two seconds, and until then a majority may depend on it.
async fn watch_followers(group: &Group, known: &mut BTreeMap<GroupId, Led>) {
    let leadership = *group.leader_watch().borrow();
    if !leadership.is_self_ready {
        known.remove(&group.id());
        return;
    }
    let answering = group.answering();
    let first =
        || Led { term: leadership.term, since: Instant::now(), answering: answering.clone() };
    let led = known.entry(group.id()).or_insert_with(first);
    if led.term != leadership.term {
        *led = first();
    }
    let back: Vec<NodeId> = answering.difference(&led.answering).copied().collect();
    led.answering = answering;
    if !back.is_empty() {
        group.send_now(&back).await;
    }
}

async fn give(group: &Group, heir: NodeId) {
    match group.transfer_leader(heir, TRANSFER_MAX).await {
        Ok(()) => {
            info!(group = group.id().get(), heir = heir.get(), "leadership given away");
            metrics::counter!(names::LEADER_MOVES).increment(1);
        }
        Err(error) => {
            warn!(group = group.id().get(), heir = heir.get(), %error, "leadership was not taken over");
        }
    }
}
