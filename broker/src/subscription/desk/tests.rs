//! One test for each rule about lending.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::subscription::Failure;

const EPOCH: Epoch = Epoch(3);
const SECOND: Duration = Duration::from_secs(1);

/// A desk with a clock, that tells its changes like a group that agrees at once.
struct World {
    desk: Desk,
    now: Timestamp,
    settled: OffsetSet,
    parked: BTreeMap<Offset, Parked>,
    dead: Vec<DeadLetter>,
}

fn policy(mode: Mode) -> Policy {
    Policy {
        mode,
        lease: Some(30 * SECOND),
        grace: 10 * SECOND,
        attempts_max: NonZeroU32::new(3),
        backoff: Backoff { base: SECOND, cap: 8 * SECOND },
        age_max: None,
        unsettled_max: UnsettledMax { events: 1_000, bytes: 1_000_000 },
        hold_max: 100,
        counts_detach: true,
        sole: None,
    }
}

impl World {
    fn new(policy: Policy) -> Self {
        let mut desk = Desk::open(
            policy,
            (Epoch(2), EPOCH),
            Offset(0),
            OffsetSet::default(),
            BTreeMap::new(),
            7,
        );
        desk.announced();
        let now = Timestamp::from_micros(1_000_000_000);
        let (settled, parked, dead) = Default::default();
        Self { desk, now, settled, parked, dead }
    }

    fn of(mode: Mode) -> Self {
        Self::new(policy(mode))
    }

    /// What the next leader does.
    fn reopen(&mut self, policy: Policy) {
        let before = self.desk.epoch();
        let epochs = (before, Epoch(before.get() + 1));
        let (settled, parked) = (self.settled.clone(), self.parked.clone());
        self.desk = Desk::open(policy, epochs, Offset(0), settled, parked, 8);
        self.desk.announced();
    }

    /// A member tells what it holds, which the desk before knew.
    fn adopt(&mut self, id: u64, token: Token, offset: Offset, attempt: u32) -> bool {
        let last = Epoch(self.desk.epoch().get() - 1);
        self.desk.adopt(MemberId(id), Old { token, offset, attempt, last }, self.now)
    }

    /// Offers events of these keys.
    fn offer(&mut self, keys: &[u64]) {
        for &key in keys {
            let offset = self.desk.reads_from();
            self.desk.offer(Offered { offset, key, bytes: 10, expires: None });
        }
    }

    fn attach(&mut self, id: u64, name: &str) {
        self.desk.attach(MemberId(id), name, self.now);
    }

    fn detach(&mut self, id: u64) {
        self.desk.detach(MemberId(id), self.now);
    }

    fn take(&mut self, id: u64, events: u64) -> Vec<Grant> {
        let mut grants = Vec::new();
        self.desk.take(MemberId(id), events, 1_000_000, self.now, &mut grants);
        grants
    }

    /// The offsets that a member gets.
    fn offsets(&mut self, id: u64, events: u64) -> Vec<u64> {
        self.take(id, events).iter().map(|grant| grant.offset.get()).collect()
    }

    fn settle_of(
        &mut self,
        member: &str,
        epoch: Epoch,
        leases: (u64, u64),
        act: &Act,
    ) -> Vec<(u64, u64, Verdict)> {
        let mut verdicts = Vec::new();
        let (first, last) = (LeaseId(leases.0), LeaseId(leases.1));
        let settle = Settle { member, epoch, first, last, act };
        self.desk.settle(&settle, self.now, &mut verdicts);
        verdicts.into_iter().map(|(first, last, verdict)| (first.0, last.0, verdict)).collect()
    }

    /// Settles one lease.
    fn settle(&mut self, member: &str, lease: u64, act: &Act) -> Verdict {
        let verdicts = self.settle_of(member, EPOCH, (lease, lease), act);
        assert_eq!(verdicts.len(), 1);
        verdicts[0].2
    }

    fn commit(&mut self) -> bool {
        let Some(change) = self.desk.next_change() else {
            return false;
        };
        for range in change.settled {
            self.settled.insert(range);
            self.parked.retain(|&offset, _| offset < range.first() || offset > range.last());
        }
        self.parked.extend(change.parked);
        for letter in change.dead {
            self.settled.insert(one(letter.offset));
            self.parked.remove(&letter.offset);
            self.dead.push(letter);
        }
        self.desk.committed(change.no);
        true
    }

    fn pass_time(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        self.desk.tick(self.now);
    }

    fn watermark(&self) -> u64 {
        self.desk.watermark().get()
    }
}

fn one(offset: Offset) -> OffsetRange {
    OffsetRange::new(offset, offset).unwrap()
}

fn range(first: u64, last: u64) -> OffsetRange {
    OffsetRange::new(Offset(first), Offset(last)).unwrap()
}

fn nack() -> Act {
    Act::Nack { delay: None, counted: true, failure: Failure::new("broken") }
}

fn nack_in(delay: Duration) -> Act {
    Act::Nack { delay: Some(delay), counted: true, failure: Failure::new("broken") }
}

fn return_it() -> Act {
    Act::Nack { delay: None, counted: false, failure: Failure::new("not now") }
}

fn reject() -> Act {
    Act::Reject { failure: Failure::new("nonsense") }
}

#[test]
fn whoever_asks_is_told_where_an_event_is() {
    let mut world = World::of(Mode::KeyShared);
    world.offer(&[1, 1, 2]);
    world.attach(1, "a");
    assert_eq!(world.offsets(1, 2), [0, 2]);
    let at = |world: &World, offset| world.desk.whereabouts(Offset(offset));
    let ends = Some(world.now.saturating_add(30 * SECOND));
    let lent = |attempt, ends| Whereabouts::Lent { member: "a".to_owned(), attempt, ends };

    assert_eq!(at(&world, 0), lent(1, ends));
    assert_eq!(at(&world, 1), Whereabouts::Queued, "behind its key");
    assert_eq!(at(&world, 3), Whereabouts::Unreached);
    world.settle("a", 2, &nack_in(60 * SECOND));
    assert_eq!(at(&world, 2), Whereabouts::Queued, "until its next try");
    while world.commit() {}
    assert_eq!(at(&world, 2), Whereabouts::Queued);
    world.pass_time(61 * SECOND);
    // The first lease is over by now, too.
    while world.commit() {}
    world.pass_time(9 * SECOND);
    let mut again = world.offsets(1, 3);
    again.sort_unstable();
    assert_eq!(again, [0, 2]);
    assert!(matches!(at(&world, 2), Whereabouts::Lent { attempt: 2, .. }));
}

#[test]
fn acked_event_is_settled_when_its_change_is_committed() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0, 0]);
    world.attach(1, "a");
    assert_eq!(world.offsets(1, 1), [0]);

    assert_eq!(world.settle("a", 1, &Act::Ack), Verdict::Pending(ChangeNo(1)));
    assert_eq!((world.watermark(), world.desk.unsettled()), (0, (2, 20)));
    let change = world.desk.next_change().unwrap();
    assert_eq!(change.settled, [range(0, 0)]);
    assert_eq!(world.desk.next_change(), None, "one at a time");
    world.desk.committed(ChangeNo(9));
    assert_eq!(world.watermark(), 0, "another change");
    world.desk.committed(change.no);

    assert_eq!((world.watermark(), world.desk.unsettled()), (1, (1, 10)));
}

