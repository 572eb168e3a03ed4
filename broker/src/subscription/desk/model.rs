//! Random actions against a plain oracle: what each event is, by the rules, after each step.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::subscription::Failure;

const END: u64 = 60;
const EVENTS_MAX: usize = 16;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const SECOND: Duration = Duration::from_secs(1);

/// What an event is.
#[derive(Clone, Debug, PartialEq)]
enum Status {
    Waiting,
    Lent(Token),
    /// Failed; the change that says so, while it is not committed.
    Failed {
        pending: Option<ChangeNo>,
        due: (Timestamp, Timestamp),
    },
    /// In that change, as a dead letter or settled.
    Settling(ChangeNo, Option<Cause>),
    Settled,
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Known {
    status: Status,
    is_offered: bool,
    /// By the present desk.
    was_lent: bool,
    /// The newest lease that is known to be over.
    void: Token,
    attempts: u32,
    first_failure: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    Acked(ChangeNo),
    Nacked(ChangeNo),
    Rejected(ChangeNo),
    Expired,
    Fenced,
    /// Settled, and told to an earlier desk.
    Before,
}

#[derive(Clone, Debug)]
struct Lent {
    offset: u64,
    name: &'static str,
    deadline: Option<Timestamp>,
}

/// A lease that outlived its desk: event, which delivery, and the last desk that knew of it.
#[derive(Clone, Copy, Debug)]
struct Orphan {
    token: Token,
    offset: u64,
    attempt: u32,
    last: u64,
}

/// The desk, and what it must be.
struct Model {
    policy: Policy,
    desk: Desk,
    epoch: u64,
    /// The last epoch before that lent.
    previous: u64,
    is_announced: bool,
    now: Timestamp,
    events: BTreeMap<u64, Known>,
    lent: BTreeMap<Token, Lent>,
    ended: BTreeMap<Token, Ended>,
    attached: BTreeMap<u64, &'static str>,
    gone: BTreeMap<&'static str, Timestamp>,
    /// Attached, and their leases need it not.
    lingering: BTreeSet<&'static str>,
    active: Option<&'static str>,
    ids: u64,
    changes: u64,
    flight: Option<Change>,
    /// Committed, with their dead letters.
    parked: BTreeMap<Offset, Parked>,
    dead: BTreeSet<u64>,
    /// Handed on, and the change that says so.
    handed_on: BTreeMap<u64, ChangeNo>,
    /// Leases of earlier desks that members still hold.
    orphans: Vec<Orphan>,
    /// By event, over all desks: its last lease.
    newest: BTreeMap<u64, Token>,
}

fn key(offset: u64) -> u64 {
    offset * 7 % 4
}

fn is_wanted(offset: u64) -> bool {
    offset % 9 != 8
}

fn expires(offset: u64) -> Option<Timestamp> {
    (offset % 11 == 5).then_some(Timestamp::from_micros(30_000_000 + offset))
}

impl Model {
    fn new(policy: Policy) -> Self {
        let settled = OffsetSet::default();
        let epochs = (Epoch(0), Epoch(1));
        let desk = Desk::open(policy.clone(), epochs, Offset(0), settled, BTreeMap::new(), 1);
        let fresh = |offset| {
            let (status, first_failure) = (Status::Waiting, None);
            let (is_offered, was_lent, void) = (false, false, Token::default());
            (offset, Known { status, is_offered, was_lent, void, attempts: 0, first_failure })
        };
        Self {
            policy,
            desk,
            epoch: 1,
            previous: 0,
            is_announced: false,
            now: Timestamp::from_micros(10_000_000),
            events: (0..END).map(fresh).collect(),
            lent: BTreeMap::new(),
            ended: BTreeMap::new(),
            attached: BTreeMap::new(),
            gone: BTreeMap::new(),
            lingering: BTreeSet::new(),
            active: None,
            ids: 0,
            changes: 0,
            flight: None,
            parked: BTreeMap::new(),
            dead: BTreeSet::new(),
            handed_on: BTreeMap::new(),
            orphans: Vec::new(),
            newest: BTreeMap::new(),
        }
    }

    fn has_keys(&self) -> bool {
        self.policy.mode == Mode::KeyShared
    }

    fn draft(&self) -> ChangeNo {
        ChangeNo(self.changes + 1)
    }

    fn known(&mut self, offset: u64) -> &mut Known {
        self.events.get_mut(&offset).unwrap()
    }

