//! One test per rule, then random histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const FEED: FeedId = FeedId(0);
const EPOCH: Epoch = Epoch(1);
const ONE: InstanceId = InstanceId(1);

fn policy() -> Policy {
    Policy {
        backoff_base: Duration::from_millis(200),
        backoff_cap: Duration::from_mins(1),
        retry_after_max: Duration::from_mins(5),
        attempts: 3,
        permits_hard: 4,
    }
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn place(offset: u64) -> Place {
    Place { feed: FEED, partition: PartitionId(0), offset: Offset(offset) }
}

#[expect(clippy::unnecessary_wraps, reason = "what `poll_action` answers")]
fn push(offset: u64, attempt: u32) -> Option<Action> {
    Some(Action::Push { place: place(offset), instance: ONE, attempt })
}

/// A function with one instance and events `0..count`, all with `key`.
fn delivery(count: u64, key: Option<&[u8]>) -> Delivery {
    let mut delivery = Delivery::new(policy(), 1);
    delivery.handle_instance_ready(ONE);
    for offset in 0..count {
        assert_eq!(delivery.handle_lease(place(offset), EPOCH, key), Leased::Taken);
    }
    delivery
}

#[test]
fn without_an_instance_events_wait() {
    let mut delivery = Delivery::new(policy(), 1);

    delivery.handle_lease(place(0), EPOCH, None);

    assert_eq!(delivery.poll_action(at(0)), None);
    assert_eq!(delivery.runnable(), 1);
}

#[test]
fn a_new_instance_has_one_permit_and_earns_more() {
    let mut delivery = delivery(10, None);

    assert_eq!(delivery.poll_action(at(0)), push(0, 1));
    assert_eq!(delivery.poll_action(at(0)), None);
    delivery.handle_outcome(place(0), Outcome::Done, at(1));
    assert_eq!(delivery.poll_action(at(1)), Some(Action::Ack { place: place(0), epoch: EPOCH }));

    assert_eq!(delivery.poll_action(at(1)), push(1, 1));
    assert_eq!(delivery.poll_action(at(1)), push(2, 1));
    assert_eq!(delivery.poll_action(at(1)), None);
}

#[test]
fn events_of_one_key_go_one_at_a_time_even_while_the_first_waits() {
    let mut delivery = delivery(2, Some(b"k"));
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));

    delivery.handle_outcome(place(0), Outcome::Failed, at(0));

    let due = delivery.poll_timeout().unwrap();
    assert!(due <= at(200));
    assert_eq!(delivery.poll_action(due), push(0, 2));
    delivery.handle_outcome(place(0), Outcome::Done, due);
    assert!(matches!(delivery.poll_action(due), Some(Action::Ack { .. })));
    assert_eq!(delivery.poll_action(due), push(1, 1));
}

#[test]
fn a_refused_connection_costs_no_attempt_and_does_not_spin() {
    let mut delivery = delivery(1, None);
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));

    delivery.handle_outcome(place(0), Outcome::NotReceived, at(0));

    assert_eq!(delivery.poll_action(at(0)), None);
    let again = delivery.poll_timeout().unwrap();
    assert!(again >= at(10));
    assert_eq!(delivery.poll_action(again), push(0, 1));
}

#[test]
fn the_second_death_with_an_event_is_an_attempt() {
    let mut delivery = delivery(1, None);
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));
    delivery.handle_outcome(place(0), Outcome::Died, at(0));
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));

    delivery.handle_outcome(place(0), Outcome::Died, at(0));

    let due = delivery.poll_timeout().unwrap();
    assert_eq!(delivery.poll_action(due), push(0, 2));
}

#[test]
fn retry_after_is_obeyed_within_its_bound_and_costs_no_attempt() {
    for (asked, expected) in [(10_000, 10_000), (900_000, 300_000)] {
        let mut delivery = delivery(1, None);
        assert_eq!(delivery.poll_action(at(0)), push(0, 1));

        let retry_after = Some(at(asked));
        delivery.handle_outcome(place(0), Outcome::Throttled { retry_after }, at(0));

        assert_eq!(delivery.poll_timeout(), Some(at(expected)));
        assert_eq!(delivery.poll_action(at(expected)), push(0, 1));
    }
}

#[test]
fn a_refused_event_is_blocked_and_tried_near_the_cap() {
    let mut delivery = delivery(1, None);
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));

    delivery.handle_outcome(place(0), Outcome::Refused, at(0));

    let due = delivery.poll_timeout().unwrap();
    assert!((at(30_000)..=at(60_000)).contains(&due));
    assert_eq!(delivery.counts(FEED).blocked, 1);
    assert_eq!(delivery.poll_action(due), push(0, 2));
}

