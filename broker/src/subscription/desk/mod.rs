//! Rules about lending the events of one partition to the members of one subscription.
//!
//! A desk lives in memory where the partition's group is led. Each event that was offered and is
//! not settled is in exactly one place: ready or behind its key, lent, kept for another try, or in
//! a change that is to be replicated. It leaves the desk when that change is committed. The next
//! leader opens a desk of its own from what was committed, with a higher epoch.
//!
//! How to call it, in any order: say what happened (`attach`, `detach`, `wants`, `settle`,
//! `committed`, `tick`), tell it what was read (`offer`, `pass`) while there is `room`, then ask
//! what to do: `next_offer` and `take`, `next_change`, `next_timer`.
//!
//! Owns: leases, tries, keys, dead letters to be. Never: reads a clock; waits; holds a payload;
//! fails.

mod changes;
mod event;
mod keys;
mod leases;
mod lend;
mod look;
mod members;
mod policy;
mod random;
mod ready;
mod retries;
mod settle;
mod time;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use weft_proto::{Epoch, Offset, Timestamp};

use super::{OffsetSet, Parked, RANGES_LEN, UnsettledMax};
use crate::entry::OffsetRange;
use changes::Changes;
use event::Event;
use keys::{Keys, Waiting};
use leases::{End, Leases};
use members::{HolderId, Members};
use random::Random;
use ready::Ready;
use retries::Retries;

pub use changes::{Cause, Change, ChangeNo, DeadLetter};
pub use event::Offered;
pub use leases::{LeaseId, Token};
pub use lend::{Grant, Old};
pub use look::Whereabouts;
pub use members::MemberId;
pub use policy::{Backoff, Mode, Policy, rank};
pub use settle::{Act, Settle, Verdict};

/// Lends the events of one partition to the members of one subscription.
#[derive(Debug)]
pub struct Desk {
    policy: Policy,
    /// The latest time it was told; it never goes back.
    now: Timestamp,
    random: Random,
    /// Everything below was offered, passed or settled.
    next: Offset,
    members: Members,
    /// Exclusive: who gets events.
    active: Option<HolderId>,
    ready: Ready,
    keys: Keys,
    retries: Retries,
    leases: Leases,
    /// The last desk that lent: what it did not know of is void.
    previous: Epoch,
    /// It is committed that this one lends.
    is_announced: bool,
    changes: Changes,
    /// Leases of events that were not offered yet.
    claimed: BTreeMap<Offset, Token>,
    /// At or above `next`, and in a change or settled with one.
    ahead: OffsetSet,
    unsettled_events: usize,
    unsettled_bytes: u64,
    expired: u64,
}

impl Desk {
    /// Opens a desk at what is committed; `epoch` is higher than that of any desk before, `previous` that
    /// of the last one that lent. `tick` it before all else: it knows no time. It lends when it is
    /// [`Desk::announced`].
    pub fn open(
        policy: Policy,
        (previous, epoch): (Epoch, Epoch),
        watermark: Offset,
        settled: OffsetSet,
        parked: BTreeMap<Offset, Parked>,
        seed: u64,
    ) -> Self {
        let changes = Changes::new(watermark, settled);
        let mut retries = Retries::default();
        for (offset, parked) in parked {
            if offset >= changes.watermark() && !changes.settled().contains(offset) {
                retries.put(Event::unseen(offset, Some(parked)), true);
            }
        }
        Self {
            policy,
            now: Timestamp::default(),
            random: Random::new(seed),
            next: changes.watermark(),
            members: Members::default(),
            active: None,
            ready: Ready::default(),
            keys: Keys::new(seed),
            retries,
            leases: Leases::new(epoch),
            previous,
            is_announced: false,
            changes,
            claimed: BTreeMap::new(),
            ahead: OffsetSet::default(),
            unsettled_events: 0,
            unsettled_bytes: 0,
            expired: 0,
        }
    }

