//! Heartbeats of all groups to one peer, gathered into few messages on one stream.
//!
//! *Owns* the stream and who waits for which answer. A heartbeat that finds no stream fails at
//! once: the next one comes soon, and an old one proves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use weft_proto::internal as wire;

use super::{Error, Handler};

/// Heartbeats that may wait for the stream; one per group is the rule.
const QUEUE_LEN: usize = 256;
/// Messages on their way to the connection.
const BATCHES_LEN: usize = 4;
/// How long a heartbeat waits for company; short against the 200 ms between two of a group.
const LINGER: Duration = Duration::from_millis(2);
/// Between two messages: with many groups, each of which keeps its own time, a peer gets no more
/// messages than with a few.
const SPACING: Duration = Duration::from_millis(10);
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
pub(super) async fn run<F, S>(
    mut beats: mpsc::Receiver<Beat>,
    mut connect: impl FnMut(ReceiverStream<wire::HeartbeatBatch>) -> F + Send,
) where
    F: Future<Output = Result<S, Error>> + Send,
    S: Stream<Item = Result<wire::HeartbeatResponseBatch, Status>> + Unpin + Send,
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
    mut answers: impl Stream<Item = Result<wire::HeartbeatResponseBatch, Status>> + Unpin,
) -> Error {
    let mut waiting = Waiting::new();
    let mut number = 0_u64;
    let mut gathered = vec![first];
    let mut free_at = Instant::now();
    let linger = tokio::time::sleep(LINGER);
    tokio::pin!(linger);
    let error = loop {
        tokio::select! {
            biased;
            answer = answers.next() => match answer {
                Some(Ok(batch)) => settle(batch, &mut waiting),
                None => break Error::Broken("the peer closed the heartbeat stream".to_owned()),
                Some(Err(status)) => break super::grpc::error(status),
            },
            () = linger.as_mut(), if !gathered.is_empty() => {
                while let Ok(beat) = beats.try_recv() {
                    gathered.push(beat);
                }
                let batch = batch(&mut gathered, &mut number, &mut waiting);
                free_at = Instant::now() + SPACING;
                // Full means that the connection stands still: these heartbeats are lost.
                if let Err(mpsc::error::TrySendError::Closed(_)) = batches.try_send(batch) {
                    break Error::Broken("the heartbeat stream ended".to_owned());
                }
            }
            beat = beats.recv(), if gathered.is_empty() => match beat {
                Some(beat) => {
                    gathered.push(beat);
                    linger.as_mut().reset((Instant::now() + LINGER).max(free_at));
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
    batches: impl Stream<Item = Result<wire::HeartbeatBatch, Status>> + Send,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;
    use futures::future::BoxFuture;

    use super::*;
    use crate::peer::Messages;

    /// Answers heartbeats, and nothing else.
    struct Follower;

    impl Handler for Follower {
        fn append(&self, _: Messages<wire::AppendRequest>) -> Messages<wire::AppendResponse> {
            futures::stream::empty().boxed()
        }

        fn heartbeat(&self, _: wire::AppendRequest) -> BoxFuture<'static, wire::AppendResponse> {
            Box::pin(async { wire::AppendResponse::default() })
        }

        fn vote(
            &self,
            _: wire::VoteRequest,
        ) -> BoxFuture<'static, Result<wire::VoteResponse, Error>> {
            Box::pin(async { Err(Error::Refused("no votes here".to_owned())) })
        }

        fn transfer_leader(
            &self,
            _: wire::TransferLeaderRequest,
        ) -> BoxFuture<'static, Result<wire::TransferLeaderResponse, Error>> {
            Box::pin(async { Err(Error::Refused("no transfer here".to_owned())) })
        }

        fn install_snapshot(
            &self,
            _: wire::SnapshotHead,
            _: Bytes,
        ) -> BoxFuture<'static, Result<wire::SnapshotResponse, Error>> {
            Box::pin(async { Err(Error::Refused("no snapshots here".to_owned())) })
        }
    }

    /// Messages to and from a peer within ten beats of so many groups, each at its own time.
    async fn messages(groups: u32) -> (u64, u64) {
        const INTERVAL: Duration = Duration::from_millis(150);
        let (sent, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (beats, queue) = queue();
        let counters = (Arc::clone(&sent), Arc::clone(&answered));
        let connect = move |batches: ReceiverStream<wire::HeartbeatBatch>| {
            let (sent, answered) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
            let batches = batches.map(move |batch| {
                sent.fetch_add(1, Ordering::Relaxed);
                Ok(batch)
            });
            let answers = answer(Arc::new(Follower), batches).inspect(move |_| {
                answered.fetch_add(1, Ordering::Relaxed);
            });
            std::future::ready(Ok(answers.boxed()))
        };
        let beating = (0..groups).map(|group| {
            let beats = beats.clone();
            async move {
                tokio::time::sleep(INTERVAL * group / groups).await;
                for _ in 0..10 {
                    let (answer_tx, answered) = oneshot::channel();
                    let request = wire::AppendRequest::default();
                    beats.send(Beat { request, answer: answer_tx }).await.unwrap();
                    answered.await.unwrap().unwrap();
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        });
        let all = futures::future::join_all(beating);
        tokio::select! {
            _ = all => {}
            () = run(queue, connect) => panic!("it ended"),
        }
        (sent.load(Ordering::Relaxed), answered.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn idle_traffic_to_a_peer_does_not_grow_with_the_number_of_groups() {
        let few = messages(20).await;
        let many = messages(200).await;

        assert_eq!(few.0, few.1);
        assert_eq!(many.0, many.1);
        // Ten beats are 1.5 s and the wait for the last answers: one message in 10 ms at most.
        assert!(many.0 <= 200, "{many:?}");
        assert!(few.0 <= many.0 && many.0 < 2 * few.0, "{few:?} {many:?}");
    }
}
