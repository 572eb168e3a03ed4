//! Pipelined replication: many requests in flight, bounded by bytes, each answered in time.
//!
//! *Owns* what was sent and not yet answered. Dropping the answers drops the input at once, so
//! that the next stream never waits for a half-closed one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use openraft::errors::{NetworkError, RPCError, Timeout, Unreachable};
use openraft::network::RPCTypes;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::{Instant, Sleep};
use weft_proto::internal as wire;

use super::receipts::Receipts;
use super::types::{LogId, TypeConfig};
use super::wire::{append_bytes, append_out, append_result_in, receipt_in};
use crate::peer::{self, Messages};

/// Bytes of entries that one follower may owe an answer for; one larger request is still sent.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;

type Request = AppendEntriesRequest<TypeConfig>;

/// Who talks to whom; for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) group: u32,
    pub(super) from: u64,
    pub(super) to: u64,
}

struct Shared<S> {
    ends: Ends,
    receipts: Arc<Receipts>,
    input: Mutex<Input<S>>,
    window: Mutex<Window>,
}

struct Input<S> {
    /// Gone once it ended, or once nobody waits for the answers.
    requests: Option<S>,
    /// Read from the input, but too large for the window now.
    held: Option<Request>,
}

#[derive(Default)]
struct Window {
    sent: VecDeque<Sent>,
    bytes: usize,
    ended: bool,
    sender: Option<Waker>,
}

struct Sent {
    last: Option<LogId>,
    bytes: usize,
    at: Instant,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding one of these locks leaves plain values behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits a stream of requests: the first half goes to the transport, the second takes its answers.
pub(super) fn split<S>(
    ends: Ends,
    receipts: Arc<Receipts>,
    requests: S,
) -> (Requests<S>, Waiting<S>)
where
    S: Stream<Item = Request> + Send + Unpin + 'static,
{
    let shared = Arc::new(Shared {
        ends,
        receipts,
        input: Mutex::new(Input { requests: Some(requests), held: None }),
        window: Mutex::new(Window::default()),
    });
    (Requests { shared: Arc::clone(&shared) }, Waiting { shared })
}

/// What the transport sends.
pub(super) struct Requests<S> {
    shared: Arc<Shared<S>>,
}

impl<S: Stream<Item = Request> + Send + Unpin + 'static> Stream for Requests<S> {
    type Item = wire::AppendRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let shared = &self.shared;
        let mut input = lock(&shared.input);
        if input.held.is_none() {
            let next = match &mut input.requests {
                Some(requests) => requests.poll_next_unpin(context),
                None => Poll::Ready(None),
            };
            match next {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(request)) => input.held = Some(request),
                Poll::Ready(None) => {
                    input.requests = None;
                    lock(&shared.window).ended = true;
                    return Poll::Ready(None);
                }
            }
        }
        let Some(request) = &input.held else { return Poll::Ready(None) };
        let bytes = append_bytes(request);
        let mut window = lock(&shared.window);
        if !window.sent.is_empty() && window.bytes + bytes > IN_FLIGHT_BYTES_MAX {
            window.sender = Some(context.waker().clone());
            return Poll::Pending;
        }
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        window.sent.push_back(Sent { last, bytes, at: Instant::now() });
        window.bytes += bytes;
        drop(window);
        let request = input.held.take();
        Poll::Ready(request.map(|request| wire::AppendRequest {
            receipts: shared.receipts.is_wanted(),
            ..append_out(shared.ends.group, request)
        }))
    }
}

/// Holds the input until the transport has opened the stream.
pub(super) struct Waiting<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Waiting<S> {
    /// Joins the requests with the answers of the transport.
    pub(super) fn answers(
        self,
        responses: Messages<Result<wire::AppendResponse, peer::Error>>,
        patience: Duration,
    ) -> Answers<S> {
        Answers {
            close: Close { shared: Arc::clone(&self.shared) },
            responses,
            patience,
            last_answer: Instant::now(),
            alarm: Box::pin(tokio::time::sleep(patience)),
            done: false,
        }
    }
}

