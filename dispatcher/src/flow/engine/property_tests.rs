//! The engine under whatever may happen: no delivery is lost, and what a flow makes of events does not
//! depend on crashes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::tests::{World, engine_of};
use super::*;
use crate::flow::piece_tests::event;

const BYTES_MAX: usize = 60_000;
/// More than any one event here is made into.
const SLACK: usize = 40_000;

fn bridge(name: &str) -> Value {
    json!({
        "name": name, "bridge": {"url": "https://a.example/{/k}", "into": format!("/{name}")},
        "compensate": {"stream": "undo"},
    })
}

/// Flows with every kind of step; one of them joins its branches so.
fn flows(join: &Value) -> Vec<Value> {
    let publish = json!({"publish": {"stream": "out"}, "compensate": {"stream": "undo"}});
    let enrich = |more: Value| {
        let mut step = json!({"enrich": {"url": "https://b.example/{/k}", "into": "/who"}});
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        step
    };
    vec![
        json!([
            {"filter": {"when": [{"cel": "data.k > 0"}], "else": {"stream": "else"}}},
            {"transform": {"merge": {"seen": true}, "set": {"subject": "{/k}"}}}, publish,
        ]),
        json!([
            {"dedup": {"window": "20s", "key": "{/k}"}}, enrich(json!({"on_error": "continue"})),
            bridge("one"), publish, bridge("two"),
        ]),
        json!([
            {"split": {"at": "/lines"}}, {"transform": {"merge": {"k": "{/l}"}}},
            enrich(json!({"timeout": "5s"})), {"aggregate": {"whole": true, "after": "20s"}}, publish,
        ]),
        json!([
            {"aggregate": {"key": "{/k}", "count": 3, "after": "20s"}},
            {"transform": {"merge": {"k": 1}}}, bridge("one"), publish, bridge("two"),
        ]),
        json!([
            {"router": {"mode": "all", "routes": [
                {"when": [{"cel": "data.k > 0"}], "to": "fan"},
                {"when": [{"cel": "data.k > 1"}], "stream": "copies"},
            ]}},
            {"name": "fan", "timeout": "10s", "fan_out": {"into": "/of", "join": join, "branches": [
                {"name": "a", "steps": [bridge("one")]},
                {"name": "b", "steps": [{"name": "part", "split": {"at": "/lines"}}, {"name": "told", "publish": {"stream": "told"}}]},
                {"name": "c", "steps": [{"name": "deep", "fan_out": {"join": join, "branches": [
                    {"name": "x", "steps": [bridge("two")]}, {"name": "y", "steps": [bridge("three")]},
                ]}}]},
            ]}, "on_error": {"stream": "odd"}},
            publish,
        ]),
        json!([
            {"dedup": {"window": "20s"}}, {"delay": {"for": "110s"}},
            {"name": "again", "dedup": {"window": "20s", "key": "{/k}"}}, publish,
        ]),
    ]
}

fn sample(n: u64) -> bytes::Bytes {
    let lines: Vec<Value> = (0..n % 4).map(|l| json!({"l": l})).collect();
    event(
        &format!("e{n}"),
        &json!({"subject": format!("s{n}")}),
        &json!({"k": n % 3, "lines": lines}),
    )
}

#[derive(Clone, Debug)]
enum Op {
    Give(u64, bool),
    Answer(Index, u16),
    Break(Index),
    Wait(u64),
    Store(u8),
    Hold(bool),
    Lose(Index),
}

fn op() -> impl Strategy<Value = Op> {
    let status = prop_oneof![4 => Just(200_u16), 1 => Just(400), 1 => Just(500), 1 => Just(429)];
    prop_oneof![
        6 => (0..12_u64, prop::bool::weighted(0.3)).prop_map(|(n, last)| Op::Give(n, last)),
        6 => (any::<Index>(), status).prop_map(|(index, status)| Op::Answer(index, status)),
        1 => any::<Index>().prop_map(Op::Break),
        2 => (0..15_u64).prop_map(Op::Wait),
        1 => (0..4_u8).prop_map(Op::Store),
        1 => any::<bool>().prop_map(Op::Hold),
        1 => any::<Index>().prop_map(Op::Lose),
    ]
}

fn store(kind: u8) -> fn(&str) -> Stored {
    match kind {
        0 => |_| Stored::Unavailable("no leader".to_owned()),
        1 => |_| Stored::Refused("schema".to_owned()),
        2 => |_| Stored::Differently,
        _ => |_| Stored::Yes,
    }
}

/// The same for the same address, whoever asks and when.
fn reply(world: &mut World, place: usize, status: u16) {
    let (call, _, request) = world.calls.remove(place);
    let body = Some(bytes::Bytes::from(json!(request.url.to_string()).to_string()));
    let answer = Answer::Answered { status, retry_after: None, body };
    world.engine.handle_answer(call, answer, world.now);
    world.drive();
}

/// Answers all, stores all, and waits until nothing is held.
fn finish(world: &mut World) {
    world.store = |_| Stored::Yes;
    world.release_publishes();
    for _ in 0..200 {
        while !world.calls.is_empty() {
            reply(world, 0, 200);
        }
        if world.engine.is_idle() {
            return;
        }
        world.wait(20);
    }
}

