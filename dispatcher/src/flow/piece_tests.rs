//! Each kind of step by itself: examples, then properties.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use weft_proto::event::{EventView, from_json};
use weft_proto::resource::flow::{
    AggregateStep, BridgeStep, CacheSpec, DedupStep, DelayStep, EnrichStep, SplitStep, Template,
    TransformStep,
};
use weft_proto::{QualifiedName, Timestamp};

use super::aggregate::{Aggregate, Groups};
use super::cache::Cache;
use super::call::{self, Answer, Call};
use super::dedup::{Dedup, Seen, Verdict};
use super::parts::{HOPS_MAX, Parts, hops, is_unwieldy, put, stamp};
use super::render::{Escape, JsonTemplate, Scope};
use super::split::Split;
use super::transform::Transform;
use super::types::{ItemId, RunId};
use super::{Failure, delay};
use crate::delivery::Outcome;
use crate::push;

pub(super) fn event(id: &str, attributes: &Value, data: &Value) -> Bytes {
    let mut event = json!({
        "specversion": "1.0", "id": id, "source": "/shop", "type": "order", "data": data,
    });
    for (name, value) in attributes.as_object().unwrap() {
        event[name] = value.clone();
    }
    let event = from_json(event.to_string().as_bytes()).unwrap();
    let parts = Parts::read(&prost::Message::encode_to_vec(&event).into()).unwrap();
    parts.encode("data").unwrap()
}

pub(super) fn data_of(event: &Bytes) -> Value {
    Parts::read(event).unwrap().json().unwrap()
}

pub(super) fn attribute(event: &Bytes, name: &str) -> Option<String> {
    EventView::parse(event).unwrap().attribute(name).map(std::borrow::Cow::into_owned)
}

fn function() -> QualifiedName {
    "shop/f".parse().unwrap()
}

fn derive(parts: &mut Parts) {
    let cause = parts.id.clone();
    parts.derive(&function(), "step", Some(&cause));
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn spec<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

fn transform(spec_json: Value, event: &Bytes) -> Result<Bytes, Failure> {
    let spec: TransformStep = spec(spec_json);
    Transform::new(&spec).unwrap().apply(event, derive)
}

fn patched(patch: &Value, data: &Value) -> Option<Value> {
    let event = event("1", &json!({}), data);
    transform(json!({"patch": patch}), &event).ok().map(|event| data_of(&event))
}

/// The examples of appendix A of RFC 6902.
#[test]
fn json_patch_is_that_of_the_rfc() {
    let op = |op: Value| Value::Array(vec![op]);
    for (data, patch, wanted) in [
        (
            json!({"foo": "bar"}),
            op(json!({"op": "add", "path": "/baz", "value": "qux"})),
            Some(json!({"baz": "qux", "foo": "bar"})),
        ),
        (
            json!({"foo": ["bar", "baz"]}),
            op(json!({"op": "add", "path": "/foo/1", "value": "qux"})),
            Some(json!({"foo": ["bar", "qux", "baz"]})),
        ),
        (
            json!({"baz": "qux", "foo": "bar"}),
            op(json!({"op": "remove", "path": "/baz"})),
            Some(json!({"foo": "bar"})),
        ),
        (
            json!({"foo": ["bar", "qux", "baz"]}),
            op(json!({"op": "remove", "path": "/foo/1"})),
            Some(json!({"foo": ["bar", "baz"]})),
        ),
        (
            json!({"baz": "qux", "foo": "bar"}),
            op(json!({"op": "replace", "path": "/baz", "value": "boo"})),
            Some(json!({"baz": "boo", "foo": "bar"})),
        ),
        (
            json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
            op(json!({"op": "move", "from": "/foo/waldo", "path": "/qux/thud"})),
            Some(json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}})),
        ),
        (
            json!({"foo": ["all", "grass", "cows", "eat"]}),
            op(json!({"op": "move", "from": "/foo/1", "path": "/foo/3"})),
            Some(json!({"foo": ["all", "cows", "eat", "grass"]})),
        ),
        (
            json!({"baz": "qux", "foo": ["a", 2, "c"]}),
            json!([{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]),
            Some(json!({"baz": "qux", "foo": ["a", 2, "c"]})),
        ),
        (json!({"baz": "qux"}), op(json!({"op": "test", "path": "/baz", "value": "bar"})), None),
        (
            json!({"foo": "bar"}),
            op(json!({"op": "add", "path": "/child", "value": {"grandchild": {}}})),
            Some(json!({"foo": "bar", "child": {"grandchild": {}}})),
        ),
        (
            json!({"foo": "bar"}),
            op(json!({"op": "add", "path": "/baz", "value": "qux", "xyz": 123})),
            Some(json!({"foo": "bar", "baz": "qux"})),
        ),
        (json!({"foo": "bar"}), op(json!({"op": "add", "path": "/baz/bat", "value": "qux"})), None),
        (
            json!({"/": 9, "~1": 10}),
            op(json!({"op": "test", "path": "/~01", "value": 10})),
            Some(json!({"/": 9, "~1": 10})),
        ),
        (json!({"/": 9, "~1": 10}), op(json!({"op": "test", "path": "/~01", "value": "10"})), None),
        (
            json!({"foo": ["bar"]}),
            op(json!({"op": "add", "path": "/foo/-", "value": ["abc", "def"]})),
            Some(json!({"foo": ["bar", ["abc", "def"]]})),
        ),
    ] {
        assert_eq!(patched(&patch, &data), wanted, "{patch} of {data}");
    }
}

