//! Too many connections, and those that sit still.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attack::http1;
use crate::h2::{END_HEADERS, HEADERS, block, frame, hello};
use crate::ports::address;
use crate::server::{HANGS, Server, Setup};

const FEW: &str = "connections = 40\nconnections_per_address = 20\n";

/// Whether the other end hangs up, and without a word.
async fn is_refused(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let ended = timeout(HANGS, stream.read_to_end(&mut answer)).await;
    ended.is_ok() && answer.is_empty()
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let mut server = Server::start(Setup { listen: FEW, ..Setup::default() }).await;
    for port in [server.ports.grpc, server.ports.http] {
        let mut held = Vec::new();
        for _ in 0..40 {
            let mut stream = TcpStream::connect(address(port)).await.unwrap();
            // Nothing is asked: not to be refused is to hear nothing, or settings.
            let heard = timeout(Duration::from_millis(20), stream.read_u8()).await;
            let refused = matches!(heard, Ok(Err(_)));
            held.push((stream, refused));
        }
        let refused = held.iter().filter(|(_stream, refused)| *refused).count();
        // The client of this test has some of the places of its port.
        assert!((20..30).contains(&refused), "{refused} of 40 were refused");
        let (last, was_refused) = held.last_mut().unwrap();
        assert!(*was_refused && is_refused(last).await);
    }
    server.is_well().await;
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    // All places are free again.
    let mut answer = String::new();
    for _ in 0..200 {
        answer = http1(&address(server.ports.http), request, "200 open").await;
        if answer == "200 open" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(answer, "200 open");
}

#[tokio::test]
async fn many_connections_come_and_go() {
    let mut server = Server::start(Setup::default()).await;
    for port in [server.ports.grpc, server.ports.http, server.ports.peer] {
        for _ in 0..20 {
            let connecting = (0..100).map(|_| TcpStream::connect(address(port)));
            for stream in futures::future::join_all(connecting).await {
                let mut stream = stream.unwrap();
                // Some say something before they go.
                _ = stream.write_all(b"PRI * HTTP/2.0\r\n").await;
            }
        }
    }
    server.is_well().await;
}

/// How long a connection is left alone that says this and then nothing: true when it is ended.
async fn sits_still(port: u16, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(address(port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    timeout(HANGS, stream.read_to_end(&mut Vec::new())).await.is_ok()
}

#[tokio::test]
async fn who_proves_nothing_is_not_kept() {
    let mut server = Server::start(Setup::default()).await;
    let (grpc, http, peer) = (server.ports.grpc, server.ports.http, server.ports.peer);
    let health = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Watch"),
        (":authority", "x"),
        ("content-type", "application/grpc"),
    ];
    let watch = [hello(), frame(HEADERS, END_HEADERS, 1, &block(&health))].concat();
    let beginning = hello();
    let live = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

    let ended = tokio::join!(
        sits_still(grpc, &beginning),
        sits_still(http, &beginning),
        sits_still(peer, &beginning),
        sits_still(grpc, &watch),
        sits_still(http, live),
    );

    assert_eq!(ended, (true, true, true, true, true));
    server.is_well().await;
}