    /// The next offset to offer or to pass. Those below are known, and settled ones may be left
    /// out; all others must come in order.
    pub fn reads_from(&self) -> Offset {
        let mut next = self.next;
        while let Some(range) = self.settled_at(next) {
            let Some(after) = range.last().checked_add(1) else {
                break;
            };
            next = after;
        }
        next
    }

    /// How much more may be offered now; nothing when either is zero. The last event may exceed
    /// the bytes, and what is offered beyond is kept all the same.
    pub fn room(&self) -> UnsettledMax {
        let max = &self.policy.unsettled_max;
        // In front of each range that a cursor keeps there is an unsettled event.
        let ranges = (RANGES_LEN - 1).saturating_sub(self.early());
        let events = max.events.min(ranges).saturating_sub(self.unsettled_events);
        let bytes = max.bytes.saturating_sub(self.unsettled_bytes);
        if events == 0 || bytes == 0 {
            return UnsettledMax { events: 0, bytes: 0 };
        }
        UnsettledMax { events, bytes }
    }

    /// An event was read that the subscription wants. Ignored if it was offered or is settled.
    pub fn offer(&mut self, offered: Offered) {
        let offset = offered.offset;
        let Some(next) = offset.checked_add(1).filter(|_| offset >= self.next) else {
            return;
        };
        self.next = next;
        let is_settled = self.settled_at(offset).is_some();
        self.ahead.remove_below(next);
        if is_settled {
            return;
        }
        self.unsettled_events = self.unsettled_events.saturating_add(1);
        self.unsettled_bytes = self.unsettled_bytes.saturating_add(offered.bytes.into());
        let is_head = !self.has_keys() || self.keys.lead(offered.key, offset);
        if let Some(token) = self.claimed.remove(&offset) {
            self.see_claimed(token, &offered, is_head);
        } else if self.retries.see(&offered) {
            if is_head {
                self.retries.arm(offset);
                self.release();
            } else {
                self.retries.block(offset);
                self.keys.follow(offered.key, Waiting::Retry(offset));
            }
        } else if is_head {
            self.ready.push(Event::new(&offered));
        } else {
            self.keys.follow(offered.key, Waiting::Event(Event::new(&offered)));
        }
        if !is_head {
            self.shorten(offered.key);
        }
    }

    /// Events were read that the subscription does not want: they are settled with the next change.
    pub fn pass(&mut self, range: OffsetRange) {
        let first = range.first().max(self.next);
        // No event has the largest number.
        let last = Offset(range.last().get().min(u64::MAX - 1));
        let Some(range) = OffsetRange::new(first, last) else {
            return;
        };
        self.next = Offset(last.get().saturating_add(1));
        self.retries.remove_range(range);
        self.changes.unpark(range);
        while let Some((_, &token)) = self.claimed.range(first..=last).next() {
            if let Some(lease) = self.end(token, End::Expired) {
                self.members.end(lease.holder, 1);
            }
        }
        let mut from = Some(first);
        while let Some(offset) = from.filter(|&offset| offset <= last) {
            if let Some(settled) = self.settled_at(offset) {
                from = settled.last().checked_add(1);
                continue;
            }
            let near = [self.changes.settled(), &self.ahead].map(|set| set.next_at(offset));
            let stop = near
                .into_iter()
                .flatten()
                .min()
                .map_or(last, |stop| Offset(stop.get().saturating_sub(1)).min(last));
            if let Some(free) = OffsetRange::new(offset, stop) {
                self.changes.settle(free);
            }
            from = stop.checked_add(1);
        }
        self.ahead.remove_below(self.next);
        self.leases.tidy();
        self.elect();
    }

    /// Whether there is something to replicate that no change on its way has.
    pub fn has_news(&self) -> bool {
        self.changes.is_due()
    }

    /// The next change to replicate, if there is anything and none is on its way.
    pub fn next_change(&mut self) -> Option<Change> {
        self.changes.next()
    }

