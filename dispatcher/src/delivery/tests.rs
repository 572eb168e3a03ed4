//! One test per rule, then a model that runs whole histories.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const FEED: FeedId = FeedId(0);
const ONE: RevisionNo = RevisionNo(1);
const TWO: RevisionNo = RevisionNo(2);

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn lent(ticket: u64, attempt: u32) -> Lent {
    Lent { ticket: Ticket(ticket), feed: FEED, revision: ONE, attempt, bytes: 10 }
}

/// Delivery with one instance that takes as many as `hard` at once.
fn delivery(hard: u32) -> Delivery {
    let mut delivery = Delivery::new(7);
    delivery.handle_policy(FEED, FeedPolicy::default());
    delivery.handle_instance_ready(InstanceId(1), ONE, hard);
    delivery
}

fn batches(events: usize) -> Delivery {
    let mut delivery = delivery(1);
    delivery.handle_policy(FEED, FeedPolicy { batch_events: events, ..FeedPolicy::default() });
    delivery
}

/// The pushes that begin now, with their tickets.
fn pushes(delivery: &mut Delivery, now: Duration) -> Vec<(PushId, Vec<u64>)> {
    let mut pushes = Vec::new();
    while let Some(action) = delivery.poll_action(now) {
        match action {
            Action::Push { push, tickets, .. } => {
                pushes.push((push, tickets.iter().map(|ticket| ticket.0).collect()));
            }
            other => panic!("{other:?}"),
        }
    }
    pushes
}

fn push_one(delivery: &mut Delivery, now: Duration) -> (PushId, Vec<u64>) {
    let all = pushes(delivery, now);
    let [one] = all.as_slice() else { panic!("{all:?}") };
    one.clone()
}

/// What is settled now.
fn settled(delivery: &mut Delivery, now: Duration) -> Vec<(u64, Settle)> {
    let mut settled = Vec::new();
    loop {
        let Some(Action::Settle { .. }) = delivery.due.front() else { return settled };
        if let Some(Action::Settle { ticket, how }) = delivery.poll_action(now) {
            settled.push((ticket.0, how));
        }
    }
}

fn back(delay: Option<Duration>, is_counted: bool, reason: &str) -> Settle {
    Settle::GiveBack { delay, is_counted, reason: reason.into() }
}

#[test]
fn a_new_instance_begins_with_one_event() {
    let mut delivery = delivery(8);
    (0..5).for_each(|ticket| delivery.handle_lent(lent(ticket, 1), at(0)));

    let (push, tickets) = push_one(&mut delivery, at(0));
    assert_eq!(tickets, [0]);
    assert_eq!(delivery.runnable(ONE), 4);

    delivery.handle_outcome(push, &Outcome::Done, "", at(5));
    assert_eq!(settled(&mut delivery, at(5)), [(0, Settle::Ack)]);
    assert_eq!(pushes(&mut delivery, at(5)).len(), 2);
}

#[test]
fn each_outcome_is_settled_by_its_row() {
    let long = Some(Duration::from_mins(10));
    let counted = |why| back(None, true, why);
    let rows = [
        (Outcome::Done, Settle::Ack),
        (Outcome::Failed, counted("why")),
        (Outcome::TimedOut, counted("why")),
        (Outcome::Refused, Settle::Reject { reason: "why".into() }),
        (Outcome::TooLarge, Settle::Reject { reason: "why".into() }),
        (Outcome::ReplyFailed, back(Some(HOLD_MAX), false, "why")),
        // Longer than is waited in hand, and than is obeyed.
        (Outcome::Throttled { retry_after: long }, back(Some(at(300_000)), false, "why")),
        (Outcome::Partly(vec![(0, Some(at(9_000)))]), {
            back(Some(at(9_000)), true, "the function took others of its batch")
        }),
    ];
    for (outcome, wanted) in rows {
        let mut delivery = delivery(1);
        delivery.handle_lent(lent(0, 1), at(0));
        let (push, _) = push_one(&mut delivery, at(0));
        delivery.handle_outcome(push, &outcome, "why", at(1));
        assert_eq!(settled(&mut delivery, at(1)), [(0, wanted)], "{outcome:?}");
        assert!(delivery.is_empty());
    }
}

#[test]
fn who_does_not_give_up_retries_what_is_refused() {
    let mut delivery = delivery(1);
    delivery.handle_policy(FEED, FeedPolicy { gives_up: false, ..FeedPolicy::default() });
    delivery.handle_lent(lent(0, 1), at(0));
    let (push, _) = push_one(&mut delivery, at(0));
    delivery.handle_outcome(push, &Outcome::Refused, "no", at(1));
    assert_eq!(settled(&mut delivery, at(1)), [(0, back(None, true, "no"))]);
}

