//! A simulated process: the tasks of one node from its start to its end.
//!
//! Every future of a node runs inside of its process, so that the node can be stopped like with
//! SIGSTOP, killed between any two steps, and has a clock and random numbers of its own. What a
//! task starts belongs to the same process.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;
use weft_proto::Timestamp;

use super::random::Random;

/// Where the clocks of all nodes begin.
const EPOCH_MICROS: u64 = 1_700_000_000_000_000;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// Returns the process whose task runs now, if any.
pub(crate) fn current() -> Option<Arc<Process>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Returns the clock of the process whose task runs now, if any.
pub(crate) fn now() -> Option<Timestamp> {
    current().map(|process| process.clock())
}

/// Makes a task part of the process that starts it, if there is one.
pub(crate) fn inherit<F: Future>(future: F) -> Inside<F> {
    Inside { process: current(), future: Some(Box::pin(future)) }
}

#[derive(Debug)]
pub(crate) struct Process {
    born: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    life: Life,
    /// Tasks that wait for the process to go on.
    parked: Vec<Waker>,
    random: Random,
    /// A task gives way once in so many polls; 0 is never.
    yields: u64,
    /// By how much its wall clock is wrong, in microseconds.
    skew: i64,
    panics: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    Paused,
    Dead,
}

impl Process {
    pub(crate) fn new(random: Random, yields: u64, born: Instant) -> Arc<Self> {
        let state = State {
            life: Life::Running,
            parked: Vec::new(),
            random,
            yields,
            skew: 0,
            panics: Vec::new(),
        };
        Arc::new(Self { born, state: Mutex::new(state) })
    }

    /// Runs a future as part of the process.
    pub(crate) fn run<F: Future>(self: &Arc<Self>, future: F) -> Inside<F> {
        Inside { process: Some(Arc::clone(self)), future: Some(Box::pin(future)) }
    }

    /// Runs something that does not wait as part of the process.
    pub(crate) fn enter<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        let _entered = Entered::new(self);
        work()
    }

    pub(crate) fn life(&self) -> Life {
        self.state().life
    }

    pub(crate) fn pause(&self) {
        let mut state = self.state();
        if state.life == Life::Running {
            state.life = Life::Paused;
        }
    }

    pub(crate) fn resume(&self) {
        let mut state = self.state();
        if state.life == Life::Paused {
            state.life = Life::Running;
            state.parked.drain(..).for_each(Waker::wake);
        }
    }

    /// Ends the process: none of its tasks takes another step.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.life = Life::Dead;
        state.parked.drain(..).for_each(Waker::wake);
    }

    /// Waits until the process is dead.
    pub(crate) async fn death(&self) {
        std::future::poll_fn(|context| match self.life() {
            Life::Dead => Poll::Ready(()),
            Life::Running | Life::Paused => self.park(context),
        })
        .await;
    }

    /// Sets by how much the wall clock is wrong.
    pub(crate) fn skew(&self, micros: i64) {
        self.state().skew = micros;
    }

    pub(crate) fn random(&self) -> Random {
        self.state().random.fork()
    }

    pub(crate) fn clock(&self) -> Timestamp {
        let elapsed = u64::try_from(self.born.elapsed().as_micros()).unwrap();
        let micros = (EPOCH_MICROS + elapsed).saturating_add_signed(self.state().skew);
        Timestamp::from_micros(micros)
    }

    /// Notes a panic of one of its tasks.
    pub(crate) fn panicked(&self, message: String) {
        self.state().panics.push(message);
    }

    pub(crate) fn take_panics(&self) -> Vec<String> {
        std::mem::take(&mut self.state().panics)
    }

    /// Registers a task for the next change of the process' life.
    fn park<T>(&self, context: &Context<'_>) -> Poll<T> {
        let mut state = self.state();
        if !state.parked.iter().any(|waker| waker.will_wake(context.waker())) {
            state.parked.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names the current process while it exists.
struct Entered {
    before: Option<Arc<Process>>,
}

impl Entered {
    fn new(process: &Arc<Process>) -> Self {
        Self { before: CURRENT.replace(Some(Arc::clone(process))) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// A future inside of a process. Never ready once that is dead.
pub(crate) struct Inside<F> {
    process: Option<Arc<Process>>,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Inside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(future) = &mut this.future else { return Poll::Pending };
        let Some(process) = &this.process else { return future.as_mut().poll(context) };
        match process.life() {
            Life::Running => {}
            Life::Paused => return process.park(context),
            Life::Dead => {
                let entered = Entered::new(process);
                this.future = None;
                drop(entered);
                return Poll::Pending;
            }
        }
        let gives_way = {
            let mut state = process.state();
            let yields = state.yields;
            state.random.once_in(yields)
        };
        if gives_way {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let _entered = Entered::new(process);
        future.as_mut().poll(context)
    }
}

/// Keeps a stream inside of a process; what it is asked while that is paused waits.
pub(crate) fn inside<S>(
    process: Arc<Process>,
    mut stream: S,
) -> impl futures::Stream<Item = S::Item> + Send
where
    S: futures::Stream + Send + Unpin,
    S::Item: Send,
{
    futures::stream::poll_fn(move |context| match process.life() {
        Life::Paused | Life::Dead => process.park(context),
        Life::Running => {
            let _entered = Entered::new(&process);
            Pin::new(&mut stream).poll_next(context)
        }
    })
}
