//! Whole functions on a mesh in memory with instances in memory: what an operator would see.
#![expect(clippy::unwrap_used, reason = "a test with helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_dispatcher::launch::fake::{Dies, Fakes, Handler, Program, Programs};
use weft_dispatcher::launch::{Failure, Launch, Run};
use weft_dispatcher::port::memory::MemoryMesh;
use weft_dispatcher::port::{FUNCTION, Mesh, SUBSCRIPTION};
use weft_dispatcher::run_with;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::CloudEventAttributeValue;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::v1::Resource;
use weft_proto::{QualifiedName, Result};

const LONG: Duration = Duration::from_secs(20);

type Respond = dyn Fn(&str, usize) -> Result<Response<Full<Bytes>>, Dies> + Send + Sync;

/// What the function under test saw and how often it was started.
#[derive(Default)]
struct Seen {
    calls: Mutex<Vec<String>>,
    /// Which command served each call.
    served_by: Mutex<Vec<String>>,
    starts: Mutex<Vec<Vec<String>>>,
    flying: Mutex<(usize, usize)>,
}

struct Bench {
    mesh: MemoryMesh,
    seen: Arc<Seen>,
    stop: CancellationToken,
    running: JoinHandle<Result<()>>,
}

fn name(text: &str) -> QualifiedName {
    text.parse().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "what a handler answers")]
fn answer(status: u16) -> Result<Response<Full<Bytes>>, Dies> {
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}

impl Bench {
    /// A dispatcher whose functions answer as `respond` says: given the event's id and how often
    /// it was seen before.
    fn start(respond: Arc<Respond>) -> Self {
        let mesh = MemoryMesh::default();
        for stream in ["orders", "confirmations"] {
            mesh.create_stream(&name(stream));
        }
        Self::start_on(mesh, respond)
    }

    /// The same with a program that sees requests as they are.
    fn start_with(mesh: MemoryMesh, handler: Handler) -> Self {
        let programs = move |_: &Launch| {
            let handler = Some(Arc::clone(&handler));
            Ok(Program { handler, ..Program::default() })
        };
        Self::run(mesh, Arc::default(), Arc::new(programs))
    }

    fn start_on(mesh: MemoryMesh, respond: Arc<Respond>) -> Self {
        let seen = Arc::new(Seen::default());
        let programs = programs(Arc::clone(&seen), respond);
        Self::run(mesh, seen, programs)
    }

    #[expect(clippy::disallowed_methods, reason = "the dispatcher under test is the task")]
    fn run(mesh: MemoryMesh, seen: Arc<Seen>, programs: Programs) -> Self {
        let launcher = Fakes::new(programs, TaskTracker::new());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running =
            tokio::spawn(run_with(Arc::new(mesh.clone()), Arc::new(launcher), async move {
                stopped.cancelled().await;
            }));
        Self { mesh, seen, stop, running }
    }

    async fn define(&self, change: impl FnOnce(&mut Value)) {
        let mut spec = json!({
            "command": ["serve"], "timeout": "2s", "concurrency": { "hard": 4 },
            "triggers": [{
                "name": "t", "stream": "orders", "start": "earliest",
                "retry": { "attempts": 3, "base": "5ms", "cap": "40ms" },
            }],
            "reply": { "stream": "confirmations" },
            "scaling": { "max": 4, "idle": "200ms" },
        });
        change(&mut spec);
        let resource = Resource {
            kind: FUNCTION.to_owned(),
            namespace: "default".to_owned(),
            name: "f".to_owned(),
            spec: spec.to_string().into(),
            ..Resource::default()
        };
        self.mesh.put(resource).await.unwrap();
    }

    async fn publish(&self, ids: std::ops::Range<u32>, key: Option<&str>) {
        for id in ids {
            let key = key.map(|key| {
                let attr = Some(Attr::CeString(key.to_owned()));
                ("partitionkey".to_owned(), CloudEventAttributeValue { attr })
            });
            let event = CloudEvent {
                id: id.to_string(),
                source: "/shop".to_owned(),
                spec_version: "1.0".to_owned(),
                r#type: "com.example.order.placed".to_owned(),
                attributes: key.into_iter().collect(),
                ..CloudEvent::default()
            };
            let results = self.mesh.publish(&name("orders"), vec![event.encode_to_vec().into()]);
            results.await.unwrap();
        }
    }

