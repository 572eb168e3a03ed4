//! A flow that events are pushed to, as to a function: sends its requests, publishes its events.
//!
//! *Owns* one [`Engine`] and everything that it has under way. *Never* decides: the engine does.

mod call;
mod publish;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use weft_proto::Timestamp;

use crate::clock;
use crate::delivery::Outcome;
use crate::flow::{
    Action, Admission, Answer, CallId, Delivered, Engine, Failure, HttpRequest, Limits, Plan,
    PublicationId, Stored, Token,
};
use crate::port::Mesh;
pub(crate) use call::Caller;

/// Events that wait to be looked at; when it is full, whoever pushes waits.
const QUEUE_LEN: usize = 256;
/// Requests that are open at once; others wait, within their time-outs.
const CALLS_MAX: usize = 256;
/// Longest sleep, when nothing is due.
const NAP: Duration = Duration::from_hours(1);

/// What became of an event that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All that was made of it is stored: acknowledge it.
    Done,
    /// It failed; [`Failure::outcome`] says what that means, as for a function.
    Failed(Failure),
    /// It shall be given back to the cluster until then.
    Delayed(Timestamp),
    /// There is no room; offer it again later. No attempt.
    Full,
    /// The flow was stopped. No attempt.
    Stopped,
}

impl Ended {
    /// What it means for the rules of delivery; until when it is to be given back otherwise.
    pub(crate) fn outcome(&self) -> Result<Outcome, Timestamp> {
        match self {
            Self::Done => Ok(Outcome::Done),
            Self::Failed(failure) => Ok(failure.outcome.clone()),
            Self::Delayed(until) => Err(*until),
            Self::Full => Ok(Outcome::Throttled { retry_after: None }),
            Self::Stopped => Ok(Outcome::NotReceived),
        }
    }
}

/// A flow that events are pushed to.
#[derive(Debug)]
pub(crate) struct FlowTarget {
    messages: mpsc::Sender<Message>,
    last_token: AtomicU64,
    /// Somebody gave up, and there was no room to say so.
    is_abandoned: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Message {
    Event(Delivered, oneshot::Sender<Ended>),
    Lost(Token),
}

impl FlowTarget {
    /// A flow, and what drives it: to be spawned, and to end with the last push.
    pub(crate) fn new(
        plan: Arc<Plan>,
        limits: Limits,
        (mesh, caller): (Arc<dyn Mesh>, Caller),
    ) -> (Self, Driver) {
        let (messages, inbox) = mpsc::channel(QUEUE_LEN);
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let target = Self {
            messages,
            last_token: AtomicU64::new(0),
            is_abandoned: Arc::clone(&is_abandoned),
        };
        let driver = Driver {
            engine: Engine::new(plan, limits),
            inbox,
            is_abandoned,
            mesh,
            caller: Arc::new(caller),
            waiting: BTreeMap::new(),
            queued: VecDeque::new(),
            calls: 0,
            under_way: FuturesUnordered::new(),
            began: (clock::now(), Instant::now()),
        };
        (target, driver)
    }

    /// Takes an event through the flow and waits for its end, which may take as long as an aggregation
    /// waits: the lease has to be kept meanwhile. `stored` is when its stream took it; `is_last` says
    /// that it becomes a dead letter if it fails once more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the event up: what hangs on it alone is not done, if it was not done
    /// already.
    pub(crate) async fn push(&self, event: Bytes, stored: Timestamp, is_last: bool) -> Ended {
        let token = Token(self.last_token.fetch_add(1, Ordering::Relaxed));
        let (ended_tx, ended_rx) = oneshot::channel();
        let message = Message::Event(Delivered { token, event, stored, is_last }, ended_tx);
        if self.messages.send(message).await.is_err() {
            return Ended::Stopped;
        }
        let mut guard = Guard { target: self, token: Some(token) };
        let ended = ended_rx.await.unwrap_or(Ended::Stopped);
        guard.token = None;
        ended
    }
}

/// Says so if a push is given up.
struct Guard<'t> {
    target: &'t FlowTarget,
    token: Option<Token>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token
            && self.target.messages.try_send(Message::Lost(token)).is_err()
        {
            self.target.is_abandoned.store(true, Ordering::Relaxed);
        }
    }
}

