//! HTTP/1.1: smuggled requests, slow ones, broken ones. Where it is spoken, and where it is not.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attack::{compare, http1};
use crate::ports::address;
use crate::server::{HANGS, Server, Setup};

const HEAD: &str = "host: x\r\n";
/// Hidden behind another request; who answers it was misled.
const HIDDEN: &str = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";

/// Name, request, statuses and whether the connection lives.
#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<(&'static str, String, &'static str)> {
    let get = |line: &str, headers: &str| format!("{line}\r\n{HEAD}{headers}\r\n");
    let live = |headers: &str| get("GET /livez HTTP/1.1", headers);
    let long = "x".repeat(20_000);
    let many = "x: y\r\n".repeat(200);
    let post = |headers: &str, body: &str| {
        format!("POST /livez HTTP/1.1\r\n{HEAD}{headers}\r\n\r\n{body}")
    };
    vec![
        ("a proper request", live(""), "200 open"),
        // Two readings of where a request ends: if any is taken, nothing behind it is.
        (
            "length and chunks",
            post(
                &format!("content-length: {}\r\ntransfer-encoding: chunked", 5 + HIDDEN.len()),
                &format!("0\r\n\r\n{HIDDEN}"),
            ),
            "405 closed",
        ),
        ("two lengths", post("content-length: 0\r\ncontent-length: 34", HIDDEN), "400 closed"),
        ("two lengths in one", post("content-length: 0, 34", HIDDEN), "400 closed"),
        ("a negative length", post("content-length: -1", HIDDEN), "400 closed"),
        ("a length with a sign", post("content-length: +34", HIDDEN), "400 closed"),
        ("a length in hexadecimal", post("content-length: 0x22", HIDDEN), "400 closed"),
        (
            "a length beyond all numbers",
            post("content-length: 99999999999999999999", ""),
            "400 closed",
        ),
        ("a large length", post("content-length: 18446744073709551615", ""), "431 closed"),
        ("more than is taken", post("content-length: 4194305", ""), "413 closed"),
        ("an unknown coding", post("transfer-encoding: xchunked", HIDDEN), "400 closed"),
        (
            "chunks that are not last",
            post("transfer-encoding: chunked, identity", HIDDEN),
            "400 closed",
        ),
        ("a tab before chunked", post("transfer-encoding:\tchunked", "0\r\n\r\n"), "405 open"),
        ("a space before the colon", post("transfer-encoding : chunked", HIDDEN), "400 closed"),
        ("a folded header", post("x: a\r\n transfer-encoding: chunked", HIDDEN), "400 closed"),
        (
            "chunks in HTTP/1.0",
            format!("POST /livez HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
            "400 closed",
        ),
        ("a chunk of no size", post("transfer-encoding: chunked", "xyz\r\n\r\n"), "405 closed"),
        (
            "a chunk that ends elsewhere",
            post("transfer-encoding: chunked", &format!("1\r\nab\r\n0\r\n\r\n{HIDDEN}")),
            "405 closed",
        ),
        (
            "a size beyond all numbers",
            post("transfer-encoding: chunked", "fffffffffffffffffff\r\nx"),
            "405 closed",
        ),
        ("bare line feeds", "GET /livez HTTP/1.1\nhost: x\n\n".to_owned(), "200 open"),
        ("a bare carriage return", live("x: a\rb: c\r\n"), "400 closed"),
        ("a zero byte", live("x: a\0b\r\n"), "400 closed"),
        ("a header without a name", live(": x\r\n"), "400 closed"),
        ("a header without a colon", live("junk\r\n"), "400 closed"),
        ("two hosts", live("host: y\r\n"), "400 closed"),
        ("a header of 20 KB", live(&format!("x: {long}\r\n")), "431 closed"),
        ("200 headers", live(&many), "431 closed"),
        ("a path of 20 KB", get(&format!("GET /{long} HTTP/1.1"), ""), "431 closed"),
        ("no path", get("GET HTTP/1.1", ""), "400 closed"),
        ("another version", get("GET /livez HTTP/3.0", ""), "400 closed"),
        ("no version", "GET /livez\r\n\r\n".to_owned(), "400 closed"),
        ("junk", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), "400 closed"),
        // No other way to the same place.
        ("the absolute form", get("GET http://elsewhere/livez HTTP/1.1", ""), "200 open"),
        ("a proxy", get("CONNECT elsewhere:443 HTTP/1.1", ""), "405 closed"),
        ("a question to nobody", get("OPTIONS * HTTP/1.1", ""), "404 open"),
        ("two slashes", get("GET //livez HTTP/1.1", ""), "404 open"),
        ("a slash at the end", get("GET /livez/ HTTP/1.1", ""), "404 open"),
        ("capitals", get("GET /LIVEZ HTTP/1.1", ""), "404 open"),
        ("the parent folder", get("GET /x/../livez HTTP/1.1", ""), "404 open"),
        ("an encoded slash", get("GET /%2flivez HTTP/1.1", ""), "404 open"),
        ("an encoded letter", get("GET /%6civez HTTP/1.1", ""), "404 open"),
        ("an encoded parent", get("GET /%2e%2e/livez HTTP/1.1", ""), "404 open"),
        ("half an encoding", get("GET /livez%2 HTTP/1.1", ""), "404 open"),
        ("a zero byte in the path", get("GET /livez%00 HTTP/1.1", ""), "404 open"),
        ("a fragment", get("GET /livez#x HTTP/1.1", ""), "200 open"),
        ("a query", get("GET /livez?x=../../etc/passwd HTTP/1.1", ""), "200 open"),
        ("an unknown method", get("BREW /livez HTTP/1.1", ""), "405 open"),
        ("a method in small letters", get("get /livez HTTP/1.1", ""), "405 open"),
        ("TRACE", get("TRACE /livez HTTP/1.1", ""), "405 open"),
        ("DELETE", get("DELETE /metrics HTTP/1.1", ""), "405 open"),
        (
            "another host by header",
            live("x-forwarded-host: y\r\nx-original-url: /metrics\r\n"),
            "200 open",
        ),
        ("an upgrade", live("connection: upgrade\r\nupgrade: websocket\r\n"), "200 open"),
        (
            "an upgrade to HTTP/2",
            {
                live(
                    "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
                )
            },
            "200 open",
        ),
    ]
}