    async fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let waited = tokio::time::timeout(LONG, self.mesh.wait_until(|_| is_so(self))).await;
        assert!(waited.is_ok(), "{what} did not happen; status: {}", self.status());
    }

    async fn wait_acked(&self, count: u64) {
        let all: BTreeSet<u64> = (0..count).collect();
        self.wait("acknowledging all", |bench| bench.acked() == all).await;
    }

    fn acked(&self) -> BTreeSet<u64> {
        self.mesh.acked(&name("fn-f-t"))
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.mesh.status(&name("f"))).unwrap_or_default()
    }

    fn condition(&self, ty: &str) -> Option<Value> {
        let status = self.status();
        status["conditions"].as_array()?.iter().find(|found| found["type"] == ty).cloned()
    }

    fn calls(&self) -> Vec<String> {
        self.seen.calls.lock().unwrap().clone()
    }

    fn starts(&self) -> usize {
        self.seen.starts.lock().unwrap().len()
    }

    fn replies(&self) -> BTreeMap<String, CloudEvent> {
        let events = self.mesh.events(&name("confirmations"));
        let events = events.iter().map(|bytes| CloudEvent::decode(bytes.as_ref()).unwrap());
        events.map(|event| (event.id.clone(), event)).collect()
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LONG, self.running).await.unwrap().unwrap().unwrap();
    }
}

fn programs(seen: Arc<Seen>, respond: Arc<Respond>) -> Programs {
    Arc::new(move |launch: &Launch| {
        let Run::Process { command: words } = &launch.run else { return Err(Failure::config("")) };
        seen.starts.lock().unwrap().push(words.clone());
        let word = words.first().map(String::as_str);
        if word == Some("missing") {
            return Err(Failure::config("command \"missing\" does not exist"));
        }
        let (seen, respond) = (Arc::clone(&seen), Arc::clone(&respond));
        let command = words.join(" ");
        let handler = move |request: Request<Bytes>| {
            let id = request.headers()["ce-id"].to_str().unwrap().to_owned();
            seen.served_by.lock().unwrap().push(command.clone());
            let before = {
                let mut calls = seen.calls.lock().unwrap();
                calls.push(id.clone());
                calls.iter().filter(|call| **call == id).count() - 1
            };
            {
                let mut flying = seen.flying.lock().unwrap();
                flying.0 += 1;
                flying.1 = flying.1.max(flying.0);
            }
            let (seen, respond) = (Arc::clone(&seen), Arc::clone(&respond));
            let future = async move {
                // Long enough for calls to overlap.
                tokio::time::sleep(Duration::from_millis(2)).await;
                seen.flying.lock().unwrap().0 -= 1;
                respond(&id, before)
            };
            Box::pin(future) as futures::future::BoxFuture<'static, _>
        };
        let crashes = word == Some("crash");
        Ok(Program {
            lines: vec!["hello".to_owned()],
            handler: (!crashes).then(|| Arc::new(handler) as _),
            ..Program::default()
        })
    })
}

#[tokio::test]
async fn the_first_event_starts_an_instance_and_quiet_ends_it() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.define(|_| {}).await;
    bench
        .wait("subscribing", |bench| {
            bench.condition("Ready").is_some_and(|ready| ready["status"] == true)
        })
        .await;
    assert_eq!(bench.starts(), 0);

    bench.publish(0..10, None).await;
    bench.wait_acked(10).await;
    assert!(bench.starts() >= 1);
    bench
        .wait("scaling to zero", |bench| {
            let instances = &bench.status()["instances"];
            let is_current = bench.status()["triggers"][0]["delivered"] == 10;
            is_current && instances["ready"] == 0 && instances["starting"] == 0
        })
        .await;
    let starts = bench.starts();
    bench.publish(10..11, None).await;
    bench.wait_acked(11).await;

    assert_eq!(bench.starts(), starts + 1);
    assert_eq!(bench.calls().len(), 11);
    bench.wait("logs", |bench| bench.status()["logs"][0]["line"] == "hello").await;
    bench.stop().await;
}

