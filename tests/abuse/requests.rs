//! Calls by gRPC that are none: other paths, other content, frames that lie.

use prost::Message as _;
use weft_proto::v1::PublishRequest;

use crate::attack::{compare, http2};
use crate::h2::{DATA, END_HEADERS, END_STREAM, HEADERS, block, frame, hello};
use crate::ports::address;
use crate::server::{Server, Setup, event};

pub(crate) const PUBLISH: &str = "/weft.v1.Publish/Publish";

/// A call with these headers and this body.
pub(crate) fn call(fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = [hello(), frame(HEADERS, END_HEADERS, 1, &block(fields))].concat();
    let mut pieces = body.chunks(16 << 10).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_STREAM } else { 0 };
        bytes.extend(frame(DATA, flags, 1, piece));
    }
    if body.is_empty() {
        bytes.extend(frame(DATA, END_STREAM, 1, b""));
    }
    bytes
}

pub(crate) fn headers<'a>(path: &'a str, content: &'a str) -> [(&'a str, &'a str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", content),
        ("te", "trailers"),
    ]
}

pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    claiming(0, u32::try_from(bytes.len()).unwrap(), bytes)
}

fn claiming(compressed: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[compressed][..], &length.to_be_bytes(), bytes].concat()
}

fn publish(body: &[u8]) -> Vec<u8> {
    call(&headers(PUBLISH, "application/grpc"), body)
}

fn proper() -> Vec<u8> {
    let event = event("x", "plain", None).encode_to_vec();
    let request = PublishRequest {
        stream: "nothing-like-it".to_owned(),
        events: vec![event.into()],
        ..PublishRequest::default()
    };
    request.encode_to_vec()
}

fn at(path: &str) -> Vec<u8> {
    call(&headers(path, "application/grpc"), &message(&proper()))
}

fn holding(content: &str) -> Vec<u8> {
    call(&headers(PUBLISH, content), &message(&proper()))
}

fn by(method: &str) -> Vec<u8> {
    let mut fields = headers(PUBLISH, "application/grpc");
    fields[0].1 = method;
    call(&fields, &message(&proper()))
}

fn adding(name: &str, value: &str) -> Vec<u8> {
    let fields = [&headers(PUBLISH, "application/grpc")[..], &[(name, value)]].concat();
    call(&fields, &message(&proper()))
}

fn paths() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("the right path", at(PUBLISH), "grpc 5"),
        ("two slashes", at("//weft.v1.Publish/Publish"), "grpc 12"),
        ("two slashes inside", at("/weft.v1.Publish//Publish"), "grpc 12"),
        ("a slash at the end", at("/weft.v1.Publish/Publish/"), "grpc 12"),
        ("small letters", at("/weft.v1.publish/publish"), "grpc 12"),
        ("an encoded slash", at("/weft.v1.Publish%2fPublish"), "grpc 12"),
        ("an encoded dot", at("/weft%2ev1.Publish/Publish"), "grpc 12"),
        ("the parent", at("/x/../weft.v1.Publish/Publish"), "grpc 12"),
        ("an encoded parent", at("/weft.v1.Read/%2e%2e/weft.v1.Publish/Publish"), "grpc 12"),
        ("a query", at("/weft.v1.Publish/Publish?x=/weft.v1.Read/Read"), "grpc 5"),
        ("the absolute form", at("http://x/weft.v1.Publish/Publish"), "reset 1"),
        ("no slash", at("weft.v1.Publish/Publish"), "reset 1"),
        ("no method", at("/weft.v1.Publish"), "grpc 12"),
        ("another method", at("/weft.v1.Publish/Take"), "grpc 12"),
        ("the service of nodes", at("/weft.internal.v1.Peer/Vote"), "grpc 12"),
        ("forwarded calls", at("/weft.internal.v1.Forward/Command"), "grpc 12"),
        ("a star", at("*"), "grpc 12"),
        ("metrics", at("/metrics"), "grpc 12"),
    ]
}

fn shapes() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let grown = [&claiming(0, 1 << 30, b"")[..], b"x"].concat();
    let mut nested = vec![10, 0];
    for _ in 0..200 {
        let mut outer = vec![10];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.extend(&nested);
        nested = outer;
    }
    vec![
        ("JSON", holding("application/json"), "http 415"),
        ("text", holding("text/plain"), "http 415"),
        ("no content type", holding(""), "http 415"),
        ("content that only begins like it", holding("application/grpcx"), "http 415"),
        ("gRPC for browsers", holding("application/grpc-web"), "http 415"),
        ("said exactly", holding("application/grpc+proto"), "grpc 5"),
        ("GET", by("GET"), "http 405"),
        ("PUT", by("PUT"), "http 405"),
        ("a method that nobody knows", by("BREW"), "http 405"),
        ("a coding that nobody knows", adding("grpc-encoding", "brotli"), "grpc 12"),
        ("a coding that is off", adding("grpc-encoding", "gzip"), "grpc 12"),
        ("a time that is none", adding("grpc-timeout", "soon"), "grpc 5"),
        ("no body", publish(b""), "grpc 13"),
        ("half a prefix", publish(&[0, 0, 0]), "grpc 13"),
        ("a prefix alone", publish(&claiming(0, 8, b"")), "grpc 13"),
        ("half a message", publish(&claiming(0, 100, &proper())), "grpc 13"),
        ("a flag that nobody knows", publish(&claiming(7, 4, b"abcd")), "grpc 13"),
        ("compressed, but not said how", publish(&claiming(1, 4, b"abcd")), "grpc 13"),
        ("a message of 1 GiB", publish(&grown), "grpc 11"),
        ("a message over the limit", publish(&claiming(0, (4 << 20) + 1, &[0; 64])), "grpc 11"),
        // The first counts.
        ("two messages", publish(&[message(&proper()), message(&proper())].concat()), "grpc 5"),
        ("no protobuf", publish(&message(&[255; 64])), "grpc 13"),
        ("a field of a wrong kind", publish(&message(&[8, 1])), "grpc 13"),
        ("a text that is none", publish(&message(&[10, 2, 0xff, 0xfe])), "grpc 13"),
        ("a text longer than the message", publish(&message(&[10, 100, b'x'])), "grpc 13"),
        ("a tag of zero", publish(&message(&[0, 0])), "grpc 13"),
        ("a number without end", publish(&message(&[255; 11])), "grpc 13"),
        ("a group without end", publish(&message(&[0xa3, 6])), "grpc 13"),
        ("groups in groups", publish(&message(&[0xa3, 6].repeat(5_000))), "grpc 13"),
        ("200 messages in each other", publish(&message(&nested)), "grpc 13"),
        ("an empty message", publish(&message(b"")), "grpc 3"),
    ]
}

#[tokio::test]
async fn other_paths_lead_nowhere() {
    run(paths()).await;
}

#[tokio::test]
async fn frames_that_lie_are_refused() {
    run(shapes()).await;
}

async fn run(cases: Vec<(&'static str, Vec<u8>, &'static str)>) {
    let mut server = Server::start(Setup::default()).await;
    let mut found = Vec::new();
    for (name, bytes, expected) in cases {
        let outcome = http2(&address(server.ports.grpc), &bytes, expected).await;
        found.push((name.to_owned(), expected, outcome));
    }
    server.is_well().await;
    compare(&found);
}
