//! What was done, refused and shown in vain, for those who must answer for it later.
//!
//! *Owns* the queue of this node's records; they are written to the stream `_weft.audit`. *Never*
//! holds a secret: a record has names, never credentials or events.

pub mod chain;
mod writer;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weft_proto::{Error, Principal, Result, Timestamp};

pub use writer::Loop;

use crate::clock;
use crate::metrics as names;

/// Records that wait to be written; of denials, more are counted and not kept.
const QUEUE_LEN: usize = 1_024;
/// Whoever waits for its record is told by then that it is not stored.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest text in a record, in bytes: names come from callers.
const TEXT_BYTES_MAX: usize = 1_024;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was allowed, and about to be done.
    Allowed,
    /// It was not.
    Denied,
}

impl Outcome {
    /// The word in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, by this node's clock.
    pub time: Timestamp,
    /// What: the last part of the event's type.
    pub act: &'static str,
    /// Who.
    pub principal: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was to be done.
    pub verb: String,
    /// With what.
    pub resource: String,
    /// Why it ended so.
    pub reason: String,
    /// From where.
    pub remote: Option<IpAddr>,
    /// How many of the same.
    pub count: u64,
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

impl Record {
    /// Something that happens now.
    pub fn new(act: &'static str, principal: &Principal, outcome: Outcome) -> Self {
        Self {
            time: clock::now(),
            act,
            principal: cut(principal.to_string()),
            outcome,
            verb: String::new(),
            resource: String::new(),
            reason: String::new(),
            remote: None,
            count: 1,
        }
    }

    /// With what it was about.
    #[must_use]
    pub fn on(self, verb: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { verb: cut(verb.into()), resource: cut(resource.into()), ..self }
    }

    /// With why.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: cut(reason.into()), ..self }
    }

    /// With where from.
    #[must_use]
    pub fn from(self, remote: Option<IpAddr>) -> Self {
        Self { remote, ..self }
    }

    /// Whether it is the same thing at another time.
    pub fn is_like(&self, other: &Self) -> bool {
        // All but time and count; named, so that a new field is not forgotten.
        let Self { time: _, act, principal, outcome, verb, resource, reason, remote, count: _ } =
            self;
        (act, outcome, remote) == (&other.act, &other.outcome, &other.remote)
            && (principal, verb) == (&other.principal, &other.verb)
            && (resource, reason) == (&other.resource, &other.reason)
    }
}

/// A record on its way, and who waits for it.
#[derive(Debug)]
pub struct Entry {
    /// What happened.
    pub record: Record,
    /// Told once it is stored.
    pub done: Option<oneshot::Sender<Result<()>>>,
}

/// Where records are left; clones share the queue.
#[derive(Clone, Default)]
pub struct Audit {
    queue: Option<mpsc::Sender<Entry>>,
    missed: Arc<AtomicU64>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("records", &self.queue.is_some()).finish_non_exhaustive()
    }
}

/// The other end of the queue.
#[derive(Debug)]
pub struct Inbox {
    /// Records, in the order in which they were left.
    pub entries: mpsc::Receiver<Entry>,
    /// Records that found no room, since this was last set to 0.
    pub missed: Arc<AtomicU64>,
}

impl Audit {
    /// Nothing is recorded: in a cluster that asks nobody who they are.
    pub fn none() -> Self {
        Self::default()
    }

    /// A queue and its end.
    pub fn new() -> (Self, Inbox) {
        let (queue, entries) = mpsc::channel(QUEUE_LEN);
        let missed = Arc::<AtomicU64>::default();
        (Self { queue: Some(queue), missed: Arc::clone(&missed) }, Inbox { entries, missed })
    }

    /// Leaves a record, without waiting. What finds no room is counted: a flood of refusals must not
    /// become one of records.
    pub fn note(&self, record: Record) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Entry { record, done: None }).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
            metrics::counter!(names::AUDIT_MISSED).increment(1);
        }
    }

    /// Leaves a record and waits until it is stored, but not for ever: while others before it cannot
    /// be stored, neither can it.
    ///
    /// # Errors
    ///
    /// `Unavailable` when it is not stored in time. It may be later: then it tells of an act that
    /// was about to be done, and was not.
    ///
    /// # Cancel safety
    ///
    /// The record may be stored all the same.
    pub async fn write(&self, record: Record) -> Result<()> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let gone = || Error::unavailable("this node is stopping: its acts are not recorded");
        let (done, stored) = oneshot::channel();
        let entry = Entry { record, done: Some(done) };
        let written = async {
            queue.send(entry).await.map_err(|_closed| gone())?;
            stored.await.map_err(|_closed| gone())?
        };
        tokio::time::timeout(PATIENCE, written).await.unwrap_or_else(|_elapsed| {
            let message = "the act cannot be recorded in _weft.audit at present";
            Err(Error::unavailable(message).with_retry_after(Duration::from_secs(1)))
        })
    }
}
