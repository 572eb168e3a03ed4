//! A flow over a mesh in memory and services on loopback.

use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use weft_proto::QualifiedName;
use weft_proto::event::{EventView, from_json};
use weft_proto::resource::flow::FlowSpec;

use super::*;
use crate::config;
use crate::flow::ANSWER_BYTES_MAX;
use crate::port::memory::MemoryMesh;
use crate::webhook::Outside;

/// A service that answers each request alike, and remembers what it was sent.
struct Service {
    url: String,
    count: Arc<AtomicUsize>,
    seen: Arc<std::sync::Mutex<String>>,
}

async fn service(tasks: &TaskTracker, answer: String) -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (count, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::default()));
    let (counted, remembered) = (Arc::clone(&count), Arc::clone(&seen));
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 8_192];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let remembered: &std::sync::Mutex<String> = &remembered;
            remembered.lock().unwrap().push_str(&String::from_utf8_lossy(&request[..length]));
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    Service { url, count, seen }
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

struct Bed {
    mesh: MemoryMesh,
    tasks: TaskTracker,
    target: FlowTarget,
    stop: CancellationToken,
}

fn stream(name: &str) -> QualifiedName {
    name.parse().unwrap()
}

fn bed(
    tasks: TaskTracker,
    steps: &Value,
    allowed: &[&str],
    secrets: Option<std::path::PathBuf>,
) -> Bed {
    let mesh = MemoryMesh::default();
    for name in ["out", "undo"] {
        mesh.create_stream(&stream(name));
    }
    let settings = config::Webhooks {
        allow_private: allowed.iter().map(|range| range.parse().unwrap()).collect(),
        ports: Vec::new(),
        secrets,
        ..config::Webhooks::default()
    };
    let outside = Arc::new(Outside::new(&settings).unwrap());
    let caller = Caller::new(outside, "shop".parse().unwrap(), tasks.clone());
    let spec: FlowSpec = serde_json::from_value(json!({"steps": steps})).unwrap();
    let plan = Plan::new(&spec, "shop/f".parse().unwrap(), None).unwrap();
    let limits = Limits { bytes_max: 1 << 20, timeout: Duration::from_secs(5) };
    let (target, driver) =
        FlowTarget::new(Arc::new(plan), limits, (Arc::new(mesh.clone()), caller));
    let stop = CancellationToken::new();
    tasks.spawn(driver.run(stop.clone()));
    Bed { mesh, tasks, target, stop }
}

fn event(id: &str, data: &Value) -> Bytes {
    let json = json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": data});
    prost::Message::encode_to_vec(&from_json(json.to_string().as_bytes()).unwrap()).into()
}

impl Bed {
    async fn push(&self, id: &str, data: &Value) -> Ended {
        self.target.push(event(id, data), Timestamp::default(), false).await
    }

    fn data(&self, name: &str) -> Vec<Value> {
        let events = self.mesh.events(&stream(name));
        let data = events.iter().map(|event| {
            serde_json::from_slice(EventView::parse(event).unwrap().data_bytes().unwrap()).unwrap()
        });
        data.collect()
    }
}

