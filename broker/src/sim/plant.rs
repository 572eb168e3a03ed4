//! Bugs that are planted on purpose, to see that the simulation finds them.

/// A bug. Which layer has it is said with each; the code that ships has none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    /// The disk says that a write is synced as soon as it was written.
    AckBeforeSync,
    /// A vote is written, but never synced.
    VoteNotSynced,
    /// One follower is said to have entries that it was never sent: half of the nodes commit.
    CommitWithHalf,
    /// The leader answers with the offset it stamped, whatever the log says.
    StampedOffset,
    /// The state depends on the time at which a replica applies an entry.
    WallTimeInApply,
    /// A checkpoint lists something in the order of a hash map.
    HashOrder,
    /// A failed sync is taken for a good one.
    SyncErrorIgnored,
    /// A retried batch is appended again: its producer is not looked at.
    ForgottenProducer,
}
