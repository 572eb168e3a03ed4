//! The floor of a group's log: the newest checkpoint above which everything lies that is needed.

use std::collections::BTreeMap;
use std::io;

use weft_proto::{GroupId, Offset, PartitionUid};

use crate::raft::snapshot::StoredState;
use crate::state::GroupState;
use crate::store::LogEngine;

/// Checkpoints looked at in one tick; a leader that has more to do goes on with the next.
const STEPS_MAX: usize = 64;

/// A checkpoint as far as its use as a floor goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    index: u64,
    pos: u64,
    time: u64,
    ends: Vec<(PartitionUid, Offset)>,
}

impl Candidate {
    fn of(stored: &StoredState) -> io::Result<Self> {
        let state = GroupState::decode(&stored.state)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let ends = state.partitions().iter().map(|(uid, partition)| (uid, partition.end()));
        let at = stored.at;
        Ok(Self { index: at.index, pos: at.pos, time: at.time, ends: ends.collect() })
    }

    /// Whether everything below it may go.
    fn is_free(&self, floors: &BTreeMap<PartitionUid, Offset>, time_max: u64) -> bool {
        // A partition that is gone needs nothing.
        let lies_above = |(uid, end): &(PartitionUid, Offset)| {
            floors.get(uid).is_none_or(|floor| *floor >= *end)
        };
        self.time <= time_max && self.ends.iter().all(lies_above)
    }
}

/// Finds the floor step by step: later checkpoints only need more.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// The best so far: its index and position.
    best: Option<(u64, u64)>,
    /// The first one that is needed still.
    next: Option<Candidate>,
}

impl Finder {
    /// Looks on from the floor `after`. `floors` has every partition of the group as it will be,
    /// `time_max` the log time from which on everything stays. Reads the disk.
    pub(super) fn advance(
        &mut self,
        (engine, group): (&dyn LogEngine, GroupId),
        after: u64,
        floors: &BTreeMap<PartitionUid, Offset>,
        time_max: u64,
    ) -> io::Result<Option<(u64, u64)>> {
        for _ in 0..STEPS_MAX {
            let from = self.best.map_or(after, |(index, _)| index.max(after)).saturating_add(1);
            let next = match self.next.take() {
                Some(next) if next.index >= from => Some(next),
                _ => StoredState::oldest(engine, group, from, u64::MAX - 1)?
                    .map(|stored| Candidate::of(&stored))
                    .transpose()?,
            };
            let Some(next) = next else { break };
            if !next.is_free(floors, time_max) {
                self.next = Some(next);
                break;
            }
            self.best = Some((next.index, next.pos));
        }
        Ok(self.best.filter(|(index, _)| *index > after))
    }
}