#[test]
fn event_is_lent_to_one_member_at_a_time() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0, 0, 0]);
    world.attach(1, "a");
    world.attach(2, "b");

    assert_eq!(world.offsets(1, 2), [0, 1]);
    assert_eq!(world.offsets(2, 9), [2]);
    assert!(world.offsets(1, 9).is_empty());
    assert_eq!((world.desk.lent_to("a"), world.desk.lent_to("b"), world.desk.lent()), (2, 1, 3));
}

#[test]
fn wanting_members_take_turns() {
    let mut world = World::of(Mode::Shared);
    for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
        world.attach(id, name);
        world.desk.wants(MemberId(id), id != 2);
    }
    assert_eq!(world.desk.next_offer(), None, "nothing to lend");
    world.offer(&[0; 3]);

    let mut turns = Vec::new();
    while let Some(id) = world.desk.next_offer() {
        world.take(id.0, 1);
        turns.push(id.0);
    }
    assert_eq!(turns, [1, 3, 1]);
}

#[test]
fn bytes_are_exceeded_by_one_event() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0; 5]);
    world.attach(1, "a");
    let mut grants = Vec::new();

    world.desk.take(MemberId(1), 9, 11, world.now, &mut grants);
    assert_eq!(grants.len(), 2);
    world.desk.take(MemberId(1), 9, 1, world.now, &mut grants);
    assert_eq!(grants.len(), 3);
    world.desk.take(MemberId(1), 9, 0, world.now, &mut grants);
    world.desk.take(MemberId(1), 0, 9, world.now, &mut grants);
    world.desk.take(MemberId(7), 9, 9, world.now, &mut grants);
    assert_eq!(grants.len(), 3);
}

#[test]
fn room_ends_with_the_unsettled_events_and_comes_back_with_the_commit() {
    let mut world = World::new(Policy {
        unsettled_max: UnsettledMax { events: 3, bytes: 25 },
        ..policy(Mode::Shared)
    });
    assert_eq!(world.desk.room(), UnsettledMax { events: 3, bytes: 25 });
    world.offer(&[0; 2]);
    assert_eq!(world.desk.room(), UnsettledMax { events: 1, bytes: 5 });
    world.offer(&[0; 2]);
    assert_eq!(world.desk.room(), UnsettledMax { events: 0, bytes: 0 });
    world.attach(1, "a");

    assert_eq!(world.offsets(1, 9), [0, 1, 2, 3], "what was offered beyond is kept");
    world.settle_of("a", EPOCH, (1, 4), &Act::Ack);
    assert_eq!(world.desk.room(), UnsettledMax { events: 0, bytes: 0 });
    assert_eq!(world.desk.settling(), 4);
    world.commit();

    assert_eq!(world.desk.room(), UnsettledMax { events: 3, bytes: 25 });
}

#[test]
fn settled_event_takes_up_room_until_its_commit() {
    let unsettled_max = UnsettledMax { events: 2, bytes: 1_000 };
    let mut world = World::new(Policy { unsettled_max, ..policy(Mode::Shared) });
    world.offer(&[0; 2]);
    world.attach(1, "a");
    world.take(1, 1);

    world.settle("a", 1, &Act::Ack);
    assert_eq!(world.desk.room().events, 0);
    world.commit();

    assert_eq!(world.desk.room(), UnsettledMax { events: 1, bytes: 990 });
}

#[test]
fn unsettled_events_are_few_enough_for_a_cursor() {
    let unsettled_max = UnsettledMax { events: usize::MAX, bytes: u64::MAX };
    let world = World::new(Policy { unsettled_max, ..policy(Mode::Shared) });

    assert_eq!(world.desk.room().events, RANGES_LEN - 1);
}

#[test]
fn passed_events_are_settled_unseen() {
    let mut world = World::of(Mode::Shared);
    world.desk.pass(range(0, 4));
    world.offer(&[0]);
    world.desk.pass(range(6, 6));
    assert_eq!(world.desk.reads_from(), Offset(7));

    assert_eq!(world.watermark(), 0);
    world.commit();

    assert_eq!(world.watermark(), 5);
    assert!(world.desk.settled_at(Offset(6)).is_some());
    assert_eq!(world.desk.unsettled(), (1, 10));
}

#[test]
fn settled_and_known_events_are_ignored() {
    let settled = [range(0, 1), range(3, 4)].into_iter().collect();
    let mut desk =
        Desk::open(policy(Mode::Shared), (Epoch(2), EPOCH), Offset(0), settled, BTreeMap::new(), 7);
    assert_eq!((desk.watermark(), desk.reads_from()), (Offset(2), Offset(2)));

    for offset in [0, 2, 3, 2, 5, 1].map(Offset) {
        desk.offer(Offered { offset, key: 0, bytes: 1, expires: None });
    }
    assert_eq!((desk.waiting(), desk.unsettled(), desk.reads_from()), (2, (2, 2), Offset(6)));
}

#[test]
fn exclusive_lends_in_order_to_the_newest_member() {
    let mut world = World::of(Mode::Exclusive);
    world.offer(&[0; 5]);
    world.attach(1, "a");
    assert_eq!(world.offsets(1, 2), [0, 1]);

    world.attach(2, "b");
    world.desk.wants(MemberId(1), true);
    assert_eq!(world.desk.next_offer(), None);
    assert!(world.take(1, 9).is_empty());
    assert!(world.take(2, 9).is_empty(), "what comes first is not committed");
    world.commit();
    let grants = world.take(2, 3);

    let seen: Vec<_> = grants.iter().map(|grant| (grant.offset.0, grant.attempt)).collect();
    assert_eq!(seen, [(0, 1), (1, 1), (2, 1)], "given back uncounted: the old one was attached");
    assert_eq!(world.settle("a", 1, &Act::Ack), Verdict::Fenced);
    assert_eq!(world.settle("a", 3, &Act::Ack), Verdict::Fenced);
    assert!(!world.commit(), "nothing of this is replicated");
}

/// Members attach to a new leader in any order.
#[test]
fn exclusive_member_stays_the_newest_one_whoever_attaches_last() {
    let mut world = World::of(Mode::Exclusive);
    world.offer(&[0; 3]);
    world.attach(7, "new");
    world.attach(3, "old");
    world.desk.wants(MemberId(3), true);
    assert_eq!(world.desk.next_offer(), None);
    assert!(world.take(3, 9).is_empty());
    assert_eq!(world.offsets(7, 1), [0]);

    world.detach(7);
    world.pass_time(10 * SECOND);
    world.commit();
    world.pass_time(SECOND);
    assert_eq!(world.offsets(3, 9), [0, 1, 2], "the newest one that is left");
}

#[test]
fn exclusive_member_that_was_gone_failed() {
    for (counts_detach, attempt) in [(true, 2), (false, 1)] {
        let mut world = World::new(Policy { counts_detach, ..policy(Mode::Exclusive) });
        world.offer(&[0]);
        world.attach(1, "a");
        world.take(1, 1);
        world.detach(1);

        world.attach(2, "b");
        world.commit();
        world.pass_time(10 * SECOND);

        assert_eq!(world.take(2, 1)[0].attempt, attempt);
        assert_eq!(world.settle("a", 1, &Act::Ack), Verdict::Fenced);
    }
}

