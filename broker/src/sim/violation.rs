//! What a simulation can find to be wrong.

use std::fmt;

/// A kind of failure; each names the promise that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Two nodes led in one term.
    TwoLeaders,
    /// One node voted for two candidates in one term.
    VotedTwice,
    /// A vote was counted that its node may forget.
    VoteNotDurable,
    /// An entry was taken for agreed on that less than a majority has on disk.
    CommitNotDurable,
    /// Two logs have the same entry at one index, but not the same before it.
    LogMismatch,
    /// A leader lacks an entry that was agreed on before its term.
    LeaderIncomplete,
    /// Two replicas applied different entries at one index.
    CommittedChanged,
    /// Two replicas differ after the same entries.
    StateDiverged,
    /// Two replicas took different checkpoints after the same entry.
    CheckpointDiverged,
    /// Something went back that only goes forward: a term, a commit, an applied index.
    WentBack,
    /// The marks of a log are out of order: purged, snapshot, applied, committed, last.
    MarksOutOfOrder,
    /// Offsets are not dense.
    OffsetGap,
    /// A batch or an event was appended twice.
    Duplicate,
    /// Batches of a producer are out of order.
    ProducerOrder,
    /// An event was acknowledged at an offset where it is not.
    FalseAck,
    /// An event is stored that was refused for certain.
    RefusedButStored,
    /// A reader saw an entry that was never agreed on.
    UncommittedRead,
    /// A cursor went back, or past the end of its partition.
    Cursor,
    /// A log does not open, or lacks entries that it had.
    LogDamaged,
    /// A replica does not have what was agreed on, at the end.
    ReplicaIncomplete,
    /// A task of a node panicked.
    Panic,
    /// A group stopped on a node whose disk is fine.
    GroupStopped,
    /// Without faults the cluster does not serve.
    NotLive,
}

/// A failure of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) class: Class,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class, self.detail)
    }
}