/// Each token that was taken comes out once, or is held.
fn check_tokens(world: &World, taken: &BTreeSet<u64>, lost: &BTreeSet<u64>) {
    let failed = world.failed.iter().flat_map(|(tokens, _)| tokens.iter().copied());
    let delayed = world.delayed.iter().map(|(token, _)| *token);
    let held = world.engine.held().into_iter().map(|token| token.0);
    let out = world.settled.iter().copied().chain(failed).chain(delayed).chain(held);
    let mut seen = BTreeSet::new();
    for token in out {
        assert!(seen.insert(token), "{token} came out twice");
    }
    let wanted: BTreeSet<u64> = taken.difference(lost).copied().collect();
    assert_eq!(seen, wanted);
}

fn undone_in_order(world: &World) {
    let mut seen = BTreeSet::new();
    for (stream, event) in &world.log {
        let name =
            |name: &str| crate::flow::piece_tests::attribute(event, name).unwrap_or_default();
        if stream == "undo" {
            assert!(seen.insert(name("id")), "undone twice");
            assert!(["done", "unknown"].contains(&name("outcome").as_str()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_delivery_is_ever_lost(
        flow in 0..6_usize,
        join in prop::sample::select(vec![json!("all"), json!("any"), json!({"count": 2})]),
        ops in vec(op(), 1..60),
    ) {
        let mut world = World::with(engine_of(&flows(&join)[flow], Some("replies"), BYTES_MAX));
        let (mut taken, mut lost) = (BTreeSet::new(), BTreeSet::new());
        let mut token = 0;
        for op in ops {
            match op {
                Op::Give(n, is_last) => {
                    token += 1;
                    if world.offer(token, &sample(n), is_last) == Admission::Taken {
                        taken.insert(token);
                    }
                }
                Op::Answer(index, status) if !world.calls.is_empty() => {
                    let place = index.index(world.calls.len());
                    reply(&mut world, place, status);
                }
                Op::Break(index) if !world.calls.is_empty() => {
                    let place = index.index(world.calls.len());
                    let (call, ..) = world.calls.remove(place);
                    world.engine.handle_answer(call, Answer::Broken("reset".to_owned()), world.now);
                    world.drive();
                }
                Op::Answer(..) | Op::Break(_) => {}
                Op::Wait(seconds) => world.wait(seconds),
                Op::Store(kind) => world.store = store(kind),
                Op::Hold(true) => world.holds_publishes = true,
                Op::Hold(false) => world.release_publishes(),
                Op::Lose(index) => {
                    let held = world.engine.held();
                    if !held.is_empty() {
                        let token = held[index.index(held.len())];
                        world.engine.handle_lost(token, world.now);
                        lost.insert(token.0);
                        world.drive();
                    }
                }
            }
            check_tokens(&world, &taken, &lost);
            prop_assert!(world.engine.room() <= BYTES_MAX + SLACK);
        }
        finish(&mut world);
        check_tokens(&world, &taken, &lost);
        undone_in_order(&world);
        prop_assert!(world.engine.is_idle(), "{:?}", world.engine.held());
        prop_assert_eq!((world.engine.room(), world.engine.poll_timeout()), (0, None));
    }

    /// Delivered again in another order, after a crash in the midst of it, all comes to the same. That
    /// is so where it does not matter which of several comes first: not with `any`, not in dedup.
    #[test]
    fn a_crash_changes_nothing_of_what_is_stored(
        flow in prop::sample::select(vec![0_usize, 2, 3, 4]),
        first in vec(any::<Index>(), 0..30),
        second in vec(any::<Index>(), 0..30),
        answers in vec(any::<Index>(), 1..40),
        until in 0..12_usize,
    ) {
        // Each key of the aggregation by count has three events.
        let steps = &flows(&json!("all"))[flow];
        let engine = || engine_of(steps, Some("replies"), 1 << 20);
        let events: Vec<u64> = (0..9).collect();
        let mut straight = World::with(engine());
        for n in &events {
            straight.give(*n, &sample(*n));
        }
        finish(&mut straight);

        let mut crashed = World::with(engine());
        for (n, answer) in shuffled(&events, &first).iter().take(until).zip(answers.iter().cycle()) {
            crashed.give(*n, &sample(*n));
            if !crashed.calls.is_empty() && answer.index(3) > 0 {
                let place = answer.index(crashed.calls.len());
                reply(&mut crashed, place, 200);
            }
        }
        // The engine is gone, with all that it held.
        crashed.calls.clear();
        crashed.engine = engine();
        let is_left = |n: &u64| !crashed.settled.contains(n);
        let left: Vec<u64> = events.iter().copied().filter(is_left).collect();
        for n in shuffled(&left, &second) {
            crashed.give(n, &sample(n));
        }
        finish(&mut crashed);

        prop_assert!(contents(&straight) == contents(&crashed), "the streams differ");
        prop_assert!(straight.failed.is_empty() && crashed.failed.is_empty());
        prop_assert_eq!((crashed.differently, crashed.settled.len()), (0, events.len()));
    }
}

fn contents(world: &World) -> BTreeMap<String, BTreeSet<bytes::Bytes>> {
    let streams = world.streams.iter();
    streams.map(|(name, events)| (name.clone(), events.iter().cloned().collect())).collect()
}

fn shuffled(events: &[u64], order: &[Index]) -> Vec<u64> {
    let mut events = events.to_vec();
    for (place, index) in order.iter().enumerate() {
        if !events.is_empty() {
            let (one, other) = (place % events.len(), index.index(events.len()));
            events.swap(one, other);
        }
    }
    events
}
