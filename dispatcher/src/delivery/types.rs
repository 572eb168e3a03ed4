//! Values that go into and come out of the rules of delivery.

use std::sync::Arc;
use std::time::Duration;

/// A trigger of the function, by its number in this run of the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId(pub u32);

/// A running copy of the function; never reused within a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

impl std::fmt::Display for InstanceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What instances are made of, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevisionNo(pub u64);

/// An event that is lent to us, from its delivery by the cluster until it is settled; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A request that is under way; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(pub u64);

/// An event that was lent to us.
#[derive(Clone, Copy, Debug)]
pub struct Lent {
    /// Names it.
    pub ticket: Ticket,
    /// The trigger.
    pub feed: FeedId,
    /// Who shall get it.
    pub revision: RevisionNo,
    /// Which delivery it is, from 1: by that many less it failed before.
    pub attempt: u32,
    /// Its size.
    pub bytes: u32,
}

/// Rules of one trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPolicy {
    /// Events of one request.
    pub batch_events: usize,
    /// With at most so many bytes, unless the first has more.
    pub batch_bytes: u64,
    /// How long the first event of a batch waits for others.
    pub linger: Duration,
    /// Longest `Retry-After` that is obeyed.
    pub retry_after_max: Duration,
    /// Whether what the function refuses for good is given up at once.
    pub gives_up: bool,
}

impl Default for FeedPolicy {
    fn default() -> Self {
        Self {
            batch_events: 1,
            batch_bytes: 1 << 20,
            linger: Duration::ZERO,
            retry_after_max: Duration::from_mins(5),
            gives_up: true,
        }
    }
}

/// What became of one push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with success, and its replies are stored.
    Done,
    /// The same, but for these events of the batch, by their place in it; they may come again after the
    /// time, if one is given.
    Partly(Vec<(usize, Option<Duration>)>),
    /// The instance asked for patience; no attempt.
    Throttled {
        /// How long it asked for.
        retry_after: Option<Duration>,
    },
    /// Failed in a way that may pass; an attempt.
    Failed,
    /// As `Failed`, and for lack of time: the instance may be overloaded.
    TimedOut,
    /// Too many bytes at once; an attempt if it was a single event.
    TooLarge,
    /// Refused in a way that a repetition will hardly change; an attempt.
    Refused,
    /// The function never saw it; no attempt.
    NotReceived,
    /// The function did its work, but its reply could not be stored; no attempt.
    ReplyFailed,
    /// The instance died before it ever answered. Once is free; an event that kills again pays.
    Died,
}

/// How an event leaves us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// It is done.
    Ack,
    /// It comes again.
    GiveBack {
        /// When, from now; by the backoff of the subscription otherwise.
        delay: Option<Duration>,
        /// Whether it was an attempt.
        is_counted: bool,
        /// Why.
        reason: Arc<str>,
    },
    /// It is a dead letter.
    Reject {
        /// Why.
        reason: Arc<str>,
    },
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the events to the instance in one request, then call `handle_outcome`.
    Push {
        /// Names the request.
        push: PushId,
        /// Which events, in this order; at least one.
        tickets: Vec<Ticket>,
        /// To which instance.
        instance: InstanceId,
    },
    /// Settle the event at the cluster, and forget it.
    Settle {
        /// Which event.
        ticket: Ticket,
        /// How.
        how: Settle,
    },
    /// The event is no longer ours, and nothing is to be settled: forget it.
    Forget {
        /// Which event.
        ticket: Ticket,
    },
}

/// How many events are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for their turn.
    pub queued: u64,
    /// At an instance.
    pub in_flight: u64,
    /// Of both: failed before.
    pub retrying: u64,
}
