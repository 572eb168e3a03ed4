//! What happened, in the order of one clock: the only thing that the checkers look at.

use serde::{Deserialize, Serialize};

/// Microseconds since the round began.
pub(crate) type Micros = u64;
/// One published event; no two events share one.
pub(crate) type Value = u64;
/// Who did something. A client that crashed comes back as another process.
pub(crate) type Process = u32;

/// A partition of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) stream: u32,
    pub(crate) partition: u32,
}

/// How a send ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Stored at these offsets, one for each value.
    Ok { key: Key, offsets: Vec<u64>, duplicate: bool },
    /// Certainly not stored.
    Fail { error: String },
    /// Stored, or not, or stored later.
    Info { error: String },
}

/// An event as it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) value: Value,
    /// Of its bytes.
    pub(crate) digest: u64,
}

/// An event as somebody read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) offset: u64,
    pub(crate) value: Value,
    pub(crate) digest: u64,
}

/// An event as it was lent to a member of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lent {
    /// Number of the lease among those of its epoch.
    pub(crate) lease: u64,
    pub(crate) offset: u64,
    pub(crate) value: Value,
    /// Names the ordering key of the event.
    pub(crate) name: u64,
    pub(crate) attempt: u32,
}

/// What a member does with an event that it was lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    Ack,
    Nack,
    Reject,
    /// For so long from now on.
    Extend {
        by: Micros,
    },
}

/// How an act ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Ok,
    /// The lease was over, as far as the cluster knows. What an attempt without an answer did before
    /// may have taken hold all the same.
    Refused {
        error: String,
    },
    /// It took hold, or not.
    Open {
        error: String,
    },
}

/// How a membership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gone {
    /// It left after all its acts were answered.
    Left,
    /// It vanished in the middle of everything.
    Crashed,
    /// The cluster ended it.
    Ended,
}

/// What became of a replay job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobEnd {
    /// The cluster says that all of its range is settled.
    Done,
    /// Somebody cancelled it, or may have.
    Cancelled,
    /// It did not end.
    Open,
}

/// A partition as one subscription sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Desk {
    pub(crate) subscription: u32,
    pub(crate) key: Key,
    /// Not the partition, but its dead letters, which are delivered again.
    pub(crate) redriven: bool,
    /// Not what is new, but what this replay job delivers again; 0 is none.
    #[serde(default)]
    pub(crate) job: u64,
}

/// Whether a fault took hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Injected {
    /// It is about to be done.
    Begun,
    /// It did, and was seen to.
    Installed,
    /// This machine cannot do it.
    Skipped,
    /// Nobody knows.
    Indeterminate,
    /// It is over.
    Healed,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Record {
    /// A send begins. `op` names it among all sends; its events go to one partition in this order.
    Invoke { t: Micros, process: Process, op: u64, events: Vec<Sent> },
    /// A send ended; a retry of what has ended may add another answer.
    Done { t: Micros, process: Process, op: u64, outcome: Outcome },
    /// A process begins to read a partition at this offset, and forgets where it was.
    Assign { t: Micros, process: Process, key: Key, from: u64 },
    /// A process read this, in this order, from this node.
    Poll { t: Micros, process: Process, node: usize, key: Key, seen: Vec<Seen> },
    /// A process asked this node for the end of a partition, with all that was acknowledged before
    /// `from`; the answer came at `t`.
    End { t: Micros, process: Process, node: usize, key: Key, from: Micros, end: u64 },
    /// After all faults: all that this node has of a partition, from its floor on.
    Final { t: Micros, node: usize, key: Key, floor: u64, end: u64, seen: Vec<Seen> },
    /// There is a subscription to a stream, from its first event on; leases last so long.
    Subscription {
        t: Micros,
        subscription: u32,
        stream: u32,
        keyed: bool,
        /// One member is served at a time.
        #[serde(default)]
        exclusive: bool,
        lease: Micros,
    },
    /// A process becomes a member; that is all it does.
    Join { t: Micros, process: Process, subscription: u32, name: String },
    /// It is none any more.
    Leave { t: Micros, process: Process, how: Gone },
    /// A member was told by the desk of this epoch that everything below is settled.
    Cursor { t: Micros, process: Process, desk: Desk, epoch: u64, watermark: u64 },
    /// A member was lent events under an epoch.
    Lend { t: Micros, process: Process, desk: Desk, epoch: u64, events: Vec<Lent> },
    /// A member begins to do something with an event that it was lent.
    Settle { t: Micros, process: Process, op: u64, desk: Desk, epoch: u64, lease: u64, act: Act },
    /// That ended.
    Settled { t: Micros, op: u64, answer: Answer },
    /// Somebody begins to move a cursor that was here at least, unless it was moved otherwise since.
    Seek { t: Micros, op: u64, desk: Desk, to: u64, was: u64 },
    /// The cursor is there; what was lent under an older epoch is void.
    Sought { t: Micros, op: u64, to: u64, epoch: u64 },
    /// All dead letters of a subscription, or of a replay job to it, when nothing was to be done any
    /// more.
    Letters {
        t: Micros,
        subscription: u32,
        #[serde(default)]
        job: u64,
        letters: Vec<Value>,
    },
    /// Somebody asks for a replay job of all that is stored from this offset on in each partition.
    AskJob { t: Micros, job: u64, from: u64 },
    /// A replay job as the cluster has it in the end: first offset and end by partition.
    Job { t: Micros, job: u64, subscription: u32, ranges: Vec<(Key, u64, u64)>, end: JobEnd },
    /// A process begins to read a stream from its first event on, and to follow it. It asks for all
    /// that was acknowledged before.
    Replay { t: Micros, process: Process, stream: u32 },
    /// It read this, in this order.
    Replayed { t: Micros, process: Process, key: Key, seen: Vec<Seen> },
    /// It was told that all that was stored was read: what comes now is new.
    CaughtUp { t: Micros, process: Process },
    /// Something was done to the cluster.
    Fault { t: Micros, name: String, state: Injected, detail: String },
}

/// All lines of a round.
pub(crate) type History = Vec<Record>;
