//! What the leader of a group does: turns policies into floors.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use weft_proto::resource::MaxAge;
use weft_proto::{Error, Offset, PartitionUid, Result, Timestamp};

use super::floor::Finder;
use super::{Pace, Policies, Policy, weigh};
use crate::clock::{self, Steadiness};
use crate::data::{Bounds, DataGroup};
use crate::entry::{Command, Trim};
use crate::lend::Lender;
use crate::metrics as names;
use crate::read::{History, locate};

/// Floors in one entry at most: 64 KiB of it.
const FLOORS_LEN: usize = 4_096;
/// A floor of the log that frees less than this is not worth an entry: the entries that raise it
/// would be all that there is to free.
const FREED_BYTES_MIN: u64 = 1 << 20;

/// Looks in a row that a floor waits until what was given back below it is moved away; then it rises
/// anyway.
const HELD_LOOKS: u32 = 6;

/// The task of one group; it works while this node leads it.
pub struct Leader {
    group: DataGroup,
    policies: Arc<dyn Policies>,
    history: History,
    pace: Pace,
    freed_min: u64,
    lender: Option<Lender>,
    /// Partitions of which not everything is moved away, and since how many looks.
    held: BTreeMap<PartitionUid, u32>,
    finder: Finder,
    clock: Steadiness,
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").field("group", &self.group.id).finish_non_exhaustive()
    }
}

impl Leader {
    /// The task for a group whose log has a checkpoint every `checkpoint_bytes`.
    pub fn new(
        group: DataGroup,
        policies: Arc<dyn Policies>,
        history: History,
        pace: Pace,
        checkpoint_bytes: u64,
    ) -> Self {
        Self {
            group,
            policies,
            history,
            pace,
            freed_min: FREED_BYTES_MIN.min(checkpoint_bytes / 2),
            lender: None,
            held: BTreeMap::new(),
            finder: Finder::default(),
            clock: Steadiness::new(),
        }
    }

    /// What subscriptions gave back becomes a dead letter before it is taken.
    #[must_use]
    pub fn parting_by(self, lender: Lender) -> Self {
        Self { lender: Some(lender), ..self }
    }

