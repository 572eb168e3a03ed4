//! One event on its way through the desk. Never: holds a payload.

use weft_proto::{Offset, Timestamp};

use super::leases::Token;
use crate::subscription::{Failure, Parked};

/// The end of time: what is set for then does not happen.
pub(super) const NEVER: Timestamp = Timestamp::from_micros(u64::MAX);

/// An event that the desk may lend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Its place in the partition.
    pub offset: Offset,
    /// Hash of its key; read in mode `KeyShared` only.
    pub key: u64,
    /// Its size.
    pub bytes: u32,
    /// From when on nobody wants it any more.
    pub expires: Option<Timestamp>,
}

/// An unsettled event; it is in one place at a time, because it is moved there.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Event {
    pub(super) offset: Offset,
    pub(super) key: u64,
    pub(super) bytes: u32,
    /// False while only its offset is known: a lease or a failure from before this desk.
    pub(super) is_seen: bool,
    /// This desk lent it, or left it to a member: no older lease is worth anything.
    pub(super) was_lent: bool,
    /// `NEVER` for most.
    expires: Timestamp,
    /// What failed so far; boxed, because most events never fail.
    pub(super) history: Option<Box<Parked>>,
}

/// Why an event was not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its delivery failed.
    Failed,
    /// It comes later, and this does not count.
    PutOff,
    /// Another member has it at once, and this does not count.
    HandedOn,
}

impl Event {
    pub(super) fn new(offered: &Offered) -> Self {
        let mut event = Self::unseen(offered.offset, None);
        event.see(offered);
        event
    }

    pub(super) fn unseen(offset: Offset, history: Option<Parked>) -> Self {
        let history = history.map(Box::new);
        Self { offset, key: 0, bytes: 0, is_seen: false, was_lent: false, expires: NEVER, history }
    }

    /// The event of which only the offset was known was read.
    pub(super) fn see(&mut self, offered: &Offered) {
        self.key = offered.key;
        self.bytes = offered.bytes;
        self.is_seen = true;
        self.expires = offered.expires.unwrap_or(NEVER);
    }

    /// Which delivery the next one is, from 1.
    pub(super) fn attempt(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.attempts).saturating_add(1)
    }

    /// Whether nobody wants it any more.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires <= now && self.expires != NEVER
    }

    /// Notes that a lease ended without settling it.
    pub(super) fn fail(&mut self, lease: Token, why: Why, failure: Failure, now: Timestamp) {
        let history = self.history.get_or_insert_default();
        history.attempts = history.attempts.saturating_add((why == Why::Failed).into());
        if why != Why::HandedOn && history.ages_from().is_none() {
            history.first_failure = now;
        }
        history.due = now;
        history.void = history.void.max(lease);
        history.failure = failure;
    }
}
