//! Members come and go, and get events.

use weft_proto::{Epoch, Offset, Timestamp};

use super::event::{Event, NEVER};
use super::leases::{End, Fate};
use super::{Cause, Desk, HolderId, LeaseId, MemberId, Mode, RANGES_LEN, Token, policy};
use crate::planted::{self, Bug};

/// Leases of earlier desks, beside parked events, that are taken on before their event is offered;
/// enough room for others remains.
const EARLY_MAX: usize = RANGES_LEN / 2;

/// An event that is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lease, of this desk's epoch.
    pub lease: LeaseId,
    /// The event.
    pub offset: Offset,
    /// Its size.
    pub bytes: u32,
    /// Which delivery this is, from 1.
    pub attempt: u32,
}

/// A lease that a member has from an earlier desk, as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Names it.
    pub token: Token,
    /// Its event.
    pub offset: Offset,
    /// Which delivery it was, from 1.
    pub attempt: u32,
    /// The last desk that gave it or took it on.
    pub last: Epoch,
}

impl Desk {
    /// A member attaches. An older attachment of the same name ends and leaves it its leases. In
    /// mode `Exclusive` it takes over, unless one with a higher number is attached: the leases of another
    /// name end, as failed deliveries only if that one was gone (and the policy counts this).
    pub fn attach(&mut self, id: MemberId, name: &str, now: Timestamp) {
        self.tick(now);
        if self.members.holder(id).is_some() {
            return;
        }
        let rank = self.policy.ranks_by().map_or(0, |seed| policy::rank(seed, name));
        let holder = self.members.attach(id, name, rank);
        if self.policy.mode != Mode::Exclusive || self.members.newest() != Some(holder) {
            return;
        }
        if let Some(old) = self.active.replace(holder).filter(|&old| old != holder) {
            let is_counted = self.policy.counts_detach && !self.members.is_attached(old);
            self.end_all(old, End::Fenced, is_counted);
        }
    }

    /// The leases of an attached member outlive this attachment: they end by their own time, and not
    /// because it is gone. So does somebody take part who comes back for each act. Nothing changes in
    /// mode `Exclusive`, or where leases have no time.
    pub fn linger(&mut self, id: MemberId) {
        if self.policy.mode != Mode::Exclusive && self.policy.lease.is_some() {
            self.members.linger(id);
        }
    }

    /// An attachment ended. Its leases stay for the policy's grace, or their own time if that is
    /// shorter; then they end. In mode `Exclusive` the newest member left takes over then.
    pub fn detach(&mut self, id: MemberId, now: Timestamp) {
        self.tick(now);
        self.members.detach(id, self.now.saturating_add(self.policy.grace));
        self.elect();
    }

    /// The member that gets all events, where one is served at a time. Others keep what they hold.
    pub fn serves(&self) -> Option<MemberId> {
        self.policy.ranks_by().and_then(|_| self.members.first())
    }

    /// Whether the member has credit left.
    pub fn wants(&mut self, id: MemberId, wants: bool) {
        self.members.want(id, wants);
    }

    /// Whether it would lend, but that nobody knows of it yet: the caller commits that this epoch
    /// lends, and tells it.
    pub fn asks_to_lend(&mut self) -> bool {
        !self.is_announced && self.choose().is_some()
    }

    /// It is committed that this epoch lends: no desk after this one takes on what only an earlier one
    /// knew. A desk that never gets there may be passed over.
    pub fn announced(&mut self) {
        self.is_announced = true;
    }

    /// A member that has credit and for which there is an event, in rotation. The caller lets it
    /// `take`, or says that it wants nothing: else it is named again.
    pub fn next_offer(&mut self) -> Option<MemberId> {
        if self.is_announced { self.choose() } else { None }
    }

    fn choose(&mut self) -> Option<MemberId> {
        if self.ready.is_empty() || !self.is_in_order() {
            return None;
        }
        if self.policy.ranks_by().is_some() && !planted::is(Bug::EverybodyServed) {
            return self.members.first().filter(|&first| self.members.wants(first));
        }
        match self.policy.mode {
            Mode::Exclusive if !planted::is(Bug::EverybodyServed) => {
                self.members.wanting(self.active?)
            }
            Mode::Exclusive | Mode::Shared | Mode::KeyShared => self.members.next_wanting(),
        }
    }

    /// Lends events to an attached member. The last may exceed the bytes; at least one is lent,
    /// if there is one and neither limit is zero.
    pub fn take(
        &mut self,
        id: MemberId,
        events_max: u64,
        bytes_max: u64,
        now: Timestamp,
        out: &mut Vec<Grant>,
    ) {
        self.tick(now);
        let Some(holder) = self.members.holder(id).filter(|&holder| self.may_take(holder)) else {
            return;
        };
        let is_served = self.serves().is_none_or(|served| served == id);
        if !(is_served || planted::is(Bug::EverybodyServed)) {
            return;
        }
        if !self.is_announced || !self.is_in_order() {
            return;
        }
        let deadline = self.deadline();
        let (mut events, mut bytes) = (0, bytes_max);
        while events < events_max
            && bytes > 0
            && let Some(event) = self.ready.pop()
        {
            let Some(mut event) = self.sift(event) else {
                continue;
            };
            event.was_lent = true;
            events += 1;
            bytes = bytes.saturating_sub(event.bytes.into());
            let (offset, size, attempt) = (event.offset, event.bytes, event.attempt());
            let lease = self.leases.lend(event, holder, deadline);
            out.push(Grant { lease, offset, bytes: size, attempt });
        }
        self.members.lend(holder, events);
    }