#[test]
fn exhausted_attempts_block_but_never_drop() {
    let mut delivery = delivery(1, None);
    let mut now = at(0);
    for attempt in 1..=policy().attempts {
        assert_eq!(delivery.poll_action(now), push(0, attempt));
        assert_eq!(delivery.counts(FEED).blocked, 0);
        delivery.handle_outcome(place(0), Outcome::Failed, now);
        now = delivery.poll_timeout().unwrap();
    }

    assert_eq!(delivery.counts(FEED).blocked, 1);
    assert_eq!(delivery.poll_action(now), push(0, policy().attempts + 1));
}

#[test]
fn a_new_revision_tries_blocked_events_at_once() {
    let mut delivery = delivery(1, None);
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));
    delivery.handle_outcome(place(0), Outcome::Refused, at(0));

    delivery.handle_new_revision(policy());

    assert_eq!(delivery.counts(FEED).blocked, 0);
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));
}

#[test]
fn a_lost_acknowledgement_is_repeated_without_another_push() {
    let mut delivery = delivery(1, None);
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));
    delivery.handle_outcome(place(0), Outcome::Done, at(0));
    assert!(matches!(delivery.poll_action(at(0)), Some(Action::Ack { .. })));

    delivery.handle_assigned(FEED, PartitionId(0), Offset(0));
    assert_eq!(delivery.handle_lease(place(0), Epoch(2), None), Leased::Known);

    // The payload of what is done is not needed any more.
    assert_eq!(delivery.poll_action(at(0)), Some(Action::Forget { place: place(0) }));
    let ack = Action::Ack { place: place(0), epoch: Epoch(2) };
    assert_eq!(delivery.poll_action(at(0)), Some(ack));
    delivery.handle_settled(place(0));
    assert_eq!(delivery.poll_action(at(0)), Some(Action::Forget { place: place(0) }));
    assert!(delivery.is_empty());
}

#[test]
fn done_events_that_are_not_leased_again_were_settled() {
    let mut delivery = delivery(1, None);
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));
    delivery.handle_outcome(place(0), Outcome::Done, at(0));
    assert!(matches!(delivery.poll_action(at(0)), Some(Action::Ack { .. })));

    delivery.handle_assigned(FEED, PartitionId(0), Offset(0));
    delivery.handle_lease(place(5), Epoch(2), None);

    assert_eq!(delivery.poll_action(at(0)), Some(Action::Forget { place: place(0) }));
}

#[test]
fn a_revoked_event_in_flight_settles_nothing() {
    let mut delivery = delivery(2, None);
    assert_eq!(delivery.poll_action(at(0)), push(0, 1));

    delivery.handle_revoked(FEED, PartitionId(0));
    delivery.handle_outcome(place(0), Outcome::Done, at(0));

    assert_eq!(delivery.poll_action(at(0)), Some(Action::Forget { place: place(1) }));
    assert_eq!(delivery.poll_action(at(0)), Some(Action::Forget { place: place(0) }));
    assert_eq!(delivery.poll_action(at(0)), None);
    assert!(delivery.is_empty());
}

#[test]
fn a_draining_instance_gets_nothing_new() {
    let mut delivery = delivery(1, None);

    delivery.handle_instance_draining(ONE);

    assert_eq!(delivery.poll_action(at(0)), None);
    assert_eq!(delivery.poll_timeout(), None);
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Done),
        1 => Just(Outcome::Failed),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Refused),
        1 => Just(Outcome::NotReceived),
        1 => Just(Outcome::ReplyFailed),
        1 => Just(Outcome::Died),
        1 => (0_u64..500).prop_map(|s| {
            Outcome::Throttled { retry_after: Some(Duration::from_secs(s)) }
        }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Lease { key: Option<u8> },
    Finish { which: usize, outcome: Outcome },
    Settle { which: usize },
    Wait,
    Start,
    Stop { which: usize },
    Reassign,
    Revise,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::option::of(0_u8..4).prop_map(|key| Step::Lease { key }),
        8 => (any::<usize>(), any_outcome())
            .prop_map(|(which, outcome)| Step::Finish { which, outcome }),
        2 => any::<usize>().prop_map(|which| Step::Settle { which }),
        3 => Just(Step::Wait),
        1 => Just(Step::Start),
        1 => any::<usize>().prop_map(|which| Step::Stop { which }),
        1 => Just(Step::Reassign),
        1 => Just(Step::Revise),
    ]
}