    /// Runs until the node stops.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut ticks = tokio::time::interval(self.pace.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let leadership = self.group.raft.leader_watch();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            metrics::gauge!(names::LOG_BYTES, "group" => self.group.id.to_string())
                .set(self.group.log.bytes() as f64);
            let leads = leadership.borrow().is_self_ready;
            if !leads {
                self.finder = Finder::default();
                self.held.clear();
                continue;
            }
            let looked = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                looked = self.look() => looked,
            };
            if let Err(error) = looked {
                // The next tick tries again; a change of the leader is the common reason.
                let group = self.group.id.get();
                if error.is_retryable() {
                    debug!(group, %error, "retention did not get to its end");
                } else {
                    warn!(group, error = &error as &dyn std::error::Error, "retention failed");
                }
            }
        }
    }

    /// Trims what may go now.
    async fn look(&mut self) -> Result<()> {
        let now = clock::now();
        let by_age = self.trusts_the_clock();
        let policies = self.policies.policies_of(self.group.id);
        let mut floors = Vec::new();
        for policy in &policies {
            let bounds = self.group.bounds(policy.partition);
            let floor = self.floor(policy, bounds, by_age.then_some(now)).await?;
            let floor =
                if floor > bounds.floor { self.part(policy.partition, floor).await } else { floor };
            if floor > bounds.floor && floors.len() < FLOORS_LEN {
                floors.push((policy.partition, floor));
            }
        }
        let floor_index = self.log_floor(&floors, now).await?;
        if floors.is_empty() && floor_index == 0 {
            return Ok(());
        }
        let (group, partitions) = (self.group.id.get(), floors.len());
        self.group.sequencer.command(Command::Trim(Trim { floor_index, floors })).await?;
        if floor_index > 0 {
            info!(group, floor_index, partitions, "the floor of the log rises");
        } else {
            debug!(group, partitions, "floors rise");
        }
        Ok(())
    }

    /// Moves away what was given back below a floor; gives the floor up to which this is done. Only for a
    /// while: a subscription must not hold the disk.
    async fn part(&mut self, partition: PartitionUid, floor: Offset) -> Offset {
        let Some(lender) = &self.lender else { return floor };
        let result = lender.part(&self.group, partition, floor).await;
        if result.as_ref().is_ok_and(|reached| *reached == floor) {
            self.held.remove(&partition);
            return floor;
        }
        let looks = self.held.entry(partition).or_default();
        *looks += 1;
        if *looks > HELD_LOOKS {
            let error = result.err().map(|error| error.to_string());
            warn!(%partition, %floor, error, "not all that was given back could be kept as dead letters");
            self.held.remove(&partition);
            return floor;
        }
        result.unwrap_or_default()
    }

    fn trusts_the_clock(&mut self) -> bool {
        let was = self.clock.is_steady();
        let steady = self.clock.look();
        if was != steady {
            if steady {
                info!("the clock is back where it was; trimming by age goes on");
            } else {
                error!(
                    "the wall clock jumped by more than five minutes: nothing is trimmed by age until it is set right, or this node is restarted"
                );
            }
        }
        metrics::gauge!(names::CLOCK_SUSPECT).set(f64::from(u8::from(!steady)));
        steady
    }

    /// The first offset of a partition that stays. Without `now`, ages are left alone.
    async fn floor(
        &self,
        policy: &Policy,
        bounds: Bounds,
        now: Option<Timestamp>,
    ) -> Result<Offset> {
        let mut floor = bounds.floor;
        if floor >= bounds.end {
            return Ok(floor);
        }
        let retention = &policy.retention;
        if let Some(events_max) = retention.max_events {
            floor = floor.max(Offset(bounds.end.0.saturating_sub(events_max)));
        }
        if let Some(bytes_max) = retention.max_bytes {
            floor = floor.max(self.floor_by_bytes(policy.partition, bounds, bytes_max).await?);
        }
        if let (Some(now), MaxAge::For(age)) = (now, retention.max_age) {
            let age = u64::try_from(age.0.as_micros()).unwrap_or(u64::MAX);
            if let Some(since) = now.as_micros().checked_sub(age) {
                let since = Timestamp::from_micros(since);
                floor =
                    floor.max(locate(&self.group, policy.partition, &self.history, since).await?);
            }
        }
        Ok(floor)
    }

    async fn floor_by_bytes(
        &self,
        partition: PartitionUid,
        bounds: Bounds,
        bytes_max: u64,
    ) -> Result<Offset> {
        let all = self.group.with_state(|state| {
            state.partitions().get(partition).map_or(0, crate::partition::Partition::bytes)
        });
        let Some(gone) = all.checked_sub(bytes_max).filter(|gone| *gone > 0) else {
            return Ok(bounds.floor);
        };
        let found = weigh::offset_at(&self.group, partition, &self.history, gone).await?;
        Ok(found.unwrap_or(bounds.floor))
    }

    /// The index up to which no replica needs the log once these floors are in force; 0 if that is
    /// not worth saying.
    async fn log_floor(
        &mut self,
        raised: &[(PartitionUid, Offset)],
        now: Timestamp,
    ) -> Result<u64> {
        let (after, mut floors) = self.group.with_state(|state| {
            let all = state.partitions().iter();
            let floors: BTreeMap<_, _> = all.map(|(uid, one)| (uid, one.floor())).collect();
            (state.floor_index(), floors)
        });
        floors.extend(raised.iter().copied());
        let kept = u64::try_from(self.pace.log_kept.as_micros()).unwrap_or(u64::MAX);
        let time_max = now.as_micros().saturating_sub(kept);
        let (engine, id) = (Arc::clone(&self.group.engine), self.group.id);
        let mut finder = std::mem::take(&mut self.finder);
        let search = move || {
            let found = finder.advance((&*engine, id), after, &floors, time_max);
            (finder, found)
        };
        let (finder, found) = self.history.run(search).await?;
        self.finder = finder;
        let found = found.map_err(|error| {
            Error::internal("the checkpoints of a group cannot be read").with_source(error)
        })?;
        let begins = self.group.log.begins_at();
        Ok(found
            .filter(|(_, pos)| pos.saturating_sub(begins) >= self.freed_min)
            .map_or(0, |(index, _)| index))
    }
}
