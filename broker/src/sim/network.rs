//! The network between simulated nodes: delays, cuts in one direction or both, broken connections.
//!
//! Like TCP it neither loses nor reorders within a connection: what a cut holds back arrives after
//! it, or the connection breaks. Different connections overtake each other freely.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, Sleep};

use super::process::Process;
use super::random::Random;
use crate::peer::{Error, Handler, Messages};

/// Messages on their way in one direction of a connection; beyond it the sender waits.
const ON_THE_WAY_MAX: usize = 64;

/// From whom to whom.
pub(crate) type Way = (u64, u64);

/// All nodes and what lies between them. Clones share it.
#[derive(Clone)]
pub(crate) struct Network {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    nodes: BTreeMap<u64, Endpoint>,
    blocked: BTreeSet<Way>,
    /// How often the connections of a pair broke.
    breaks: BTreeMap<Way, u64>,
    delay_millis: Range<u64>,
    /// Pairs that are slow for a while.
    slow: BTreeMap<Way, Range<u64>>,
    random: Random,
    waiting: Vec<Waker>,
}

/// Who answers at a node.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) process: Arc<Process>,
}

fn pair((from, to): Way) -> Way {
    (from.min(to), from.max(to))
}

/// One connection, in the direction of its opener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) way: Way,
    breaks: u64,
}

impl Connection {
    pub(crate) fn back(self) -> Self {
        Self { way: (self.way.1, self.way.0), ..self }
    }
}

impl Network {
    pub(crate) fn new(random: Random, delay_millis: Range<u64>) -> Self {
        let shared = Shared {
            nodes: BTreeMap::new(),
            blocked: BTreeSet::new(),
            breaks: BTreeMap::new(),
            delay_millis,
            slow: BTreeMap::new(),
            random,
            waiting: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Lets a node answer.
    pub(crate) fn join(&self, node: u64, endpoint: Endpoint) {
        self.change(|shared| {
            shared.nodes.insert(node, endpoint);
        });
    }

    /// Ends all connections of a node, as the end of its process does.
    pub(crate) fn leave(&self, node: u64, all: &[u64]) {
        self.change(|shared| {
            shared.nodes.remove(&node);
            for other in all {
                *shared.breaks.entry(pair((node, *other))).or_default() += 1;
            }
        });
    }

    /// Holds back what goes one way.
    pub(crate) fn block(&self, way: Way) {
        self.change(|shared| {
            shared.blocked.insert(way);
        });
    }

    /// Breaks the connections between two nodes; new ones can be opened.
    pub(crate) fn reset(&self, way: Way) {
        self.change(|shared| *shared.breaks.entry(pair(way)).or_default() += 1);
    }

    /// Slows down what goes one way.
    pub(crate) fn slow(&self, way: Way, millis: Range<u64>) {
        self.change(|shared| {
            shared.slow.insert(way, millis);
        });
    }

    /// Opens one way again.
    pub(crate) fn open(&self, way: Way) {
        self.change(|shared| {
            shared.blocked.remove(&way);
            shared.slow.remove(&way);
        });
    }

    /// Opens all ways.
    pub(crate) fn heal(&self) {
        self.change(|shared| {
            shared.blocked.clear();
            shared.slow.clear();
        });
    }

    pub(crate) fn connect(&self, way: Way) -> Connection {
        let shared = self.shared();
        Connection { way, breaks: shared.breaks.get(&pair(way)).copied().unwrap_or_default() }
    }

    pub(crate) fn endpoint(&self, node: u64) -> Result<Endpoint, Error> {
        let nobody = || Error::Unreachable(format!("node {node} is down"));
        self.shared().nodes.get(&node).cloned().ok_or_else(nobody)
    }

    /// Takes a message from one end of a connection to the other.
    pub(crate) async fn travel(&self, connection: Connection) -> Result<(), Error> {
        tokio::time::sleep_until(self.arrival(connection.way)).await;
        std::future::poll_fn(|context| {
            let mut shared = self.shared();
            if shared.is_broken(connection) {
                return Poll::Ready(Err(broken()));
            }
            if shared.blocked.contains(&connection.way) {
                return shared.wait(context);
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits for something as long as the connection holds.
    pub(crate) async fn while_whole<T>(
        &self,
        connection: Connection,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| {
            let mut shared = self.shared();
            if shared.is_broken(connection) {
                return Poll::Ready(Err(broken()));
            }
            _ = shared.wait::<()>(context);
            drop(shared);
            work.as_mut().poll(context).map(Ok)
        })
        .await
    }

    fn arrival(&self, way: Way) -> Instant {
        let mut shared = self.shared();
        let range = shared.slow.get(&way).unwrap_or(&shared.delay_millis).clone();
        Instant::now() + shared.random.millis(range)
    }

    fn change(&self, change: impl FnOnce(&mut Shared)) {
        let waiting = {
            let mut shared = self.shared();
            change(&mut shared);
            std::mem::take(&mut shared.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn is_broken(&self, connection: Connection) -> bool {
        let breaks = self.breaks.get(&pair(connection.way)).copied().unwrap_or_default();
        breaks != connection.breaks
    }

    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        if !self.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            self.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

fn broken() -> Error {
    Error::Broken("the connection was reset".to_owned())
}

/// One direction of a connection that carries many messages.
pub(crate) struct Carried<T> {
    network: Network,
    connection: Connection,
    source: Option<Messages<T>>,
    on_the_way: VecDeque<(Instant, T)>,
    last_arrival: Instant,
    timer: Pin<Box<Sleep>>,
    /// What the receiver sees of a broken connection; then, or without it, the stream ends.
    at_break: Option<T>,
}

impl<T: Send + Unpin + 'static> Carried<T> {
    pub(crate) fn over(
        network: Network,
        connection: Connection,
        source: Messages<T>,
        at_break: Option<T>,
    ) -> Messages<T> {
        let now = Instant::now();
        Box::pin(Self {
            network,
            connection,
            source: Some(source),
            on_the_way: VecDeque::new(),
            last_arrival: now,
            timer: Box::pin(tokio::time::sleep_until(now)),
            at_break,
        })
    }

    fn take_in(&mut self, context: &mut Context<'_>) {
        while self.on_the_way.len() < ON_THE_WAY_MAX
            && let Some(source) = &mut self.source
        {
            match source.poll_next_unpin(context) {
                Poll::Pending => return,
                Poll::Ready(None) => self.source = None,
                Poll::Ready(Some(message)) => {
                    let arrival = self.network.arrival(self.connection.way);
                    self.last_arrival = self.last_arrival.max(arrival);
                    self.on_the_way.push_back((self.last_arrival, message));
                }
            }
        }
    }
}

impl<T: Send + Unpin + 'static> Stream for Carried<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        let blocked = {
            let mut shared = this.network.shared();
            if shared.is_broken(this.connection) {
                drop(shared);
                this.source = None;
                this.on_the_way.clear();
                return Poll::Ready(this.at_break.take());
            }
            _ = shared.wait::<()>(context);
            shared.blocked.contains(&this.connection.way)
        };
        this.take_in(context);
        if blocked {
            return Poll::Pending;
        }
        let Some((arrival, _)) = this.on_the_way.front() else {
            return if this.source.is_none() { Poll::Ready(None) } else { Poll::Pending };
        };
        if *arrival > Instant::now() {
            this.timer.as_mut().reset(*arrival);
            std::task::ready!(this.timer.as_mut().poll(context));
        }
        Poll::Ready(this.on_the_way.pop_front().map(|(_, message)| message))
    }
}