#[test]
fn exclusive_standby_waits_for_the_grace() {
    let mut world = World::of(Mode::Exclusive);
    world.offer(&[0, 0]);
    world.attach(1, "standby");
    world.attach(2, "active");
    world.take(2, 1);
    world.detach(2);

    assert!(world.take(1, 1).is_empty());
    world.pass_time(10 * SECOND);

    assert_eq!(world.offsets(1, 1), [1]);
}

#[test]
fn exclusive_standby_need_not_wait_for_a_member_without_leases() {
    let mut world = World::of(Mode::Exclusive);
    world.offer(&[0]);
    world.attach(1, "standby");
    world.attach(2, "active");
    world.detach(2);

    assert_eq!(world.offsets(1, 1), [0]);
}

#[test]
fn exclusive_failure_does_not_stop_later_events() {
    let mut world = World::new(Policy { lease: None, ..policy(Mode::Exclusive) });
    world.offer(&[0; 3]);
    world.attach(1, "a");
    assert_eq!(world.offsets(1, 1), [0]);
    world.settle("a", 1, &nack());
    world.commit();

    assert_eq!(world.offsets(1, 1), [1]);
    world.pass_time(10 * SECOND);
    assert_eq!(world.offsets(1, 2), [0, 2]);
    assert_eq!(world.desk.next_timer(), None, "leases without an end");
}

#[test]
fn sole_member_gets_everything_until_one_that_ranks_higher_is_there() {
    let seed = 7;
    let (low, high) = if rank(seed, "a") < rank(seed, "b") { ("a", "b") } else { ("b", "a") };
    let mut world = World::new(Policy { sole: Some(seed), ..policy(Mode::KeyShared) });
    world.offer(&[1, 2, 3, 4, 5]);
    assert_eq!(world.desk.serves(), None);
    world.attach(1, low);
    world.desk.wants(MemberId(1), true);
    assert_eq!(world.desk.next_offer(), Some(MemberId(1)));
    assert_eq!(world.offsets(1, 2), [0, 1]);

    world.attach(2, high);
    assert_eq!(world.desk.serves(), Some(MemberId(2)));
    // Without credit it gets nothing, and no other does in its place.
    assert_eq!(world.desk.next_offer(), None);
    assert_eq!(world.offsets(1, 2), [] as [u64; 0]);
    world.desk.wants(MemberId(2), true);
    assert_eq!(world.desk.next_offer(), Some(MemberId(2)));
    assert_eq!(world.offsets(2, 1), [2]);
    // What was lent before stays lent, and its key with it.
    assert!(matches!(world.settle(low, 1, &Act::Ack), Verdict::Pending(_)));

    world.detach(2);
    assert_eq!(world.desk.serves(), Some(MemberId(1)));
    assert_eq!(world.offsets(1, 9), [3, 4]);
}

#[test]
fn members_stay_with_the_leases_of_an_earlier_leader_though_another_is_served() {
    let seed = 7;
    let (low, high) = if rank(seed, "a") < rank(seed, "b") { ("a", "b") } else { ("b", "a") };
    let rules = Policy { sole: Some(seed), ..policy(Mode::Shared) };
    let mut world = World::new(rules.clone());
    world.offer(&[1, 2]);
    world.attach(1, low);
    let grants = world.take(1, 1);
    world.reopen(rules);
    world.attach(2, high);
    world.attach(3, low);

    let token = Token { epoch: EPOCH, lease: grants[0].lease };
    assert!(world.adopt(3, token, grants[0].offset, 1));
    assert_eq!(world.desk.serves(), Some(MemberId(2)));
}

#[test]
fn key_has_one_event_out_until_that_is_committed() {
    let mut world = World::of(Mode::KeyShared);
    world.offer(&[1, 1, 2, 1]);
    world.attach(1, "a");
    world.attach(2, "b");
    assert_eq!(world.offsets(1, 9), [0, 2]);

    world.settle("a", 1, &Act::Ack);
    let change = world.desk.next_change().unwrap();
    assert!(world.take(2, 9).is_empty(), "accepted is not committed");
    world.desk.committed(change.no);

    assert_eq!(world.offsets(2, 9), [1], "any free key goes to any member");
    assert_eq!(world.desk.waiting(), 1);
}

/// Pulsar #21199.
#[test]
fn stuck_key_shared_member_holds_up_its_keys_only() {
    let mut world = World::of(Mode::KeyShared);
    world.offer(&[1]);
    world.attach(1, "stuck");
    assert_eq!(world.offsets(1, 1), [0]);

    let mut seen = Vec::new();
    for round in 2..10 {
        world.offer(&[1, round, round]);
        world.attach(round, "other");
        while let Some(grant) = world.take(round, 1).first() {
            seen.push(grant.offset.get());
            world.settle("other", grant.lease.0, &Act::Ack);
            world.commit();
        }
        world.detach(round);
    }
    assert_eq!(seen.len(), 16);
    assert!(seen.iter().all(|offset| offset % 3 != 1 && *offset > 0));
    world.pass_time(60 * SECOND);
    world.commit();
    world.pass_time(60 * SECOND);
    world.attach(20, "other");

    assert_eq!(world.offsets(20, 9), [0], "then its lease ends");
}

#[test]
fn failed_key_is_held_until_its_event_is_settled() {
    let mut world = World::of(Mode::KeyShared);
    world.offer(&[1, 1, 2]);
    world.attach(1, "a");
    assert_eq!(world.offsets(1, 1), [0]);
    world.settle("a", 1, &nack());
    world.commit();

    assert_eq!(world.offsets(1, 9), [2]);
    world.pass_time(10 * SECOND);
    let grants = world.take(1, 9);
    assert_eq!(grants.len(), 1);
    assert_eq!((grants[0].offset, grants[0].attempt), (Offset(0), 2));
    world.settle("a", grants[0].lease.0, &reject());
    assert!(world.take(1, 9).is_empty());
    world.commit();

    assert_eq!(world.offsets(1, 9), [1]);
}

#[test]
fn held_key_with_too_many_events_behind_it_is_freed() {
    let mut world = World::new(Policy { hold_max: 2, ..policy(Mode::KeyShared) });
    world.attach(1, "a");
    world.offer(&[1, 1, 1, 1]);
    assert!(world.desk.next_change().is_none(), "nothing failed yet");
    world.take(1, 1);
    world.settle("a", 1, &nack_in(SECOND));
    world.commit();
    assert_eq!(
        (world.dead.len(), world.dead[0].cause, world.dead[0].attempts),
        (1, Cause::Held, 1)
    );

    assert_eq!(world.offsets(1, 9), [1]);
    world.settle("a", 2, &nack_in(SECOND));
    world.commit();
    world.offer(&[2]);
    assert_eq!(world.dead.len(), 1, "two wait behind it");
    world.offer(&[1]);
    world.commit();

    assert_eq!((world.dead.len(), world.dead[1].offset), (2, Offset(1)));
    assert_eq!(world.offsets(1, 9), [2, 4]);
}