    fn is_too_old(&self, known: &Known) -> bool {
        let (Some(first), Some(age)) = (known.first_failure, self.policy.age_max) else {
            return false;
        };
        first.saturating_add(age) <= self.now
    }

    /// The oldest offered event of its key that is not settled by a committed change.
    fn is_head(&self, offset: u64) -> bool {
        !self.has_keys()
            || self.events.range(..offset).all(|(&other, known)| {
                key(other) != key(offset) || !known.is_offered || known.status == Status::Settled
            })
    }

    fn behind(&self, offset: u64) -> usize {
        let same = |other: u64, known: &Known| {
            other != offset
                && key(other) == key(offset)
                && known.is_offered
                && known.status != Status::Settled
        };
        self.events.iter().filter(|&(&other, known)| same(other, known)).count()
    }

    fn is_overlong(&self, offset: u64) -> bool {
        self.has_keys()
            && self.events[&offset].is_offered
            && self.is_head(offset)
            && self.behind(offset) > self.policy.hold_max as usize
    }

    fn fail(&mut self, offset: u64, is_counted: bool, delay: Option<Duration>) {
        let (now, policy, draft) = (self.now, self.policy.clone(), self.draft());
        let known = self.known(offset);
        known.attempts += u32::from(is_counted);
        if is_counted || delay.is_some() {
            known.first_failure.get_or_insert(now);
        }
        let (attempts, first) = (known.attempts, known.first_failure);
        let is_last = is_counted && policy.attempts_max.is_some_and(|max| attempts >= max.get());
        let too_old = first.zip(policy.age_max).map(|(first, age)| first.saturating_add(age));
        let cap = |due: Timestamp| too_old.map_or(due, |too_old| due.min(too_old));
        let status = if is_last {
            Status::Settling(draft, Some(Cause::Attempts))
        } else if too_old.is_some_and(|too_old| too_old <= now) {
            Status::Settling(draft, Some(Cause::TooOld))
        } else if !is_counted && delay.is_none() {
            self.handed_on.insert(offset, draft);
            Status::Failed { pending: Some(draft), due: (now, now) }
        } else if self.is_overlong(offset) {
            Status::Settling(draft, Some(Cause::Held))
        } else {
            let bound = random::bound(&policy.backoff, attempts);
            let due = (now.saturating_add(delay.unwrap_or_default()), delay.unwrap_or(bound));
            let due = (cap(due.0), cap(now.saturating_add(due.1)));
            Status::Failed { pending: Some(draft), due }
        };
        self.known(offset).status = status;
    }

    fn end(&mut self, token: Token, ended: Ended) -> u64 {
        self.ended.insert(token, ended);
        let offset = self.lent.remove(&token).unwrap().offset;
        let known = self.known(offset);
        known.void = known.void.max(token);
        offset
    }

    fn leases_of(&self, name: &str) -> Vec<Token> {
        let own = self.lent.iter().filter(|(_, lent)| lent.name == name);
        own.map(|(&token, _)| token).collect()
    }

    fn is_attached(&self, name: &str) -> bool {
        self.attached.values().any(|&own| own == name)
    }

    /// What time does; the rules say that each call sees it first.
    fn pass_time(&mut self) {
        let over = |deadline: Option<Timestamp>, now| deadline.is_some_and(|end| end <= now);
        let all: Vec<Token> = self
            .lent
            .iter()
            .filter(|(_, lent)| over(lent.deadline, self.now))
            .map(|(&token, _)| token)
            .collect();
        for token in all {
            let offset = self.end(token, Ended::Expired);
            self.fail(offset, true, None);
        }
        let now = self.now;
        let gone = self.gone.clone();
        for name in NAMES.into_iter().filter(|name| over(gone.get(name).copied(), now)) {
            self.end_all(name, Ended::Expired, self.policy.counts_detach);
            self.gone.remove(name);
        }
        self.elect();
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        self.desk.tick(self.now);
        self.pass_time();
    }

    fn end_all(&mut self, name: &str, ended: Ended, is_counted: bool) {
        for token in self.leases_of(name) {
            let offset = self.end(token, ended);
            self.fail(offset, is_counted, None);
        }
    }

    fn elect(&mut self) {
        let idle: Vec<_> =
            self.gone.keys().copied().filter(|name| self.leases_of(name).is_empty()).collect();
        for name in idle {
            self.gone.remove(name);
        }
        if !self.active.is_some_and(|name| self.is_attached(name) || self.gone.contains_key(name)) {
            self.active = self.attached.last_key_value().map(|(_, &name)| name);
        }
    }

