//! The window against a model of the broker that loses, delays and refuses.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { bytes_max: 1_000, attempt: Duration::from_secs(10) };

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One partition of a broker, by the same rules: a batch follows `last` of its epoch.
#[derive(Default)]
struct Partition {
    epoch: u64,
    stored: Vec<(u64, u64)>,
    last: u64,
    log: Vec<u32>,
    forgotten: bool,
}

impl Partition {
    fn append(&mut self, send: Send, body: u32, empty: bool) -> Answer {
        if empty {
            return Answer::Stored { empty };
        }
        if send.epoch < self.epoch {
            return Answer::Fenced;
        }
        if send.epoch == self.epoch && self.stored.contains(&(send.epoch, send.sequence)) {
            return Answer::Stored { empty: false };
        }
        let last = if send.epoch > self.epoch || self.forgotten { 0 } else { self.last };
        if send.previous != last {
            return if last == 0 { Answer::UnknownProducer } else { Answer::OutOfOrder };
        }
        self.forgotten = false;
        self.epoch = send.epoch;
        self.last = send.sequence;
        self.stored.push((send.epoch, send.sequence));
        self.log.push(body);
        Answer::Stored { empty: false }
    }
}

fn sends(window: &mut Window<u32>, now: Duration) -> Vec<(Send, u32)> {
    std::iter::from_fn(|| {
        let send = window.poll_send(now)?;
        Some((send, *window.body(send.slot).unwrap()))
    })
    .collect()
}

fn window_of(bodies: std::ops::Range<u32>) -> Window<u32> {
    let mut window = Window::new(LIMITS);
    for body in bodies {
        window.push(body, 10, at(60_000));
    }
    window
}

#[test]
fn a_lower_limit_holds_from_the_next_batch_on_and_a_higher_one_again() {
    let mut window = window_of(0..20);
    window.set_bytes_max(50);
    let first = sends(&mut window, at(0));
    assert_eq!(first.len(), 5);

    window.set_bytes_max(20);
    let mut done = Vec::new();
    for (send, _) in &first[..4] {
        let stored = Answer::Stored { empty: false };
        window.handle_answer(send.tag, stored, (at(1), 0), &mut done);
    }
    assert_eq!(sends(&mut window, at(1)).len(), 1);
    window.set_bytes_max(100);
    assert_eq!(sends(&mut window, at(2)).len(), 8);
}

#[test]
fn a_retry_keeps_its_number() {
    let mut window = window_of(0..2);
    let first = sends(&mut window, at(0));

    window.handle_broken(None, at(1), 0);
    assert!(sends(&mut window, at(1)).is_empty());
    let due = window.poll_timeout(at(1)).unwrap();
    let again = sends(&mut window, due);

    let numbers = |sent: &[(Send, u32)]| {
        sent.iter().map(|(s, b)| (s.epoch, s.sequence, s.previous, *b)).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&first), [(1, 1, 0, 0), (1, 2, 1, 1)]);
    assert_eq!(numbers(&again), numbers(&first));
}

#[test]
fn a_batch_follows_the_last_one_that_took_a_place() {
    let mut window = window_of(0..3);
    let sent = sends(&mut window, at(0));
    let mut done = Vec::new();

    let mut answer = |place: usize, answer| {
        window.handle_answer(sent[place].0.tag, answer, (at(1), 0), &mut done);
    };
    answer(0, Answer::Stored { empty: true });
    answer(1, Answer::Stored { empty: true });
    answer(2, Answer::OutOfOrder);

    assert_eq!(sends(&mut window, at(1))[0].0.previous, 0);
    assert_eq!(done, [(0, End::Answered), (1, End::Answered)]);
}

#[test]
fn past_the_deadline_a_sent_batch_is_unknown_and_an_unsent_one_is_not_stored() {
    let mut window = window_of(0..1);
    sends(&mut window, at(0));
    window.handle_broken(None, at(1), 0);
    window.push(1, 10, at(60_000));
    let mut done = Vec::new();

    window.handle_deadline(at(60_000), &mut done);

    assert_eq!(done, [(0, End::Unknown), (1, End::NotStored)]);
    window.push(2, 10, at(90_000));
    let next = sends(&mut window, at(60_001))[0].0;
    assert_eq!((next.epoch, next.previous), (2, 0));
}

#[test]
fn a_forgotten_producer_starts_a_new_run_unless_a_batch_is_open() {
    let mut window = window_of(0..1);
    let tag = sends(&mut window, at(0))[0].0.tag;
    let moment = (at(1), 0);
    let mut done = Vec::new();
    let verdict = window.handle_answer(tag, Answer::UnknownProducer, moment, &mut done);
    assert_eq!(verdict, Verdict::Continue);
    assert_eq!(sends(&mut window, at(1))[0].0.epoch, 2);

    window.handle_broken(None, at(2), 0);
    let tag = sends(&mut window, at(2_000))[0].0.tag;
    let verdict = window.handle_answer(tag, Answer::UnknownProducer, moment, &mut done);
    assert_eq!(verdict, Verdict::Over);
    window.drain(&mut done);
    assert_eq!(done, [(0, End::Unknown)]);
}

