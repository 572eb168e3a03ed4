//! Pushes to servers that behave well, badly and maliciously.

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_proto::cloudevents::CloudEvent;

use super::*;

/// A server that answers every request on every connection with the same bytes, then closes the
/// connection or keeps it.
#[derive(Clone)]
struct Script {
    answer: Vec<u8>,
    closes: bool,
    delay: Duration,
}

struct Server {
    target: Target,
    connections: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    tasks: TaskTracker,
}

impl Script {
    fn new(answer: impl Into<Vec<u8>>) -> Self {
        Self { answer: answer.into(), closes: false, delay: Duration::ZERO }
    }

    async fn serve(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (count, nested) = (std::sync::Arc::clone(&connections), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                nested.spawn(self.clone().talk(stream));
            }
        });
        Server { target: Target::new(address, tasks.clone()), connections, tasks }
    }

    async fn talk(self, mut stream: TcpStream) {
        let mut seen = Vec::new();
        loop {
            // The events of these tests have no data, so the blank line ends a request.
            while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read_buf(&mut seen).await {
                    Ok(1..) => {}
                    _ => return,
                }
            }
            seen.clear();
            tokio::time::sleep(self.delay).await;
            if stream.write_all(&self.answer).await.is_err() || self.closes {
                return;
            }
        }
    }
}

fn event() -> Bytes {
    let event = CloudEvent {
        id: "1".to_owned(),
        source: "/s".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "t".to_owned(),
        ..CloudEvent::default()
    };
    event.encode_to_vec().into()
}

async fn push_within(target: &Target, timeout: Duration) -> Answer {
    let delivery = Delivery {
        id: "d".to_owned(),
        attempt: 1,
        partition: 0,
        offset: 0,
        timeout,
        is_batch: false,
        takes_reply: true,
        trace: None,
    };
    target.push(&[event()], &delivery, &"default/f".parse().unwrap()).await
}

async fn push(target: &Target) -> Answer {
    push_within(target, Duration::from_secs(10)).await
}

async fn outcome_of(answer: impl Into<Vec<u8>>, closes: bool) -> Outcome {
    let server = Script { closes, ..Script::new(answer) }.serve().await;
    push(&server.target).await.outcome
}

#[tokio::test]
async fn a_connection_serves_again() {
    let server = Script::new("HTTP/1.1 204 No Content\r\n\r\n").serve().await;

    for _ in 0..5 {
        assert_eq!(push(&server.target).await.outcome, Outcome::Done);
    }

    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_without_event_is_discarded_and_its_connection_kept() {
    let answer =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nnull";
    let server = Script::new(answer).serve().await;

    for _ in 0..3 {
        let answer = push(&server.target).await;
        assert_eq!((answer.outcome, answer.replies.len()), (Outcome::Done, 0));
    }

    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_closed_idle_connection_is_replaced_without_an_attempt() {
    let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    let server = Script { closes: true, ..Script::new(answer) }.serve().await;

    for _ in 0..5 {
        assert_eq!(push(&server.target).await.outcome, Outcome::Done);
    }
}

#[tokio::test]
async fn nobody_listens_means_not_received() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let target = Target::new(free, TaskTracker::new());

    let answer = push(&target).await;

    assert_eq!(answer.outcome, Outcome::NotReceived);
    assert!(answer.error.unwrap().contains("cannot connect"));
}

#[tokio::test]
async fn a_break_before_any_answer_is_a_death_and_a_failure_afterwards() {
    assert_eq!(outcome_of("", true).await, Outcome::Died);
    assert_eq!(outcome_of("HTTP/1.1 20", true).await, Outcome::Died);
    assert_eq!(outcome_of("rubbish\r\n\r\n", true).await, Outcome::Died);

    let server = Script { closes: true, ..Script::new("") }.serve().await;
    server.target.has_answered.store(true, Ordering::Relaxed);
    assert_eq!(push(&server.target).await.outcome, Outcome::Failed);
}

#[tokio::test]
async fn who_is_slow_times_out() {
    let slow = Script { delay: Duration::from_secs(30), ..Script::new("") }.serve().await;
    let stuck_body = "HTTP/1.1 200 OK\r\nce-type: t\r\ncontent-length: 10\r\n\r\nhalf";
    let stuck = Script::new(stuck_body).serve().await;
    let stuck_head = Script::new("HTTP/1.1 200 OK\r\nce-ty").serve().await;

    for server in [slow, stuck, stuck_head] {
        let answer = push_within(&server.target, Duration::from_millis(100)).await;
        assert_eq!(answer.outcome, Outcome::TimedOut);
        drop(server.tasks);
    }
}

#[tokio::test]
async fn redirects_are_never_followed() {
    let elsewhere = Script::new("HTTP/1.1 204 No Content\r\n\r\n").serve().await;
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();

    for status in [301, 302, 303, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} Moved\r\nlocation: http://{address}/\r\ncontent-length: 0\r\n\r\n"
        );
        assert_eq!(outcome_of(answer, false).await, Outcome::Refused);
    }

    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn interim_answers_are_skipped_and_upgrades_refused() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(outcome_of(interim, false).await, Outcome::Done);

    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    assert_ne!(outcome_of(upgrade, false).await, Outcome::Done);
}

