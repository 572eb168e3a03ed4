//! Which event is lent to whom and until when; and how leases ended.
//!
//! Leases are numbered without gaps, so they lie in a row from the oldest live one to the newest.
//! All last equally long, so they also end in that order, except those that were extended or come
//! from an earlier desk. A few old ones that outlive many others are kept apart from the row.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_proto::{Epoch, Timestamp};

use super::event::{Event, NEVER};
use super::{ChangeNo, HolderId};

/// Ranges of ended leases that are remembered; the oldest are forgotten first.
const PAST_LEN: usize = 4_096;

/// Length of the row, beside twice its live leases, above which old leases are kept apart; short
/// in tests, so that they get there.
const ROW_SLACK: usize = if cfg!(test) { 4 } else { 1_024 };

/// Number of a lease of one desk: from 1, one more with each event that is lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// Names a lease among those of all desks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The epoch of the desk that gave it.
    pub epoch: Epoch,
    /// Its number there.
    pub lease: LeaseId,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Acked(ChangeNo),
    Nacked(ChangeNo),
    Rejected(ChangeNo),
    /// The time was over, or the member was gone.
    Expired,
    /// Another member took over.
    Fenced,
    /// At an earlier desk, somehow: its event is settled.
    Before,
}

/// A lent event.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) event: Event,
    pub(super) holder: HolderId,
    /// `NEVER` for a lease without an end.
    deadline: Timestamp,
    /// Whether its deadline is in `Leases::deadlines`, not in the order of the row.
    is_apart: bool,
}

#[derive(Debug)]
enum Slot {
    Live(Lease),
    Ended(End),
}

#[derive(Debug)]
struct Past {
    last: LeaseId,
    end: End,
}

/// What a lease is now, from one number up to another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Live(HolderId),
    Ended(End),
    Unknown,
}

impl Lease {
    /// When it ends by itself; `NEVER` for some.
    pub(super) const fn deadline(&self) -> Timestamp {
        self.deadline
    }
}

/// All leases of a desk.
#[derive(Debug)]
pub(super) struct Leases {
    epoch: Epoch,
    /// The lease of the first slot.
    first: u64,
    row: VecDeque<Slot>,
    live: usize,
    /// No lease of the row below this one ends by the order of the row.
    timed_from: u64,
    /// Old live leases, and those of earlier desks.
    strays: BTreeMap<Token, Lease>,
    deadlines: BTreeSet<(Timestamp, Token)>,
    /// Ended leases by the first of a range.
    past: BTreeMap<Token, Past>,
}