#[test]
fn what_was_not_received_stays_and_costs_nothing() {
    let mut delivery = delivery(4);
    delivery.handle_lent(lent(0, 1), at(0));
    let (push, _) = push_one(&mut delivery, at(0));
    delivery.handle_outcome(push, &Outcome::NotReceived, "refused", at(0));
    assert_eq!(settled(&mut delivery, at(0)), []);

    // The instance is left alone for a moment.
    assert_eq!(pushes(&mut delivery, at(0)), []);
    let wake = delivery.poll_timeout(at(0)).unwrap();
    assert!(wake > at(0));
    assert_eq!(push_one(&mut delivery, wake).1, [0]);
}

#[test]
fn who_asks_for_a_short_pause_gets_it_with_the_event_in_hand() {
    let mut delivery = delivery(4);
    delivery.handle_lent(lent(0, 1), at(0));
    let (push, _) = push_one(&mut delivery, at(0));
    let retry_after = Some(Duration::from_secs(1));
    delivery.handle_outcome(push, &Outcome::Throttled { retry_after }, "busy", at(0));

    assert_eq!(pushes(&mut delivery, at(999)), []);
    assert_eq!(delivery.poll_timeout(at(5)), Some(at(1_000)));
    assert_eq!(push_one(&mut delivery, at(1_000)).1, [0]);
}

#[test]
fn one_death_is_free_and_the_second_is_an_attempt() {
    let mut delivery = delivery(1);
    delivery.handle_lent(lent(0, 1), at(0));
    for (id, wanted) in [(2, vec![]), (3, vec![(0, back(None, true, "died"))])] {
        let (push, _) = push_one(&mut delivery, at(id));
        delivery.handle_instance_gone(InstanceId(id - 1));
        delivery.handle_outcome(push, &Outcome::Died, "died", at(id));
        assert_eq!(settled(&mut delivery, at(id)), wanted);
        delivery.handle_instance_ready(InstanceId(id), ONE, 1);
    }
}

#[test]
fn a_poisonous_event_of_a_thousand_is_found_in_eleven_calls_and_nobody_else_pays() {
    for poison in [0, 1, 499, 500, 998, 999] {
        let mut delivery = batches(1_000);
        (0..1_000).for_each(|ticket| delivery.handle_lent(lent(ticket, 1), at(0)));
        let (mut calls, mut found, mut acked) = (0, None, BTreeMap::new());
        for step in 1..200 {
            let Some((push, tickets)) = pushes(&mut delivery, at(step)).pop() else { break };
            calls += 1;
            let is_bad = tickets.contains(&poison);
            let outcome = if is_bad { Outcome::Failed } else { Outcome::Done };
            delivery.handle_outcome(push, &outcome, "poison", at(step));
            for (ticket, how) in settled(&mut delivery, at(step)) {
                match how {
                    Settle::Ack => *acked.entry(ticket).or_insert(0) += 1,
                    other => {
                        assert_eq!((ticket, other), (poison, back(None, true, "poison")));
                        assert!(found.is_none());
                        found = Some(calls);
                    }
                }
            }
        }
        assert!(found.unwrap() <= 11, "{poison}: {found:?} calls");
        assert_eq!(acked.len(), 999);
        assert!(acked.values().all(|&count| count == 1));
        assert!(delivery.is_empty() && calls <= 21, "{calls}");
    }
}

#[test]
fn a_batch_waits_for_others_only_as_long_as_it_may() {
    let mut delivery = delivery(1);
    let linger = at(50);
    delivery.handle_policy(FEED, FeedPolicy { batch_events: 3, linger, ..FeedPolicy::default() });
    delivery.handle_lent(lent(0, 1), at(0));
    delivery.handle_lent(lent(1, 1), at(10));
    assert_eq!(pushes(&mut delivery, at(49)), []);
    assert_eq!(delivery.poll_timeout(at(49)), Some(at(50)));
    let (push, tickets) = push_one(&mut delivery, at(50));
    assert_eq!(tickets, [0, 1]);
    delivery.handle_outcome(push, &Outcome::Partly(vec![(1, None)]), "", at(60));
    let left = back(None, true, "the function took others of its batch");
    assert_eq!(settled(&mut delivery, at(60)), [(0, Settle::Ack), (1, left)]);
    (2..6).for_each(|ticket| delivery.handle_lent(lent(ticket, 1), at(100)));
    assert_eq!(push_one(&mut delivery, at(100)).1, [2, 3, 4]);
}