/// The table of appendix A of RFC 7386.
#[test]
fn merge_patch_is_that_of_the_rfc() {
    for (data, merge, wanted) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a": "b"}), json!(["c"]), json!(["c"])),
        (json!({"a": "foo"}), json!("bar"), json!("bar")),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        let event = event("1", &json!({}), &data);
        let merged = transform(json!({"merge": merge}), &event).unwrap();
        assert_eq!(data_of(&merged), wanted, "{merge} of {data}");
    }
}

#[test]
fn a_transformation_changes_attributes_and_names_its_cause() {
    let given = event(
        "7",
        &json!({"subject": "s", "debug": true, "correlationid": "c"}),
        &json!({"n": 5, "of": {"a": [1]}}),
    );
    let spec = json!({
        "merge": {"copy": "{/of}", "text": "{subject}-{/n}", "fix": 1},
        "set": {"type": "order.{/n}", "subject": "{source}", "time": "2026-01-01T00:00:00Z"},
        "remove": ["debug"],
    });

    let changed = transform(spec.clone(), &given).unwrap();

    assert_eq!(
        data_of(&changed),
        json!({"n": 5, "of": {"a": [1]}, "copy": {"a": [1]}, "text": "s-5", "fix": 1})
    );
    let shown = |name| attribute(&changed, name);
    assert_eq!(shown("type").as_deref(), Some("order.5"));
    assert_eq!(shown("subject").as_deref(), Some("/shop"));
    assert_eq!(shown("source").as_deref(), Some("/functions/shop/f"));
    assert_eq!(shown("causationid").as_deref(), Some("7"));
    assert_eq!(shown("correlationid").as_deref(), Some("c"));
    assert_eq!(shown("time").as_deref(), Some("2026-01-01T00:00:00Z"));
    assert_eq!(shown("debug"), None);
    assert_eq!(transform(spec, &given).unwrap(), changed);
}

#[test]
fn what_cannot_be_changed_is_a_failure_for_good() {
    let given = event("1", &json!({"datacontenttype": "text/plain"}), &json!("x"));
    let reason = |spec, event: &Bytes| {
        let failure = transform(spec, event).unwrap_err();
        assert!(failure.is_permanent());
        failure.reason
    };
    assert_eq!(reason(json!({"merge": {}}), &given), "data");
    let given = event("1", &json!({}), &json!({"a": [1, 2]}));
    assert_eq!(reason(json!({"merge": {"b": "{/c}"}}), &given), "template");
    assert_eq!(reason(json!({"set": {"subject": "{/a}"}}), &given), "template");
    assert_eq!(reason(json!({"set": {"subject": "{nothing}"}}), &given), "template");
    assert_eq!(reason(json!({"set": {"time": "noon"}}), &given), "transform");
    assert_eq!(reason(json!({"set": {"subject": ""}}), &given), "transform");
    assert_eq!(reason(json!({"patch": [{"op": "remove", "path": "/b"}]}), &given), "transform");
    // What is copied into itself doubles: stopped long before it fills the memory.
    let copies: Vec<_> =
        (0..60).map(|_| json!({"op": "copy", "from": "", "path": "/a/0"})).collect();
    assert_eq!(reason(json!({"patch": copies}), &given), "transform");
    let many: Vec<_> = (0..20).map(|_| "{/a}").collect();
    let large = event("1", &json!({}), &json!({"a": ["x".repeat(200_000)]}));
    assert_eq!(reason(json!({"merge": {"b": many}}), &large), "template");
}