#[tokio::test]
async fn a_giant_reply_is_refused_without_being_read() {
    let mut answer =
        b"HTTP/1.1 200 OK\r\nce-type: t\r\ncontent-length: 1000000000\r\n\r\n".to_vec();
    answer.resize(answer.len() + 2 * REPLY_BYTES_MAX, b'x');
    let server = Script::new(answer).serve().await;

    let answer = push(&server.target).await;

    assert_eq!(answer.outcome, Outcome::Refused);
    assert!(answer.error.unwrap().contains("more than 65536 bytes"));
}

#[tokio::test]
async fn an_endless_chunked_reply_is_refused() {
    let mut answer =
        b"HTTP/1.1 200 OK\r\nce-type: t\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        answer.extend(format!("2000\r\n{}\r\n", "y".repeat(0x2000)).bytes());
    }

    assert_eq!(outcome_of(answer, false).await, Outcome::Refused);
}

#[tokio::test]
async fn giant_heads_and_reset_bodies_fail() {
    let head = format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n\r\n", "a".repeat(1 << 20));
    assert_eq!(outcome_of(head, true).await, Outcome::Died);

    let body = "HTTP/1.1 200 OK\r\nce-type: t\r\ncontent-length: 10\r\n\r\nhalf";
    assert_eq!(outcome_of(body, true).await, Outcome::Failed);
}

#[tokio::test]
async fn the_body_of_a_202_is_ignored_and_that_of_a_200_is_a_reply() {
    let answer = |status| {
        let head = "ce-specversion: 1.0\r\nce-type: done\r\ncontent-length: 2\r\n\r\n{}";
        format!("HTTP/1.1 {status} X\r\n{head}")
    };
    for (status, count) in [(200, 1), (201, 0), (202, 0)] {
        let server = Script::new(answer(status)).serve().await;
        let answer = push(&server.target).await;
        assert_eq!((answer.outcome, answer.replies.len()), (Outcome::Done, count), "{status}");
    }
}

#[tokio::test]
async fn an_undecodable_reply_is_refused() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/cloudevents+json\r\n\
                  content-length: 4\r\n\r\nnope";

    assert_eq!(outcome_of(answer, false).await, Outcome::Refused);
}

#[tokio::test]
async fn errors_quote_the_answer_but_no_control_characters() {
    let answer = "HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\nno\x1b[31m\nx";
    let server = Script::new(answer).serve().await;

    let answer = push(&server.target).await;

    assert_eq!(answer.outcome, Outcome::Failed);
    assert_eq!(answer.error.as_deref(), Some("answered 500: no[31mx"));
}
