//! What a seed decides before a run begins.

use std::ops::Range;
use std::time::Duration;

use weft_proto::resource::{MaxAge, Retention};
use weft_proto::{GroupId, PartitionUid};

use super::random::Random;
use crate::raft::group::Timers;
use crate::raft::snapshot::SnapshotPolicy;
use crate::retention::{Policies, Policy};

/// Partitions of a group that publishers use.
const PARTITIONS: u64 = 2;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: u64,
    pub(crate) groups: u32,
    pub(crate) timers: Timers,
    pub(crate) delay_millis: Range<u64>,
    pub(crate) sync_millis: Range<u64>,
    /// A task gives way once in so many polls; 0 is never.
    pub(crate) yields: u64,
    /// How long faults happen.
    pub(crate) faulty: Duration,
    /// Between two of them.
    pub(crate) fault_millis: Range<u64>,
    pub(crate) producers: usize,
    /// Batches that one producer sends before it waits.
    pub(crate) window: usize,
    /// Bytes of a log between two checkpoints.
    pub(crate) checkpoint_bytes: u64,
    /// Events that a partition keeps, if that is limited.
    pub(crate) events_max: Option<u64>,
    pub(crate) retention_tick: Duration,
    /// How long a publisher waits between two of its windows.
    pub(crate) pause_millis: Range<u64>,
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let (heartbeat, min, max) =
            random.pick(&[(50, 150, 300), (60, 200, 400), (100, 300, 600), (200, 700, 1_200)]);
        let timers = Timers {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(min),
            election_max: Duration::from_millis(max),
        };
        Self {
            nodes: random.pick(&[3, 3, 3, 3, 4, 5]),
            groups: random.pick(&[1, 1, 2]),
            timers,
            delay_millis: random.pick(&[0..2, 0..5, 1..10]),
            sync_millis: random.pick(&[0..2, 1..5, 2..12]),
            yields: random.pick(&[0, 4, 16]),
            // A few elections.
            faulty: Duration::from_millis(max * random.within(4..9)),
            fault_millis: random.pick(&[max / 10..max / 2, max / 5..max, max / 2..2 * max]),
            producers: random.pick(&[1, 2, 3]),
            window: random.pick(&[1, 3, 6]),
            checkpoint_bytes: random.pick(&[600, 2_000, 8_000]),
            events_max: random.pick(&[None, Some(1), Some(10), Some(40)]),
            retention_tick: Duration::from_millis(random.pick(&[50, 200])),
            pause_millis: random.pick(&[1..20, 10..80]),
        }
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (1..=self.groups).map(GroupId)
    }
}

/// The second group is one whose state says it all, as the catalog is.
pub(crate) fn policy(group: GroupId) -> SnapshotPolicy {
    if group.get() == 1 { SnapshotPolicy::AtFloor } else { SnapshotPolicy::AtApplied }
}

/// The partitions of a group.
pub(crate) fn partitions(group: GroupId) -> Vec<PartitionUid> {
    let first = u64::from(group.get()) * 10;
    (first..first + PARTITIONS).map(PartitionUid).collect()
}

impl Policies for Plan {
    fn policies_of(&self, group: GroupId) -> Vec<Policy> {
        let max_events = self.events_max.filter(|_| policy(group) == SnapshotPolicy::AtFloor);
        let retention = Retention { max_age: MaxAge::Forever, max_bytes: None, max_events };
        let keep = |partition| Policy { partition, retention: retention.clone() };
        partitions(group).into_iter().map(keep).collect()
    }
}