#[test]
fn what_failed_before_goes_alone_and_within_the_budget() {
    let mut delivery = delivery(1_000);
    delivery.handle_policy(FEED, FeedPolicy { batch_events: 8, ..FeedPolicy::default() });
    (0..20).for_each(|ticket| delivery.handle_lent(lent(ticket, 2), at(0)));
    let mut sent = 0;
    while let Some((push, tickets)) = pushes(&mut delivery, at(1)).pop() {
        assert_eq!(tickets.len(), 1);
        sent += 1;
        delivery.handle_outcome(push, &Outcome::Failed, "", at(1));
        settled(&mut delivery, at(1));
    }
    assert_eq!(sent, 11);
    assert!(delivery.poll_timeout(at(1)).is_some(), "the rest is sent later");
}

#[test]
fn twenty_failures_leave_the_function_alone_and_one_event_asks_again() {
    let mut delivery = delivery(1);
    (0..40).for_each(|ticket| delivery.handle_lent(lent(ticket, 1), at(0)));
    for step in 0..20 {
        let (push, _) = push_one(&mut delivery, at(step));
        delivery.handle_outcome(push, &Outcome::Failed, "", at(step));
        settled(&mut delivery, at(step));
    }
    assert!(!delivery.is_well(ONE, at(20)));
    assert_eq!(pushes(&mut delivery, at(20)), []);
    let again = delivery.poll_timeout(at(20)).unwrap();
    let (push, tickets) = push_one(&mut delivery, again);
    assert_eq!(tickets.len(), 1);
    delivery.handle_outcome(push, &Outcome::Done, "", again);
    settled(&mut delivery, again);
    assert!(delivery.is_well(ONE, again));
    assert!(!pushes(&mut delivery, again).is_empty());
}

#[test]
fn triggers_take_turns_by_bytes() {
    let mut delivery = delivery(1);
    let big = |ticket| Lent { bytes: 1_000, ..lent(ticket, 1) };
    let small = |ticket| Lent { feed: FeedId(1), bytes: 100, ..lent(ticket, 1) };
    delivery.handle_policy(FeedId(1), FeedPolicy::default());
    (0..20).for_each(|ticket| delivery.handle_lent(big(ticket), at(0)));
    (100..200).for_each(|ticket| delivery.handle_lent(small(ticket), at(0)));
    let (mut of_big, mut of_small) = (0, 0);
    for step in 0..55 {
        let (push, tickets) = push_one(&mut delivery, at(step));
        if tickets[0] < 100 {
            of_big += 1;
        } else {
            of_small += 1;
        }
        delivery.handle_outcome(push, &Outcome::NotReceived, "", at(step));
        delivery.handle_lost(Ticket(tickets[0]));
        while matches!(delivery.due.front(), Some(Action::Forget { .. })) {
            delivery.poll_action(at(step));
        }
        delivery.instances.clear();
        delivery.handle_instance_ready(InstanceId(step + 10), ONE, 1);
    }
    assert_eq!((of_big, of_small), (5, 50));
}

#[test]
fn revisions_get_their_own_events_and_a_change_moves_what_waits() {
    let mut delivery = delivery(1);
    delivery.handle_instance_ready(InstanceId(2), TWO, 1);
    (0..4).for_each(|ticket| delivery.handle_lent(lent(ticket, 1), at(0)));
    let (first, _) = push_one(&mut delivery, at(0));
    delivery.handle_routes(|ticket| if ticket.0 == 1 { TWO } else { ONE }, at(0));
    let (second, tickets) = push_one(&mut delivery, at(0));
    assert_eq!(tickets, [1]);
    delivery.handle_outcome(first, &Outcome::Done, "", at(1));
    delivery.handle_outcome(second, &Outcome::Done, "", at(1));
    assert_eq!(settled(&mut delivery, at(1)).len(), 2);
    assert_eq!(delivery.wanted().collect::<Vec<_>>(), [ONE]);
}