#[test]
fn failed_event_comes_again_after_its_delay_and_its_commit() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0]);
    world.attach(1, "a");
    world.take(1, 1);
    assert_eq!(world.settle("a", 1, &nack_in(5 * SECOND)), Verdict::Pending(ChangeNo(1)));

    world.pass_time(6 * SECOND);
    assert!(world.take(1, 1).is_empty(), "its count would not survive a crash");
    let change = world.desk.next_change().unwrap();
    let (offset, parked) = &change.parked[0];
    assert_eq!((*offset, parked.attempts, parked.failure.as_str()), (Offset(0), 1, "broken"));
    assert_eq!(parked.due.since(parked.first_failure), 5 * SECOND);
    world.desk.committed(change.no);

    assert_eq!(world.desk.next_timer(), None, "it is due already");
    let grants = world.take(1, 1);
    assert_eq!((grants[0].attempt, grants[0].lease), (2, LeaseId(2)));
}

#[test]
fn backoff_doubles_up_to_its_cap_with_full_jitter() {
    let backoff = Backoff { base: SECOND, cap: 8 * SECOND };
    let bound = |failures| random::bound(&backoff, failures);
    assert_eq!([0, 1, 2, 3, 4, 5, u32::MAX].map(bound), [1, 1, 2, 4, 8, 8, 8].map(|n| n * SECOND));

    let mut random = Random::new(7);
    let waits: Vec<_> = (0..100).map(|_| random.wait(&backoff, 3)).collect();
    assert!(waits.iter().all(|wait| *wait <= 4 * SECOND));
    assert!(waits.iter().any(|wait| *wait < SECOND) && waits.iter().any(|wait| *wait > 3 * SECOND));
    random.wait(&Backoff { base: Duration::MAX, cap: Duration::MAX }, u32::MAX);
}

#[test]
fn event_given_back_uncounted_is_at_the_head_after_its_commit() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0, 0]);
    world.attach(1, "a");
    world.take(1, 1);

    assert_eq!(world.settle("a", 1, &return_it()), Verdict::Pending(ChangeNo(1)));
    assert_eq!(world.settle("a", 1, &return_it()), Verdict::Pending(ChangeNo(1)));
    world.commit();
    assert_eq!(world.settle("a", 1, &return_it()), Verdict::Done);
    let grants = world.take(1, 9);

    assert_eq!((grants[0].offset, grants[0].attempt, grants.len()), (Offset(0), 1, 2));
}

#[test]
fn event_given_back_uncounted_with_a_delay_keeps_its_count() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0]);
    world.attach(1, "a");
    world.take(1, 1);
    let act = Act::Nack { delay: Some(SECOND), counted: false, failure: Failure::default() };
    world.settle("a", 1, &act);
    world.commit();
    assert_eq!(world.parked[&Offset(0)].attempts, 0);

    assert_eq!(world.desk.next_timer(), Some(world.now.saturating_add(SECOND)));
    assert!(world.take(1, 1).is_empty());
    world.pass_time(SECOND);
    assert_eq!(world.take(1, 1)[0].attempt, 1);
}

/// `KurrentDB` #2748.
#[test]
fn event_that_crashes_its_consumer_is_dead_lettered_after_the_limit() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0]);
    for attempt in 1..=3 {
        world.attach(attempt.into(), "consumer");
        assert_eq!(world.take(attempt.into(), 1)[0].attempt, attempt);
        world.detach(attempt.into());
        world.pass_time(10 * SECOND);
        world.commit();
        world.pass_time(10 * SECOND);
    }
    world.attach(9, "consumer");

    assert!(world.take(9, 1).is_empty());
    let letter = &world.dead[0];
    assert_eq!((letter.cause, letter.attempts), (Cause::Attempts, 3));
    assert_eq!(letter.failure.as_str(), "the member was gone");
    assert_eq!((world.watermark(), world.desk.unsettled()), (1, (0, 0)));
}

/// NATS #7817.
#[test]
fn events_that_are_never_settled_are_dead_lettered_and_none_is_lost() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0; 100]);
    world.attach(1, "a");
    let mut acked = Vec::new();
    while world.watermark() < 100 {
        for grant in world.take(1, 7) {
            if grant.offset.get() % 10 != 0 {
                world.settle("a", grant.lease.0, &Act::Ack);
                acked.push(grant.offset.get());
            }
        }
        world.commit();
        world.pass_time(5 * SECOND);
    }

    acked.sort_unstable();
    assert!(acked.iter().copied().eq((0..100).filter(|offset| offset % 10 != 0)));
    let mut dead: Vec<_> = world.dead.iter().map(|letter| letter.offset.get()).collect();
    dead.sort_unstable();
    assert!(dead.into_iter().eq((0..100).step_by(10)));
    assert!(world.dead.iter().all(|letter| letter.attempts == 3));
}

/// Dapr #7799.
#[test]
fn failed_events_come_again_after_a_crash_of_the_leader_with_their_count() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0, 0]);
    world.attach(1, "a");
    world.take(1, 2);
    world.settle("a", 1, &nack_in(5 * SECOND));
    world.commit();

    world.reopen(policy(Mode::Shared));
    world.offer(&[0, 0]);
    world.attach(1, "a");
    world.desk.tick(world.now);

    let grants = world.take(1, 9);
    assert_eq!(grants.len(), 1, "one is not due yet");
    assert_eq!((grants[0].offset, grants[0].attempt), (Offset(1), 1), "was lent, did not fail");
    world.pass_time(5 * SECOND);
    let grants = world.take(1, 9);
    assert_eq!((grants[0].offset, grants[0].attempt), (Offset(0), 2));
}

#[test]
fn rejected_event_is_a_dead_letter_at_once() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0]);
    world.attach(1, "a");
    world.take(1, 1);

    assert_eq!(world.settle("a", 1, &reject()), Verdict::Pending(ChangeNo(1)));
    assert_eq!(world.watermark(), 0);
    world.commit();

    let letter = &world.dead[0];
    assert_eq!((letter.cause, letter.attempts), (Cause::Rejected, 1));
    assert_eq!((letter.failure.as_str(), letter.first_failure), ("nonsense", world.now));
    assert_eq!(world.settle("a", 1, &reject()), Verdict::Done);
}

#[test]
fn event_that_fails_for_too_long_is_a_dead_letter() {
    let age_max = Some(20 * SECOND);
    let mut world = World::new(Policy { age_max, attempts_max: None, ..policy(Mode::Shared) });
    world.offer(&[0, 0]);
    world.attach(1, "a");
    world.take(1, 2);
    world.settle("a", 1, &nack_in(3_600 * SECOND));
    let put_off = Act::Nack { delay: Some(SECOND), counted: false, failure: Failure::new("later") };
    world.settle("a", 2, &put_off);
    world.commit();
    world.pass_time(19 * SECOND);
    world.commit();
    assert!(world.dead.is_empty());

    world.pass_time(SECOND);
    world.commit();
    assert_eq!(world.dead.len(), 1, "not after its delay, but at its greatest age");
    assert!(world.take(1, 9).is_empty());
    world.commit();

    let seen: Vec<_> = world.dead.iter().map(|letter| (letter.offset.0, letter.cause)).collect();
    assert_eq!(seen, [(0, Cause::TooOld), (1, Cause::TooOld)]);
}