#[tokio::test]
async fn failing_events_are_tried_until_they_succeed_and_others_go_on() {
    let bench = Bench::start(Arc::new(|id, before| match id {
        "3" if before < 2 => answer(500),
        "4" => answer(400),
        "5" if before < 2 => answer(429),
        _ => answer(204),
    }));
    bench.define(|_| {}).await;
    bench.publish(0..20, None).await;

    bench.wait_acked(20).await;

    let calls = bench.calls();
    let count = |id: &str| calls.iter().filter(|call| *call == id).count();
    assert_eq!((count("3"), count("4"), count("5"), count("6")), (3, 1, 3, 1));
    let refused = "f-00001: answered 400".to_owned();
    assert_eq!(bench.mesh.dead(&name("fn-f-t")), BTreeMap::from([(4, refused)]));
    bench
        .wait("counting", |bench| {
            let trigger = &bench.status()["triggers"][0];
            trigger["delivered"] == 19 && trigger["dead"] == 1
        })
        .await;
    assert!(!bench.status()["last_errors"].as_array().unwrap().is_empty());
    bench.stop().await;
}

#[tokio::test]
async fn a_hopeless_event_becomes_a_dead_letter_and_its_key_goes_on() {
    let bench = Bench::start(Arc::new(|id, _| answer(if id == "0" { 500 } else { 204 })));
    bench.define(|_| {}).await;
    bench.publish(0..2, Some("k")).await;
    bench.publish(2..5, Some("other")).await;

    bench.wait_acked(5).await;

    let calls = bench.calls();
    let place = |id: &str| calls.iter().position(|call| call == id).unwrap();
    let failed = calls.iter().filter(|call| *call == "0").count();
    assert_eq!(failed, 3);
    let last = calls.iter().rposition(|call| call == "0").unwrap();
    assert!(place("1") > last, "{calls:?}");
    assert_eq!(bench.mesh.dead(&name("fn-f-t")).into_keys().collect::<Vec<_>>(), [0]);
    bench.stop().await;
}

#[tokio::test]
async fn a_hopeless_event_blocks_its_key_says_so_and_stays_where_that_is_wanted() {
    let bench = Bench::start(Arc::new(|id, _| {
        answer(match id {
            "0" => 500,
            "2" => 400,
            _ => 204,
        })
    }));
    bench.define(|spec| spec["triggers"][0]["on_exhausted"] = json!("block")).await;
    bench.publish(0..2, Some("k")).await;
    bench.publish(2..5, None).await;

    bench
        .wait("blocking", |bench| {
            bench
                .condition("Delivering")
                .is_some_and(|found| found["message"].to_string().contains("2 events are blocked"))
                && bench.acked() == BTreeSet::from([3, 4])
        })
        .await;

    assert!(!bench.calls().contains(&"1".to_owned()));
    assert_eq!(bench.condition("Delivering").unwrap()["reason"], "Blocked");
    assert!(bench.mesh.dead(&name("fn-f-t")).is_empty());
    bench.stop().await;
}

#[tokio::test]
async fn events_of_one_key_arrive_in_order_whatever_fails() {
    let bench = Bench::start(Arc::new(|id, before| {
        let is_bad = id.parse::<usize>().unwrap() % 3 == 0 && before < 2;
        answer(if is_bad { 503 } else { 200 })
    }));
    bench.define(|_| {}).await;
    bench.publish(0..12, Some("k")).await;

    bench.wait_acked(12).await;

    let mut calls = bench.calls();
    calls.dedup();
    let in_order: Vec<String> = (0..12).map(|id| id.to_string()).collect();
    assert_eq!(calls, in_order);
    bench.stop().await;
}

#[tokio::test]
async fn an_instance_never_has_more_than_it_may() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.define(|spec| spec["scaling"]["max"] = json!(1)).await;
    bench.publish(0..200, None).await;

    bench.wait_acked(200).await;

    let most = bench.seen.flying.lock().unwrap().1;
    assert!((2..=4).contains(&most), "{most} at once");
    assert_eq!(bench.starts(), 1);
    bench.stop().await;
}