#[test]
fn a_split_names_its_parts() {
    let given = event("1", &json!({"subject": "s"}), &json!({"lines": [{"n": 1}, 2]}));
    let split = |json: Value| Split::new(&spec::<SplitStep>(json)).unwrap();

    let parts = split(json!({"at": "/lines", "type": "line"})).apply(&given, derive).unwrap();

    assert_eq!(parts.iter().map(data_of).collect::<Vec<_>>(), [json!({"n": 1}), json!(2)]);
    let base = attribute(&parts[0], "splitid").unwrap();
    assert_eq!(attribute(&parts[1], "id"), Some(format!("{base}#1")));
    assert_eq!(attribute(&parts[1], "splitindex").as_deref(), Some("1"));
    assert_eq!(attribute(&parts[1], "splitcount").as_deref(), Some("2"));
    assert_eq!(attribute(&parts[1], "type").as_deref(), Some("line"));
    assert_eq!(attribute(&parts[1], "subject").as_deref(), Some("s"));
    assert_eq!(attribute(&parts[1], "causationid").as_deref(), Some("1"));
    let refused = |json: Value| split(json).apply(&given, derive).unwrap_err().reason;
    assert_eq!(refused(json!({"at": "/nothing"})), "split");
    assert_eq!(refused(json!({"at": "/lines/0"})), "split");
    assert_eq!(refused(json!({"at": "/lines", "max": 1})), "split");
}

#[test]
fn a_delay_is_counted_from_the_event_not_from_the_delivery() {
    let until = |spec_json: Value, attributes: Value, now| {
        let bytes = event("1", &attributes, &json!(1));
        let view = EventView::parse(&bytes).unwrap();
        delay::until(&spec::<DelayStep>(spec_json), &view, at(100), at(now))
    };
    let timed = json!({"time": "1970-01-01T00:01:00Z", "due": "1970-01-01T00:05:00Z"});

    assert_eq!(until(json!({"for": "30s"}), json!({}), 110), Ok(Some(at(130))));
    assert_eq!(until(json!({"for": "30s"}), json!({}), 130), Ok(None));
    assert_eq!(until(json!({"for": "30s"}), timed.clone(), 80), Ok(Some(at(90))));
    assert_eq!(until(json!({"until": "due"}), timed.clone(), 80), Ok(Some(at(300))));
    assert_eq!(until(json!({"until": "due"}), timed.clone(), 301), Ok(None));
    let failed = |json, attributes| until(json, attributes, 80).unwrap_err().reason;
    assert_eq!(failed(json!({"until": "other"}), timed.clone()), "delay");
    assert_eq!(failed(json!({"until": "type"}), timed.clone()), "delay");
    assert_eq!(failed(json!({"until": "due", "max": "1m"}), timed), "delay");
}

#[test]
fn addresses_lead_nowhere_else() {
    let request = |url: &str, data: Value| {
        let spec: EnrichStep = spec(json!({"url": url, "into": ""}));
        let call = Call::enrich(&spec).unwrap();
        let name = function();
        call.request(&event("1", &json!({}), &data), (&name, "s"), Duration::from_secs(1))
    };
    let url = "https://a.example:8443/x/{/id}?q={/id}";
    let good = request(url, json!({"id": "a b/c?d#e&ä"})).unwrap();
    assert_eq!(
        good.url.to_string(),
        "https://a.example:8443/x/a%20b%2Fc%3Fd%23e%26%C3%A4?q=a%20b%2Fc%3Fd%23e%26%C3%A4"
    );
    for id in ["..", "."] {
        assert_eq!(request(url, json!({"id": id})).unwrap_err().reason, "template");
    }
    let pieces = "https://a.example/x/{/a}{/b}/y";
    assert_eq!(request(pieces, json!({"a": ".", "b": "."})).unwrap_err().reason, "template");
    let long = request(url, json!({"id": "x".repeat(3_000)})).unwrap_err();
    assert_eq!(long.reason, "template");
}

