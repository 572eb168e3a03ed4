//! What members do with their leases: ack, nack, reject, extend.

use std::time::Duration;

use weft_proto::{Epoch, Timestamp};

use super::changes::one;
use super::event::{Event, NEVER, Why};
use super::leases::{End, Fate, Lease};
use super::{Cause, ChangeNo, DeadLetter, Desk, HolderId, LeaseId, Token};
use crate::subscription::Failure;

/// What a member does with events it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// They are finished.
    Ack,
    /// They are given back.
    Nack {
        /// How long they wait; `None` means by the policy's backoff, or not at all if this does
        /// not count.
        delay: Option<Duration>,
        /// Whether this is a failed delivery.
        counted: bool,
        /// Why.
        failure: Failure,
    },
    /// They become dead letters.
    Reject {
        /// Why.
        failure: Failure,
    },
    /// They are kept for longer.
    Extend {
        /// From now on; `None` means as long as a new lease. A lease is never cut short.
        by: Option<Duration>,
    },
}

/// A member settles, or extends, a range of its leases.
#[derive(Clone, Copy, Debug)]
pub struct Settle<'a> {
    /// The name of the member; any of its attachments may do it.
    pub member: &'a str,
    /// Which desk gave the leases.
    pub epoch: Epoch,
    /// The first lease.
    pub first: LeaseId,
    /// The last lease.
    pub last: LeaseId,
    /// What is done.
    pub act: &'a Act,
}

/// What became of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done once this change is committed.
    Pending(ChangeNo),
    /// It lasts longer.
    Extended,
    /// It is done, now or by the same act before.
    Done,
    /// The event is settled, by this lease or a later one; the desk that knew is gone.
    Before,
    /// It ended otherwise before: by its time, or by another act.
    Expired,
    /// Somebody else holds it, or took over.
    Fenced,
    /// It was never given, or ended too long ago.
    Unknown,
}

impl Desk {
    /// Settles or extends leases; says for each of them, in order, what became of it. Ranges may
    /// name leases that never were.
    pub fn settle(
        &mut self,
        settle: &Settle<'_>,
        now: Timestamp,
        verdicts: &mut Vec<(LeaseId, LeaseId, Verdict)>,
    ) {
        self.tick(now);
        let holder = self.members.named(settle.member);
        let mut ended = 0;
        let mut next = settle.first;
        while next <= settle.last {
            let token = Token { epoch: settle.epoch, lease: next };
            let (fate, until) = self.leases.look(token, settle.last);
            let verdict = match fate {
                Fate::Unknown => Verdict::Unknown,
                Fate::Ended(end) => self.repeated(end, settle.act),
                Fate::Live(own) if Some(own) != holder => Verdict::Fenced,
                Fate::Live(_) => {
                    ended += u64::from(!matches!(settle.act, Act::Extend { .. }));
                    self.act(token, settle.act)
                }
            };
            put_verdict(verdicts, next, until, verdict);
            let Some(after) = until.0.checked_add(1) else {
                break;
            };
            next = LeaseId(after);
        }
        if let Some(holder) = holder {
            self.members.end(holder, ended);
        }
        self.leases.tidy();
        self.elect();
    }

    /// The lease ended before; doing the same again is no mistake.
    fn repeated(&self, end: End, act: &Act) -> Verdict {
        match (end, act) {
            (End::Acked(no), Act::Ack)
            | (End::Nacked(no), Act::Nack { .. })
            | (End::Rejected(no), Act::Reject { .. }) => self.verdict(no),
            (End::Before, Act::Ack | Act::Reject { .. }) => Verdict::Before,
            (End::Fenced, _) => Verdict::Fenced,
            _ => Verdict::Expired,
        }
    }

    fn verdict(&self, no: ChangeNo) -> Verdict {
        if self.changes.is_pending(no) { Verdict::Pending(no) } else { Verdict::Done }
    }

    fn act(&mut self, token: Token, act: &Act) -> Verdict {
        let no = self.changes.draft_no();
        let end = match act {
            Act::Extend { by } => {
                self.extend(token, *by);
                return Verdict::Extended;
            }
            Act::Ack => End::Acked(no),
            Act::Nack { .. } => End::Nacked(no),
            Act::Reject { .. } => End::Rejected(no),
        };
        let Some(lease) = self.end(token, end) else {
            return Verdict::Unknown;
        };
        let mut event = lease.event;
        match act {
            Act::Nack { delay, counted, failure } => {
                let back = Back { delay: *delay, is_counted: *counted, failure: failure.clone() };
                self.give_back(token, event, back);
            }
            Act::Reject { failure } => {
                event.fail(token, Why::Failed, failure.clone(), self.now);
                self.bury(event, Cause::Rejected);
            }
            Act::Ack | Act::Extend { .. } => self.finish(&event),
        }
        match end {
            End::Acked(_) => Verdict::Pending(no),
            End::Nacked(no) | End::Rejected(no) => self.verdict(no),
            End::Expired | End::Fenced | End::Before => Verdict::Expired,
        }
    }