#[expect(clippy::unnecessary_wraps, reason = "what a handler answers")]
fn reply(id: Option<&str>) -> Result<Response<Full<Bytes>>, Dies> {
    let mut response = Response::builder()
        .header("ce-specversion", "1.0")
        .header("ce-type", "com.example.order.confirmed");
    if let Some(id) = id {
        response = response.header("ce-id", id).header("ce-source", "/f");
    }
    Ok(response.body(Full::from("{}")).unwrap())
}

#[tokio::test]
async fn replies_are_stored_once_before_their_cause_is_acknowledged() {
    let bench = Bench::start(Arc::new(|_, _| reply(None)));
    bench.mesh.fail_publishes(0);
    bench.publish(0..5, None).await;
    bench.mesh.fail_publishes(4);
    bench.define(|_| {}).await;

    bench.wait_acked(5).await;

    assert_eq!(bench.mesh.events(&name("confirmations")).len(), 5);
    for reply in bench.replies().values() {
        assert!(reply.attributes.contains_key("causationid"));
    }
    assert_eq!(bench.calls().len(), 5, "the function was called again for want of a leader");
    bench.stop().await;
}

#[tokio::test]
async fn a_reply_that_cannot_be_stored_acknowledges_nothing() {
    let bench = Bench::start(Arc::new(|_, _| reply(Some("r"))));
    bench.define(|spec| spec["reply"]["stream"] = json!("nowhere")).await;
    bench.publish(0..1, None).await;

    bench
        .wait("reporting", |bench| {
            bench.status()["last_errors"].to_string().contains("could not be stored")
        })
        .await;
    assert!(bench.acked().is_empty());
    bench.mesh.create_stream(&name("nowhere"));

    bench.wait_acked(1).await;
    assert_eq!(bench.mesh.events(&name("nowhere")).len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn broken_connections_and_lost_answers_lose_and_repeat_nothing_that_was_done() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.define(|_| {}).await;
    bench.mesh.lose_settle_answers(3);
    for round in 0..5 {
        bench.publish(round * 20..(round + 1) * 20, None).await;
        bench.mesh.disconnect_members();
    }

    bench.wait_acked(100).await;

    let distinct: BTreeSet<String> = bench.calls().into_iter().collect();
    assert_eq!(distinct.len(), 100);
    bench.stop().await;
}

#[tokio::test]
async fn batches_carry_many_and_a_poisonous_event_is_found_among_them() {
    let mesh = MemoryMesh::default();
    for stream in ["orders", "confirmations"] {
        mesh.create_stream(&name(stream));
    }
    let calls: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let respond = move |body: &Bytes| {
        let events: Vec<Value> = serde_json::from_slice(body).unwrap();
        let ids: Vec<String> =
            events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        let is_bad = ids.contains(&"17".to_owned());
        seen.lock().unwrap().push(ids);
        answer(if is_bad { 500 } else { 200 })
    };
    let bench = Bench::start_with(
        mesh,
        Arc::new(move |request: Request<Bytes>| {
            let answer = respond(request.body());
            Box::pin(async move { answer })
        }),
    );
    bench.publish(0..64, None).await;
    bench
        .define(|spec| {
            spec["triggers"][0]["batch"] = json!({ "max_events": 64, "linger": "50ms" });
            spec["triggers"][0]["retry"]["attempts"] = json!(2);
            spec["scaling"]["max"] = json!(1);
            spec["concurrency"] = json!({ "hard": 1 });
        })
        .await;

    bench.wait_acked(64).await;

    let calls = calls.lock().unwrap().clone();
    assert_eq!(calls[0].len(), 64);
    // By the seventh call it is known which one it is: sent alone, or left over.
    assert!(calls.len() <= 14, "{} calls", calls.len());
    let count = |id: &str| calls.iter().flatten().filter(|other| *other == id).count();
    assert!((0..64).all(|id| id == 17 || count(&id.to_string()) <= 8));
    assert_eq!(bench.mesh.dead(&name("fn-f-t")).into_keys().collect::<Vec<_>>(), [17]);
    bench.stop().await;
}

#[tokio::test]
async fn traffic_is_split_by_key_and_a_rollback_takes_all_of_it_back() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.define(|_| {}).await;
    bench
        .define(|spec| {
            spec["command"] = json!(["serve", "v2"]);
            spec["traffic"] = json!([
                { "revision": "f-00001", "percent": 50 },
                { "revision": "latest", "percent": 50 },
            ]);
        })
        .await;
    for round in 0..2 {
        for key in 0..20 {
            let id = round * 20 + key;
            bench.publish(id..id + 1, Some(&key.to_string())).await;
        }
    }
    bench.wait_acked(40).await;
    let by_key = |bench: &Bench| {
        let calls = bench.calls();
        let served = bench.seen.served_by.lock().unwrap().clone();
        let pairs = calls.into_iter().zip(served);
        let of = |(id, command): (String, String)| (id.parse::<u32>().unwrap() % 20, command);
        pairs.map(of).collect::<BTreeSet<_>>()
    };
    assert_eq!(by_key(&bench).len(), 20, "a key has been with two revisions");
    let commands: BTreeSet<String> =
        by_key(&bench).into_iter().map(|(_, command)| command).collect();
    assert_eq!(commands.len(), 2);
    bench
        .wait("both revisions", |bench| {
            let revisions = bench.status()["revisions"].clone();
            revisions.as_array().is_some_and(|all| all.iter().all(|one| one["percent"] == 50))
        })
        .await;

    // Back to the first: one change of the definition.
    bench
        .define(|spec| {
            spec["command"] = json!(["serve", "v2"]);
            spec["traffic"] = json!([{ "revision": "f-00001", "percent": 100 }]);
        })
        .await;
    bench
        .wait("the rollback", |bench| {
            let revisions = bench.status()["revisions"].clone();
            revisions.as_array().is_some_and(|all| all.iter().any(|one| one["percent"] == 100))
        })
        .await;
    bench.publish(40..60, None).await;
    bench.wait_acked(60).await;
    let served = bench.seen.served_by.lock().unwrap().clone();
    assert!(served[40..].iter().all(|command| command == "serve"), "{served:?}");
    assert_eq!(served.len(), 60, "something was delivered twice");
    bench.stop().await;
}