    fn may_take(&self, id: u64) -> Option<&'static str> {
        let name = self.attached.get(&id).copied()?;
        (self.policy.mode != Mode::Exclusive || self.active == Some(name)).then_some(name)
    }

    /// The member that gets everything, if one is served at a time.
    fn served(&self) -> Option<u64> {
        let seed = self.policy.sole.filter(|_| self.policy.mode != Mode::Exclusive)?;
        let ranked = self.attached.iter().map(|(&id, name)| (rank(seed, name), id));
        ranked.max().map(|(_, id)| id)
    }

    fn may_be_served(&self, id: u64) -> Option<&'static str> {
        self.may_take(id).filter(|_| self.served().is_none_or(|served| served == id))
    }

    fn attach(&mut self, name: &'static str) {
        self.ids += 1;
        self.desk.attach(MemberId(self.ids), name, self.now);
        self.pass_time();
        self.attached.retain(|_, own| *own != name);
        self.gone.remove(name);
        self.lingering.remove(name);
        self.attached.insert(self.ids, name);
        if self.policy.mode == Mode::Exclusive {
            if let Some(old) = self.active.replace(name).filter(|&old| old != name) {
                let is_counted = self.policy.counts_detach && !self.is_attached(old);
                self.end_all(old, Ended::Fenced, is_counted);
            }
            self.elect();
        }
    }

    fn linger(&mut self, id: u64) {
        self.desk.linger(MemberId(id));
        if self.policy.mode != Mode::Exclusive && self.policy.lease.is_some() {
            self.lingering.extend(self.attached.get(&id));
        }
    }

    fn detach(&mut self, id: u64) {
        self.desk.detach(MemberId(id), self.now);
        self.pass_time();
        if let Some(name) = self.attached.remove(&id).filter(|name| !self.lingering.contains(name))
        {
            self.gone.insert(name, self.now.saturating_add(self.policy.grace));
        }
        self.elect();
    }

    /// Reads on, as far as there is room.
    fn read(&mut self, count: u64) {
        for _ in 0..count {
            let offset = self.desk.reads_from().get();
            if offset >= END || self.desk.room().events == 0 {
                return;
            }
            let known = self.known(offset);
            assert!(!known.is_offered && known.status != Status::Settled, "{offset} again");
            if !is_wanted(offset) {
                self.desk.pass(OffsetRange::new(Offset(offset), Offset(offset)).unwrap());
                let status = self.known(offset).status.clone();
                if let Status::Lent(token) = status {
                    self.end(token, Ended::Expired);
                }
                self.known(offset).status = Status::Settling(self.draft(), None);
                self.elect();
                continue;
            }
            let expires = expires(offset);
            self.desk.offer(Offered {
                offset: Offset(offset),
                key: key(offset),
                bytes: 1,
                expires,
            });
            self.known(offset).is_offered = true;
            if let Status::Lent(token) = self.events[&offset].status
                && !self.is_head(offset)
            {
                self.end(token, Ended::Fenced);
                self.known(offset).status = Status::Waiting;
                self.elect();
            }
            self.check();
        }
    }

    fn may_be_lent(&self, offset: u64) -> bool {
        let known = &self.events[&offset];
        let is_free = match &known.status {
            Status::Waiting => true,
            // The exact time is checked when the change shows it.
            Status::Failed { pending: None, due } => due.1 <= self.now,
            _ => false,
        };
        let is_expired = expires(offset).is_some_and(|end| end <= self.now);
        is_free
            && known.is_offered
            && self.is_head(offset)
            && !is_expired
            && !self.is_too_old(known)
    }

    fn take(&mut self, id: u64, events: u64) {
        let mut grants = Vec::new();
        self.desk.take(MemberId(id), events, u64::MAX, self.now, &mut grants);
        self.pass_time();
        let may_take = self.may_be_served(id);
        let free = (0..END).filter(|&offset| self.may_be_lent(offset)).count() as u64;
        // In order: what was handed on comes first.
        let is_open = |(offset, no): (&u64, &ChangeNo)| {
            let status = &self.events[offset].status;
            matches!(status, Status::Failed { pending: Some(own), .. } if own == no)
        };
        let waits = self.policy.mode == Mode::Exclusive && self.handed_on.iter().any(is_open);
        let lends = self.is_announced && may_take.is_some() && !waits;
        let expected = if lends { free.min(events) } else { 0 };
        assert_eq!(grants.len() as u64, expected, "{grants:?}");
        for grant in grants {
            let offset = grant.offset.get();
            assert!(self.may_be_lent(offset), "{grant:?} {:?}", self.events[&offset]);
            assert_eq!(grant.attempt, self.events[&offset].attempts + 1);
            let token = Token { epoch: Epoch(self.epoch), lease: grant.lease };
            let newest = self.lent.keys().chain(self.ended.keys()).max();
            assert!(newest.is_none_or(|newest| *newest < token));
            self.newest.insert(offset, token);
            self.lend(token, offset, may_take.unwrap());
        }
    }

    fn lend(&mut self, token: Token, offset: u64, name: &'static str) {
        let deadline = self.policy.lease.map(|lease| self.now.saturating_add(lease));
        self.lent.insert(token, Lent { offset, name, deadline });
        let known = self.known(offset);
        known.status = Status::Lent(token);
        known.was_lent = true;
    }

    fn announce(&mut self) {
        self.is_announced = true;
        self.desk.announced();
    }

    /// A member tells what it held; what is `forged` was never lent so.
    fn adopt(&mut self, id: u64, orphan: Orphan, is_forged: bool) {
        let Orphan { token, offset, attempt, last } = orphan;
        let old = Old { token, offset: Offset(offset), attempt, last: Epoch(last) };
        let is_adopted = self.desk.adopt(MemberId(id), old, self.now);
        self.pass_time();
        self.observe();
        if let Some(lent) = self.lent.get(&token) {
            let is_own = self.may_take(id) == Some(lent.name) && lent.offset == offset;
            assert_eq!(is_adopted, is_own, "{token:?} is lent");
            return;
        }
        let known = &self.events[&offset];
        if known.status == Status::Settled
            && token.epoch.get() < self.epoch
            && self.may_take(id).is_some()
            && !self.ended.contains_key(&token)
        {
            assert!(!is_adopted);
            self.ended.insert(token, Ended::Before);
            return;
        }
        let is_free =
            matches!(&known.status, Status::Waiting | Status::Failed { pending: None, .. });
        let is_new = !self.ended.contains_key(&token);
        let is_new = is_new && (self.previous..self.epoch).contains(&last);
        let is_head = !known.is_offered || self.is_head(offset);
        let is_free = is_free && !known.was_lent && known.void < token;
        let fits = known.attempts + 1 == attempt && is_free && is_head && is_new;
        let name = self.may_take(id).filter(|_| token.epoch.get() < self.epoch && fits);
        assert_eq!(is_adopted, name.is_some(), "{token:?} {offset} {attempt} {known:?}");
        if let Some(name) = name {
            assert!(is_forged || self.newest.get(&offset) == Some(&token), "{token:?} is stale");
            self.lend(token, offset, name);
        }
    }

    fn settle(&mut self, name: &'static str, epoch: u64, first: u64, last: u64, act: &Act) {
        let mut verdicts = Vec::new();
        let leases = (LeaseId(first), LeaseId(last));
        let settle =
            Settle { member: name, epoch: Epoch(epoch), first: leases.0, last: leases.1, act };
        self.desk.settle(&settle, self.now, &mut verdicts);
        self.pass_time();
        let mut next = Some(first).filter(|&first| first <= last);
        for (from, until, verdict) in verdicts {
            assert_eq!(Some(from.0), next);
            assert!(from <= until && until.0 <= last);
            next = until.0.checked_add(1).filter(|&next| next <= last);
            for lease in from.0..=until.0.min(from.0.saturating_add(100)) {
                let token = Token { epoch: Epoch(epoch), lease: LeaseId(lease) };
                assert_eq!(verdict, self.verdict(token, name, act), "{token:?} {act:?}");
            }
        }
        assert_eq!(next, None);
        self.elect();
    }

    fn verdict(&mut self, token: Token, name: &str, act: &Act) -> Verdict {
        let draft = self.draft();
        if let Some(lent) = self.lent.get(&token).cloned() {
            if lent.name != name {
                return Verdict::Fenced;
            }
            return self.act(token, &lent, act);
        }
        let done = |no| {
            let flight = self.flight.as_ref().is_some_and(|change| change.no == no);
            if flight || no == draft { Verdict::Pending(no) } else { Verdict::Done }
        };
        match (self.ended.get(&token), act) {
            (None, _) => Verdict::Unknown,
            (Some(&Ended::Acked(no)), Act::Ack)
            | (Some(&Ended::Nacked(no)), Act::Nack { .. })
            | (Some(&Ended::Rejected(no)), Act::Reject { .. }) => done(no),
            (Some(Ended::Fenced), _) => Verdict::Fenced,
            (Some(Ended::Before), Act::Ack | Act::Reject { .. }) => Verdict::Before,
            _ => Verdict::Expired,
        }
    }

    fn act(&mut self, token: Token, lent: &Lent, act: &Act) -> Verdict {
        let (draft, offset) = (self.draft(), lent.offset);
        match act {
            Act::Ack => {
                self.end(token, Ended::Acked(draft));
                self.known(offset).status = Status::Settling(draft, None);
            }
            Act::Nack { delay, counted, .. } => {
                self.end(token, Ended::Nacked(draft));
                self.fail(offset, *counted, *delay);
            }
            Act::Reject { .. } => {
                self.end(token, Ended::Rejected(draft));
                let now = self.now;
                let known = self.known(offset);
                known.attempts += 1;
                known.first_failure.get_or_insert(now);
                known.status = Status::Settling(draft, Some(Cause::Rejected));
            }
            Act::Extend { by } => {
                if let (Some(old), Some(by)) = (lent.deadline, by.or(self.policy.lease)) {
                    let deadline = Some(old.max(self.now.saturating_add(by)));
                    self.lent.get_mut(&token).unwrap().deadline = deadline;
                }
                return Verdict::Extended;
            }
        }
        Verdict::Pending(draft)
    }

    fn replicate(&mut self) {
        self.observe();
        let is_busy = self.flight.is_some();
        let Some(change) = self.desk.next_change() else {
            let draft = self.draft();
            let is_in = |known: &Known| match known.status {
                Status::Settling(no, _) => no == draft,
                Status::Failed { pending, .. } => pending == Some(draft),
                _ => false,
            };
            assert!(is_busy || !self.events.values().any(is_in), "a change is missing");
            return;
        };
        assert!(!is_busy, "one at a time");
        let no = self.draft();
        assert_eq!(change.no, no);
        let settled: OffsetSet = change.settled.iter().copied().collect();
        let dead: BTreeMap<_, _> =
            change.dead.iter().map(|letter| (letter.offset.get(), letter)).collect();
        let parked: BTreeMap<_, _> = change.parked.iter().cloned().collect();
        assert_eq!(dead.len(), change.dead.len(), "twice");
        for (&offset, known) in &mut self.events {
            let (is_settled, letter) = (settled.contains(Offset(offset)), dead.get(&offset));
            let entry = parked.get(&Offset(offset));
            match &mut known.status {
                Status::Settling(own, cause) if *own == no => {
                    assert_eq!((is_settled, entry), (cause.is_none(), None), "{offset}");
                    assert_eq!(letter.map(|letter| letter.cause), *cause, "{offset}");
                    if let Some(letter) = letter {
                        let first = known.first_failure.unwrap();
                        assert_eq!(
                            (letter.attempts, letter.first_failure),
                            (known.attempts, first)
                        );
                    }
                }
                Status::Failed { pending, due } if *pending == Some(no) => {
                    assert!(!is_settled && letter.is_none(), "{offset}");
                    let entry = entry.unwrap();
                    assert_eq!(entry.attempts, known.attempts);
                    assert_eq!(entry.ages_from(), known.first_failure);
                    assert_eq!(entry.void, known.void);
                    assert!(due.0 <= entry.due && entry.due <= due.1, "{entry:?} {due:?}");
                    *due = (entry.due, entry.due);
                }
                _ => assert!(!is_settled && letter.is_none() && entry.is_none(), "{offset}"),
            }
        }
        self.changes += 1;
        self.flight = Some(change);
    }

    fn commit(&mut self) {
        let Some(change) = self.flight.take() else {
            return;
        };
        self.desk.committed(change.no);
        let no = change.no;
        self.handed_on.retain(|_, own| *own != no);
        self.parked.extend(change.parked);
        for (&offset, known) in &mut self.events {
            match &mut known.status {
                Status::Settling(own, cause) if *own == no => {
                    if cause.is_some() {
                        assert!(self.dead.insert(offset), "a dead letter twice");
                    }
                    known.status = Status::Settled;
                    self.parked.remove(&Offset(offset));
                }
                Status::Failed { pending, .. } if *pending == Some(no) => *pending = None,
                _ => {}
            }
        }
    }

    /// The leader is gone; the next one knows what was committed.
    fn crash(&mut self) {
        let mut orphans: Vec<_> = self
            .lent
            .iter()
            .map(|(&token, lent)| {
                let attempt = self.events[&lent.offset].attempts + 1;
                Orphan { token, offset: lent.offset, attempt, last: self.epoch }
            })
            .collect();
        // Some members are late by more than one leader.
        orphans.extend(self.orphans.drain(..).take(2));
        self.orphans = orphans;
        if self.is_announced {
            self.previous = self.epoch;
        }
        self.is_announced = false;
        self.epoch += 1;
        (self.changes, self.flight, self.active) = (0, None, None);
        self.handed_on.clear();
        self.lent.clear();
        self.ended.clear();
        self.attached.clear();
        self.gone.clear();
        self.lingering.clear();
        let mut settled = OffsetSet::default();
        for (&offset, known) in &mut self.events {
            if known.status == Status::Settled {
                settled.insert(OffsetRange::new(Offset(offset), Offset(offset)).unwrap());
                continue;
            }
            let parked = self.parked.get(&Offset(offset));
            (known.is_offered, known.was_lent) = (false, false);
            known.attempts = parked.map_or(0, |parked| parked.attempts);
            known.first_failure = parked.and_then(Parked::ages_from);
            known.void = parked.map(|parked| parked.void).unwrap_or_default();
            known.status = parked.map_or(Status::Waiting, |parked| Status::Failed {
                pending: None,
                due: (parked.due, parked.due),
            });
        }
        let (policy, parked) = (self.policy.clone(), self.parked.clone());
        let epochs = (Epoch(self.previous), Epoch(self.epoch));
        self.desk = Desk::open(policy, epochs, Offset(0), settled, parked, self.epoch);
        // A new desk has no time before it is told.
        self.desk.tick(self.now);
    }

    /// Where the desk keeps each event; never in two places.
    fn places(&self) -> BTreeMap<u64, &'static str> {
        let mut places = BTreeMap::new();
        let ready = self.desk.ready.iter().map(|event| (event, "ready"));
        let behind = self.desk.keys.iter().map(|event| (event, "behind"));
        let retries = self.desk.retries.iter().map(|(event, _)| (event, "retries"));
        let lent = self.desk.leases.iter().map(|(_, lease)| (&lease.event, "lent"));
        for (event, place) in ready.chain(behind).chain(retries).chain(lent) {
            let before = places.insert(event.offset.get(), place);
            assert_eq!(before, None, "{} is in two places", event.offset);
        }
        places
    }

    /// Learns what the desk decided by itself, and checks that it was right.
    fn observe(&mut self) {
        let (places, draft) = (self.places(), self.draft());
        for offset in 0..END {
            let place = places.get(&offset).copied();
            let known = self.events[&offset].clone();
            let is_expired = expires(offset).is_some_and(|end| end <= self.now);
            let status = match (&known.status, place) {
                (Status::Waiting, None) if known.is_offered && is_expired => {
                    Status::Settling(draft, None)
                }
                (Status::Waiting, None) if known.is_offered => {
                    assert!(self.is_too_old(&known), "{offset} is lost");
                    Status::Settling(draft, Some(Cause::TooOld))
                }
                // What is due is no longer held.
                (Status::Failed { pending: None, due }, None)
                    if due.0 <= self.now && (is_expired || self.is_too_old(&known)) =>
                {
                    Status::Settling(draft, (!is_expired).then_some(Cause::TooOld))
                }
                (Status::Failed { .. }, None) => {
                    assert!(self.is_overlong(offset), "{offset} is lost");
                    Status::Settling(draft, Some(Cause::Held))
                }
                (Status::Failed { pending: None, due }, Some("ready")) => {
                    assert!(due.0 <= self.now, "{offset} is early");
                    Status::Waiting
                }
                _ => continue,
            };
            self.known(offset).status = status;
        }
    }

    /// The rules that hold after each step.
    fn check(&mut self) {
        self.observe();
        let places = self.places();
        let mut unsettled = 0;
        for (&offset, known) in &self.events {
            let place = places.get(&offset).copied();
            let is_right = match &known.status {
                Status::Settled | Status::Settling(..) => place.is_none(),
                Status::Lent(_) => place == Some("lent"),
                // What is due already waits for nobody's time.
                Status::Failed { due, .. } => {
                    place == Some("retries") && (due.0 <= self.now || !self.is_overlong(offset))
                }
                Status::Waiting if !known.is_offered => matches!(place, None | Some("retries")),
                Status::Waiting => place.is_some_and(|place| place != "lent"),
            };
            assert!(is_right, "{offset} {known:?} {place:?}");
            let is_out = matches!(known.status, Status::Lent(_) | Status::Settling(..));
            if known.is_offered {
                assert!(self.is_head(offset) || !is_out, "{offset} is out beside its key");
                unsettled += usize::from(known.status != Status::Settled);
            }
        }
        assert_eq!(self.desk.unsettled(), (unsettled, unsettled as u64));
        let first = self.events.iter().find(|(_, known)| known.status != Status::Settled);
        assert_eq!(self.desk.watermark().get(), first.map_or(END, |(&offset, _)| offset));
        assert_eq!(self.desk.lent(), self.lent.len());
        for name in NAMES {
            let held: BTreeSet<_> =
                self.desk.held_by(name).map(|(token, offset, _)| (token, offset.get())).collect();
            let own = self.lent.iter().filter(|(_, lent)| lent.name == name);
            assert_eq!(held, own.map(|(&token, lent)| (token, lent.offset)).collect());
            assert_eq!(self.desk.lent_to(name), held.len() as u64);
        }
        let ends = self.lent.values().filter_map(|lent| lent.deadline);
        let timer = ends.chain(self.gone.values().copied()).min();
        assert!(timer.is_none_or(|timer| self.desk.next_timer().is_some_and(|own| own <= timer)));
    }

    /// A member that acks all it gets, while nobody else does anything.
    fn finish(&mut self) {
        for id in self.attached.keys().copied().collect::<Vec<_>>() {
            self.detach(id);
        }
        self.attach("a");
        for _ in 0..400 {
            if self.desk.watermark() == Offset(END) {
                return;
            }
            self.read(END);
            self.desk.wants(MemberId(self.ids), true);
            if self.desk.asks_to_lend() {
                self.announce();
            }
            self.take(self.ids, 5);
            for epoch in 1..=self.epoch {
                self.settle("a", epoch, 0, u64::MAX, &Act::Ack);
            }
            self.check();
            self.replicate();
            self.commit();
            self.check();
            self.wait(SECOND);
        }
        panic!("it sticks at {}", self.desk.watermark());
    }
}