#[test]
fn event_that_grew_too_old_while_it_was_lent_is_not_tried_again() {
    let age_max = Some(20 * SECOND);
    let mut world = World::new(Policy { age_max, ..policy(Mode::Shared) });
    world.offer(&[0]);
    world.attach(1, "a");
    world.take(1, 1);
    world.settle("a", 1, &nack_in(SECOND));
    world.commit();
    world.pass_time(SECOND);
    world.take(1, 1);
    world.pass_time(19 * SECOND);
    assert!(world.desk.next_change().is_none(), "it may still succeed");

    world.settle("a", 2, &nack());
    let change = world.desk.next_change().unwrap();

    assert!(change.parked.is_empty());
    assert_eq!((change.dead[0].cause, change.dead[0].attempts), (Cause::TooOld, 2));
}

#[test]
fn event_that_nobody_wants_any_more_is_settled_and_counted() {
    let mut world = World::of(Mode::Shared);
    let expires = Some(world.now.saturating_add(SECOND));
    world.desk.offer(Offered { offset: Offset(0), key: 0, bytes: 1, expires });
    world.offer(&[0]);
    world.attach(1, "a");
    world.pass_time(SECOND);

    assert_eq!(world.offsets(1, 1), [1]);
    world.commit();
    assert_eq!((world.desk.expired(), world.watermark(), world.dead.len()), (1, 1, 0));
}

#[test]
fn late_ack_is_refused() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0]);
    world.attach(1, "a");
    world.take(1, 1);
    assert_eq!(world.desk.next_timer(), Some(world.now.saturating_add(30 * SECOND)));

    world.pass_time(30 * SECOND);
    assert_eq!(world.settle("a", 1, &Act::Ack), Verdict::Expired);
    assert_eq!(world.settle("a", 1, &nack()), Verdict::Expired);
    world.commit();

    assert_eq!((world.watermark(), world.parked[&Offset(0)].attempts), (0, 1));
}

#[test]
fn extended_lease_lasts_longer() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0, 0, 0]);
    world.attach(1, "a");
    world.take(1, 3);
    world.pass_time(20 * SECOND);

    let by = |seconds| Act::Extend { by: Some(seconds * SECOND) };
    assert_eq!(world.settle("a", 1, &Act::Extend { by: None }), Verdict::Extended);
    assert_eq!(world.settle("a", 2, &by(1)), Verdict::Extended);
    assert_eq!(world.settle("b", 3, &by(99)), Verdict::Fenced);
    assert_eq!(world.desk.next_timer(), Some(world.now.saturating_add(10 * SECOND)));
    world.pass_time(10 * SECOND);
    assert_eq!(world.desk.lent(), 1, "never cut short, but not longer either");
    world.pass_time(19 * SECOND);
    assert_eq!(world.settle("a", 1, &by(u32::MAX)), Verdict::Extended);
    world.pass_time(3_600 * SECOND);
    assert_eq!(world.settle("a", 1, &Act::Ack), Verdict::Pending(ChangeNo(1)));
    assert_eq!(world.settle("a", 1, &by(1)), Verdict::Expired);
}

#[test]
fn repeated_act_is_answered_like_the_first() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0; 4]);
    world.attach(1, "a");
    world.take(1, 4);

    assert_eq!(
        world.settle_of("a", EPOCH, (1, 2), &Act::Ack),
        [(1, 2, Verdict::Pending(ChangeNo(1)))]
    );
    assert_eq!(world.settle("a", 2, &Act::Ack), Verdict::Pending(ChangeNo(1)));
    let change = world.desk.next_change().unwrap();
    assert_eq!(world.settle("a", 3, &Act::Ack), Verdict::Pending(ChangeNo(2)));
    world.desk.committed(change.no);

    assert_eq!(
        world.settle_of("a", EPOCH, (0, u64::MAX), &Act::Ack),
        [
            (0, 0, Verdict::Unknown),
            (1, 2, Verdict::Done),
            (3, 4, Verdict::Pending(ChangeNo(2))),
            (5, u64::MAX, Verdict::Unknown)
        ]
    );
    assert_eq!(world.settle("a", 1, &nack()), Verdict::Expired);
    world.commit();
    assert_eq!((world.watermark(), world.desk.lent()), (4, 0));
}

#[test]
fn lease_of_somebody_else_is_fenced() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0; 3]);
    world.attach(1, "a");
    world.attach(2, "b");
    world.take(1, 1);
    world.take(2, 1);
    world.take(1, 1);

    assert_eq!(
        world.settle_of("a", EPOCH, (1, 3), &Act::Ack),
        [
            (1, 1, Verdict::Pending(ChangeNo(1))),
            (2, 2, Verdict::Fenced),
            (3, 3, Verdict::Pending(ChangeNo(1)))
        ]
    );
    assert_eq!(world.settle("nobody", 2, &Act::Ack), Verdict::Fenced);
    assert_eq!(
        world.settle_of("b", Epoch(EPOCH.0 + 1), (2, 2), &Act::Ack),
        [(2, 2, Verdict::Unknown)]
    );
    assert_eq!(world.settle_of("b", EPOCH, (3, 2), &Act::Ack), []);
    assert_eq!(world.settle("b", 2, &Act::Ack), Verdict::Pending(ChangeNo(1)));
}

#[test]
fn member_that_comes_back_in_time_keeps_its_leases() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0]);
    world.attach(1, "a");
    world.take(1, 1);
    world.detach(1);
    world.pass_time(9 * SECOND);
    world.attach(2, "a");
    world.detach(1);
    world.pass_time(9 * SECOND);

    let token = Token { epoch: EPOCH, lease: LeaseId(1) };
    assert!(world.desk.held_by("a").eq([(token, Offset(0), 1)]));
    assert_eq!(world.settle("a", 1, &Act::Ack), Verdict::Pending(ChangeNo(1)));
}

#[test]
fn leases_of_a_member_that_is_gone_end_after_the_grace() {
    for (counts_detach, attempt) in [(true, 2), (false, 1)] {
        let mut world = World::new(Policy { counts_detach, ..policy(Mode::Shared) });
        world.offer(&[0]);
        world.attach(1, "a");
        world.attach(2, "b");
        world.take(1, 1);
        world.detach(1);
        world.pass_time(9 * SECOND);
        assert_eq!(world.desk.lent_to("a"), 1);

        assert_eq!(world.desk.next_timer(), Some(world.now.saturating_add(SECOND)));
        world.pass_time(SECOND);
        assert_eq!(world.desk.lent(), 0);
        assert_eq!(world.settle("a", 1, &Act::Ack), Verdict::Expired);
        world.commit();
        world.pass_time(10 * SECOND);

        assert_eq!(world.take(2, 1)[0].attempt, attempt);
    }
}