#[tokio::test]
async fn an_event_that_kills_instances_does_not_stop_the_others() {
    let bench = Bench::start(Arc::new(|id, before| match id {
        "2" if before < 3 => Err(Dies),
        _ => answer(204),
    }));
    bench.define(|_| {}).await;
    bench.publish(0..10, None).await;

    bench.wait_acked(10).await;

    assert!(bench.starts() >= 4);
    bench
        .wait("the reports", |bench| bench.status()["last_errors"].to_string().contains("died"))
        .await;
    bench.stop().await;
}

#[tokio::test]
async fn a_crash_loop_is_said_and_a_new_revision_ends_it() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.define(|spec| spec["command"] = json!(["crash"])).await;
    bench.publish(0..3, None).await;
    bench
        .wait("the crash loop", |bench| {
            bench.condition("Launched").is_some_and(|found| found["reason"] == "CrashLoop")
        })
        .await;
    assert!(bench.starts() < 10, "restarted without pause");

    bench.define(|_| {}).await;

    bench.wait_acked(3).await;
    bench
        .wait("recovering", |bench| {
            bench.condition("Ready").is_some_and(|found| found["status"] == true)
        })
        .await;
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.publish(0..1, None).await;
    bench.define(|spec| spec["command"] = json!(["missing"])).await;
    bench
        .wait("the condition", |bench| {
            let found = bench.condition("Launched").unwrap_or_default();
            found["reason"] == "Config" && found["message"].to_string().contains("missing")
        })
        .await;

    bench.define(|spec| spec["command"] = json!([])).await;

    bench
        .wait("refusing", |bench| {
            bench.condition("Accepted").is_some_and(|found| found["status"] == false)
        })
        .await;
    bench.define(|_| {}).await;
    bench.wait_acked(1).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_new_revision_replaces_instances_without_loss() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.define(|spec| spec["scaling"]["min"] = json!(1)).await;
    bench.publish(0..50, None).await;
    bench.wait_acked(50).await;
    bench
        .define(|spec| {
            spec["scaling"]["min"] = json!(1);
            spec["command"] = json!(["serve", "v2"]);
        })
        .await;
    bench.publish(50..100, None).await;

    bench.wait_acked(100).await;

    bench
        .wait("the end of the old instances", |bench| {
            let (status, starts) = (bench.status(), bench.seen.starts.lock().unwrap().clone());
            let instances = &status["instances"];
            let is_new = starts.last() == Some(&vec!["serve".to_owned(), "v2".to_owned()]);
            is_new && instances["ready"] == 1 && instances["starting"] == 0
        })
        .await;
    bench.publish(100..110, None).await;
    bench.wait_acked(110).await;
    let served_by = bench.seen.served_by.lock().unwrap().clone();
    assert!(served_by.iter().skip(100).all(|command| command == "serve v2"), "{served_by:?}");
    assert_eq!(bench.calls().len(), 110, "something was delivered twice");
    bench.stop().await;
}