#[derive(Clone, Debug)]
enum Action {
    Read(u64),
    Attach(usize),
    Detach(u64),
    Linger(u64),
    Want(u64, bool),
    Offer(u64),
    Announce,
    Take(u64, u64),
    Settle { name: usize, back: u64, epoch: u64, more: u64, act: Act },
    Wait(Duration),
    Replicate,
    Commit,
    Crash { name: usize, adopted: u8 },
    Adopt { id: u64, orphan: usize, is_forged: bool },
}

fn act() -> impl Strategy<Value = Act> {
    let failure = Failure::new("broken");
    let delay = prop::option::of((0_u64..6_000_000).prop_map(Duration::from_micros));
    let by = prop::option::of((0_u64..20_000_000).prop_map(Duration::from_micros));
    let nack = (delay, prop::bool::weighted(0.7)).prop_map({
        let failure = failure.clone();
        move |(delay, counted)| Act::Nack { delay, counted, failure: failure.clone() }
    });
    prop_oneof![
        4 => Just(Act::Ack),
        5 => nack,
        1 => Just(Act::Reject { failure }),
        2 => by.prop_map(|by| Act::Extend { by }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let settle = (0_usize..4, 0_u64..8, 0_u64..20, 0_u64..8, act())
        .prop_map(|(name, back, epoch, more, act)| Action::Settle { name, back, epoch, more, act });
    prop_oneof![
        4 => (1_u64..8).prop_map(Action::Read),
        3 => (0_usize..4).prop_map(Action::Attach),
        2 => (0_u64..4).prop_map(Action::Detach),
        2 => (0_u64..4).prop_map(Action::Linger),
        1 => (0_u64..4, any::<bool>()).prop_map(|(back, wants)| Action::Want(back, wants)),
        2 => (1_u64..4).prop_map(Action::Offer),
        3 => Just(Action::Announce),
        6 => (0_u64..4, 0_u64..5).prop_map(|(back, events)| Action::Take(back, events)),
        10 => settle,
        4 => (0_u64..9_000_000).prop_map(|micros| Action::Wait(Duration::from_micros(micros))),
        5 => Just(Action::Replicate),
        5 => Just(Action::Commit),
        2 => (0_usize..4, any::<u8>()).prop_map(|(name, adopted)| Action::Crash { name, adopted }),
        2 => (0_u64..4, 0_usize..6, prop::bool::weighted(0.2))
            .prop_map(|(id, orphan, is_forged)| Action::Adopt { id, orphan, is_forged }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let mode = prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared), Just(Mode::KeyShared)];
    let lease = prop::option::weighted(0.8, (1_u32..15).prop_map(|seconds| seconds * SECOND));
    let age_max = prop::option::weighted(0.4, (1_u32..15).prop_map(|seconds| seconds * SECOND));
    let attempts_max = prop::option::weighted(0.8, 1_u32..4);
    let sole = prop::option::weighted(0.3, any::<u64>());
    (mode, lease, 0_u32..8, attempts_max, age_max, 0_u32..5, any::<bool>(), sole).prop_map(
        |(mode, lease, grace, attempts_max, age_max, hold_max, counts_detach, sole)| Policy {
            mode,
            lease,
            grace: grace * SECOND,
            attempts_max: attempts_max.and_then(NonZeroU32::new),
            backoff: Backoff { base: SECOND, cap: 4 * SECOND },
            age_max,
            unsettled_max: UnsettledMax { events: EVENTS_MAX, bytes: 1_000 },
            hold_max,
            counts_detach,
            sole,
        },
    )
}

fn run(model: &mut Model, action: Action) {
    // The newest attachments are the likely ones.
    let id = |model: &Model, back: u64| model.ids.saturating_sub(back);
    match action {
        Action::Read(count) => model.read(count),
        Action::Attach(name) => model.attach(NAMES[name]),
        Action::Detach(back) => model.detach(id(model, back)),
        Action::Linger(back) => model.linger(id(model, back)),
        Action::Want(back, wants) => model.desk.wants(MemberId(id(model, back)), wants),
        Action::Announce => {
            if model.desk.asks_to_lend() {
                model.announce();
            }
        }
        Action::Offer(events) => {
            if let Some(member) = model.desk.next_offer() {
                assert!(model.is_announced);
                assert!(model.may_be_served(member.0).is_some(), "{member:?} gets nothing");
                model.take(member.0, events);
            }
        }
        Action::Take(back, events) => model.take(id(model, back), events),
        Action::Settle { name, back, epoch, more, act } => {
            let newest = model.lent.keys().chain(model.ended.keys()).max().copied();
            let oldest = model.lent.keys().next().copied();
            let first = newest.unwrap_or_default().lease.0.saturating_sub(back);
            let (epoch, first, last) = match epoch {
                0 => (model.epoch + 1, first, u64::MAX),
                1 => (model.epoch, first, u64::MAX),
                2..7 => {
                    let token = oldest.unwrap_or_default();
                    (token.epoch.get(), token.lease.0, token.lease.0 + more / 3)
                }
                _ => (model.epoch, first, (first + more).saturating_sub(1)),
            };
            let token = Token { epoch: Epoch(epoch), lease: LeaseId(first) };
            let holder = model.lent.get(&token).map(|lent| lent.name);
            let name = holder.filter(|_| name > 0).unwrap_or(NAMES[name]);
            model.settle(name, epoch, first, last, &act);
        }
        Action::Wait(time) => model.wait(time),
        Action::Replicate => model.replicate(),
        Action::Commit => model.commit(),
        Action::Crash { name, adopted } => {
            model.crash();
            model.attach(NAMES[name]);
            for (index, orphan) in (0..).zip(model.orphans.clone()) {
                if adopted.checked_shr(index).is_some_and(|bits| bits % 2 == 1) {
                    model.adopt(model.ids, orphan, false);
                }
            }
        }
        Action::Adopt { id: back, orphan, is_forged } => {
            if let Some(mut orphan) = model.orphans.get(orphan).copied() {
                match (is_forged, back) {
                    (true, 0) => orphan.offset = (orphan.offset + 3) % END,
                    (true, 1) => orphan.last = orphan.last.saturating_sub(1),
                    (true, 2) => orphan.last = model.epoch,
                    (true, _) => orphan.attempt += 1,
                    (false, _) => {}
                }
                model.adopt(id(model, back), orphan, is_forged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_event_is_lost_lent_twice_or_stuck(
        policy in policy(),
        actions in vec(action(), 0..150),
    ) {
        let mut model = Model::new(policy);
        for action in actions {
            run(&mut model, action);
            model.check();
        }
        model.finish();
    }
}