#[test]
fn leases_that_linger_need_nobody_and_end_by_their_own_time() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0, 1]);
    world.attach(1, "a");
    world.desk.linger(MemberId(1));
    world.take(1, 2);
    world.detach(1);
    world.pass_time(29 * SECOND);
    assert_eq!(world.desk.lent_to("a"), 2);
    assert_eq!(world.desk.next_timer(), Some(world.now.saturating_add(SECOND)));

    // Whoever comes back under the name settles them, and again goes.
    world.attach(2, "a");
    world.desk.linger(MemberId(2));
    assert_eq!(world.settle("a", 1, &Act::Ack), Verdict::Pending(ChangeNo(1)));
    world.detach(2);
    assert_eq!(world.desk.lent_to("a"), 1);

    world.pass_time(SECOND);
    assert_eq!(world.desk.lent(), 0);
    assert_eq!(world.settle("a", 2, &Act::Ack), Verdict::Expired);
    world.commit();
    world.pass_time(10 * SECOND);
    world.attach(3, "b");
    assert_eq!(world.take(3, 9)[0].attempt, 2);
}

#[test]
fn leases_linger_only_while_the_last_attachment_says_so() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0]);
    world.attach(1, "a");
    world.desk.linger(MemberId(1));
    world.take(1, 1);
    world.attach(2, "a");
    world.detach(2);
    world.pass_time(10 * SECOND);

    assert_eq!(world.desk.lent(), 0);
}

#[test]
fn leases_without_time_do_not_linger() {
    let mut world = World::new(Policy { lease: None, ..policy(Mode::Shared) });
    world.offer(&[0]);
    world.attach(1, "a");
    world.desk.linger(MemberId(1));
    world.take(1, 1);
    world.detach(1);
    world.pass_time(10 * SECOND);

    assert_eq!(world.desk.lent(), 0);
}

#[test]
fn lease_of_an_earlier_desk_stays_valid_under_its_old_token() {
    for is_offered in [false, true] {
        let mut world = World::of(Mode::KeyShared);
        world.offer(&[1, 1, 2, 3]);
        world.attach(1, "a");
        world.take(1, 2);
        world.settle("a", 1, &Act::Ack);
        world.commit();
        let held: Vec<_> = world.take(1, 1).into_iter().chain(world.take(1, 1)).collect();
        assert_eq!((held[0].offset, held[1].offset), (Offset(1), Offset(3)));

        world.reopen(policy(Mode::KeyShared));
        if is_offered {
            world.offer(&[1, 2, 3]);
        }
        world.attach(1, "a");
        world.attach(2, "b");
        let token = |lease| Token { epoch: EPOCH, lease };
        for (offset, lease, attempt, expected) in [
            (0, LeaseId(1), 1, false),
            (1, held[0].lease, 2, false),
            (1, held[0].lease, 1, true),
            (1, held[0].lease, 1, true),
            (3, held[0].lease, 1, false),
            (1, LeaseId(77), 1, false),
            (3, held[1].lease, 1, true),
        ] {
            let is_valid = world.adopt(1, token(lease), Offset(offset), attempt);
            assert_eq!(is_valid, expected, "{offset} {lease:?} {attempt}");
        }
        let own = Token { epoch: world.desk.epoch(), lease: LeaseId(99) };
        assert!(!world.adopt(1, own, Offset(2), 1));
        if !is_offered {
            world.offer(&[1, 2, 3]);
        }

        assert_eq!(world.offsets(2, 9), [2], "what was adopted is lent");
        let lease = (held[0].lease.0, held[0].lease.0);
        assert_eq!(world.settle_of("b", EPOCH, lease, &Act::Ack)[0].2, Verdict::Fenced);
        assert_eq!(
            world.settle_of("a", EPOCH, lease, &Act::Ack)[0].2,
            Verdict::Pending(ChangeNo(1))
        );
        world.commit();
        assert_eq!(world.settle_of("a", EPOCH, lease, &Act::Ack)[0].2, Verdict::Done);
        assert_eq!(world.watermark(), 2);
        world.pass_time(30 * SECOND);
        assert_eq!(world.desk.lent(), 0, "its time is that of a new lease");
    }
}

#[test]
fn lease_whose_event_failed_since_is_not_adopted() {
    for (lease, attempt, expected) in [(1, 1, false), (1, 2, false), (2, 2, true), (2, 3, false)] {
        let mut world = World::of(Mode::Shared);
        world.offer(&[0]);
        world.attach(1, "a");
        world.take(1, 1);
        world.settle("a", 1, &nack_in(SECOND));
        world.commit();
        world.reopen(policy(Mode::Shared));
        world.attach(1, "a");

        let token = Token { epoch: EPOCH, lease: LeaseId(lease) };
        let is_adopted = world.adopt(1, token, Offset(0), attempt);
        assert_eq!(is_adopted, expected, "{lease} {attempt}");
    }
}

/// An acknowledgement on its way to a leader that stalls does not count once somebody else had the
/// event, although that one gave it back untried.
#[test]
fn lease_whose_event_was_lent_since_is_not_adopted() {
    let given_back =
        Act::Nack { delay: Some(SECOND), counted: false, failure: Failure::new("later") };
    for act in [given_back, return_it()] {
        let mut world = World::of(Mode::Shared);
        world.offer(&[0]);
        world.attach(1, "a");
        world.take(1, 1);
        world.reopen(policy(Mode::Shared));
        world.attach(2, "b");
        world.offer(&[0]);
        assert_eq!(world.offsets(2, 1), [0]);
        world.settle_of("b", Epoch(EPOCH.0 + 1), (1, 1), &act);
        world.commit();

        world.attach(1, "a");
        let token = Token { epoch: EPOCH, lease: LeaseId(1) };
        assert!(!world.adopt(1, token, Offset(0), 1), "{act:?}");

        world.pass_time(SECOND);
        assert_eq!(world.offsets(2, 1), [0], "it comes again, under a lease of its own");
    }
}

/// Two members tell the third desk of the same event: the first desk lent it to one, who was away while
/// the second one lent it to the other. Whoever comes first, only the newer lease counts.
#[test]
fn older_one_of_two_leases_is_not_adopted() {
    for (first, second) in [(("a", EPOCH), ("b", Epoch(4))), (("b", Epoch(4)), ("a", EPOCH))] {
        let mut world = World::of(Mode::Shared);
        world.offer(&[0]);
        world.attach(1, "a");
        world.take(1, 1);
        world.reopen(policy(Mode::Shared));
        world.attach(2, "b");
        world.offer(&[0]);
        assert_eq!(world.offsets(2, 1), [0]);
        world.reopen(policy(Mode::Shared));

        for (id, (name, epoch)) in [(3, first), (4, second)] {
            world.attach(id, name);
            let token = Token { epoch, lease: LeaseId(1) };
            // What it is told by the desk that gave it: the one after did not take it on.
            let old = Old { token, offset: Offset(0), attempt: 1, last: epoch };
            assert_eq!(world.desk.adopt(MemberId(id), old, world.now), name == "b", "{first:?}");
        }
        let verdict =
            |world: &mut World, name, epoch| world.settle_of(name, epoch, (1, 1), &Act::Ack)[0].2;
        assert_eq!(verdict(&mut world, "a", EPOCH), Verdict::Unknown);
        assert_eq!(verdict(&mut world, "b", Epoch(4)), Verdict::Pending(ChangeNo(1)));
    }
}