#[test]
fn what_is_lost_under_way_is_not_settled_and_frees_its_instance() {
    let mut delivery = delivery(1);
    delivery.handle_lent(lent(0, 1), at(0));
    delivery.handle_lent(lent(1, 1), at(0));
    let (push, _) = push_one(&mut delivery, at(0));
    delivery.handle_feed_lost(FEED);
    let mut forgotten = Vec::new();
    while let Some(action) = delivery.poll_action(at(0)) {
        forgotten.push(action);
    }
    let forget = |ticket| Action::Forget { ticket: Ticket(ticket) };
    assert_eq!(forgotten, [forget(0), forget(1)]);
    delivery.handle_outcome(push, &Outcome::Done, "", at(1));
    assert_eq!(delivery.poll_action(at(1)), None);
    delivery.handle_lent(lent(2, 1), at(2));
    assert_eq!(push_one(&mut delivery, at(2)).1, [2]);
}

#[test]
fn who_stops_gives_back_what_is_not_under_way() {
    let mut delivery = delivery(1);
    (0..3).for_each(|ticket| delivery.handle_lent(lent(ticket, 1), at(0)));
    let (push, _) = push_one(&mut delivery, at(0));
    delivery.give_back(FeedId(9), "not this one");
    assert_eq!(settled(&mut delivery, at(0)), []);
    delivery.give_back(FEED, "stops");
    let stops = back(None, false, "stops");
    assert_eq!(settled(&mut delivery, at(0)), [(1, stops.clone()), (2, stops)]);
    delivery.handle_outcome(push, &Outcome::Done, "", at(1));
    assert_eq!(settled(&mut delivery, at(1)), [(0, Settle::Ack)]);
}

#[derive(Clone, Debug)]
enum Step {
    Lend { feed: u32, attempt: u32, bytes: u32 },
    Answer { which: usize, outcome: Outcome },
    Start,
    Drain(usize),
    Kill(usize),
    Lose(usize),
    LoseFeed(u32),
    Route(u64),
    GiveBack(u32),
    Wait(u64),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Outcome::Done),
        2 => (0_usize..4, prop::option::of(0_u64..9_000)).prop_map(|(place, wait)| {
            Outcome::Partly(vec![(place, wait.map(at))])
        }),
        1 => prop::option::of(0_u64..9_000)
            .prop_map(|wait| Outcome::Throttled { retry_after: wait.map(at) }),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::TooLarge),
        1 => Just(Outcome::Refused),
        1 => Just(Outcome::NotReceived),
        1 => Just(Outcome::ReplyFailed),
        1 => Just(Outcome::Died),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u32..2, 1_u32..4, 0_u32..50)
            .prop_map(|(feed, attempt, bytes)| Step::Lend { feed, attempt, bytes }),
        8 => (0_usize..8, outcome()).prop_map(|(which, outcome)| Step::Answer { which, outcome }),
        2 => Just(Step::Start),
        1 => (0_usize..4).prop_map(Step::Drain),
        1 => (0_usize..4).prop_map(Step::Kill),
        1 => (0_usize..20).prop_map(Step::Lose),
        1 => (0_u32..2).prop_map(Step::LoseFeed),
        1 => (1_u64..4).prop_map(Step::Route),
        1 => (0_u32..2).prop_map(Step::GiveBack),
        3 => (0_u64..3_000).prop_map(Step::Wait),
    ]
}

/// What must be true of any history.
struct Model {
    delivery: Delivery,
    now: Duration,
    /// Where each ticket is: in hand, or in this push.
    tickets: BTreeMap<u64, Option<PushId>>,
    pushes: BTreeMap<PushId, (Vec<u64>, InstanceId)>,
    instances: BTreeMap<u64, (u32, bool)>,
    /// Lost while under way.
    lost: Vec<u64>,
    next: u64,
}

