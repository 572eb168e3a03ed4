//! Requests that cross the end of a connection: those that the server never began are made again.

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use weft_client::{Client, Error, Options, Result};
use weft_proto::v1;

use crate::fake::Fake;
use crate::publish::event;

const PREFACE_BYTES: usize = 24;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// A frame of HTTP/2: RFC 9113, 4.1.
fn frame(kind: u8, stream: u32, payload: &[u32]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_uint(u64::try_from(payload.len() * 4).unwrap(), 3);
    bytes.put_u8(kind);
    bytes.put_u8(0);
    bytes.put_u32(stream);
    for word in payload {
        bytes.put_u32(*word);
    }
    bytes
}

/// Reads the first request of a connection, and ends it with these bytes instead of an answer.
async fn end_first(mut stream: TcpStream, ending: &[u8]) -> std::io::Result<()> {
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    stream.write_all(&frame(SETTINGS, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; usize::try_from(length).unwrap()]).await?;
        if head[3] == HEADERS {
            stream.write_all(ending).await?;
            stream.shutdown().await?;
            // What still comes is not looked at; the client must not see a reset before the ending.
            return tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop);
        }
    }
}

/// A node that ends its first connection so, and serves all others.
#[expect(clippy::disallowed_methods, reason = "the node of a test ends with its runtime")]
async fn node(fake: &Fake, ending: BytesMut) -> String {
    let real = fake.state().addresses[0].clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        tokio::spawn(async move { end_first(first, &ending).await });
        loop {
            let (mut one, _) = listener.accept().await.unwrap();
            let mut other = TcpStream::connect(&real).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut one, &mut other).await });
        }
    });
    address
}

/// What becomes of a publish without an identity whose connection ends so, and how much is stored.
async fn publish_over(ending: BytesMut) -> (Result<(), Error>, usize) {
    let (fake, _) = Fake::start(1).await;
    let address = node(&fake, ending).await;
    let client = Client::connect(&Options::new([address])).unwrap();
    let request = v1::PublishRequest {
        stream: "orders".to_owned(),
        events: vec![event(1)],
        ..v1::PublishRequest::default()
    };
    let told = client.publish_once(request).await.map(drop);
    let stored = fake.state().partitions[0].log.len();
    (told, stored)
}

#[tokio::test]
async fn what_the_server_says_it_never_began_is_sent_again() {
    let (no_error, refused_stream) = (0, 7);
    for ending in [
        // The last stream that it looked at is one before ours.
        frame(GOAWAY, 0, &[0, no_error]),
        frame(RST_STREAM, 1, &[refused_stream]),
    ] {
        let (told, stored) = publish_over(ending.clone()).await;
        assert_eq!((told.map_err(|error| error.to_string()), stored), (Ok(()), 1), "{ending:?}");
    }
}

#[tokio::test]
async fn what_the_server_may_have_begun_is_left_to_the_caller() {
    let (no_error, internal_error) = (0, 2);
    for ending in [
        BytesMut::new(),
        // It has looked at ours.
        frame(GOAWAY, 0, &[1, no_error]),
        frame(GOAWAY, 0, &[0, internal_error]),
        frame(RST_STREAM, 1, &[internal_error]),
    ] {
        let (told, stored) = publish_over(ending.clone()).await;
        let error = told.unwrap_err();
        assert!(error.is_retryable() && !error.not_applied(), "{ending:?}: {error}");
        assert_eq!(stored, 0);
    }
}