/// What came to an end.
#[derive(Debug)]
enum Finished {
    Call(CallId, Answer),
    Publication(PublicationId, Vec<Stored>),
}

/// Does what the engine asks for.
pub(crate) struct Driver {
    engine: Engine,
    inbox: mpsc::Receiver<Message>,
    is_abandoned: Arc<AtomicBool>,
    mesh: Arc<dyn Mesh>,
    caller: Arc<Caller>,
    waiting: BTreeMap<Token, oneshot::Sender<Ended>>,
    /// Requests that wait for others to end.
    queued: VecDeque<(CallId, HttpRequest)>,
    calls: usize,
    under_way: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// The time of day at the start, and when that was: time never goes back.
    began: (Timestamp, Instant),
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Driver {
    /// Runs until it is stopped, or nobody pushes any more.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            self.act();
            let now = self.now();
            let due = self.engine.poll_timeout();
            let nap = due.map_or(NAP, |due| due.since(now)).min(NAP);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(finished) = self.under_way.next(), if !self.under_way.is_empty() => {
                    self.finished(finished);
                }
                message = self.inbox.recv() => match message {
                    Some(message) => self.told(message),
                    None => return,
                },
                () = sleep(nap) => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        let (wall, began) = self.began;
        wall.saturating_add(began.elapsed())
    }

    fn told(&mut self, message: Message) {
        let now = self.now();
        match message {
            Message::Event(delivered, ended) => {
                let token = delivered.token;
                match self.engine.handle_event(delivered, now) {
                    Admission::Taken => drop(self.waiting.insert(token, ended)),
                    // Whoever pushed may be gone.
                    Admission::Full => _ = ended.send(Ended::Full),
                }
            }
            Message::Lost(token) => self.lost(token),
        }
        if self.is_abandoned.swap(false, Ordering::Relaxed) {
            let gone = self.waiting.iter().filter(|(_, ended)| ended.is_closed());
            let gone: Vec<Token> = gone.map(|(token, _)| *token).collect();
            for token in gone {
                self.lost(token);
            }
        }
    }

    fn lost(&mut self, token: Token) {
        self.waiting.remove(&token);
        self.engine.handle_lost(token, self.now());
    }

    fn finished(&mut self, finished: Finished) {
        let now = self.now();
        match finished {
            Finished::Call(call, answer) => {
                self.calls = self.calls.saturating_sub(1);
                self.engine.handle_answer(call, answer, now);
            }
            Finished::Publication(publication, results) => {
                self.engine.handle_stored(publication, results, now);
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.engine.poll_action(self.now()) {
            match action {
                Action::Request { call, request, .. } => self.queued.push_back((call, *request)),
                Action::Publish { publication, stream, events } => {
                    let mesh = Arc::clone(&self.mesh);
                    let published = async move {
                        let results = publish::publish(mesh.as_ref(), &stream, events).await;
                        Finished::Publication(publication, results)
                    };
                    self.under_way.push(published.boxed());
                }
                Action::Settle { tokens } => self.end(&tokens, &Ended::Done),
                Action::Fail { tokens, failure } => self.end(&tokens, &Ended::Failed(failure)),
                Action::Delay { token, until } => self.end(&[token], &Ended::Delayed(until)),
            }
        }
        while self.calls < CALLS_MAX
            && let Some((call, request)) = self.queued.pop_front()
        {
            self.calls += 1;
            let caller = Arc::clone(&self.caller);
            let sent = async move { Finished::Call(call, caller.call(request).await) };
            self.under_way.push(sent.boxed());
        }
    }

    fn end(&mut self, tokens: &[Token], ended: &Ended) {
        for token in tokens {
            if let Some(waiting) = self.waiting.remove(token) {
                // Whoever pushed may be gone: the event is then delivered again.
                _ = waiting.send(ended.clone());
            }
        }
    }
}