    fn extend(&mut self, token: Token, by: Option<Duration>) {
        let by = by.or(self.policy.lease);
        let end = by.map_or(NEVER, |by| self.now.saturating_add(by));
        self.leases.extend(token, end);
    }

    /// Ends a lease; the caller takes care of its event, and of the member's count.
    pub(super) fn end(&mut self, token: Token, end: End) -> Option<Lease> {
        let lease = self.leases.end(token, end)?;
        if !lease.event.is_seen {
            self.claimed.remove(&lease.event.offset);
        }
        Some(lease)
    }

    /// Ends all leases of a member.
    pub(super) fn end_all(&mut self, holder: HolderId, end: End, is_counted: bool) {
        if self.members.lent(holder) > 0 {
            let tokens: Vec<Token> = self.leases.of(holder).map(|(token, _)| token).collect();
            for token in tokens {
                if let Some(lease) = self.end(token, end) {
                    let failure = Failure::new("the member was gone");
                    let back = Back { delay: None, is_counted, failure };
                    self.give_back(token, lease.event, back);
                }
            }
            self.leases.tidy();
        }
        self.members.end(holder, u64::MAX);
    }

    /// An event that was lent is not settled. This is replicated before it is lent again, counted or not:
    /// the next leader would otherwise take an older lease for the newest.
    pub(super) fn give_back(&mut self, lease: Token, event: Event, back: Back) {
        let Back { delay, is_counted, failure } = back;
        let (mut event, now) = (event, self.now);
        let why = match (is_counted, delay) {
            (true, _) => Why::Failed,
            (false, Some(_)) => Why::PutOff,
            (false, None) => Why::HandedOn,
        };
        event.fail(lease, why, failure, now);
        let Some(history) = &mut event.history else {
            return;
        };
        let attempts = history.attempts;
        let is_last =
            is_counted && self.policy.attempts_max.is_some_and(|max| attempts >= max.get());
        if is_last {
            return self.bury(event, Cause::Attempts);
        }
        let too_old = self.policy.too_old(history);
        if too_old.is_some_and(|too_old| too_old <= now) {
            return self.bury(event, Cause::TooOld);
        }
        let wait = match why {
            Why::HandedOn => Duration::ZERO,
            _ => delay.unwrap_or_else(|| self.random.wait(&self.policy.backoff, attempts)),
        };
        let due = now.saturating_add(wait);
        // At its greatest age it comes again, but for the dead letters.
        history.due = too_old.map_or(due, |too_old| due.min(too_old));
        let parked = (**history).clone();
        if why != Why::HandedOn && self.is_held(&event) {
            return self.bury(event, Cause::Held);
        }
        self.changes.park(event.offset, parked);
        match why {
            Why::HandedOn => self.retries.hand_on(event),
            Why::Failed | Why::PutOff => self.retries.put(event, false),
        }
    }

    fn is_held(&self, event: &Event) -> bool {
        self.has_keys()
            && event.is_seen
            && self.keys.overlong(event.key, self.policy.hold_max) == Some(event.offset)
    }

    /// The event is settled with the next change.
    pub(super) fn finish(&mut self, event: &Event) {
        let Some(range) = one(event.offset) else {
            return;
        };
        self.changes.settle(range);
        self.leave(event);
    }

    /// The event becomes a dead letter with the next change.
    pub(super) fn bury(&mut self, event: Event, cause: Cause) {
        self.leave(&event);
        let (offset, history) = (event.offset, event.history.map(|history| *history));
        let history = history.unwrap_or_default();
        self.changes.bury(DeadLetter {
            offset,
            cause,
            attempts: history.attempts,
            first_failure: history.first_failure,
            failure: history.failure,
        });
    }

    fn leave(&mut self, event: &Event) {
        if let Some(range) = one(event.offset)
            && event.offset >= self.next
        {
            self.ahead.insert(range);
        }
        let has_keys = self.has_keys();
        self.changes.relieve(event, has_keys);
    }
}

/// How an event is given back.
pub(super) struct Back {
    pub(super) delay: Option<Duration>,
    pub(super) is_counted: bool,
    pub(super) failure: Failure,
}

/// Joins equal verdicts of leases that follow each other.
fn put_verdict(
    verdicts: &mut Vec<(LeaseId, LeaseId, Verdict)>,
    first: LeaseId,
    last: LeaseId,
    verdict: Verdict,
) {
    if let Some((_, before, same)) = verdicts.last_mut()
        && *same == verdict
        && before.0.checked_add(1) == Some(first.0)
    {
        *before = last;
    } else {
        verdicts.push((first, last, verdict));
    }
}