#[tokio::test]
async fn smuggled_and_broken_requests_have_one_answer() {
    let mut server = Server::start(Setup::default()).await;
    let mut found = Vec::new();
    for (name, request, expected) in cases() {
        let outcome = http1(&address(server.ports.http), request.as_bytes(), expected).await;
        found.push((name.to_owned(), expected, outcome));
    }
    server.is_well().await;
    compare(&found);
}

#[tokio::test]
async fn the_ports_for_grpc_speak_no_http1() {
    let mut server = Server::start(Setup::default()).await;
    let mut found = Vec::new();
    for (port, number) in [("grpc", server.ports.grpc), ("peer", server.ports.peer)] {
        for (name, request, _answer) in cases() {
            // Not a word of HTTP/1.1 comes back.
            let outcome = http1(&address(number), request.as_bytes(), "closed").await;
            found.push((format!("{port}: {name}"), "closed", outcome));
        }
    }
    server.is_well().await;
    compare(&found);
}

/// Sends the first piece and then a byte of the rest from time to time; how it ends.
async fn drip(port: u16, first: &str, rest: &[u8]) -> String {
    let mut stream = TcpStream::connect(address(port)).await.unwrap();
    stream.write_all(first.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let drip = async {
        for byte in rest.iter().cycle() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            _ = writing.write_all(&[*byte]).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let read = timeout(HANGS, reading.read_to_end(&mut answer));
    let ended = tokio::select! {
        () = drip => unreachable!("it never ends"),
        ended = read => ended.is_ok(),
    };
    let text = String::from_utf8_lossy(&answer);
    let status = text.strip_prefix("HTTP/1.1 ").map_or("", |text| text.get(..3).unwrap_or(""));
    format!("{status} {}", if ended { "closed" } else { "open" }).trim().to_owned()
}

#[tokio::test]
async fn slow_ones_are_not_waited_for() {
    let mut server = Server::start(Setup::default()).await;
    let (http, grpc, peer) = (server.ports.http, server.ports.grpc, server.ports.peer);
    let answered = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let body = "POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n";
    let chunks = "POST /livez HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n";
    let preface = "PRI * HTTP/2.0\r\n\r\n";

    let found = tokio::join!(
        drip(http, "", b""),
        drip(http, "G", b"E"),
        drip(http, "GET /livez HTTP/1.1\r\nx: ", b"y"),
        drip(http, answered, b""),
        drip(http, answered, b"\r\n"),
        drip(http, body, b"x"),
        drip(http, chunks, b"x"),
        drip(http, preface, b""),
        drip(grpc, "", b""),
        drip(grpc, preface, b""),
        drip(peer, "", b""),
        drip(peer, preface, b""),
    );

    server.is_well().await;
    let name = |name: &str| name.to_owned();
    compare(&[
        (name("nothing"), "closed", found.0),
        (name("a slow method"), "closed", found.1),
        (name("slow headers"), "closed", found.2),
        (name("nothing after an answer"), "200 closed", found.3),
        (name("line ends for ever"), "200 closed", found.4),
        (name("a slow body"), "405 closed", found.5),
        (name("slow chunks"), "405 closed", found.6),
        (name("half a preface"), "closed", found.7),
        (name("grpc: nothing"), "closed", found.8),
        (name("grpc: half a preface"), "closed", found.9),
        (name("peer: nothing"), "closed", found.10),
        (name("peer: half a preface"), "closed", found.11),
    ]);
}