impl Model {
    fn drain_actions(&mut self) {
        while let Some(action) = self.delivery.poll_action(self.now) {
            match action {
                Action::Push { push, tickets, instance } => {
                    assert!(!tickets.is_empty());
                    let (in_flight, is_draining) = self.instances.get_mut(&instance.0).unwrap();
                    assert!(!*is_draining, "a draining instance got an event");
                    *in_flight += 1;
                    assert!(*in_flight <= 3, "more than the hard limit");
                    for ticket in &tickets {
                        let place = self.tickets.get_mut(&ticket.0).expect("an event that is ours");
                        assert!(place.replace(push).is_none(), "sent twice at once");
                    }
                    let tickets = tickets.iter().map(|ticket| ticket.0).collect();
                    self.pushes.insert(push, (tickets, instance));
                }
                Action::Settle { ticket, .. } => {
                    let place = self.tickets.remove(&ticket.0);
                    assert_eq!(place, Some(None), "settled while under way, twice, or not ours");
                }
                Action::Forget { ticket } => {
                    assert!(self.lost.contains(&ticket.0), "nobody took it away");
                    self.tickets.remove(&ticket.0);
                }
            }
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Lend { feed, attempt, bytes } => {
                self.next += 1;
                self.tickets.insert(self.next, None);
                let (ticket, feed, revision) =
                    (Ticket(self.next), FeedId(feed), RevisionNo(1 + self.next % 2));
                self.delivery
                    .handle_lent(Lent { ticket, feed, revision, attempt, bytes }, self.now);
            }
            Step::Answer { which, ref outcome } => {
                let Some((&push, _)) = self.pushes.iter().nth(which) else { return };
                let (tickets, instance) = self.pushes.remove(&push).unwrap();
                for ticket in tickets {
                    if let Some(place) = self.tickets.get_mut(&ticket) {
                        *place = None;
                    }
                }
                if let Some((in_flight, _)) = self.instances.get_mut(&instance.0) {
                    *in_flight -= 1;
                }
                self.delivery.handle_outcome(push, outcome, "why", self.now);
            }
            Step::Start => {
                self.next += 1;
                self.instances.insert(self.next, (0, false));
                let revision = RevisionNo(1 + self.next % 2);
                self.delivery.handle_instance_ready(InstanceId(self.next), revision, 3);
            }
            Step::Drain(which) => {
                let Some((&id, state)) = self.instances.iter_mut().nth(which) else { return };
                state.1 = true;
                self.delivery.handle_instance_draining(InstanceId(id));
            }
            Step::Kill(which) => {
                let Some((&id, _)) = self.instances.iter().nth(which) else { return };
                self.instances.remove(&id);
                self.delivery.handle_instance_gone(InstanceId(id));
            }
            Step::Lose(which) => {
                let Some((&ticket, _)) = self.tickets.iter().nth(which) else { return };
                self.lost.push(ticket);
                self.delivery.handle_lost(Ticket(ticket));
            }
            Step::LoseFeed(feed) => {
                let of_feed = self.delivery.events.iter().filter(|(_, one)| one.feed.0 == feed);
                self.lost.extend(of_feed.map(|(ticket, _)| ticket.0));
                self.delivery.handle_feed_lost(FeedId(feed));
            }
            Step::Route(modulus) => self
                .delivery
                .handle_routes(|ticket| RevisionNo(1 + ticket.0 % modulus % 2), self.now),
            Step::GiveBack(feed) => self.delivery.give_back(FeedId(feed), "stops"),
            Step::Wait(ms) => self.now += at(ms),
        }
        self.drain_actions();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_event_is_lost_settled_twice_or_sent_twice_at_once(
        steps in prop::collection::vec(step(), 1..120),
        batch in 1_usize..6,
    ) {
        let mut delivery = Delivery::new(3);
        let policy = FeedPolicy { batch_events: batch, batch_bytes: 90, linger: at(5), ..FeedPolicy::default() };
        delivery.handle_policy(FeedId(0), policy);
        delivery.handle_policy(FeedId(1), FeedPolicy::default());
        let mut model = Model {
            delivery,
            now: at(0),
            tickets: BTreeMap::new(),
            pushes: BTreeMap::new(),
            instances: BTreeMap::new(),
            lost: Vec::new(),
            next: 0,
        };
        for step in &steps {
            model.run(step);
            let known: Vec<u64> = model.delivery.events.keys().map(|ticket| ticket.0).collect();
            let ours: Vec<u64> = model.tickets.keys().copied().collect();
            prop_assert_eq!(known, ours);
        }
        // With good instances all that is left is done, and soon: nothing is stuck.
        for _ in 0..400 {
            for revision in 0..2 {
                model.next += 1 + (model.next + 1 + revision) % 2;
                let id = model.next;
                model.instances.insert(id, (0, false));
                model.delivery.handle_instance_ready(InstanceId(id), RevisionNo(1 + id % 2), 3);
            }
            model.now += Duration::from_secs(400);
            model.drain_actions();
            while !model.pushes.is_empty() {
                model.run(&Step::Answer { which: 0, outcome: Outcome::Done });
            }
            if model.tickets.is_empty() {
                break;
            }
        }
        prop_assert!(model.tickets.is_empty(), "{:?} stay", model.tickets);
        prop_assert!(model.delivery.is_empty() && model.delivery.flights.is_empty());
        prop_assert!(model.delivery.lost.is_empty());
    }
}