impl Leases {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            first: 1,
            row: VecDeque::new(),
            live: 0,
            timed_from: 1,
            strays: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            past: BTreeMap::new(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Leases that did not end.
    pub(super) fn len(&self) -> usize {
        self.live.saturating_add(self.strays.len())
    }

    /// Lends an event; deadlines must not fall from call to call.
    pub(super) fn lend(&mut self, event: Event, holder: HolderId, deadline: Timestamp) -> LeaseId {
        let id = LeaseId(self.next());
        self.row.push_back(Slot::Live(Lease { event, holder, deadline, is_apart: false }));
        self.live += 1;
        id
    }

    /// Takes on a lease of an earlier desk.
    pub(super) fn adopt(
        &mut self,
        token: Token,
        event: Event,
        holder: HolderId,
        deadline: Timestamp,
    ) {
        self.deadlines.insert((deadline, token));
        self.strays.insert(token, Lease { event, holder, deadline, is_apart: true });
    }

    /// Notes that the event of a lease of an earlier desk is settled.
    pub(super) fn settled_before(&mut self, token: Token) {
        self.remember(token, End::Before);
        self.tidy();
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut Lease> {
        match self.index(token) {
            Some(index) => match self.row.get_mut(index)? {
                Slot::Live(lease) => Some(lease),
                Slot::Ended(_) => None,
            },
            None => self.strays.get_mut(&token),
        }
    }

    /// What the lease is, and up to which number (at most `last`) all others are the same.
    pub(super) fn look(&self, token: Token, last: LeaseId) -> (Fate, LeaseId) {
        if let Some(index) = self.index(token) {
            let fate = match self.row.get(index) {
                Some(Slot::Live(lease)) => Fate::Live(lease.holder),
                Some(Slot::Ended(end)) => Fate::Ended(*end),
                None => return (Fate::Unknown, last),
            };
            return (fate, token.lease);
        }
        if let Some(lease) = self.strays.get(&token) {
            return (Fate::Live(lease.holder), token.lease);
        }
        if let Some((first, past)) = self.past.range(..=token).next_back()
            && first.epoch == token.epoch
            && past.last >= token.lease
        {
            return (Fate::Ended(past.end), past.last.min(last));
        }
        // Unknown up to the next one of which there is something to say.
        let all = token..=Token { lease: last, ..token };
        let stray = self.strays.range(all.clone()).next().map(|(token, _)| token.lease.0);
        let past = self.past.range(all).next().map(|(token, _)| token.lease.0);
        let row = (token.epoch == self.epoch).then_some(self.first);
        let known = [stray, past, row].into_iter().flatten().min();
        let until = known.map_or(last, |known| LeaseId(known.saturating_sub(1)).min(last));
        (Fate::Unknown, until.max(token.lease))
    }

    /// Ends a lease, if it is live.
    pub(super) fn end(&mut self, token: Token, end: End) -> Option<Lease> {
        let lease = if let Some(index) = self.index(token) {
            let slot = self.row.get_mut(index)?;
            if matches!(slot, Slot::Ended(_)) {
                return None;
            }
            self.live = self.live.saturating_sub(1);
            match std::mem::replace(slot, Slot::Ended(end)) {
                Slot::Live(lease) => lease,
                Slot::Ended(_) => return None,
            }
        } else {
            let lease = self.strays.remove(&token)?;
            self.remember(token, end);
            lease
        };
        if lease.is_apart {
            self.deadlines.remove(&(lease.deadline, token));
        }
        Some(lease)
    }

    /// Lets a lease last until the deadline at least.
    pub(super) fn extend(&mut self, token: Token, deadline: Timestamp) {
        let Some(lease) = self.get_mut(token) else {
            return;
        };
        let old = lease.deadline;
        if deadline <= old {
            return;
        }
        lease.deadline = deadline;
        if std::mem::replace(&mut lease.is_apart, true) {
            self.deadlines.remove(&(old, token));
        }
        self.deadlines.insert((deadline, token));
    }

    /// A live lease whose time is over.
    pub(super) fn next_expired(&mut self, now: Timestamp) -> Option<Token> {
        if let Some(&(deadline, token)) = self.deadlines.first()
            && deadline <= now
            && deadline != NEVER
        {
            return Some(token);
        }
        self.skip_untimed();
        let deadline = self.first_timed()?;
        (deadline <= now && deadline != NEVER)
            .then_some(Token { epoch: self.epoch, lease: LeaseId(self.timed_from) })
    }

    /// When the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let apart = self.deadlines.first().map(|&(deadline, _)| deadline);
        let next = apart.into_iter().chain(self.first_timed()).min()?;
        (next != NEVER).then_some(next)
    }

    /// Forgets what needs no slot any more; to be called after leases ended.
    pub(super) fn tidy(&mut self) {
        loop {
            let is_long = self.row.len() > self.live.saturating_mul(2).saturating_add(ROW_SLACK);
            let token = Token { epoch: self.epoch, lease: LeaseId(self.first) };
            match self.row.front() {
                Some(Slot::Ended(end)) => {
                    let end = *end;
                    self.remember(token, end);
                    self.row.pop_front();
                }
                Some(Slot::Live(_)) if is_long => {
                    if let Some(Slot::Live(mut lease)) = self.row.pop_front() {
                        self.live = self.live.saturating_sub(1);
                        if !std::mem::replace(&mut lease.is_apart, true) {
                            self.deadlines.insert((lease.deadline, token));
                        }
                        self.strays.insert(token, lease);
                    }
                }
                _ => break,
            }
            self.first = self.first.saturating_add(1);
        }
        self.skip_untimed();
        while self.past.len() > PAST_LEN {
            self.past.pop_first();
        }
    }

    /// The live leases of a member, oldest first.
    pub(super) fn of(&self, holder: HolderId) -> impl Iterator<Item = (Token, &Event)> {
        let all = self.iter().filter(move |(_, lease)| lease.holder == holder);
        all.map(|(token, lease)| (token, &lease.event))
    }

    /// The live leases.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &Lease)> {
        let strays = self.strays.iter().map(|(&token, lease)| (token, lease));
        let row = (self.first..).zip(&self.row).filter_map(|(id, slot)| match slot {
            Slot::Live(lease) => Some((Token { epoch: self.epoch, lease: LeaseId(id) }, lease)),
            Slot::Ended(_) => None,
        });
        strays.chain(row)
    }

    /// Of the row, of the strays, of the past.
    #[cfg(test)]
    pub(super) fn lengths(&self) -> (usize, usize, usize) {
        (self.row.len(), self.strays.len(), self.past.len())
    }

    /// The number that the next lease gets.
    fn next(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.row.len()).unwrap_or(u64::MAX))
    }

    /// The place in the row; beyond its end for leases that were not given yet.
    fn index(&self, token: Token) -> Option<usize> {
        let is_own = token.epoch == self.epoch;
        let index = token.lease.0.checked_sub(self.first).filter(|_| is_own)?;
        Some(usize::try_from(index).unwrap_or(usize::MAX))
    }

    fn remember(&mut self, token: Token, end: End) {
        if let Some((first, past)) = self.past.range_mut(..token).next_back()
            && first.epoch == token.epoch
            && past.last.0.checked_add(1) == Some(token.lease.0)
            && past.end == end
        {
            past.last = token.lease;
        } else {
            self.past.insert(token, Past { last: token.lease, end });
        }
    }

    fn first_timed(&self) -> Option<Timestamp> {
        let index = usize::try_from(self.timed_from.checked_sub(self.first)?).ok()?;
        match self.row.get(index) {
            Some(Slot::Live(lease)) if !lease.is_apart => Some(lease.deadline),
            _ => None,
        }
    }

    fn skip_untimed(&mut self) {
        self.timed_from = self.timed_from.max(self.first);
        while self.first_timed().is_none() && self.timed_from < self.next() {
            self.timed_from += 1;
        }
    }
}
