//! The engine against a mesh and services of paper: rules by example.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use weft_proto::resource::flow::FlowSpec;

use super::*;
use crate::flow::piece_tests::{attribute, data_of, event};
use crate::flow::{CallId, HttpRequest};

/// What a stream of paper holds, by source and id.
type Stream = Vec<bytes::Bytes>;

/// A mesh and services of paper.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: Timestamp,
    pub(super) streams: BTreeMap<String, Stream>,
    /// In the order in which they were published.
    pub(super) log: Vec<(String, bytes::Bytes)>,
    pub(super) settled: Vec<u64>,
    pub(super) failed: Vec<(Vec<u64>, Failure)>,
    pub(super) delayed: Vec<(u64, Timestamp)>,
    pub(super) calls: Vec<(CallId, String, HttpRequest)>,
    /// Publications that nobody has answered, while they are held.
    pub(super) unanswered: Vec<(PublicationId, String, Vec<bytes::Bytes>)>,
    pub(super) holds_publishes: bool,
    pub(super) store: fn(&str) -> Stored,
    pub(super) differently: usize,
}

pub(super) fn engine_of(steps: &Value, reply: Option<&str>, bytes_max: usize) -> Engine {
    let spec: FlowSpec = serde_json::from_value(json!({"steps": steps})).unwrap();
    let reply = reply.map(|reply| reply.parse().unwrap());
    let plan = Plan::new(&spec, "shop/f".parse().unwrap(), reply).unwrap();
    let limits = Limits { bytes_max, timeout: Duration::from_secs(30) };
    Engine::new(Arc::new(plan), limits)
}

impl World {
    pub(super) fn new(steps: &Value) -> Self {
        Self::with(engine_of(steps, None, 1 << 20))
    }

    fn replying(steps: &Value) -> Self {
        Self::with(engine_of(steps, Some("replies"), 1 << 20))
    }

    pub(super) fn with(engine: Engine) -> Self {
        Self {
            engine,
            now: Timestamp::from_micros(1_000_000_000),
            streams: BTreeMap::new(),
            log: Vec::new(),
            settled: Vec::new(),
            failed: Vec::new(),
            delayed: Vec::new(),
            calls: Vec::new(),
            unanswered: Vec::new(),
            holds_publishes: false,
            store: |_| Stored::Yes,
            differently: 0,
        }
    }

    pub(super) fn give(&mut self, token: u64, event: &bytes::Bytes) -> Admission {
        self.offer(token, event, false)
    }

    pub(super) fn offer(&mut self, token: u64, event: &bytes::Bytes, is_last: bool) -> Admission {
        let stored = Timestamp::from_micros(900_000_000);
        let delivered = Delivered { token: Token(token), event: event.clone(), stored, is_last };
        let admission = self.engine.handle_event(delivered, self.now);
        self.drive();
        admission
    }

    fn simple(&mut self, token: u64, data: &Value) {
        self.give(token, &event(&token.to_string(), &json!({}), data));
    }

    /// Does what the engine asks for, and keeps requests for later.
    pub(super) fn drive(&mut self) {
        while let Some(action) = self.engine.poll_action(self.now) {
            match action {
                Action::Settle { tokens } => self.settled.extend(tokens.iter().map(|one| one.0)),
                Action::Fail { tokens, failure } => {
                    self.failed.push((tokens.iter().map(|one| one.0).collect(), failure));
                }
                Action::Delay { token, until } => self.delayed.push((token.0, until)),
                Action::Request { call, step, request, .. } => {
                    self.calls.push((call, step, *request));
                }
                Action::Publish { publication, stream, events } => {
                    let stream = stream.name.to_string();
                    if self.holds_publishes {
                        self.unanswered.push((publication, stream, events));
                    } else {
                        self.take_in(publication, &stream, events);
                    }
                }
            }
        }
    }