#[tokio::test]
async fn an_event_goes_through_services_into_a_stream() {
    let (tasks, folder) = (TaskTracker::new(), tempfile::tempdir().unwrap());
    std::fs::create_dir(folder.path().join("shop")).unwrap();
    std::fs::write(folder.path().join("shop/crm.key"), "Bearer abc").unwrap();
    let crm = service(&tasks, answer("200 OK", r#"{"name":"Ada"}"#)).await;
    let stock = service(&tasks, answer("201 Created", "ignored")).await;
    let steps = json!([
        {"enrich": {"url": format!("{}/c/{{/id}}", crm.url), "into": "/who", "authorization": {"file": "crm.key"}, "cache": {"ttl": "1h"}}},
        {"bridge": {"url": format!("{}/r", stock.url), "body": "data"}},
        {"publish": {"stream": "out"}},
    ]);
    let bed = bed(tasks, &steps, &["127.0.0.1/32"], Some(folder.path().to_owned()));

    assert_eq!(bed.push("1", &json!({"id": "a/b"})).await, Ended::Done);
    assert_eq!(bed.push("2", &json!({"id": "a/b"})).await, Ended::Done);

    let wanted = json!({"id": "a/b", "who": {"name": "Ada"}});
    assert_eq!(bed.data("out"), [wanted.clone(), wanted.clone()]);
    assert_eq!((crm.count.load(Ordering::SeqCst), stock.count.load(Ordering::SeqCst)), (1, 2));
    let asked = crm.seen.lock().unwrap().clone();
    assert!(asked.starts_with("GET /c/a%2Fb HTTP/1.1") && asked.contains("Bearer abc"), "{asked}");
    let sent = stock.seen.lock().unwrap().clone();
    assert!(sent.contains("idempotency-key: ") && sent.contains(&wanted.to_string()), "{sent}");
    bed.stop.cancel();
    assert_eq!(bed.push("3", &json!({})).await, Ended::Stopped);
}

#[tokio::test]
async fn addresses_inside_and_redirects_lead_nowhere() {
    let tasks = TaskTracker::new();
    let inside = service(&tasks, answer("200 OK", "{}")).await;
    let steps = |url: &str| json!([{"name": "ask", "enrich": {"url": url, "into": ""}}]);
    let refusing = bed(tasks.clone(), &steps(&format!("{}/", inside.url)), &[], None);
    let Ended::Failed(failure) = refusing.push("1", &json!({})).await else { panic!() };
    assert_eq!((failure.outcome, &*failure.step), (Outcome::NotReceived, "ask"));
    assert_eq!(inside.count.load(Ordering::SeqCst), 0);

    let moved =
        format!("HTTP/1.1 302 Found\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n", inside.url);
    let moving = service(&tasks, moved).await;
    let following = bed(tasks, &steps(&format!("{}/", moving.url)), &["127.0.0.1/32"], None);
    let Ended::Failed(failure) = following.push("1", &json!({})).await else { panic!() };
    assert!(failure.is_permanent() && failure.message.contains("redirects are not followed"));
    assert_eq!(inside.count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_was_done_is_undone_and_long_answers_are_not_read() {
    let tasks = TaskTracker::new();
    let good = service(&tasks, answer("200 OK", "{}")).await;
    let long = service(&tasks, answer("200 OK", &"x".repeat(ANSWER_BYTES_MAX + 1))).await;
    let steps = json!([
        {"name": "reserve", "bridge": {"url": format!("{}/", good.url)}, "compensate": {"stream": "undo"}},
        {"name": "charge", "bridge": {"url": format!("{}/", long.url), "into": ""}},
    ]);
    let bed = bed(tasks, &steps, &["127.0.0.1/32"], None);
    bed.mesh.fail_publishes(2);

    let Ended::Failed(failure) = bed.push("1", &json!({"n": 1})).await else { panic!() };

    assert_eq!((failure.reason, bed.data("undo")), ("answer", vec![json!({"n": 1})]));
}

#[tokio::test(start_paused = true)]
async fn a_group_ends_with_its_time_and_who_gives_up_leaves_it() {
    let steps = json!([
        {"aggregate": {"key": "k", "after": "10m"}}, {"publish": {"stream": "out"}},
    ]);
    let bed = bed(TaskTracker::new(), &steps, &[], None);
    let (one, two) = (json!(1), json!(2));
    let gone = tokio::time::timeout(Duration::from_secs(1), bed.push("0", &json!(0))).await;
    assert!(gone.is_err());

    let (first, second) = tokio::join!(bed.push("1", &one), bed.push("2", &two));

    assert_eq!((first, second), (Ended::Done, Ended::Done));
    assert_eq!(bed.data("out"), [json!([1, 2])]);
    assert!(!bed.tasks.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_missing_burns_no_attempt() {
    let bed = bed(TaskTracker::new(), &json!([{"publish": {"stream": "nowhere"}}]), &[], None);
    let ended = bed.push("1", &json!(1)).await;
    assert_eq!(ended.outcome(), Ok(Outcome::ReplyFailed));
    let delayed = Ended::Delayed(Timestamp::from_micros(5));
    assert_eq!(delayed.outcome(), Err(Timestamp::from_micros(5)));
    assert_eq!(Ended::Full.outcome(), Ok(Outcome::Throttled { retry_after: None }));
}