#[tokio::test]
async fn a_failure_is_said_of_the_revision_that_was_sent_the_event() {
    let release = Arc::new(tokio::sync::Notify::new());
    let (held, seen) = (Arc::clone(&release), Arc::new(Mutex::new(0)));
    let count = Arc::clone(&seen);
    let mesh = MemoryMesh::default();
    for stream in ["orders", "confirmations"] {
        mesh.create_stream(&name(stream));
    }
    let bench = Bench::start_with(
        mesh,
        Arc::new(move |_: Request<Bytes>| {
            *count.lock().unwrap() += 1;
            let held = Arc::clone(&held);
            Box::pin(async move {
                held.notified().await;
                answer(400)
            })
        }),
    );
    bench.define(|_| {}).await;
    bench.publish(0..1, None).await;
    let sent = async {
        while *seen.lock().unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, sent).await.unwrap();
    bench.define(|spec| spec["command"] = json!(["serve", "v2"])).await;
    bench
        .wait("the second revision", |bench| {
            bench.status()["revisions"].to_string().contains("f-00002")
        })
        .await;
    release.notify_one();

    bench.wait_acked(1).await;

    let refused = "f-00001: answered 400".to_owned();
    assert_eq!(bench.mesh.dead(&name("fn-f-t")), BTreeMap::from([(0, refused)]));
    bench.stop().await;
}

#[tokio::test]
async fn a_deleted_function_leaves_no_subscription_and_no_instance() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.define(|spec| spec["scaling"]["min"] = json!(1)).await;
    bench.publish(0..3, None).await;
    bench.wait_acked(3).await;

    bench.mesh.delete(FUNCTION, &name("f")).await.unwrap();

    let gone = async {
        while !bench.mesh.list(SUBSCRIPTION).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn a_restarted_dispatcher_goes_on_where_the_last_one_stopped() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    bench.define(|_| {}).await;
    bench.publish(0..10, None).await;
    bench.wait_acked(10).await;
    let mesh = bench.mesh.clone();
    bench.stop().await;

    let next = Bench::start_on(mesh, Arc::new(|_, _| answer(204)));
    next.publish(10..20, None).await;
    next.wait_acked(20).await;

    assert_eq!(next.calls().len(), 10);
    next.stop().await;
}

#[tokio::test]
async fn a_subscription_of_somebody_else_is_left_alone() {
    let bench = Bench::start(Arc::new(|_, _| answer(204)));
    let taken = Resource {
        kind: SUBSCRIPTION.to_owned(),
        namespace: "default".to_owned(),
        name: "fn-f-t".to_owned(),
        spec: json!({ "stream": "orders" }).to_string().into(),
        ..Resource::default()
    };
    bench.mesh.put(taken.clone()).await.unwrap();

    bench.define(|_| {}).await;

    bench
        .wait("the condition", |bench| {
            let found = bench.condition("Subscribed").unwrap_or_default();
            found["status"] == false && found["message"].to_string().contains("not this function's")
        })
        .await;
    let present = bench.mesh.get(SUBSCRIPTION, &name("fn-f-t")).await.unwrap().unwrap();
    assert!(present.labels.is_empty());
    bench.stop().await;
}