/// What an outside observer knows: it plays the broker, the instances and the clock.
struct World {
    delivery: Delivery,
    now: Duration,
    epoch: u64,
    next: u64,
    next_instance: u64,
    /// Key of each offset that the broker still holds as unsettled.
    unsettled: BTreeMap<u64, Option<u8>>,
    flying: BTreeMap<u64, InstanceId>,
    succeeded: BTreeSet<u64>,
    acking: BTreeSet<u64>,
    instances: BTreeSet<InstanceId>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            delivery: Delivery::new(policy(), seed),
            now: Duration::ZERO,
            epoch: 1,
            next: 0,
            next_instance: 0,
            unsettled: BTreeMap::new(),
            flying: BTreeMap::new(),
            succeeded: BTreeSet::new(),
            acking: BTreeSet::new(),
            instances: BTreeSet::new(),
        }
    }

    fn lease(&mut self, offset: u64) {
        let key = self.unsettled.get(&offset).copied().flatten();
        let key = key.map(|key| [key]);
        let key = key.as_ref().map(<[u8; 1]>::as_slice);
        self.delivery.handle_lease(place(offset), Epoch(self.epoch), key);
    }

    fn start(&mut self) {
        self.next_instance += 1;
        let id = InstanceId(self.next_instance);
        self.instances.insert(id);
        self.delivery.handle_instance_ready(id);
    }

    /// Does all there is to do and checks each thing.
    fn drain(&mut self) {
        while let Some(action) = self.delivery.poll_action(self.now) {
            match action {
                Action::Push { place, instance, attempt } => {
                    let offset = place.offset.get();
                    assert!(attempt >= 1);
                    assert!(self.instances.contains(&instance), "sent to a stopped instance");
                    assert!(!self.succeeded.contains(&offset), "sent again after success");
                    let key = self.unsettled[&offset];
                    if key.is_some() {
                        let open = self
                            .flying
                            .keys()
                            .filter(|other| self.unsettled.get(other) == Some(&key));
                        assert_eq!(open.count(), 0, "two of one key in flight");
                        let earlier = self.unsettled.iter().any(|(&other, &k)| {
                            other < offset && k == key && !self.succeeded.contains(&other)
                        });
                        assert!(!earlier, "overtook an event of its key");
                    }
                    assert!(self.flying.insert(offset, instance).is_none(), "sent twice at once");
                    let here = self.flying.values().filter(|&&i| i == instance).count();
                    assert!(here <= policy().permits_hard as usize, "beyond the permits");
                }
                Action::Ack { place, .. } => {
                    assert!(self.succeeded.contains(&place.offset.get()), "acked without success");
                    self.acking.insert(place.offset.get());
                }
                Action::Forget { .. } => {}
            }
        }
    }

    fn finish(&mut self, which: usize, outcome: Outcome) {
        let Some((&offset, _)) = self.flying.iter().nth(which % self.flying.len().max(1)) else {
            return;
        };
        self.flying.remove(&offset);
        if outcome == Outcome::Done {
            self.succeeded.insert(offset);
        }
        self.delivery.handle_outcome(place(offset), outcome, self.now);
        let bound = policy().retry_after_max.max(policy().backoff_cap);
        if let Some(due) = self.delivery.next_due() {
            assert!(due <= self.now + bound, "waits beyond all bounds");
        }
    }

    fn settle(&mut self, which: usize) {
        let Some(&offset) = self.acking.iter().nth(which % self.acking.len().max(1)) else {
            return;
        };
        self.acking.remove(&offset);
        self.unsettled.remove(&offset);
        self.delivery.handle_settled(place(offset));
    }

    /// The connection broke: settlements under way are lost, all unsettled events come again.
    fn reassign(&mut self) {
        self.epoch += 1;
        self.acking.clear();
        let watermark = self.unsettled.keys().next().copied().unwrap_or(self.next);
        self.delivery.handle_assigned(FEED, PartitionId(0), Offset(watermark));
        let offsets: Vec<u64> = self.unsettled.keys().copied().collect();
        for offset in offsets {
            self.lease(offset);
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Lease { key } => {
                let offset = self.next;
                self.next += 1;
                self.unsettled.insert(offset, key);
                self.lease(offset);
            }
            Step::Finish { which, outcome } => self.finish(which, outcome),
            Step::Settle { which } => self.settle(which),
            Step::Wait => {
                if let Some(due) = self.delivery.poll_timeout() {
                    self.now = self.now.max(due);
                }
            }
            Step::Start => self.start(),
            Step::Stop { which } => {
                let nth = which % self.instances.len().max(1);
                if let Some(&id) = self.instances.iter().nth(nth) {
                    self.instances.remove(&id);
                    self.delivery.handle_instance_gone(id);
                }
            }
            Step::Reassign => self.reassign(),
            Step::Revise => self.delivery.handle_new_revision(policy()),
        }
        self.drain();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_event_is_acked_once_it_succeeds_and_none_is_lost(
        seed in any::<u64>(),
        steps in proptest::collection::vec(any_step(), 0..200),
    ) {
        let mut world = World::new(seed);
        for step in &steps {
            world.step(step);
        }

        // Then all is well again: everything must finish in a bounded number of steps.
        world.start();
        for _ in 0..10_000 {
            world.drain();
            if world.unsettled.is_empty() {
                break;
            }
            let before = (world.flying.len(), world.acking.len());
            world.finish(0, Outcome::Done);
            world.drain();
            world.settle(0);
            if before == (0, 0) {
                world.step(&Step::Wait);
            }
        }
        prop_assert!(world.unsettled.is_empty(), "lost: {:?}", world.unsettled);
        world.drain();
        prop_assert!(world.delivery.is_empty());
    }
}