    /// The change is committed; ignored unless it is the one on its way. Events may be ready now, or
    /// have a timer.
    pub fn committed(&mut self, no: ChangeNo) {
        let Some(relief) = self.changes.committed(no) else {
            return;
        };
        self.unsettled_events = self.unsettled_events.saturating_sub(relief.events);
        self.unsettled_bytes = self.unsettled_bytes.saturating_sub(relief.bytes);
        // Early events may have been all that was missing before others that are settled.
        self.next = self.next.max(self.changes.watermark());
        self.ahead.remove_below(self.next);
        for offset in relief.logged {
            self.retries.logged(offset);
        }
        self.release();
        for key in relief.keys {
            match self.keys.free(key) {
                Some(Waiting::Event(event)) => self.ready.give_back(event),
                Some(Waiting::Retry(offset)) => {
                    self.retries.unblock(offset);
                    self.release();
                    self.shorten(key);
                }
                None => {}
            }
        }
    }

    /// Everything below is settled and committed.
    pub fn watermark(&self) -> Offset {
        self.changes.watermark()
    }

    /// The oldest event that was offered and is not settled by a committed change.
    pub fn oldest_unsettled(&self) -> Option<Offset> {
        (self.watermark() < self.next).then_some(self.watermark())
    }

    /// Events that are lent.
    pub fn lent(&self) -> usize {
        self.leases.len()
    }

    /// Events that are lent to the member of this name.
    pub fn lent_to(&self, member: &str) -> u64 {
        self.members.named(member).map_or(0, |holder| self.members.lent(holder))
    }

    /// Events that wait for a member or behind their key.
    pub fn waiting(&self) -> usize {
        self.ready.len().saturating_add(self.keys.len())
    }

    /// Events that wait for another try.
    pub fn parked(&self) -> usize {
        self.retries.len()
    }

    /// Events that are settled, but not yet by a committed change.
    pub fn settling(&self) -> usize {
        self.changes.events()
    }

    /// Events that were offered and are not settled by a committed change, and their bytes.
    pub fn unsettled(&self) -> (usize, u64) {
        (self.unsettled_events, self.unsettled_bytes)
    }

    /// Events that were settled because nobody wanted them any more.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Its epoch: that of the leases it gives.
    pub fn epoch(&self) -> Epoch {
        self.leases.epoch()
    }

    /// Ranges of settled and lent events that were not offered yet, at most.
    fn early(&self) -> usize {
        self.claimed.len().saturating_add(self.ahead.len())
    }

    fn has_keys(&self) -> bool {
        self.policy.mode == Mode::KeyShared
    }

    /// The settled range around an offset that was not offered.
    fn settled_at(&self, offset: Offset) -> Option<OffsetRange> {
        self.changes.settled().range_at(offset).or_else(|| self.ahead.range_at(offset))
    }

    /// The key has too many events behind one that is kept for another try: that one is given up.
    fn shorten(&mut self, key: u64) {
        if let Some(head) = self.keys.overlong(key, self.policy.hold_max)
            && self.retries.is_early(head, self.now)
            && let Some(event) = self.retries.remove(head)
        {
            self.bury(event, Cause::Held);
        }
    }

    /// The event of a lease of an earlier desk was read. It is not lent while its key has another
    /// event out: an honest member cannot have had both.
    fn see_claimed(&mut self, token: Token, offered: &Offered, is_head: bool) {
        if is_head {
            if let Some(lease) = self.leases.get_mut(token) {
                lease.event.see(offered);
            }
            return;
        }
        if let Some(lease) = self.leases.end(token, End::Fenced) {
            self.members.end(lease.holder, 1);
            let mut event = lease.event;
            event.see(offered);
            if event.history.is_some() {
                self.retries.block(offered.offset);
                self.retries.put(event, true);
                self.keys.follow(offered.key, Waiting::Retry(offered.offset));
            } else {
                self.keys.follow(offered.key, Waiting::Event(event));
            }
            self.leases.tidy();
            self.elect();
        }
    }
}
