//! HTTP/1.1 without a library: what goes over the wire is what a test says.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing takes so long unless it hangs.
const HANGS: Duration = Duration::from_mins(3);

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header, by its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An answer whose body still comes.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) head: Answer,
    lines: BufReader<TcpStream>,
    is_chunked: bool,
    /// What came of the body, and was not looked at.
    rest: Vec<u8>,
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sent {
    /// The last id, of whichever block.
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) data: String,
}

impl Sent {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request and reads the whole answer.
pub(crate) async fn ask(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut open = begin(port, method, target, headers, body).await;
    timeout(HANGS, open.read_all()).await.unwrap_or_else(|_| panic!("{method} {target} hangs"));
    open.head.body = std::mem::take(&mut open.rest);
    open.head
}

/// Sends a request and reads the head of the answer.
pub(crate) async fn begin(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Open {
    let mut stream = send(port, method, target, headers, body).await;
    stream.flush().await.unwrap();
    let begun = Open::read_head(BufReader::new(stream));
    timeout(HANGS, begun).await.unwrap_or_else(|_| panic!("{method} {target} hangs"))
}

/// Sends a request, and reads nothing.
pub(crate) async fn send(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
    for (name, value) in headers {
        _ = write!(head, "{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        _ = write!(head, "content-length: {}\r\n", body.len());
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // Whoever refuses at once may not read the body.
    _ = stream.write_all(body).await;
    stream
}

impl Open {
    async fn read_head(mut lines: BufReader<TcpStream>) -> Self {
        let mut line = String::new();
        lines.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            lines.read_line(&mut line).await.unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let head = Answer { status, headers, body: Vec::new() };
        let is_chunked = head.header("transfer-encoding") == Some("chunked");
        Self { head, lines, is_chunked, rest: Vec::new() }
    }

    /// Reads a piece of the body; says whether there was one.
    async fn read_more(&mut self) -> bool {
        if !self.is_chunked {
            return self.lines.read_buf(&mut self.rest).await.unwrap_or(0) > 0;
        }
        let mut line = String::new();
        if self.lines.read_line(&mut line).await.unwrap_or(0) == 0 {
            return false;
        }
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut piece = vec![0; length + 2];
        if self.lines.read_exact(&mut piece).await.is_err() {
            return false;
        }
        self.rest.extend_from_slice(&piece[..length]);
        length > 0
    }

    async fn read_all(&mut self) {
        while self.read_more().await {}
    }

    /// The next event with data; nothing at the end.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        let reading = async {
            let mut sent = Sent::default();
            loop {
                while let Some(end) = find(&self.rest, b"\n\n") {
                    let block: Vec<u8> = self.rest.drain(..end + 2).collect();
                    for line in String::from_utf8(block).unwrap().lines() {
                        match line.split_once(": ") {
                            Some(("id", value)) => value.clone_into(&mut sent.id),
                            Some(("event", value)) => value.clone_into(&mut sent.event),
                            Some(("data", value)) => value.clone_into(&mut sent.data),
                            _ => {}
                        }
                    }
                    if !sent.data.is_empty() {
                        return Some(sent);
                    }
                }
                if !self.read_more().await {
                    return None;
                }
            }
        };
        timeout(HANGS, reading).await.expect("an event or the end")
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}