    fn take_in(&mut self, publication: PublicationId, name: &str, events: Vec<bytes::Bytes>) {
        let mut results = Vec::new();
        for event in events {
            let result = (self.store)(name);
            if result == Stored::Yes {
                let stream = self.streams.entry(name.to_owned()).or_default();
                let of = |one: &bytes::Bytes| (attribute(one, "source"), attribute(one, "id"));
                match stream.iter().find(|other| of(other) == of(&event)) {
                    Some(same) if *same == event => {}
                    Some(_) => {
                        self.differently += 1;
                        results.push(Stored::Differently);
                        continue;
                    }
                    None => {
                        stream.push(event.clone());
                        self.log.push((name.to_owned(), event));
                    }
                }
            }
            results.push(result);
        }
        self.engine.handle_stored(publication, results, self.now);
    }

    pub(super) fn release_publishes(&mut self) {
        self.holds_publishes = false;
        for (publication, stream, events) in std::mem::take(&mut self.unanswered) {
            self.take_in(publication, &stream, events);
        }
        self.drive();
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now = self.now.saturating_add(Duration::from_secs(seconds));
        self.drive();
    }

    /// Answers the oldest request of a step.
    fn answer(&mut self, step: &str, status: u16, body: &str) {
        let place = self.calls.iter().position(|(_, of, _)| of == step).expect("no such request");
        let (call, ..) = self.calls.remove(place);
        let body = Some(bytes::Bytes::from(body.to_owned()));
        self.engine.handle_answer(
            call,
            Answer::Answered { status, retry_after: None, body },
            self.now,
        );
        self.drive();
    }

    fn data(&self, stream: &str) -> Vec<Value> {
        self.streams.get(stream).into_iter().flatten().map(data_of).collect()
    }

    fn all(&self, stream: &str, name: &str) -> Vec<String> {
        let events = self.streams.get(stream).into_iter().flatten();
        events.map(|event| attribute(event, name).unwrap_or_default()).collect()
    }

    fn reason(&self) -> &'static str {
        self.failed.last().map_or("", |(_, failure)| failure.reason)
    }
}

#[test]
fn an_event_is_settled_once_what_was_made_of_it_is_stored() {
    let mut world = World::new(&json!([
        {"filter": {"when": [{"cel": "data.n > 1"}], "else": {"stream": "small"}}},
        {"transform": {"merge": {"big": true}}},
        {"publish": {"stream": "large"}},
    ]));
    world.holds_publishes = true;

    world.simple(1, &json!({"n": 5}));
    assert!(world.settled.is_empty() && world.engine.held() == [Token(1)]);
    world.release_publishes();
    world.simple(2, &json!({"n": 1}));

    assert_eq!(world.settled, [1, 2]);
    assert_eq!(world.data("large"), [json!({"n": 5, "big": true})]);
    // What nobody changed goes on under its own name.
    assert_eq!(
        (world.all("small", "id"), world.all("small", "source")),
        (vec!["2".into()], vec!["/shop".into()])
    );
    assert_eq!(world.all("small", "hopcount"), ["1"]);
    assert_eq!(world.all("large", "causationid"), ["1"]);
    assert!(world.engine.is_idle() && world.engine.bytes() == 0);
}

#[test]
fn the_last_events_are_the_reply() {
    let mut world = World::replying(&json!([{"split": {"at": "/lines"}}]));

    world.simple(1, &json!({"lines": [1, 2, 3]}));
    world.simple(2, &json!({"lines": []}));

    assert_eq!(
        (world.data("replies"), world.settled),
        (vec![json!(1), json!(2), json!(3)], vec![1, 2])
    );
}

#[test]
fn routes_lead_to_the_first_or_to_all() {
    let routes = |mode: &str| {
        json!([
            {"router": {"mode": mode, "default": {"stream": "none"}, "routes": [
                {"when": [{"cel": "data > 1"}], "to": "more"},
                {"when": [{"cel": "data > 2"}], "stream": "more-than-two"},
                {"when": [{"cel": "data > 3"}], "to": "end"},
            ]}},
            {"name": "more", "publish": {"stream": "more"}},
        ])
    };
    for (mode, of_more, of_two) in [("first", 2, 0), ("all", 2, 2)] {
        let mut world = World::new(&routes(mode));
        for n in [1, 3, 4] {
            world.simple(n, &json!(n));
        }
        assert_eq!(world.data("none"), [json!(1)], "{mode}");
        assert_eq!(
            (world.data("more").len(), world.data("more-than-two").len()),
            (of_more, of_two)
        );
        assert_eq!(world.settled, [1, 3, 4]);
    }
}