/// Drops the input with the answers, whatever the transport still holds.
struct Close<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Drop for Close<S> {
    fn drop(&mut self) {
        let mut input = lock(&self.shared.input);
        let requests = input.requests.take();
        input.held = None;
        drop(input);
        drop(requests);
        if let Some(waker) = lock(&self.shared.window).sender.take() {
            waker.wake();
        }
    }
}

/// The answers of one follower, in the order of the requests.
pub(super) struct Answers<S> {
    close: Close<S>,
    responses: Messages<Result<wire::AppendResponse, peer::Error>>,
    patience: Duration,
    last_answer: Instant,
    alarm: Pin<Box<Sleep>>,
    done: bool,
}

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

impl<S> Answers<S> {
    fn answer(&mut self, response: wire::AppendResponse) -> Answer {
        let mut window = lock(&self.close.shared.window);
        let Some(sent) = window.sent.pop_front() else {
            return Err(broken("the follower answered more than it was asked"));
        };
        window.bytes -= sent.bytes;
        if let Some(waker) = window.sender.take() {
            waker.wake();
        }
        drop(window);
        self.last_answer = Instant::now();
        match append_result_in(response) {
            Ok(Ok(Ok(matched))) if matched > sent.last => {
                Err(broken("the follower acknowledged more than it was sent"))
            }
            Ok(Ok(result)) => Ok(result),
            Ok(Err(reason)) => Err(Unreachable::from_string(reason).into()),
            Err(malformed) => Err(broken(malformed)),
        }
    }

    fn closed(&self) -> Option<Answer> {
        let window = lock(&self.close.shared.window);
        if window.ended && window.sent.is_empty() {
            return None;
        }
        Some(Err(Unreachable::from_string(format!(
            "the follower closed the stream with {} requests unanswered",
            window.sent.len()
        ))
        .into()))
    }

    /// How long the oldest request still has; zero when its time is over.
    fn left(&self) -> Duration {
        let window = lock(&self.close.shared.window);
        let Some(oldest) = window.sent.front() else { return self.patience };
        let waited = oldest.at.max(self.last_answer).elapsed();
        self.patience.saturating_sub(waited)
    }

    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        loop {
            std::task::ready!(self.alarm.as_mut().poll(context));
            let left = self.left();
            if left.is_zero() {
                let ends = self.close.shared.ends;
                return Poll::Ready(Err(Timeout {
                    action: RPCTypes::AppendEntries,
                    id: ends.from,
                    target: ends.to,
                    timeout: self.patience,
                }
                .into()));
            }
            self.alarm.as_mut().reset(Instant::now() + left);
        }
    }
}

impl<S: Send + 'static> Stream for Answers<S> {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let response = loop {
            let response = this.responses.poll_next_unpin(context);
            // A word ahead of the answers, not one of them.
            let Poll::Ready(Some(Ok(message))) = &response else { break response };
            let Some(receipt) = receipt_in(message) else { break response };
            let shared = &this.close.shared;
            shared.receipts.told(shared.ends.to, receipt);
        };
        let answer = match response {
            Poll::Ready(Some(Ok(response))) => Some(this.answer(response)),
            Poll::Ready(Some(Err(error))) => Some(Err(rpc_error(error))),
            Poll::Ready(None) => this.closed(),
            Poll::Pending => Some(std::task::ready!(this.poll_alarm(context))),
        };
        // A refusal ends the stream: what was sent after it means nothing.
        this.done = !matches!(answer, Some(Ok(Ok(_))));
        Poll::Ready(answer)
    }
}

fn broken(reason: impl ToString) -> RPCError<TypeConfig> {
    NetworkError::from_string(reason).into()
}

/// Tells openraft whether to retry at once or after a pause.
pub(super) fn rpc_error(error: peer::Error) -> RPCError<TypeConfig> {
    match error {
        peer::Error::Broken(_) => NetworkError::from_string(error).into(),
        peer::Error::Unreachable(_) | peer::Error::Refused(_) => {
            Unreachable::from_string(error).into()
        }
    }
}