/// Under load desks open and close again before anybody gets there.
#[test]
fn desk_that_lent_nothing_is_passed_over() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0, 0]);
    world.attach(1, "a");
    world.take(1, 1);
    let (settled, parked) = (OffsetSet::default(), BTreeMap::new());
    let epochs = (EPOCH, Epoch(EPOCH.get() + 3));
    world.desk = Desk::open(policy(Mode::Shared), epochs, Offset(0), settled, parked, 8);
    world.attach(2, "a");
    let token = Token { epoch: EPOCH, lease: LeaseId(1) };
    let adopt = |world: &mut World, last| {
        let old = Old { token, offset: Offset(0), attempt: 1, last: Epoch(last) };
        world.desk.adopt(MemberId(2), old, world.now)
    };
    assert!(!adopt(&mut world, EPOCH.get() - 1), "others were lent to since");
    assert!(!adopt(&mut world, EPOCH.get() + 3), "it is not from an earlier desk");
    assert!(adopt(&mut world, EPOCH.get() + 2));

    world.offer(&[0, 0]);
    world.desk.wants(MemberId(2), true);
    assert_eq!((world.desk.next_offer(), world.take(2, 1).len()), (None, 0), "nobody knows yet");
    assert!(world.desk.asks_to_lend());
    world.desk.announced();
    assert!(!world.desk.asks_to_lend());
    assert_eq!(world.desk.next_offer(), Some(MemberId(2)));
    assert_eq!(world.offsets(2, 9), [1]);
}

/// The leader stored what a member did, and was lost before it answered: the member repeats it.
#[test]
fn act_that_a_lost_leader_stored_is_told_to_be_done_before() {
    let mut world = World::of(Mode::Shared);
    world.offer(&[0; 4]);
    world.attach(1, "a");
    world.take(1, 4);
    world.settle("a", 1, &Act::Ack);
    world.settle("a", 2, &reject());
    world.settle("a", 4, &Act::Ack);
    world.commit();
    world.reopen(policy(Mode::Shared));
    world.attach(1, "a");
    let taken: Vec<bool> = (1..=4)
        .map(|lease| {
            let token = Token { epoch: EPOCH, lease: LeaseId(lease) };
            world.adopt(1, token, Offset(lease - 1), 1)
        })
        .collect();
    assert_eq!(taken, [false, false, true, false]);

    let verdicts = world.settle_of("a", EPOCH, (1, 5), &Act::Ack);
    let (before, pending) = (Verdict::Before, Verdict::Pending(ChangeNo(1)));
    let unknown = (5, 5, Verdict::Unknown);
    assert_eq!(verdicts, [(1, 2, before), (3, 3, pending), (4, 4, before), unknown]);
    assert_eq!(world.settle("a", 2, &reject()), Verdict::Before);
    assert_eq!(world.settle("a", 2, &nack()), Verdict::Expired, "it does not come again");
}

/// A member that the desk could not reach held on to what another one was lent since.
#[test]
fn lease_that_ended_uncounted_is_void_for_the_next_desk() {
    let policy = Policy { counts_detach: false, ..policy(Mode::Shared) };
    let mut world = World::new(policy.clone());
    world.offer(&[0]);
    world.attach(1, "a");
    world.attach(2, "b");
    world.take(1, 1);
    world.detach(1);
    world.pass_time(10 * SECOND);
    assert!(world.take(2, 1).is_empty(), "not before it is known that the lease ended");
    world.commit();
    assert_eq!(world.take(2, 1)[0].attempt, 1);
    world.reopen(policy);

    world.attach(1, "a");
    world.attach(2, "b");
    let token = |lease| Token { epoch: EPOCH, lease: LeaseId(lease) };
    assert!(!world.adopt(1, token(1), Offset(0), 1));
    assert!(world.adopt(2, token(2), Offset(0), 1));
    assert!(world.adopt(2, token(2), Offset(0), 1), "it has it");
    assert!(!world.adopt(1, token(2), Offset(0), 1), "another one has it");
}

/// What nobody failed at does not age: members that leave hand on what they did not look at.
#[test]
fn event_that_was_only_handed_on_does_not_age() {
    let policy = Policy { age_max: Some(SECOND), ..policy(Mode::Shared) };
    let mut world = World::new(policy.clone());
    world.offer(&[0]);
    world.attach(1, "a");
    world.take(1, 1);
    world.settle("a", 1, &return_it());
    world.commit();
    world.reopen(policy);
    world.pass_time(3_600 * SECOND);
    world.attach(1, "a");
    world.offer(&[0]);
    assert_eq!(world.offsets(1, 1), [0]);

    world.settle_of("a", Epoch(EPOCH.0 + 1), (1, 1), &nack());
    world.pass_time(2 * SECOND);
    world.commit();
    world.pass_time(9 * SECOND);
    assert!(world.take(1, 1).is_empty());
    world.commit();
    assert_eq!(world.dead.len(), 1, "its first failure was too long ago");
}

#[test]
fn adopted_event_may_be_settled_before_it_is_offered() {
    let acts = [Act::Ack, reject(), nack_in(SECOND), return_it(), Act::Extend { by: None }];
    let cases = acts.iter().zip([0, 0, 1, 1, 1]);
    for ((act, unsettled), is_committed) in cases.flat_map(|case| [(case, true), (case, false)]) {
        let mut world = World::of(Mode::KeyShared);
        world.reopen(policy(Mode::KeyShared));
        world.attach(1, "a");
        let token = Token { epoch: EPOCH, lease: LeaseId(5) };
        assert!(world.adopt(1, token, Offset(1), 1));

        world.settle_of("a", EPOCH, (5, 5), act);
        let change = world.desk.next_change();
        let no = change.map_or(ChangeNo(0), |change| change.no);
        if is_committed {
            world.desk.committed(no);
        }
        for offset in [0, 1].map(Offset) {
            world.desk.offer(Offered { offset, key: offset.0, bytes: 10, expires: None });
        }
        assert_eq!(world.desk.unsettled(), (1 + unsettled, 10 + 10 * unsettled as u64), "{act:?}");
        assert_eq!(world.offsets(1, 1), [0]);
        world.settle("a", 1, &Act::Ack);
        world.settle_of("a", Epoch(EPOCH.0 + 1), (1, 1), &Act::Ack);
        world.desk.committed(no);
        world.pass_time(SECOND);
        let again = world.offsets(1, 9);
        assert_eq!(again.len(), usize::from(matches!(act, Act::Nack { .. })), "{act:?}");
    }
}

#[test]
fn adopted_event_that_is_given_back_uncounted_does_not_hold_its_key() {
    let mut world = World::of(Mode::KeyShared);
    world.reopen(Policy { hold_max: 0, ..policy(Mode::KeyShared) });
    world.attach(1, "a");
    let token = Token { epoch: EPOCH, lease: LeaseId(5) };
    assert!(world.adopt(1, token, Offset(0), 1));
    world.settle_of("a", EPOCH, (5, 5), &return_it());

    world.offer(&[1, 1]);

    world.commit();
    assert!(world.dead.is_empty());
    assert_eq!(world.offsets(1, 9), [0]);
}

