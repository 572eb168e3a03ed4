//! TLS that is junk, old, or broken off; and certificates where they do not belong.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attack::compare;
use crate::ports::address;
use crate::server::{HANGS, Server, Setup};

/// A record of TLS.
fn record(kind: u8, version: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&[kind][..], &version.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind][..], &length[1..], body].concat()
}

/// A hello of a client that goes up to this version and has these extensions.
fn hello(version: u16, suites: &[u8], extensions: &[u8]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(u16::try_from(suites.len()).unwrap().to_be_bytes());
    body.extend(suites);
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    record(22, 0x0301, &handshake(1, &body))
}

/// How a server ends it: the number of the alert, or without one.
async fn answer(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address(port)).await.unwrap();
    _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(HANGS, stream.read_to_end(&mut answer)).await;
    match (&answer[..], read) {
        (_, Err(_late)) => "silent".to_owned(),
        ([], _) => "closed".to_owned(),
        ([21, _, _, 0, 2, _, alert, ..], _) => format!("alert {alert}"),
        (other, _) => format!("{other:?}"),
    }
}

fn cases() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let suites = &[0x13, 0x01, 0xc0, 0x2b];
    let old = &[0, 0x2f, 0, 0x35, 0xc0, 0x09];
    // Renegotiation is asked for by a hello in the place of anything else.
    let twice = [hello(0x0303, suites, b""), hello(0x0303, suites, b"")].concat();
    vec![
        ("plain HTTP/1.1", b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "alert 50"),
        ("plain HTTP/2", crate::h2::hello(), "alert 50"),
        ("zeros", vec![0; 4096], "alert 50"),
        ("all ones", vec![255; 4096], "alert 50"),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], "alert 50"),
        ("SSL 3", hello(0x0300, old, b""), "alert 40"),
        ("TLS 1.0", hello(0x0301, old, b""), "alert 40"),
        ("TLS 1.1", hello(0x0302, old, b""), "alert 40"),
        ("TLS 1.2 without leave", hello(0x0303, suites, b""), "alert 40"),
        ("a hello twice", twice, "alert 40"),
        ("an empty hello", record(22, 0x0301, &handshake(1, b"")), "alert 50"),
        ("a hello of 64 KiB of junk", record(22, 0x0301, &handshake(1, &[3; 16_000])), "alert 50"),
        ("a hello that claims 16 MiB", record(22, 0x0301, &[1, 255, 255, 255]), "closed"),
        ("a record too long", [&[22, 3, 1, 255, 255][..], &vec![0; 70_000]].concat(), "alert 50"),
        ("an empty record", record(22, 0x0301, b""), "alert 50"),
        ("data before the handshake", record(23, 0x0303, &[1; 64]), "alert 10"),
        ("an end before the handshake", handshake_end(), "alert 10"),
        ("a change of cipher first", record(20, 0x0303, &[1]), "alert 10"),
        ("an alert first", record(21, 0x0303, &[2, 40]), "closed"),
        ("extensions that end elsewhere", hello(0x0303, suites, &[0, 0, 0, 200]), "alert 50"),
        ("a record of no known kind", record(99, 0x0303, b"x"), "alert 50"),
    ]
}

fn handshake_end() -> Vec<u8> {
    record(22, 0x0303, &handshake(20, &[0; 12]))
}

#[tokio::test]
async fn junk_is_answered_by_an_alert_on_all_ports() {
    let mut server = Server::start(Setup { secured: true, ..Setup::default() }).await;
    let mut found = Vec::new();
    for (port, number) in
        [("grpc", server.ports.grpc), ("http", server.ports.http), ("peer", server.ports.peer)]
    {
        let answers = cases().into_iter().map(async |(name, bytes, expected)| {
            (format!("{port}: {name}"), expected, answer(number, &bytes).await)
        });
        found.extend(futures::future::join_all(answers).await);
    }
    server.is_well().await;
    compare(&found);
}

/// Sends a piece of a hello from time to time.
async fn slow(port: u16) -> String {
    let bytes = hello(0x0303, &[0x13, 0x01], b"");
    let mut stream = TcpStream::connect(address(port)).await.unwrap();
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return "closed".to_owned();
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    answer_of(stream).await
}

async fn answer_of(mut stream: TcpStream) -> String {
    let ended = timeout(HANGS, stream.read_to_end(&mut Vec::new())).await;
    if ended.is_ok() { "closed".to_owned() } else { "silent".to_owned() }
}

#[tokio::test]
async fn slow_handshakes_are_ended_and_hold_up_nobody() {
    let mut server = Server::start(Setup { secured: true, ..Setup::default() }).await;
    let ports = [server.ports.grpc, server.ports.http, server.ports.peer];
    let mut silent = Vec::new();
    for port in ports {
        // More than may be under way at once.
        for _ in 0..300 {
            silent.push(TcpStream::connect(address(port)).await.unwrap());
        }
    }
    // Now, while all of them are waited for.
    server.works().await;

    let dripping = futures::future::join_all(ports.map(slow)).await;
    let ended = futures::future::join_all(silent.into_iter().map(answer_of)).await;

    server.is_well().await;
    assert_eq!(dripping, ["closed"; 3]);
    assert!(ended.iter().all(|end| end == "closed"), "{ended:?}");
}