#[test]
fn parts_of_a_split_keep_their_order_in_a_stream() {
    let mut world = World::new(&json!([{"split": {"at": ""}}, {"publish": {"stream": "lines"}}]));
    let elements: Vec<Value> = (0..700).map(Value::from).collect();
    world.holds_publishes = true;

    world.simple(1, &Value::from(elements.clone()));
    // One publication at a time, as many events as fit.
    assert_eq!(
        world.unanswered.iter().map(|(_, _, events)| events.len()).collect::<Vec<_>>(),
        [500]
    );
    world.release_publishes();

    assert_eq!((world.data("lines"), world.settled), (elements, vec![1]));
}

fn grouped(aggregate: &Value) -> World {
    World::new(&json!([{"aggregate": aggregate}, {"publish": {"stream": "groups"}}]))
}

#[test]
fn members_are_settled_when_what_was_made_of_them_is_stored() {
    let mut world = grouped(&json!({"key": "{/k}", "count": 2, "after": "1m"}));
    world.simple(1, &json!({"k": 1}));
    world.simple(2, &json!({"k": 2}));
    world.holds_publishes = true;
    world.simple(3, &json!({"k": 1}));
    assert!(world.settled.is_empty());

    world.release_publishes();
    assert_eq!(
        (world.settled.clone(), world.all("groups", "aggregatecount")),
        (vec![1, 3], vec!["2".to_owned()])
    );
    assert_eq!(world.data("groups"), [json!([{"k": 1}, {"k": 1}])]);
    assert_eq!(world.engine.poll_timeout(), Some(world.now.saturating_add(Duration::from_mins(1))));

    world.wait(60);
    assert_eq!(world.data("groups")[1], json!([{"k": 2}]));
    assert_eq!(world.settled, [1, 3, 2]);
}

#[test]
fn groups_end_with_an_event_or_fail_for_lack_of_time() {
    let mut world = grouped(&json!({
        "key": "{/k}", "until": [{"cel": "has(data.end)"}], "after": "10s", "on_timeout": "fail",
    }));
    world.simple(1, &json!({"k": 1}));
    world.simple(2, &json!({"k": 1, "end": true}));
    assert_eq!(world.settled, [1, 2]);
    world.simple(3, &json!({"k": 1}));
    world.simple(4, &json!({"k": 1}));
    world.wait(10);
    let failed: Vec<_> =
        world.failed.iter().map(|(tokens, failure)| (tokens.clone(), failure.reason)).collect();
    assert_eq!(failed, [(vec![3], "incomplete"), (vec![4], "incomplete")]);
}

#[test]
fn an_event_that_comes_again_is_the_same_member() {
    let mut world = grouped(&json!({"key": "k", "count": 2, "after": "10s"}));
    let one = event("a", &json!({}), &json!(1));
    world.give(1, &one);
    world.give(2, &one);
    assert!(world.settled.is_empty());
    world.give(3, &event("b", &json!({}), &json!(2)));
    assert_eq!((world.settled, world.streams["groups"].len()), (vec![1, 2, 3], 1));
}

fn enriched(more: &Value) -> World {
    let mut step =
        json!({"name": "ask", "enrich": {"url": "https://a.example/{/id}", "into": "/who"}});
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    World::new(&json!([step, {"publish": {"stream": "out"}}]))
}

