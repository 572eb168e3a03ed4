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
    /// Something was done to the cluster.
    Fault { t: Micros, name: String, state: Injected, detail: String },
}

/// All lines of a round.
pub(crate) type History = Vec<Record>;
