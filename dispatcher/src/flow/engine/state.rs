//! What the engine knows: deliveries, events on their way, and how they hang together.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use weft_proto::{QualifiedName, Timestamp};

use crate::flow::failure::Failure;
use crate::flow::plan::Next;
use crate::flow::types::{CallId, ItemId, RunId, Token};

/// A fan-out that is not joined yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrameId(pub(super) u64);

/// Something that was done elsewhere and could be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EffectId(pub(super) u64);

/// A failure that is being undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FailingId(pub(super) u64);

/// What is looked at again at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Call(CallId),
    Frame(FrameId),
    Failing(FailingId),
}

/// One delivery. It ends when nothing of it is on its way any more.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) token: Token,
    pub(super) is_last: bool,
    /// Events that hang on it.
    pub(super) items: BTreeSet<ItemId>,
    pub(super) effects: Vec<EffectId>,
    /// Keys that it has in the memory of dedup steps.
    pub(super) claims: Vec<(usize, String)>,
}

/// An event on its way.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The deliveries that it was made of: several once it was aggregated.
    pub(super) origins: Vec<RunId>,
    pub(super) event: Bytes,
    /// The step it is at.
    pub(super) at: usize,
    pub(super) state: State,
    /// The branch it is in.
    pub(super) frame: Option<(FrameId, usize)>,
    /// Its place among those that were made of the same event.
    pub(super) order: Vec<usize>,
    /// The id of the event of a stream that it still is.
    pub(super) cause: Option<String>,
    pub(super) hops: i32,
    pub(super) stored: Timestamp,
    /// What the step that it is at does elsewhere.
    pub(super) effect: Option<EffectId>,
}

/// What an event waits for.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nothing.
    Ready,
    /// An answer.
    Calling { call: CallId, due: Timestamp },
    /// To be stored; then it goes on there.
    Publishing(Next),
    /// Others of its group.
    Grouped,
    /// One that is alike.
    Waiting,
    /// The branches of a fan-out.
    Parked(FrameId),
}

/// A fan-out that is not joined yet.
#[derive(Debug)]
pub(super) struct Frame {
    /// The event that went into it.
    pub(super) parked: ItemId,
    pub(super) due: Timestamp,
    pub(super) branches: Vec<BranchState>,
    pub(super) ok: usize,
    pub(super) failed: usize,
}

#[derive(Debug, Default)]
pub(super) struct BranchState {
    pub(super) live: usize,
    pub(super) is_over: bool,
    /// All that ever were in it.
    pub(super) items: Vec<ItemId>,
    pub(super) results: Vec<(Vec<usize>, serde_json::Value)>,
}

/// Something that was done elsewhere, or may have been.
#[derive(Debug)]
pub(super) struct Effect {
    pub(super) step: usize,
    /// What the step was asked for, by the event's name.
    pub(super) of: (String, String),
    /// The event after the step; before it, as long as nobody knows whether it was done.
    pub(super) event: Bytes,
    pub(super) is_done: bool,
    pub(super) hops: i32,
    pub(super) cause: Option<String>,
    /// Deliveries that are not at their end.
    pub(super) open: usize,
    pub(super) fate: Fate,
}

/// What became of those that are at their end; the later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Nothing, or they are tried again.
    Open,
    /// One failed for good: it is to be undone.
    Final,
    /// One came to a good end: it stands.
    Settled,
}

/// A failure that is being undone.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) tokens: Vec<Token>,
    pub(super) failure: Failure,
    /// In the order in which they are published.
    pub(super) todo: VecDeque<(QualifiedName, Bytes)>,
    pub(super) tries: u32,
}

/// What is around an event, in bytes.
const ITEM_BYTES: usize = 512;

/// How much room an event takes.
pub(super) fn weigh(event: &Bytes) -> usize {
    event.len().saturating_add(ITEM_BYTES)
}