    /// The leases of the member of this name, oldest first: token, event, which delivery.
    pub fn held_by(&self, member: &str) -> impl Iterator<Item = (Token, Offset, u32)> {
        let holder = self.members.named(member);
        let all = holder.into_iter().flat_map(|holder| self.leases.of(holder));
        all.map(|(token, event)| (token, event.offset, event.attempt()))
    }

    /// Takes on a lease that a desk of an earlier epoch gave to the attached member, under its old
    /// token and for as long as a new one. True also if the member holds it here. False, and nothing
    /// changes, if the event is settled, was lent, or was given back since, or may have been: each desk
    /// knows what was lent by the one before it only from the members whose leases that one knew. Desks
    /// that lent nothing do not count.
    ///
    /// The event need not be offered yet, unless many are not; the caller makes sure that it exists.
    pub fn adopt(&mut self, id: MemberId, old: Old, now: Timestamp) -> bool {
        self.tick(now);
        let Old { token, offset, .. } = old;
        let holder = self.members.holder(id).filter(|&holder| self.may_take(holder));
        let Some(holder) = holder else { return false };
        match self.leases.look(token, token.lease).0 {
            Fate::Live(own) => {
                let lease = self.leases.get_mut(token);
                let is_same = lease.is_some_and(|lease| lease.event.offset == offset);
                return own == holder && is_same;
            }
            // By this lease, maybe: the leader that knew may have been lost before it answered.
            Fate::Unknown if token.epoch < self.epoch() && self.is_settled(offset) => {
                self.leases.settled_before(token);
                return false;
            }
            Fate::Unknown
                if token.epoch < self.epoch()
                    && (self.previous..self.epoch()).contains(&old.last) => {}
            Fate::Unknown | Fate::Ended(_) => return false,
        }
        let known = self.retries.remove_if(offset, |event| may_be_adopted(event, old));
        let Some(mut event) = known.or_else(|| self.claim(old)) else {
            return false;
        };
        event.was_lent = true;
        if !event.is_seen {
            self.claimed.insert(offset, token);
        }
        self.leases.adopt(token, event, holder, self.deadline());
        self.members.lend(holder, 1);
        true
    }

    fn is_settled(&self, offset: Offset) -> bool {
        offset < self.changes.watermark() || self.changes.settled().contains(offset)
    }

    /// An event that did not fail yet, offered or not.
    fn claim(&mut self, old: Old) -> Option<Event> {
        let offset = old.offset;
        if offset < self.next {
            return self.ready.remove_if(offset, |event| may_be_adopted(event, old));
        }
        let is_taken = self.settled_at(offset).is_some()
            || self.claimed.contains_key(&offset)
            || self.retries.contains(offset);
        let has_room = self.early().saturating_add(self.retries.len()) < EARLY_MAX;
        (!is_taken && has_room && old.attempt == 1).then(|| Event::unseen(offset, None))
    }

    /// Settles what nobody wants any more, and gives up what failed for too long.
    pub(super) fn sift(&mut self, event: Event) -> Option<Event> {
        if event.is_expired(self.now) {
            self.expired = self.expired.saturating_add(1);
            self.finish(&event);
            return None;
        }
        let too_old = event.history.as_ref().and_then(|history| self.policy.too_old(history));
        if too_old.is_some_and(|too_old| too_old <= self.now) {
            self.bury(event, Cause::TooOld);
            return None;
        }
        Some(event)
    }

    /// Exclusive: when the active member is gone for good, the newest one takes over.
    pub(super) fn elect(&mut self) {
        if self.policy.mode == Mode::Exclusive
            && !self.active.is_some_and(|active| self.members.is_known(active))
        {
            self.active = self.members.newest();
        }
    }

    fn may_take(&self, holder: HolderId) -> bool {
        self.policy.mode != Mode::Exclusive
            || self.active == Some(holder)
            || planted::is(Bug::EverybodyServed)
    }

    /// Whether something may be lent now: in mode `Exclusive`, what the member before had comes first, as
    /// soon as it is committed that it comes again.
    fn is_in_order(&self) -> bool {
        self.policy.mode != Mode::Exclusive
            || !self.retries.hands_on()
            || planted::is(Bug::HandedOnLate)
    }

    /// When a lease ends that is given now.
    fn deadline(&self) -> Timestamp {
        self.policy.lease.map_or(NEVER, |lease| self.now.saturating_add(lease))
    }
}

/// Whether an older lease may still be the newest of the event.
fn may_be_adopted(event: &Event, old: Old) -> bool {
    let is_void = event.history.as_ref().is_some_and(|history| old.token <= history.void);
    !event.was_lent && !is_void && event.attempt() == old.attempt
}
