//! Requests to receivers that behave badly, and maliciously.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::resource::{WebhookMode, WebhookUrl};

use super::Outside;
use super::post::{Outcome, Posted, Receiver};
use super::secret::Secrets;
use crate::push::payload;
use crate::{config, egress::consent, push};

const SECRET: &str = "what only the receiver knows";

/// Answers every request with these bytes, a piece at a time, and remembers what it was sent.
struct Server {
    receiver: Receiver,
    connections: Arc<AtomicUsize>,
    seen: Arc<std::sync::Mutex<Vec<u8>>>,
    tasks: TaskTracker,
}

async fn server(pieces: Vec<Vec<u8>>, pause: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/a?b", listener.local_addr().unwrap().port());
    let (connections, seen) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let tasks = TaskTracker::new();
    let (count, remembered) = (Arc::clone(&connections), Arc::clone(&seen));
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let remembered: &std::sync::Mutex<Vec<u8>> = &remembered;
            remembered.lock().unwrap().extend(&request[..length]);
            for piece in &pieces {
                if stream.write_all(piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
    });
    Server { receiver: receiver(&url, tasks.clone()), connections, seen, tasks }
}

fn receiver(url: &str, tasks: TaskTracker) -> Receiver {
    let settings = config::Webhooks {
        origin: Some("mesh.example".to_owned()),
        allow_private: vec!["127.0.0.1/32".parse().unwrap()],
        ports: Vec::new(),
        ..config::Webhooks::default()
    };
    let outside = Arc::new(Outside::new(&settings).unwrap());
    let secrets = Secrets::new(None, &"shop".parse().unwrap(), None, Vec::new());
    Receiver::new(WebhookUrl::parse(url).unwrap(), outside, secrets, tasks)
}

async fn post(receiver: &Receiver, mode: WebhookMode) -> Posted {
    let event = CloudEvent {
        id: "1".to_owned(),
        source: "/s".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "t".to_owned(),
        ..CloudEvent::default()
    };
    let delivery = push::Delivery {
        id: "d".to_owned(),
        attempt: 1,
        partition: 0,
        offset: 0,
        timeout: Duration::from_millis(500),
        is_batch: false,
        takes_reply: false,
        trace: None,
    };
    let events = [Bytes::from(event.encode_to_vec())];
    assert!(payload::encode(mode, &events).is_ok());
    receiver.post(mode, &events, &delivery).await
}

fn whole(head: &str, body: &str) -> Vec<Vec<u8>> {
    let text = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    vec![text.into_bytes()]
}

#[tokio::test]
async fn nothing_that_a_receiver_writes_is_told_and_no_redirect_is_followed() {
    for (head, outcome) in [
        ("200 OK", Outcome::Done(Vec::new())),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", Outcome::Refused),
        ("400 Bad", Outcome::Refused),
        ("410 Gone", Outcome::Gone),
        ("413 Large", Outcome::TooLarge),
        ("500 Broken", Outcome::Failed),
        ("503 Busy\r\nretry-after: 864000", Outcome::Throttled(Some(Duration::from_hours(240)))),
    ] {
        let server = server(whole(head, SECRET), Duration::ZERO).await;
        let Posted { outcome: found, error, status } =
            post(&server.receiver, WebhookMode::Binary).await;
        assert_eq!(found, outcome, "{head}");
        assert_eq!(status.map(|status| status.to_string()).as_deref(), head.get(..3));
        assert!(!error.contains(SECRET), "{error}");
        assert_eq!(server.connections.load(Ordering::SeqCst), 1);
        server.tasks.close();
    }
}

#[tokio::test]
async fn an_answer_is_read_up_to_a_limit_and_up_to_a_time() {
    let endless = whole("200 OK", &"x".repeat(push::REPLY_BYTES_MAX + 1));
    let large = server(endless, Duration::ZERO).await;
    let Posted { outcome, error, .. } = post(&large.receiver, WebhookMode::Batch(2)).await;
    assert_eq!(outcome, Outcome::Failed);
    assert!(error.contains("65536"), "{error}");

    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n".to_vec();
    let drops = std::iter::repeat_n(b"x".to_vec(), 99);
    let slow: Vec<_> = std::iter::once(head).chain(drops).collect();
    let slow = server(slow, Duration::from_millis(100)).await;
    assert_eq!(post(&slow.receiver, WebhookMode::Batch(2)).await.outcome, Outcome::TimedOut);

    let silent = server(Vec::new(), Duration::ZERO).await;
    assert_eq!(post(&silent.receiver, WebhookMode::Binary).await.outcome, Outcome::Failed);
    let hanging = server(vec![Vec::new(); 99], Duration::from_millis(100)).await;
    assert_eq!(post(&hanging.receiver, WebhookMode::Binary).await.outcome, Outcome::TimedOut);

    let nobody = receiver("http://127.0.0.1:1/", TaskTracker::new());
    assert_eq!(post(&nobody, WebhookMode::Binary).await.outcome, Outcome::NotReceived);
}

#[tokio::test]
async fn the_question_for_consent_is_asked_at_the_exact_address() {
    let yes =
        whole("200 OK\r\nwebhook-allowed-origin: mesh.example\r\nwebhook-allowed-rate: 60", SECRET);
    let server = server(yes, Duration::ZERO).await;

    assert_eq!(server.receiver.ask(Some(600)).await, consent::Answer::Yes(Some(60)));

    let seen = server.seen.lock().unwrap().clone();
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.starts_with("OPTIONS /a?b HTTP/1.1\r\n"), "{seen}");
    for header in ["webhook-request-origin: mesh.example\r\n", "webhook-request-rate: 600\r\n"] {
        assert!(seen.contains(header), "{seen}");
    }
    let nobody = receiver("http://127.0.0.1:1/", TaskTracker::new());
    assert!(matches!(nobody.ask(None).await, consent::Answer::Unclear(_)));
}
