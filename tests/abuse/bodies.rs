//! Bodies that are large, deep or without end, at a stream whose events are checked.

use bytes::Bytes;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::transport::Channel;
use weft_proto::v1::publish_client::PublishClient;
use weft_proto::v1::publish_result::Outcome;
use weft_proto::v1::{PublishRequest, PublishResult};

use crate::attack::{compare, http2};
use crate::h2::{DATA, END_HEADERS, HEADERS, block, frame, hello};
use crate::ports::address;
use crate::requests::{PUBLISH, call, headers, message};
use crate::server::{Server, Setup, event};

/// A publish of one event of a type that is checked.
fn checked(json: String) -> PublishRequest {
    let event = event("checked", "checked", Some(json)).encode_to_vec();
    PublishRequest {
        stream: "orders".to_owned(),
        events: vec![event.into()],
        ..PublishRequest::default()
    }
}

/// What became of the first event of a publish: the kind of its refusal, or that it was taken.
fn told(results: &[PublishResult]) -> String {
    match results[0].outcome.as_ref().unwrap() {
        Outcome::Refusal(refusal) => refusal.kind.clone(),
        Outcome::Receipt(_) => "taken".to_owned(),
    }
}

#[tokio::test]
async fn deep_and_broken_json_is_refused_where_it_is_checked() {
    let mut server = Server::start(Setup::default()).await;
    let deep =
        |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let cases = [
        ("arrays in arrays", deep("[", "]")),
        ("objects in objects", deep("{\"a\":", "}")),
        ("arrays without end", "[".repeat(200_000)),
        ("a name twice", "{\"a\":1,\"a\":2}".to_owned()),
        ("no JSON", "{".to_owned()),
        ("nothing", String::new()),
        ("something after it", "{} {}".to_owned()),
        ("a number of 100 KB", "9".repeat(100_000)),
        ("half a character", "{\"a\":\"\\ud800\"}".to_owned()),
        ("not an object", "[]".to_owned()),
    ];

    let mut found = Vec::new();
    for (name, json) in cases {
        let results = server.client.publish_once(checked(json)).await.unwrap();
        found.push((name.to_owned(), "invalid", told(&results)));
    }

    // None of them may be found in the stream.
    server.is_well().await;
    compare(&found);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_held() {
    let mut server = Server::start(Setup::default()).await;
    let channel = Channel::from_shared(format!("http://{}", address(server.ports.grpc))).unwrap();
    let mut client = PublishClient::new(channel.connect_lazy());
    let one = |bytes: usize| checked("x".repeat(bytes));
    let many = PublishRequest {
        stream: "orders".to_owned(),
        events: vec![Bytes::new(); 5_000],
        ..PublishRequest::default()
    };

    let mut found = Vec::new();
    for (name, request, expected) in [
        ("an event of 2 MiB", one(2 << 20), "invalid"),
        ("a message of 5 MiB", one(5 << 20), "OutOfRange"),
        ("5,000 events", many, "InvalidArgument"),
    ] {
        let answer = match client.publish(request).await {
            Ok(answer) => told(&answer.into_inner().results),
            Err(status) => format!("{:?}", status.code()),
        };
        found.push((name.to_owned(), expected, answer));
    }
    // Whoever heeds no window is not waited for.
    let body = message(&one(2 << 20).encode_to_vec());
    let flood = call(&headers(PUBLISH, "application/grpc"), &body);
    let outcome = http2(&address(server.ports.grpc), &flood, "goaway").await;
    found.push(("more than the window".to_owned(), "goaway 3", outcome));

    server.is_well().await;
    compare(&found);
}

#[tokio::test]
async fn half_open_bodies_of_many_connections_take_little() {
    let mut server = Server::start(Setup::default()).await;
    let head = block(&headers(PUBLISH, "application/grpc"));
    // Each claims as much as is allowed, and sends next to nothing of it.
    let claim = [&[0][..], &(4_u32 << 20).to_be_bytes(), b"x"].concat();
    let mut attack = hello();
    for stream in (1..64).step_by(2) {
        attack.extend(frame(HEADERS, END_HEADERS, stream, &head));
        attack.extend(frame(DATA, 0, stream, &claim));
    }

    let mut open = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address(server.ports.grpc)).await.unwrap();
        stream.write_all(&attack).await.unwrap();
        open.push(stream);
    }
    // While all of them are open.
    server.is_well().await;
    drop(open);
    server.is_well().await;
}
