//! Bugs on purpose, to see that the fault harness catches them. Debug builds alone contain them.
//!
//! *Never* compiled into a release: [`is`] is then `false` for the compiler already.

/// A bug that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Writes are reported as synced before they are.
    AckBeforeSync,
    /// A failed sync is taken for a success.
    SyncErrorIgnored,
    /// A batch whose entry was lost is acknowledged at the offset that was meant for it.
    OffsetAtReceive,
    /// Runs of a producer are not told apart.
    EpochIgnored,
    /// A state that is read from a checkpoint knows no producers.
    ProducersNotInCheckpoint,
    /// A reader that begins in the middle misses one event.
    SeamOffByOne,
    /// A linearizable read does not ask whether this node still leads.
    StaleLeaderReads,
    /// A node trusts a disk that has less than the node promised.
    OldCopyTrusted,
    /// What is given back is written down as settled: the next desk does not know of it.
    GivenBackForgotten,
    /// Members are told that events are settled before they are.
    SettledBeforeCommit,
    /// Events of one key are lent like those of many.
    KeysNotHeld,
    /// A new desk begins somewhat before its cursor.
    CursorBehind,
    /// An acknowledgement counts although its lease has ended.
    LateAckTaken,
    /// A reader misses an event where new ones follow on stored ones.
    LiveEdgeSkipped,
    /// Of an exclusive subscription, what a member takes over comes after what is new.
    HandedOnLate,
    /// Of an exclusive subscription, all members are served.
    EverybodyServed,
    /// A desk that begins with a replay job takes some of its events for settled.
    ReplaySkips,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AckBeforeSync,
        Self::SyncErrorIgnored,
        Self::OffsetAtReceive,
        Self::EpochIgnored,
        Self::ProducersNotInCheckpoint,
        Self::SeamOffByOne,
        Self::StaleLeaderReads,
        Self::OldCopyTrusted,
        Self::GivenBackForgotten,
        Self::SettledBeforeCommit,
        Self::KeysNotHeld,
        Self::CursorBehind,
        Self::LateAckTaken,
        Self::LiveEdgeSkipped,
        Self::HandedOnLate,
        Self::EverybodyServed,
        Self::ReplaySkips,
    ];

    /// Its name in the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::SyncErrorIgnored => "sync-error-ignored",
            Self::OffsetAtReceive => "offset-at-receive",
            Self::EpochIgnored => "epoch-ignored",
            Self::ProducersNotInCheckpoint => "producers-not-in-checkpoint",
            Self::SeamOffByOne => "seam-off-by-one",
            Self::StaleLeaderReads => "stale-leader-reads",
            Self::OldCopyTrusted => "old-copy-trusted",
            Self::GivenBackForgotten => "given-back-forgotten",
            Self::SettledBeforeCommit => "settled-before-commit",
            Self::KeysNotHeld => "keys-not-held",
            Self::CursorBehind => "cursor-behind",
            Self::LateAckTaken => "late-ack-taken",
            Self::LiveEdgeSkipped => "live-edge-skipped",
            Self::HandedOnLate => "handed-on-late",
            Self::EverybodyServed => "everybody-served",
            Self::ReplaySkips => "replay-skips",
        }
    }
}

/// The environment variable that chooses one.
pub const VARIABLE: &str = "WEFT_PLANTED_BUG";

/// Whether this process has the bug.
#[cfg(debug_assertions)]
pub fn is(bug: Bug) -> bool {
    *CHOSEN == Some(bug)
}

/// Never: releases have no planted bugs.
#[cfg(not(debug_assertions))]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(debug_assertions)]
static CHOSEN: std::sync::LazyLock<Option<Bug>> = std::sync::LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "no setting: releases do not have it")]
    let name = std::env::var(VARIABLE).ok()?;
    let bug = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
    if bug.is_some() {
        tracing::warn!("THIS BROKER IS BROKEN ON PURPOSE: {name}");
    } else {
        tracing::error!("{VARIABLE} names no planted bug: {name}");
    }
    bug
});