#[test]
fn early_event_that_closes_a_gap_is_the_last_one_below_the_watermark() {
    let mut world = World::of(Mode::Shared);
    world.settled.insert(range(1, 4));
    world.reopen(policy(Mode::Shared));
    world.attach(1, "a");
    let token = Token { epoch: EPOCH, lease: LeaseId(5) };
    assert!(world.adopt(1, token, Offset(0), 1));
    world.settle_of("a", EPOCH, (5, 5), &Act::Ack);
    assert_eq!(world.desk.reads_from(), Offset(5));
    world.commit();

    assert_eq!((world.watermark(), world.desk.reads_from()), (5, Offset(5)));
    world.desk.offer(Offered { offset: Offset(2), key: 0, bytes: 1, expires: None });
    assert_eq!(world.desk.unsettled(), (0, 0));
}

#[test]
fn parked_event_waits_for_its_key_too() {
    let mut world = World::of(Mode::KeyShared);
    let parked = Parked { attempts: 1, ..Parked::default() };
    world.parked.insert(Offset(1), parked);
    world.reopen(policy(Mode::KeyShared));
    world.attach(1, "a");
    world.offer(&[1, 1]);

    assert_eq!(world.offsets(1, 9), [0]);
    world.pass_time(SECOND);
    assert!(world.take(1, 9).is_empty(), "due, but its key is out");
    world.settle_of("a", Epoch(EPOCH.0 + 1), (1, 1), &Act::Ack);
    world.commit();

    assert_eq!(world.take(1, 9)[0].attempt, 2);
}

#[test]
fn passing_ends_the_early_lease_and_the_retry_of_an_event() {
    for is_failed in [false, true] {
        let mut world = World::of(Mode::Shared);
        world.reopen(policy(Mode::Shared));
        world.attach(1, "a");
        let token = Token { epoch: EPOCH, lease: LeaseId(5) };
        assert!(world.adopt(1, token, Offset(1), 1));
        if is_failed {
            world.settle_of("a", EPOCH, (5, 5), &nack());
        }

        world.desk.pass(range(0, 2));

        assert_eq!((world.desk.lent(), world.desk.lent_to("a"), world.desk.parked()), (0, 0, 0));
        let verdict = world.settle_of("a", EPOCH, (5, 5), &Act::Ack)[0].2;
        assert_eq!(verdict, Verdict::Expired);
        let change = world.desk.next_change().unwrap();
        assert_eq!((change.settled, change.parked), (vec![range(0, 2)], Vec::new()));
    }
}

#[test]
fn adopted_lease_whose_key_is_out_is_fenced() {
    let mut world = World::of(Mode::KeyShared);
    world.reopen(policy(Mode::KeyShared));
    world.attach(1, "liar");
    let token = Token { epoch: EPOCH, lease: LeaseId(5) };
    assert!(world.adopt(1, token, Offset(1), 1));
    world.offer(&[1, 1]);

    assert_eq!(world.offsets(1, 9), [0]);
    assert_eq!(world.settle_of("liar", EPOCH, (5, 5), &Act::Ack)[0].2, Verdict::Fenced);
    assert_eq!(world.desk.waiting(), 1);
}

#[test]
fn early_leases_leave_room_for_events() {
    let unsettled_max = UnsettledMax { events: usize::MAX, bytes: u64::MAX };
    let mut world = World::new(Policy { unsettled_max, ..policy(Mode::Shared) });
    world.attach(1, "a");
    let mut adopt = |number| {
        let token = Token { epoch: Epoch(1), lease: LeaseId(number) };
        world.adopt(1, token, Offset(2 * number), 1)
    };
    assert_eq!((1..9_999).filter(|&number| adopt(number)).count(), RANGES_LEN / 2);

    world.settle_of("a", Epoch(1), (0, u64::MAX), &Act::Ack);
    world.commit();
    assert_eq!(world.desk.room().events, RANGES_LEN / 2 - 1);
    assert!(world.settled.len() <= RANGES_LEN);
    while world.desk.reads_from() < Offset(RANGES_LEN as u64) {
        world.offer(&[0]);
    }
    let token = Token { epoch: Epoch(1), lease: LeaseId(1) };
    let offset = Offset(u64::MAX - 1);
    assert!(!world.adopt(1, token, offset, 1), "known");
    assert_eq!(world.desk.unsettled().0, RANGES_LEN / 2 + 1);
}

#[test]
fn old_lease_that_outlives_many_others_does_not_keep_their_slots() {
    let mut world = World::new(Policy { lease: None, ..policy(Mode::Shared) });
    world.attach(1, "a");
    world.offer(&[0]);
    world.take(1, 1);
    for lease in 2..5_000 {
        world.offer(&[0]);
        world.take(1, 1);
        assert!(matches!(world.settle("a", lease, &Act::Ack), Verdict::Pending(_)));
        world.commit();
    }

    assert_eq!(world.desk.leases.lengths(), (0, 1, 4_096));
    assert_eq!(world.settle("a", 4_999, &Act::Ack), Verdict::Done);
    assert_eq!(world.settle("a", 2, &Act::Ack), Verdict::Unknown, "too long ago");
    assert!(matches!(world.settle("a", 1, &Act::Ack), Verdict::Pending(_)));
    world.commit();
    assert_eq!((world.watermark(), world.desk.leases.len()), (4_999, 0));
}

#[test]
fn extremes_do_no_harm() {
    let end = Timestamp::from_micros(u64::MAX);
    let mut world = World::new(Policy {
        lease: Some(Duration::MAX),
        grace: Duration::MAX,
        age_max: Some(Duration::MAX),
        attempts_max: NonZeroU32::new(u32::MAX),
        backoff: Backoff { base: Duration::MAX, cap: Duration::MAX },
        unsettled_max: UnsettledMax { events: usize::MAX, bytes: u64::MAX },
        hold_max: u32::MAX,
        ..policy(Mode::KeyShared)
    });
    let offered =
        |offset| Offered { offset: Offset(offset), key: 0, bytes: u32::MAX, expires: None };
    world.desk.offer(offered(u64::MAX - 1));
    world.desk.offer(offered(u64::MAX));
    world.desk.pass(range(0, u64::MAX));
    assert_eq!(world.desk.reads_from(), Offset(u64::MAX));
    world.attach(u64::MAX, "");
    world.now = end;
    let mut grants = Vec::new();
    world.desk.take(MemberId(u64::MAX), u64::MAX, u64::MAX, end, &mut grants);
    assert_eq!(grants.len(), 1);

    let token = Token { epoch: Epoch(0), lease: LeaseId(u64::MAX) };
    assert!(world.adopt(u64::MAX, token, Offset(u64::MAX), 1));
    world.settle("", 1, &Act::Extend { by: Some(Duration::MAX) });
    for epoch in [0, EPOCH.0, u64::MAX].map(Epoch) {
        world.settle_of("", epoch, (0, u64::MAX), &nack_in(Duration::MAX));
    }
    world.commit();
    world.detach(u64::MAX);
    world.desk.tick(end);
    world.desk.committed(ChangeNo(u64::MAX));
    assert_eq!(world.desk.lent(), 0);
}
