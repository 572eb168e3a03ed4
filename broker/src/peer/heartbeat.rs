//! Heartbeats of all groups to one peer, gathered into few messages on one stream.
//!
//! *Owns* the stream and who waits for which answer. A heartbeat that finds no stream fails at
//! once: the next one comes soon, and an old one proves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weft_proto::internal as wire;

use super::{Error, Handler};

/// Heartbeats that may wait for the stream; one per group is the rule.
const QUEUE_LEN: usize = 256;
/// Messages on their way to the connection.
const BATCHES_LEN: usize = 4;
/// How long a heartbeat waits for company; short against the 200 ms between two of a group.
const LINGER: Duration = Duration::from_millis(2);
/// An unanswered heartbeat is forgotten after as many newer ones.
const WAITING_MAX: usize = 1024;

/// One heartbeat and where its answer goes.
#[derive(Debug)]
pub(super) struct Beat {
    pub(super) request: wire::AppendRequest,
    pub(super) answer: oneshot::Sender<Result<wire::AppendResponse, Error>>,
}

/// Creates the queue of one peer.
pub(super) fn queue() -> (mpsc::Sender<Beat>, mpsc::Receiver<Beat>) {
    mpsc::channel(QUEUE_LEN)
}

type Waiting = BTreeMap<u64, oneshot::Sender<Result<wire::AppendResponse, Error>>>;

/// Serves the queue until all senders are gone; `connect` opens a stream when there is work.
pub(super) async fn run<F>(
    mut beats: mpsc::Receiver<Beat>,
    mut connect: impl FnMut(ReceiverStream<wire::HeartbeatBatch>) -> F + Send,
) where
    F: Future<Output = Result<Streaming<wire::HeartbeatResponseBatch>, Error>> + Send,
{
    while let Some(first) = beats.recv().await {
        let (batches_tx, batches_rx) = mpsc::channel(BATCHES_LEN);
        let answers = match connect(ReceiverStream::new(batches_rx)).await {
            Ok(answers) => answers,
            Err(error) => {
                fail(first, &error);
                while let Ok(beat) = beats.try_recv() {
                    fail(beat, &error);
                }
                continue;
            }
        };
        let error = exchange(first, &mut beats, &batches_tx, answers).await;
        tracing::debug!(%error, "heartbeat stream ended");
    }
}

fn fail(beat: Beat, error: &Error) {
    // Whoever asked may have given up.
    _ = beat.answer.send(Err(error.clone()));
}

/// Passes heartbeats and answers until the stream breaks; what waits then gets the error.
async fn exchange(
    first: Beat,
    beats: &mut mpsc::Receiver<Beat>,
    batches: &mpsc::Sender<wire::HeartbeatBatch>,
    mut answers: Streaming<wire::HeartbeatResponseBatch>,
) -> Error {
    let mut waiting = Waiting::new();
    let mut number = 0_u64;
    let mut gathered = vec![first];
    let linger = tokio::time::sleep(LINGER);
    tokio::pin!(linger);
    let error = loop {
        tokio::select! {
            biased;
            answer = answers.message() => match answer {
                Ok(Some(batch)) => settle(batch, &mut waiting),
                Ok(None) => break Error::Broken("the peer closed the heartbeat stream".to_owned()),
                Err(status) => break super::grpc::error(status),
            },
            () = linger.as_mut(), if !gathered.is_empty() => {
                while let Ok(beat) = beats.try_recv() {
                    gathered.push(beat);
                }
                let batch = batch(&mut gathered, &mut number, &mut waiting);
                // Full means that the connection stands still: these heartbeats are lost.
                if let Err(mpsc::error::TrySendError::Closed(_)) = batches.try_send(batch) {
                    break Error::Broken("the heartbeat stream ended".to_owned());
                }
            }
            beat = beats.recv(), if gathered.is_empty() => match beat {
                Some(beat) => {
                    gathered.push(beat);
                    linger.as_mut().reset(tokio::time::Instant::now() + LINGER);
                }
                None => break Error::Broken("this node stops".to_owned()),
            },
        }
    };
    for answer in waiting.into_values().chain(gathered.into_iter().map(|beat| beat.answer)) {
        _ = answer.send(Err(error.clone()));
    }
    error
}

fn settle(batch: wire::HeartbeatResponseBatch, waiting: &mut Waiting) {
    for response in batch.responses {
        let Some(answer) = waiting.remove(&response.number) else { continue };
        let missing = || Error::Broken("a heartbeat was answered without content".to_owned());
        _ = answer.send(response.response.ok_or_else(missing));
    }
}

fn batch(
    gathered: &mut Vec<Beat>,
    number: &mut u64,
    waiting: &mut Waiting,
) -> wire::HeartbeatBatch {
    let mut heartbeats = Vec::with_capacity(gathered.len());
    for beat in gathered.drain(..) {
        *number += 1;
        waiting.insert(*number, beat.answer);
        heartbeats.push(wire::Heartbeat { number: *number, request: Some(beat.request) });
    }
    while waiting.len() > WAITING_MAX {
        waiting.pop_first();
    }
    wire::HeartbeatBatch { heartbeats }
}

/// Answers the heartbeats of one peer: each batch at once, its groups beside each other.
pub(super) fn answer(
    handler: std::sync::Arc<dyn Handler>,
    batches: Streaming<wire::HeartbeatBatch>,
) -> impl Stream<Item = Result<wire::HeartbeatResponseBatch, Status>> + Send {
    /// Batches that may wait for a slow group.
    const BATCHES_MAX: usize = 16;
    let answered = batches.map(move |batch| {
        let handler = std::sync::Arc::clone(&handler);
        async move {
            let answers = batch?.heartbeats.into_iter().filter_map(|heartbeat| {
                let (number, request) = (heartbeat.number, heartbeat.request?);
                let answer = handler.heartbeat(request);
                Some(async move {
                    let response = Some(answer.await);
                    wire::HeartbeatResponse { number, response }
                })
            });
            let responses = futures::future::join_all(answers).await;
            Ok(wire::HeartbeatResponseBatch { responses })
        }
    });
    answered.buffer_unordered(BATCHES_MAX)
}
