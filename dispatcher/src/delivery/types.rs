//! Values that go into and come out of the rules of delivery.

use std::time::Duration;

use weft_proto::{Epoch, Offset, PartitionId};

/// A trigger of the function, by its number in this run of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId(pub u32);

/// A running copy of the function; never reused within a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

impl std::fmt::Display for InstanceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The trigger.
    pub feed: FeedId,
    /// The partition of its stream.
    pub partition: PartitionId,
    /// The offset in the partition.
    pub offset: Offset,
}

/// How the events of a function are delivered.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Longest wait after the first failure.
    pub backoff_base: Duration,
    /// Longest wait after any number of failures.
    pub backoff_cap: Duration,
    /// Longest `Retry-After` that is obeyed.
    pub retry_after_max: Duration,
    /// An event that failed this often is reported as blocked. It is still tried.
    pub attempts: u32,
    /// Most events that one instance may have at once; 0 = the default.
    pub permits_hard: u32,
}

/// What became of one push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with success, and its replies are stored.
    Done,
    /// The instance asked for patience; no attempt.
    Throttled {
        /// How long it asked for.
        retry_after: Option<Duration>,
    },
    /// Failed in a way that may pass; an attempt.
    Failed,
    /// As `Failed`, and for lack of time: the instance may be overloaded.
    TimedOut,
    /// Refused in a way that a repetition will hardly change; an attempt. The event is blocked.
    Refused,
    /// The function never saw the event; no attempt.
    NotReceived,
    /// The function did its work, but its reply could not be stored; no attempt.
    ReplyFailed,
    /// The instance died before it ever answered. Once is free; an event that kills again pays.
    Died,
}

/// What the caller must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the event to the instance, then call `handle_outcome`.
    Push {
        /// Which event.
        place: Place,
        /// To which instance.
        instance: InstanceId,
        /// Number of the attempt, from 1.
        attempt: u32,
    },
    /// Settle the event, then call `handle_settled`.
    Ack {
        /// Which event.
        place: Place,
        /// Under which epoch it was leased.
        epoch: Epoch,
    },
    /// The payload is no longer needed: forget it. May come twice for one event.
    Forget {
        /// Which event.
        place: Place,
    },
}

/// Whether a leased event is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leased {
    /// It waits for its turn.
    Taken,
    /// It is already here; the older payload serves.
    Known,
}

/// How many events are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for a permit or for an earlier event of their key.
    pub queued: u64,
    /// At an instance.
    pub in_flight: u64,
    /// Waiting for their next try.
    pub parked: u64,
    /// Failed at least once and not yet done.
    pub retrying: u64,
    /// Refused for good, or failed too often.
    pub blocked: u64,
    /// Done, acknowledgement under way.
    pub settling: u64,
}
