//! The connection of one partition's publisher to the node that leads the partition.

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_proto::v1::publish_client::PublishClient;
use weft_proto::v1::publish_stream_request::Frame as RequestFrame;
use weft_proto::v1::publish_stream_response::Frame as ResponseFrame;
use weft_proto::{Error, Reason, Result, v1};

use crate::channels::{Transport, error_of};
use crate::client::{Client, MESSAGE_BYTES_MAX};

/// Frames between the lane and HTTP/2; what is further ahead waits in the window.
const FRAMES_LEN: usize = 4;

type Frames = mpsc::Sender<v1::PublishStreamRequest>;
type Answers = Streaming<v1::PublishStreamResponse>;

pub(super) enum Link {
    Closed,
    Opening(BoxFuture<'static, Result<Session>>),
    Open(Box<Session>),
}

pub(super) struct Session {
    client: Client,
    /// The endpoint that was asked for the leader or took the stream.
    place: usize,
    frames: Frames,
    answers: Answers,
    /// As the server said when it opened the stream.
    in_flight_bytes_max: u64,
}

/// What happened on the link.
pub(super) enum Event {
    Acks(Vec<v1::PublishAck>),
    /// The server takes no more than so many bytes ahead of its acknowledgements.
    Limits(u64),
    /// One more frame can be sent now.
    Writable,
    Broken(Error),
}

impl Link {
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Waits for what happens next; forever while closed. Safe to cancel.
    pub(super) async fn next(&mut self, wants_to_send: bool) -> Event {
        match self {
            Self::Closed => std::future::pending().await,
            Self::Opening(opening) => match opening.await {
                Ok(session) => {
                    let in_flight_bytes_max = session.in_flight_bytes_max;
                    *self = Self::Open(Box::new(session));
                    Event::Limits(in_flight_bytes_max)
                }
                Err(error) => {
                    *self = Self::Closed;
                    Event::Broken(error)
                }
            },
            Self::Open(session) => {
                let event = session.next(wants_to_send).await;
                if matches!(event, Event::Broken(_)) {
                    self.leave();
                }
                event
            }
        }
    }

    /// Closes a link that does not serve; the next one is opened with the help of another node.
    ///
    /// A node that is cut off from the others still opens streams, and names the leader that it
    /// knew: whoever stays with it fails until it is back.
    pub(super) fn leave(&mut self) {
        if let Self::Open(session) = std::mem::replace(self, Self::Closed) {
            session.client.avoid(session.place);
        }
    }

    /// Sends a frame right after `Writable`.
    pub(super) fn send(&mut self, batch: v1::PublishBatch) {
        if let Self::Open(session) = self {
            let frame = Some(RequestFrame::Batch(batch));
            // A stream that ended in between reports it by its answers; the window keeps the batch.
            _ = session.frames.try_send(v1::PublishStreamRequest { frame });
        }
    }
}

impl Session {
    async fn next(&mut self, wants_to_send: bool) -> Event {
        loop {
            tokio::select! {
                biased;
                answer = self.answers.message() => match answer {
                    Ok(Some(v1::PublishStreamResponse { frame: Some(ResponseFrame::Acks(acks)) })) => {
                        return Event::Acks(acks.acks);
                    }
                    Ok(Some(v1::PublishStreamResponse {
                        frame: Some(ResponseFrame::Limits(limits)),
                    })) => return Event::Limits(limits.in_flight_bytes_max),
                    // A frame of a newer server.
                    Ok(Some(_)) => {}
                    Ok(None) => return Event::Broken(Error::unavailable("the node ended the stream")),
                    Err(status) => return Event::Broken(error_of(status)),
                },
                permit = self.frames.reserve(), if wants_to_send => match permit {
                    Ok(_) => return Event::Writable,
                    Err(_closed) => return match self.answers.message().await {
                        Err(status) => Event::Broken(error_of(status)),
                        Ok(_) => Event::Broken(Error::unavailable("the connection broke")),
                    },
                },
            }
        }
    }
}

/// Opens a stream to the leader if it is known and this is an even attempt, else to any node:
/// an address that the leader tells may not be reachable from here.
pub(super) fn open(
    client: Client,
    stream: String,
    partition: u32,
    attempt: usize,
) -> BoxFuture<'static, Result<Session>> {
    Box::pin(async move {
        let limit = client.timeouts().attempt * 2;
        let opening = async {
            let routes = client.route(&stream).await?;
            let (asked, place) = client.any_node()?;
            let route = routes.into_iter().find(|route| route.partition == partition);
            let leader = route.and_then(|route| route.leader_address);
            let transport = match leader.filter(|_| attempt.is_multiple_of(2)) {
                Some(address) => client.node(&address)?,
                None => asked,
            };
            let open = v1::PublishOpen { stream, min_generation: client.generation() };
            match begin(transport, open).await {
                Ok((frames, answers, in_flight_bytes_max)) => {
                    let client = client.clone();
                    Ok(Session { client, place, frames, answers, in_flight_bytes_max })
                }
                Err(error) => {
                    client.avoid(place);
                    Err(error)
                }
            }
        };
        timeout(limit, opening).await.unwrap_or_else(|_elapsed| {
            client.avoid(client.any_node()?.1);
            Err(Error::new(Reason::DeadlineExceeded, "no node opened the stream in time"))
        })
    })
}

async fn begin(transport: Transport, open: v1::PublishOpen) -> Result<(Frames, Answers, u64)> {
    let (frames, receiver) = mpsc::channel(FRAMES_LEN);
    let frame = Some(RequestFrame::Open(open));
    // The channel is new and has room.
    _ = frames.try_send(v1::PublishStreamRequest { frame });
    // The answer to a batch may tell a reason for each of its events.
    let mut client = PublishClient::new(transport).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let response = client.publish_stream(ReceiverStream::new(receiver)).await.map_err(error_of)?;
    let mut answers = response.into_inner();
    match answers.message().await.map_err(error_of)?.and_then(|answer| answer.frame) {
        Some(ResponseFrame::Opened(opened)) => Ok((frames, answers, opened.in_flight_bytes_max)),
        _ => Err(Error::unavailable("the node did not open the stream")),
    }
}