#[test]
fn an_old_attempt_of_unknown_fate_leaves_its_batch_open() {
    let mut window = window_of(0..2);
    let sent = sends(&mut window, at(0));
    let mut done = Vec::new();
    let unclear = Answer::Later { certain: false, after: None };

    // After the first answer both batches are to be sent again; the second one is about an attempt
    // that no longer counts, and may have stored its batch all the same.
    for (send, _) in &sent {
        window.handle_answer(send.tag, unclear, (at(1), 0), &mut done);
    }
    window.handle_deadline(at(60_000), &mut done);

    assert_eq!(done, [(0, End::Unknown), (1, End::Unknown)]);
}

#[test]
fn a_silent_connection_is_noticed() {
    let mut window = window_of(0..1);
    sends(&mut window, at(0));

    assert!(!window.is_stuck(at(9_999)));
    assert_eq!(window.poll_timeout(at(0)), Some(at(10_000)));
    assert!(window.is_stuck(at(10_000)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    /// The broker takes the next frame on the wire.
    Arrive,
    /// The broker is full.
    Busy,
    /// The broker fails, and has or has not stored the batch.
    Fail(bool),
    /// The batch is refused as a whole.
    Refuse,
    Break,
    /// A frame of a broken connection arrives after all.
    Straggle,
    Forget,
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Push),
        8 => Just(Step::Arrive),
        1 => Just(Step::Busy),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => Just(Step::Refuse),
        1 => Just(Step::Break),
        1 => Just(Step::Straggle),
        1 => Just(Step::Forget),
        2 => (0..20_000u16).prop_map(Step::Wait),
    ]
}

struct World {
    window: Window<u32>,
    broker: Partition,
    wire: VecDeque<(Send, u32)>,
    lost: VecDeque<(Send, u32)>,
    done: Vec<(u32, End)>,
    now: Duration,
    pushed: u32,
    over: bool,
}

impl World {
    fn new() -> Self {
        Self {
            window: Window::new(LIMITS),
            broker: Partition::default(),
            wire: VecDeque::new(),
            lost: VecDeque::new(),
            done: Vec::new(),
            now: Duration::ZERO,
            pushed: 0,
            over: false,
        }
    }

    /// Every seventh batch has only events that the broker refuses.
    fn is_empty(body: u32) -> bool {
        body % 7 == 3
    }

    fn answer(&mut self, tag: u64, answer: Answer) {
        let verdict = self.window.handle_answer(tag, answer, (self.now, 7), &mut self.done);
        if verdict == Verdict::Over {
            self.over = true;
            self.window.drain(&mut self.done);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push if self.window.has_room(10) => {
                self.window.push(self.pushed, 10, self.now + at(60_000));
                self.pushed += 1;
            }
            Step::Push => {}
            Step::Wait(millis) => self.now += at(millis.into()),
            Step::Break => {
                self.window.handle_broken(None, self.now, 7);
                self.lost.extend(self.wire.drain(..));
            }
            Step::Straggle => {
                if let Some((send, body)) = self.lost.pop_front() {
                    self.broker.append(send, body, Self::is_empty(body));
                }
            }
            Step::Forget => {
                // Only an idle producer is forgotten, after a day: nothing is on its way by then.
                if self.window.is_empty() && self.lost.is_empty() && self.wire.is_empty() {
                    self.broker.forgotten = true;
                    self.broker.stored.clear();
                }
            }
            Step::Arrive | Step::Busy | Step::Fail(_) | Step::Refuse => self.arrive(step),
        }
        self.window.handle_deadline(self.now, &mut self.done);
        self.wire.extend(sends(&mut self.window, self.now));
    }

    fn arrive(&mut self, step: Step) {
        let Some((send, body)) = self.wire.pop_front() else { return };
        let answer = match step {
            Step::Busy => Answer::Later { certain: true, after: None },
            Step::Refuse => Answer::Refused,
            Step::Fail(stored) => {
                if stored {
                    self.broker.append(send, body, Self::is_empty(body));
                }
                Answer::Later { certain: false, after: None }
            }
            _ => self.broker.append(send, body, Self::is_empty(body)),
        };
        self.answer(send.tag, answer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            if world.over { break; }
        }
        // Then the broker is well for a while.
        for _ in 0..400 {
            if world.over { break; }
            world.take(Step::Wait(40));
            world.take(Step::Arrive);
        }
        // What was lost on the way may still arrive.
        while !world.lost.is_empty() {
            world.take(Step::Straggle);
        }

        prop_assert!(world.over || world.window.is_empty(), "{:?}", world.window);
        let log = &world.broker.log;
        prop_assert!(log.is_sorted_by(|a, b| a < b), "doubled or reordered: {log:?}");
        let ended: BTreeSet<u32> = world.done.iter().map(|(body, _)| *body).collect();
        prop_assert_eq!(ended.len(), world.done.len(), "a batch ended twice");
        prop_assert_eq!(ended.len(), world.pushed as usize);
        for (body, end) in &world.done {
            if *end == End::NotStored {
                prop_assert!(!log.contains(body), "{body} is stored");
            }
        }
    }
}
