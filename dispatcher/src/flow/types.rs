//! Values that go into and come out of a flow.

use std::time::Duration;

use bytes::Bytes;
use weft_proto::{QualifiedName, Timestamp};

use super::call::HttpRequest;
use super::failure::Failure;

/// A delivery that the caller holds a lease for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What became of one delivery so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub(super) u64);

/// An event on its way through the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ItemId(pub(super) u64);

/// A request that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(super) u64);

/// Events that were asked to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicationId(pub(super) u64);

/// An event that is delivered.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The delivery.
    pub token: Token,
    /// The event, encoded.
    pub event: Bytes,
    /// When its stream took it.
    pub stored: Timestamp,
    /// Whether it becomes a dead letter if it fails once more.
    pub is_last: bool,
}

/// Whether an event was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is held until an action says what became of it.
    Taken,
    /// There is no room; nothing is known of it. Offer it again later.
    Full,
}

/// What the caller must do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send the request, then call `handle_answer`.
    Request {
        /// For whom.
        run: RunId,
        /// The step that asks.
        step: String,
        /// Which request.
        call: CallId,
        /// What to send.
        request: Box<HttpRequest>,
    },
    /// Publish the events in this order, then call `handle_stored`.
    Publish {
        /// Which publication.
        publication: PublicationId,
        /// Where to.
        stream: QualifiedName,
        /// Encoded events.
        events: Vec<Bytes>,
    },
    /// All that came of these is stored: acknowledge them.
    Settle {
        /// Which deliveries.
        tokens: Vec<Token>,
    },
    /// These failed.
    Fail {
        /// Which deliveries.
        tokens: Vec<Token>,
        /// Why.
        failure: Failure,
    },
    /// Give it back to the cluster until then.
    Delay {
        /// Which delivery.
        token: Token,
        /// Until when.
        until: Timestamp,
    },
}

/// What became of one event of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is stored, or was already.
    Yes,
    /// The stream has another event of that name: an earlier version of the flow, or another answer of
    /// a service, made it of the same event. That one stands.
    Differently,
    /// It may pass.
    Unavailable(String),
    /// The stream will not take it.
    Refused(String),
}

/// Limits of one flow at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all events, answers and memories together. What one event is split into may come on
    /// top once.
    pub bytes_max: usize,
    /// How long a step may take that does not say.
    pub timeout: Duration,
}

/// What a step did, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The step.
    pub step: String,
    /// The event, by its id.
    pub event: String,
    /// A sentence.
    pub what: String,
}