#[test]
fn a_bridge_sends_what_it_says_with_the_same_key_each_time() {
    let request = |body: Value| {
        let spec: BridgeStep = spec(json!({
            "url": "https://a.example/", "body": body, "headers": {"x-of": "{subject}"},
        }));
        let bytes = event("1", &json!({"subject": "s"}), &json!({"n": 1}));
        Call::bridge(&spec)
            .unwrap()
            .request(&bytes, (&function(), "s"), Duration::from_secs(1))
            .unwrap()
    };
    let header = |request: &super::HttpRequest, name: &str| {
        request.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let binary = request(json!("binary"));
    assert_eq!(header(&binary, "ce-id").as_deref(), Some("1"));
    assert_eq!(header(&binary, "x-of").as_deref(), Some("s"));
    assert_eq!(&binary.body[..], br#"{"n":1}"#);
    let data = request(json!("data"));
    assert_eq!((header(&data, "ce-id"), &data.body[..]), (None, &br#"{"n":1}"#[..]));
    assert_eq!(header(&data, "content-type").as_deref(), Some("application/json"));
    let structured = request(json!("structured"));
    assert!(structured.body.starts_with(b"{\"specversion\""));
    assert!(request(json!("none")).body.is_empty());
    let template = request(json!({"template": {"of": ["{/n}", "{subject}!"]}}));
    assert_eq!(&template.body[..], br#"{"of":[1,"s!"]}"#);
    assert_eq!(header(&template, "idempotency-key"), header(&data, "idempotency-key"));
}

/// One table for functions, webhooks and flows.
#[test]
fn statuses_mean_what_they_mean_elsewhere() {
    for status in 100..=999_u16 {
        let answer =
            |retry_after| Answer::Answered { status, retry_after, body: Some(Bytes::new()) };
        let read = |retry_after| call::read(answer(retry_after), Duration::from_secs(1)).err();
        let pushed =
            push::read_status(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), at(0));
        let found = read(None).map(|failure| failure.outcome);
        match pushed {
            push::Verdict::Done => assert_eq!(found, None),
            push::Verdict::Throttled { retry_after } => {
                assert_eq!(found, Some(Outcome::Throttled { retry_after }));
            }
            push::Verdict::Failed => assert_eq!(found, Some(Outcome::Failed), "{status}"),
            push::Verdict::Gone | push::Verdict::TooLarge | push::Verdict::Refused => {
                assert_eq!(found, Some(Outcome::Refused), "{status}");
            }
        }
    }
    let retry_after = Some(Duration::from_secs(7));
    let busy = Answer::Answered { status: 503, retry_after, body: None };
    let failure = call::read(busy, Duration::from_secs(1)).unwrap_err();
    assert_eq!(failure.outcome, Outcome::Throttled { retry_after });
    let long = Answer::Answered { status: 200, retry_after: None, body: None };
    let failure = call::read(long, Duration::from_secs(1)).unwrap_err();
    assert!(failure.is_permanent() && call::may_be_done(&failure));
}

#[test]
fn answers_are_kept_for_so_long_and_so_many() {
    let spec = CacheSpec { ttl: "10s".parse().unwrap(), entries: 2 };
    let mut cache = Cache::default();
    let answer = Bytes::from_static(b"1");
    cache.put("a", &answer, spec, at(0));
    cache.put("b", &answer, spec, at(5));
    assert_eq!(cache.get("a", spec, at(9)), Some(answer.clone()));
    assert_eq!(cache.get("a", spec, at(10)), None);
    cache.put("c", &answer, spec, at(11));
    cache.put("d", &answer, spec, at(11));
    assert_eq!(cache.get("b", spec, at(11)), None);
    assert_eq!(cache.bytes(), 4);
    let large = Bytes::from(vec![b' '; 3 << 20]);
    cache.put("e", &large, spec, at(11));
    cache.put("f", &large, spec, at(11));
    assert!(cache.bytes() <= 4 << 20);
}

#[test]
fn a_repeat_waits_for_a_first_that_may_fail() {
    let dedup = Dedup::new(&spec::<DedupStep>(json!({"window": "10s"}))).unwrap();
    let mut seen = Seen::default();
    let ask =
        |seen: &mut Seen, item, run, now| dedup.ask(seen, "k", (ItemId(item), RunId(run)), at(now));
    assert_eq!(ask(&mut seen, 1, 1, 0), Verdict::First);
    assert_eq!(ask(&mut seen, 2, 2, 0), Verdict::Wait);
    assert_eq!(ask(&mut seen, 3, 1, 0), Verdict::Repeat);
    // It fails: who waited is now the first.
    assert_eq!(dedup.end(&mut seen, "k", RunId(1), None), [ItemId(2)]);
    assert_eq!(ask(&mut seen, 2, 2, 1), Verdict::First);
    assert!(dedup.end(&mut seen, "k", RunId(2), Some(at(5))).is_empty());
    assert_eq!(ask(&mut seen, 4, 4, 14), Verdict::Repeat);
    assert_eq!(ask(&mut seen, 5, 5, 15), Verdict::First);
}

#[test]
fn hops_are_counted_and_end() {
    let mut bytes = event("1", &json!({}), &json!(1));
    for hop in 1..=HOPS_MAX {
        let before = hops(&EventView::parse(&bytes).unwrap());
        bytes = stamp(&bytes, before).unwrap();
        assert_eq!(hops(&EventView::parse(&bytes).unwrap()), hop);
    }
    assert_eq!(stamp(&bytes, HOPS_MAX).unwrap_err().reason, "hops");
}

#[test]
fn values_are_put_where_they_belong() {
    let with = |mut data: Value, at: &[&str], value: Value| {
        let at: Vec<String> = at.iter().map(|&step| step.to_owned()).collect();
        put(&mut data, &at, value).map(|()| data)
    };
    assert_eq!(with(json!({"a": 1}), &["b", "c"], json!(2)), Ok(json!({"a": 1, "b": {"c": 2}})));
    assert_eq!(with(json!({"a": 1}), &[], json!({"b": 2})), Ok(json!({"a": 1, "b": 2})));
    assert_eq!(with(json!([1]), &[], json!(2)), Ok(json!(2)));
    assert_eq!(with(json!([{"a": 1}]), &["0", "a"], json!(2)), Ok(json!([{"a": 2}])));
    assert_eq!(with(Value::Null, &["a"], json!([])), Ok(json!({"a": []})));
    assert!(with(json!([1]), &["5"], json!(2)).is_err());
    assert!(with(json!({"a": 1}), &["a", "b"], json!(2)).is_err());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z{}/~ä\"]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn operation() -> impl Strategy<Value = Value> {
    let path = || "(/[a-c]{1,2}|/[0-2]|/-){0,3}";
    prop_oneof![
        (path(), json_value())
            .prop_map(|(path, value)| json!({"op": "add", "path": path, "value": value})),
        path().prop_map(|path| json!({"op": "remove", "path": path})),
        (path(), path()).prop_map(|(from, path)| json!({"op": "copy", "from": from, "path": path})),
        (path(), path()).prop_map(|(from, path)| json!({"op": "move", "from": from, "path": path})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order in which its parts come back, and however often.
    #[test]
    fn splitting_and_aggregating_gives_back_the_same(
        elements in vec(json_value(), 1..12),
        order in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let whole = event("1", &json!({"subject": "s"}), &Value::from(elements.clone()));
        let split = Split::new(&spec::<SplitStep>(json!({}))).unwrap();
        let aggregate = Aggregate::new(&spec::<AggregateStep>(json!({"whole": true, "after": "1m"}))).unwrap();
        let parts = split.apply(&whole, derive).unwrap();
        let run = |sequence: &[usize]| {
            let mut groups = Groups::default();
            let mut complete = Vec::new();
            for (item, place) in sequence.iter().enumerate() {
                let done = aggregate.join(&mut groups, ItemId(item as u64), &parts[*place], at(0)).unwrap();
                complete.extend(done);
                if !complete.is_empty() { break; }
            }
            let group = complete.pop().unwrap();
            aggregate.output(group, &function(), "join").unwrap()
        };
        let straight: Vec<usize> = (0..parts.len()).collect();
        let mixed: Vec<usize> = order.iter().map(|one| one.index(parts.len())).chain(straight.iter().rev().copied()).collect();

        let (one, other) = (run(&straight), run(&mixed));

        prop_assert_eq!(data_of(&one), Value::from(elements));
        prop_assert_eq!(attribute(&one, "subject"), Some("s".to_owned()));
        prop_assert_eq!(attribute(&one, "splitid"), None);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_patch_never_leads_out_of_bounds(data in json_value(), patch in vec(operation(), 1..30)) {
        let given = event("1", &json!({}), &data);
        let spec = json!({"patch": patch});
        match transform(spec.clone(), &given) {
            Ok(changed) => {
                prop_assert!(!is_unwieldy(&data_of(&changed)));
                prop_assert_eq!(transform(spec, &given).unwrap(), changed);
            }
            Err(failure) => prop_assert!(failure.is_permanent()),
        }
    }

    /// A second application of the same merge changes nothing.
    #[test]
    fn merging_twice_is_merging_once(data in json_value(), merge in json_value()) {
        let plain = merge.to_string().replace(['{', '}'], "");
        let merge = if merge.is_object() || merge.is_array() { merge } else { Value::from(plain) };
        let spec = json!({"merge": merge});
        let given = event("1", &json!({}), &data);
        let Ok(spec_read) = Transform::new(&serde_json::from_value(spec).unwrap()) else { return Ok(()) };
        let Ok(once) = spec_read.apply(&given, |_| ()) else { return Ok(()) };
        let twice = spec_read.apply(&once, |_| ()).unwrap();
        prop_assert_eq!(data_of(&once), data_of(&twice));
    }

    #[test]
    fn templates_of_any_text_give_back_the_text(text in "[ -~ä]{0,40}", value in "[ -~ä]{0,20}") {
        let escaped = text.replace('{', "{{").replace('}', "}}");
        let template = Template::parse(&format!("{escaped}{{/v}}")).unwrap();
        let bytes = event("1", &json!({}), &json!({"v": value}));
        let scope = Scope::new(&bytes).unwrap();
        prop_assert_eq!(scope.text(&template, Escape::Nothing).unwrap(), format!("{}{}", text, value));
        let encoded = scope.text(&template, Escape::Address).unwrap();
        let encoded = encoded.strip_prefix(&text).unwrap();
        prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte)));
        let decoded = weft_proto::event::percent_decoded(encoded.as_bytes());
        prop_assert_eq!(decoded, value.into_bytes());
        let json = JsonTemplate::new(&json!("{/v}")).unwrap();
        prop_assert!(scope.json(&json).unwrap().is_string());
    }

    /// Model: a list of what was done when.
    #[test]
    fn dedup_lets_no_repeat_through_and_drops_no_first(
        steps in vec((0..4_u64, 0..4_u64, any::<bool>()), 1..60),
    ) {
        let window = 10;
        let dedup = Dedup::new(&spec::<DedupStep>(json!({"window": "10s"}))).unwrap();
        let mut seen = Seen::default();
        let mut done: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
        let mut now = 0;
        for (run, (key, wait, fails)) in steps.into_iter().enumerate() {
            now += wait;
            let run = RunId(run as u64);
            let verdict = dedup.ask(&mut seen, &key.to_string(), (ItemId(run.0), run), at(now));
            let is_known = done.get(&key).is_some_and(|then| now < then + window);
            prop_assert_eq!(verdict, if is_known { Verdict::Repeat } else { Verdict::First });
            if verdict == Verdict::First {
                now += wait;
                let end = (!fails).then_some(at(now));
                dedup.end(&mut seen, &key.to_string(), run, end);
                if !fails { done.insert(key, now); }
            }
        }
    }
}
