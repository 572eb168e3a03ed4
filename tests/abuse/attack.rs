//! Carries attacks out, and tells in a few words what the broker did.

use std::fmt::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::h2::{self, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM};
use crate::server::HANGS;

/// One attack: a name, what is sent, and what must come of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: &'static str,
}

pub(crate) fn case(name: &'static str, bytes: Vec<u8>, expected: &'static str) -> Case {
    Case { name, bytes, expected }
}

const AGAIN: &[u8; 8] = b"are you?";

/// What becomes of a connection by HTTP/2, in the order of decisiveness: `goaway CODE`,
/// `reset CODE`, `http STATUS`, `grpc STATUS`, `closed`, and `open` when a ping that comes after all
/// that is answered. Where the whole connection is at stake, only what becomes of that counts.
pub(crate) async fn http2(address: &str, bytes: &[u8], expected: &str) -> String {
    let mut sent = bytes.to_vec();
    let is_whole = expected == "open" || expected.starts_with("goaway");
    if expected == "open" {
        sent.extend(h2::frame(PING, 0, 0, AGAIN));
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    // The server may hang up in the middle of it.
    let write = async {
        _ = writing.write_all(&sent).await;
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut status = None;
        loop {
            let Ok(frame) = h2::read(&mut reading).await else { return "closed".to_owned() };
            let code =
                |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match frame.kind {
                GOAWAY if code(4) != 0 => return format!("goaway {}", code(4)),
                RST_STREAM | HEADERS | h2::DATA if is_whole => {}
                // What is left of a request that was answered without being read.
                RST_STREAM if code(0) != 0 => return format!("reset {}", code(0)),
                HEADERS => {
                    if let Some(status) = h2::field(&frame.payload, "grpc-status") {
                        return format!("grpc {status}");
                    }
                    status = h2::field(&frame.payload, ":status").or(status);
                    if frame.flags & END_STREAM != 0 || status.as_deref() != Some("200") {
                        return format!("http {}", status.unwrap_or_default());
                    }
                }
                h2::DATA if frame.flags & END_STREAM != 0 => {
                    return format!("http {}", status.unwrap_or_default());
                }
                PING if frame.payload == AGAIN => return "open".to_owned(),
                _ => {}
            }
        }
    };
    let outcome = async {
        tokio::select! {
            outcome = read => outcome,
            () = write => unreachable!("it never ends"),
        }
    };
    timeout(HANGS, outcome).await.unwrap_or_else(|_late| "silent".to_owned())
}

/// The statuses of the answers by HTTP/1.1 until the connection ends; ` open` at the end if it did
/// not by itself.
pub(crate) async fn http1(address: &str, bytes: &[u8], expected: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let stays_open = expected.ends_with("open");
    let answers = expected.split(' ').filter(|word| word.parse::<u16>().is_ok()).count();
    let reading = async {
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            answer.extend_from_slice(&buffer[..count]);
            let enough = stays_open && statuses(&answer).len() >= answers;
            if count == 0 || enough {
                break count == 0;
            }
        }
    };
    let Ok(mut ended) = timeout(HANGS, reading).await else { return "silent".to_owned() };
    if !ended {
        // Whether anything else was taken for a request, and whether the connection still works.
        let last = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        ended = stream.write_all(last).await.is_err();
        _ = timeout(HANGS, stream.read_to_end(&mut answer)).await;
    }
    let mut seen = statuses(&answer);
    let last = (!ended).then(|| seen.pop()).flatten();
    let mut told = String::new();
    for status in seen {
        write!(told, "{status} ").unwrap();
    }
    told + if last.as_deref() == Some("200") { "open" } else { "closed" }
}

fn statuses(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.split("HTTP/1.").skip(1);
    lines.map(|line| line.chars().skip(2).take(3).collect()).collect()
}

/// Carries all out, and compares.
pub(crate) fn compare(found: &[(String, &str, String)]) {
    let mut wrong = String::new();
    for (name, expected, outcome) in found {
        if outcome != expected {
            writeln!(wrong, "{name}: expected {expected:?}, found {outcome:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "of {} attacks:\n{wrong}", found.len());
}
