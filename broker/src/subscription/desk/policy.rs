//! How a subscription lends its events.

use std::num::NonZeroU32;
use std::time::Duration;

use weft_proto::Timestamp;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::subscription::{Parked, UnsettledMax};

/// Who gets events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The newest member alone, in the order of the partition.
    #[default]
    Exclusive,
    /// All members; any event goes to any of them.
    Shared,
    /// All members; of one key at most one event is out at a time, in the order of the partition.
    KeyShared,
}

/// How long a failed event waits: doubling from `base` up to `cap`, a random part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failure.
    pub base: Duration,
    /// The longest wait at all.
    pub cap: Duration,
}

/// The rules of one desk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who gets events.
    pub mode: Mode,
    /// How long an event is lent; `None` means until the member is gone.
    pub lease: Option<Duration>,
    /// How long a member that is gone keeps its leases.
    pub grace: Duration,
    /// Deliveries that may fail before the event is a dead letter; `None` means any number.
    pub attempts_max: Option<NonZeroU32>,
    /// How long a failed event waits.
    pub backoff: Backoff,
    /// How long after its first failure an event becomes a dead letter.
    pub age_max: Option<Duration>,
    /// Events waiting, lent, parked or in a change that is not committed. At most one less than
    /// [`RANGES_LEN`](crate::subscription::RANGES_LEN), so that no cursor has too many gaps.
    pub unsettled_max: UnsettledMax,
    /// `KeyShared`: events that may wait behind one whose delivery failed; with more it becomes a
    /// dead letter.
    pub hold_max: u32,
    /// Whether the leases of a member that is gone count as failed deliveries.
    pub counts_detach: bool,
    /// One member at a time gets events: the attached one with the highest [`rank`] under this seed.
    /// Nothing in mode `Exclusive`.
    pub sole: Option<u64>,
}

/// How a member ranks among those of which one is served: the same at every desk.
pub fn rank(seed: u64, member: &str) -> u64 {
    xxh3_64_with_seed(member.as_bytes(), seed)
}

impl Policy {
    /// The seed by which members rank, if one of them is served.
    pub(super) fn ranks_by(&self) -> Option<u64> {
        self.sole.filter(|_| self.mode != Mode::Exclusive)
    }

    /// When an event that was given back becomes a dead letter, whatever comes.
    pub(super) fn too_old(&self, history: &Parked) -> Option<Timestamp> {
        Some(history.ages_from()?.saturating_add(self.age_max?))
    }
}