#[test]
fn answers_are_put_into_the_payload_and_failures_mean_what_they_mean() {
    let mut world = enriched(&json!({}));
    world.simple(1, &json!({"id": "a"}));
    world.answer("ask", 200, r#"{"name":"Ada"}"#);
    assert_eq!(world.data("out"), [json!({"id": "a", "who": {"name": "Ada"}})]);

    for (status, body, outcome, reason) in [
        (500, "", Outcome::Failed, "request"),
        (429, "", Outcome::Throttled { retry_after: None }, "request"),
        (400, "", Outcome::Refused, "refused"),
        (302, "", Outcome::Refused, "refused"),
        (200, "no json", Outcome::Refused, "answer"),
    ] {
        world.simple(2, &json!({"id": "b"}));
        world.answer("ask", status, body);
        let (tokens, failure) = world.failed.last().unwrap();
        assert_eq!(
            (tokens.as_slice(), failure.outcome.clone(), failure.reason),
            (&[2][..], outcome, reason)
        );
        assert_eq!(failure.step, "ask");
    }
    world.simple(3, &json!({}));
    assert_eq!((world.reason(), world.calls.len()), ("template", 0));
    world.simple(4, &json!({"id": "c"}));
    world.wait(30);
    assert_eq!((world.reason(), world.engine.is_idle()), ("timeout", true));
    // The answer comes all the same: nobody waits for it.
    world.answer("ask", 200, "1");
    assert_eq!((world.settled, world.streams["out"].len()), (vec![1], 1));
}

#[test]
fn a_step_may_be_left_out_or_lead_elsewhere_when_it_fails() {
    let mut world = enriched(&json!({"on_error": "continue", "timeout": "2s"}));
    world.simple(1, &json!({"id": "a"}));
    world.wait(2);
    assert_eq!((world.data("out"), world.settled), (vec![json!({"id": "a"})], vec![1]));

    let mut world = enriched(&json!({"on_error": {"stream": "odd"}}));
    world.simple(1, &json!({"id": "a"}));
    world.answer("ask", 500, "");
    assert_eq!((world.data("odd"), world.settled.clone()), (vec![json!({"id": "a"})], vec![1]));
    assert_eq!(
        (world.all("odd", "flowstep"), world.all("odd", "flowreason")),
        (vec!["ask".into()], vec!["request".into()])
    );

    let mut world = enriched(&json!({"on_error": "fail"}));
    world.simple(1, &json!({"id": "a"}));
    world.answer("ask", 500, "");
    assert!(world.failed[0].1.is_permanent());
}

#[test]
fn a_cache_asks_once() {
    let mut world = World::new(&json!([
        {"enrich": {"url": "https://a.example/{/id}", "into": "/who", "cache": {"ttl": "10s"}}},
        {"publish": {"stream": "out"}},
    ]));
    world.simple(1, &json!({"id": "a"}));
    world.answer("enrich", 200, "1");
    world.simple(2, &json!({"id": "a"}));
    assert_eq!((world.settled.clone(), world.calls.len()), (vec![1, 2], 0));
    world.wait(10);
    world.simple(3, &json!({"id": "a"}));
    assert_eq!(world.calls.len(), 1);
}

fn saga() -> World {
    let bridge = |name: &str| {
        json!({
            "name": name, "bridge": {"url": "https://a.example/", "into": format!("/{name}")},
            "compensate": {"stream": format!("undo-{name}")},
        })
    };
    World::new(&json!([
        bridge("reserve"),
        bridge("charge"),
        {"name": "tell", "publish": {"stream": "told"}, "compensate": {"stream": "undo-tell", "type": "untold"}},
        {"name": "ship", "bridge": {"url": "https://a.example/"}},
    ]))
}

#[test]
fn what_was_done_is_undone_in_reverse_order_once_the_event_fails_for_good() {
    let run = || {
        let mut world = saga();
        world.simple(1, &json!({}));
        world.answer("reserve", 200, "7");
        world.answer("charge", 200, "8");
        world.answer("ship", 400, "");
        world
    };
    let world = run();
    let streams: Vec<&str> = world.log.iter().map(|(stream, _)| stream.as_str()).collect();
    assert_eq!(streams, ["told", "undo-tell", "undo-charge", "undo-reserve"]);
    assert_eq!(
        (world.failed.len(), world.reason(), &*world.failed[0].1.step),
        (1, "refused", "ship")
    );
    // Whoever undoes it knows the answer.
    assert_eq!(world.data("undo-reserve"), [json!({"reserve": 7})]);
    assert_eq!(world.all("undo-reserve", "outcome"), ["done"]);
    assert_eq!(world.all("undo-charge", "compensates"), ["charge"]);
    assert_eq!(world.all("undo-tell", "type"), ["untold"]);
    assert_eq!(world.all("undo-charge", "type"), ["compensate.charge"]);
    assert_eq!(world.all("undo-charge", "causationid"), ["1"]);
    // The same again after a crash.
    assert_eq!(run().log, world.log);
    assert!(world.engine.is_idle() && world.engine.bytes() == 0);
}

#[test]
fn what_is_tried_again_is_not_undone_until_the_last_time() {
    let mut world = saga();
    world.simple(1, &json!({}));
    world.answer("reserve", 200, "7");
    world.answer("charge", 503, "");
    assert_eq!((world.log.len(), world.failed.len()), (0, 1));

    let once = event("1", &json!({}), &json!({}));
    world.offer(2, &once, true);
    world.answer("reserve", 200, "7");
    world.answer("charge", 503, "");
    // Nobody knows whether it was charged.
    assert_eq!(world.all("undo-charge", "outcome"), ["unknown"]);
    assert_eq!(world.all("undo-reserve", "outcome"), ["done"]);
    // What was refused was not done, and asking for patience is no attempt.
    let mut world = saga();
    world.offer(1, &once, true);
    world.answer("reserve", 200, "7");
    world.answer("charge", 429, "");
    assert_eq!(world.log.len(), 0);
    world.offer(2, &once, true);
    world.answer("reserve", 200, "7");
    world.answer("charge", 422, "");
    assert_eq!(
        world.log.iter().map(|(stream, _)| stream.as_str()).collect::<Vec<_>>(),
        ["undo-reserve"]
    );
}

#[test]
fn a_compensation_is_published_again_until_it_is_stored() {
    let mut world = saga();
    world.simple(1, &json!({}));
    world.answer("reserve", 200, "7");
    world.store = |_| Stored::Unavailable("no leader".to_owned());
    world.answer("charge", 400, "");
    assert!(world.failed.is_empty() && world.engine.held() == [Token(1)]);
    world.wait(1);
    world.store = |_| Stored::Yes;
    world.wait(2);
    assert_eq!((world.failed.len(), world.reason(), world.log.len()), (1, "refused", 1));

    world.simple(2, &json!({}));
    world.answer("reserve", 200, "7");
    world.store = |_| Stored::Refused("schema".to_owned());
    world.answer("charge", 400, "");
    assert!(world.failed[1].1.message.contains("a compensation was refused: schema"));

    world.store = |_| Stored::Yes;
    world.simple(3, &json!({}));
    world.answer("reserve", 200, "7");
    world.store = |_| Stored::Unavailable("no leader".to_owned());
    world.answer("charge", 400, "");
    for _ in 0..10 {
        world.wait(30);
    }
    assert_eq!(
        (world.reason(), world.failed[2].1.outcome.clone()),
        ("compensation", Outcome::ReplyFailed)
    );
}

fn fanned(join: &Value, into: &Value) -> World {
    let branch = |name: &str| {
        json!({"name": name, "steps": [
            {"name": name, "bridge": {"url": "https://a.example/", "into": ""}, "compensate": {"stream": "undo"}},
        ]})
    };
    World::new(&json!([
        {"name": "fan", "fan_out": {"branches": [branch("a"), branch("b"), branch("c")], "join": join, "into": into}, "timeout": "9s"},
        {"publish": {"stream": "out"}},
    ]))
}

#[test]
fn branches_are_joined_by_all_any_or_a_count() {
    let mut world = fanned(&json!("all"), &json!("/of"));
    world.simple(1, &json!({"n": 1}));
    world.answer("c", 200, r#"{"x":3}"#);
    world.answer("a", 200, r#"{"x":1}"#);
    assert!(world.log.is_empty());
    world.answer("b", 200, r#"{"x":2}"#);
    let of = |x: i32| json!({"n": 1, "x": x});
    assert_eq!(world.data("out"), [json!({"n": 1, "of": {"a": of(1), "b": of(2), "c": of(3)}})]);
    assert_eq!(world.settled, [1]);

    let mut world = fanned(&json!("any"), &json!(null));
    world.simple(1, &json!({"n": 1}));
    world.answer("a", 400, "");
    world.answer("b", 200, "{}");
    assert_eq!((world.data("out"), world.settled.clone()), (vec![json!({"n": 1})], vec![1]));
    // The third answer comes too late to matter.
    world.answer("c", 500, "");
    assert!(world.failed.is_empty() && world.engine.is_idle() && world.engine.bytes() == 0);

    let mut world = fanned(&json!({"count": 2}), &json!(null));
    world.simple(1, &json!({"n": 1}));
    world.answer("a", 200, "{}");
    world.answer("b", 400, "");
    assert!(world.failed.is_empty());
    world.answer("c", 400, "");
    assert_eq!((world.reason(), &*world.failed[0].1.step), ("refused", "c"));
    assert_eq!(world.all("undo", "compensates"), ["a"]);
}

#[test]
fn one_branch_too_many_that_fails_or_is_late_fails_the_event() {
    let mut world = fanned(&json!("all"), &json!(null));
    world.simple(1, &json!({"n": 1}));
    world.answer("a", 200, "{}");
    world.answer("b", 400, "");
    // Of the third nobody knows: its answer is not waited for.
    let mut undone = world.all("undo", "compensates");
    undone.sort();
    assert_eq!((undone, world.failed.len()), (vec!["a".to_owned(), "c".to_owned()], 1));
    assert_eq!(world.all("undo", "outcome"), ["unknown", "done"]);

    let mut world = fanned(&json!("all"), &json!(null));
    world.simple(1, &json!({"n": 1}));
    world.wait(9);
    assert_eq!((world.reason(), &*world.failed[0].1.step), ("timeout", "fan"));
    assert!(world.engine.is_idle() && world.engine.bytes() == 0);
}

#[test]
fn branches_may_split_and_branch_themselves() {
    let mut world = World::new(&json!([
        {"fan_out": {"into": "/of", "branches": [
            {"name": "lines", "steps": [{"split": {"at": "/lines"}}]},
            {"name": "none", "steps": [{"filter": {"when": [{"cel": "false"}]}}]},
            {"name": "more", "steps": [{"name": "inner", "fan_out": {"into": "/in", "branches": [
                {"name": "x", "steps": [{"transform": {"merge": {"x": 1}}}]},
            ]}}]},
        ]}},
        {"publish": {"stream": "out"}},
    ]));
    world.simple(1, &json!({"lines": [1, 2]}));
    let of =
        json!({"lines": [1, 2], "more": {"lines": [1, 2], "in": {"x": {"lines": [1, 2], "x": 1}}}});
    assert_eq!(world.data("out"), [json!({"lines": [1, 2], "of": of})]);
    assert_eq!(world.settled, [1]);
}

#[test]
fn a_delay_gives_the_event_back_and_lets_it_pass_later() {
    let mut world = World::new(&json!([
        {"dedup": {"window": "1h"}}, {"delay": {"for": "200s"}}, {"publish": {"stream": "out"}},
    ]));
    let one = event("a", &json!({}), &json!(1));
    world.give(1, &one);
    assert_eq!(world.delayed, [(1, Timestamp::from_micros(1_100_000_000))]);
    world.wait(100);
    // It was not done, so it is no repeat.
    world.give(2, &one);
    world.give(3, &one);
    assert_eq!((world.settled, world.streams["out"].len()), (vec![2, 3], 1));
}

#[test]
fn of_two_that_are_alike_the_second_waits_for_what_becomes_of_the_first() {
    let mut world = World::new(&json!([
        {"dedup": {"key": "{/k}", "window": "1m"}},
        {"bridge": {"url": "https://a.example/"}},
    ]));
    world.simple(1, &json!({"k": 1}));
    world.simple(2, &json!({"k": 1}));
    world.simple(3, &json!({"k": 1}));
    assert_eq!(world.calls.len(), 1);
    world.answer("bridge", 500, "");
    assert_eq!((world.failed[0].0.as_slice(), world.calls.len()), (&[1][..], 1));
    world.answer("bridge", 200, "");
    assert_eq!(world.settled, [2, 3]);
    world.simple(4, &json!({"k": 1}));
    assert_eq!((world.settled.clone(), world.calls.len()), (vec![2, 3, 4], 0));
    world.wait(60);
    world.simple(5, &json!({"k": 1}));
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn a_full_engine_refuses_and_lets_the_oldest_group_go() {
    let steps = json!([
        {"aggregate": {"key": "{/k}", "after": "1h"}}, {"publish": {"stream": "groups"}},
    ]);
    let mut world = World::with(engine_of(&steps, None, 20_000));
    let large =
        |n: u64| event(&n.to_string(), &json!({}), &json!({"k": n, "x": "x".repeat(4_000)}));
    let mut admitted = 0;
    while world.give(admitted, &large(admitted)) == Admission::Taken {
        assert!(world.engine.bytes() <= 20_000);
        admitted += 1;
    }
    assert!(admitted > 2);
    assert_eq!((world.settled.clone(), world.streams["groups"].len()), (vec![0], 1));
    assert_eq!(world.give(admitted, &large(admitted)), Admission::Taken);
}

#[test]
fn a_lost_delivery_is_forgotten_with_all_that_hangs_on_it() {
    let mut world = fanned(&json!("all"), &json!(null));
    world.simple(1, &json!({"n": 1}));
    world.engine.handle_lost(Token(1), world.now);
    world.drive();
    world.answer("a", 200, "{}");
    assert!(world.engine.is_idle() && world.engine.bytes() == 0 && world.failed.is_empty());

    let mut world = grouped(&json!({"key": "k", "count": 3, "after": "1m"}));
    for n in 1..=2 {
        world.simple(n, &json!(n));
    }
    world.engine.handle_lost(Token(1), world.now);
    world.simple(3, &json!(3));
    assert!(world.settled.is_empty());
    world.simple(4, &json!(4));
    assert_eq!(
        (world.settled.clone(), world.data("groups")),
        (vec![2, 3, 4], vec![json!([2, 3, 4])])
    );
}

#[test]
fn what_a_stream_refuses_is_not_lost() {
    let steps = json!([{"transform": {"merge": {"a": 1}}}, {"publish": {"stream": "out"}}]);
    let mut world = World::new(&steps);
    world.store = |_| Stored::Unavailable("no leader".to_owned());
    world.simple(1, &json!({}));
    assert_eq!(
        (world.reason(), world.failed[0].1.outcome.clone()),
        ("publish", Outcome::ReplyFailed)
    );
    world.store = |_| Stored::Refused("schema".to_owned());
    world.simple(1, &json!({}));
    assert_eq!((world.reason(), world.failed[1].1.is_permanent()), ("refused", true));
    // An earlier version of the flow made something else of the same event: that stands.
    world.store = |_| Stored::Differently;
    world.simple(1, &json!({}));
    assert_eq!(world.settled, [1]);
    let mut world = World::new(&json!([{"publish": {"stream": "out"}}]));
    world.store = |_| Stored::Differently;
    world.simple(1, &json!({}));
    assert_eq!(world.reason(), "identity");

    world.store = |_| Stored::Yes;
    world.give(2, &event("x", &json!({"hopcount": 16}), &json!(1)));
    assert_eq!(world.reason(), "hops");
    world.give(3, &bytes::Bytes::from_static(&[0xff; 5]));
    assert_eq!(world.reason(), "undecodable");
}

#[test]
fn notes_tell_what_each_step_did() {
    let steps = json!([{"publish": {"stream": "out"}}]);
    let mut world = World::with(engine_of(&steps, None, 1 << 20).with_notes());
    world.simple(1, &json!({"n": 1}));
    let notes = world.engine.take_notes();
    assert_eq!((&*notes[0].step, &*notes[0].event), ("publish", "1"));
    assert!(notes[0].what.contains("default/out"));
}
