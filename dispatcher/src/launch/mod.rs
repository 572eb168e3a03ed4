//! Starts and stops instances; the seam behind which the kinds of runtime differ.
//!
//! A launcher is thin: it starts one instance, reports its lines and its end, parks and stops it.
//! How many there should be, and when one is started again, is decided elsewhere. One conformance
//! suite (`tests/launch`) runs against all.

#[cfg(feature = "docker")]
pub mod docker;
mod failure;
pub mod fake;
pub mod guard;
mod lines;
mod order;
mod probe;
pub mod process;
mod scratch;
mod secret;
mod shim;

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use weft_proto::resource::Runtime;

pub use failure::{Failure, FailureKind};
pub use order::{Caps, Labels, Launch, Progress, Run};
pub use secret::Secrets;
pub use shim::shim;

/// Lines that may wait to be taken; what comes on top is counted and left out.
const LINES_LEN: usize = 256;

/// Somewhere to run functions.
pub trait Launcher: Send + Sync + std::fmt::Debug {
    /// What it can do for instances of a kind.
    fn caps(&self, runtime: Runtime) -> Caps;

    /// Starts one instance, and returns it when it is ready. What takes long is told to `progress`
    /// meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was started.
    fn start(&self, launch: Launch, progress: Progress)
    -> BoxFuture<'_, Result<Instance, Failure>>;
}

/// Starts nothing: the operator has enabled no launcher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disabled;

impl Launcher for Disabled {
    fn caps(&self, _runtime: Runtime) -> Caps {
        Caps::default()
    }

    fn start(
        &self,
        launch: Launch,
        _progress: Progress,
    ) -> BoxFuture<'_, Result<Instance, Failure>> {
        let message = match launch.run {
            Run::Process { .. } => {
                "functions as processes are not enabled in this dispatcher's configuration \
                 (process.enabled, process.directories)"
            }
            Run::Container { .. } => {
                "functions as containers are not enabled in this dispatcher's configuration \
                 (docker.enabled)"
            }
        };
        Box::pin(async move { Err(Failure::denied(message)) })
    }
}

/// A running instance. Dropping it ends it at once.
#[derive(Debug)]
pub struct Instance {
    /// Where it takes events.
    pub address: SocketAddr,
    /// What it writes.
    pub lines: mpsc::Receiver<Line>,
    /// Comes once, when it has ended.
    pub exit: oneshot::Receiver<Exit>,
    /// Asks it to end.
    pub stop: Stop,
    /// Freezes and thaws it.
    pub park: Park,
}

/// Asks an instance to end. When the last handle is dropped, the instance is killed.
#[derive(Debug)]
pub struct Stop(watch::Sender<Option<Duration>>);

impl Stop {
    /// The instance may finish what it has in flight, at most for `drain`. Repeating is harmless.
    /// A parked one is unparked for it.
    pub fn stop(&self, drain: Duration) {
        self.0.send_if_modified(|asked| {
            let is_new = asked.is_none();
            *asked = asked.or(Some(drain));
            is_new
        });
    }
}

/// Freezes an instance where it stands, and thaws it: it keeps its memory and its connections, and
/// what is sent to it meanwhile is answered afterwards.
#[derive(Clone, Debug)]
pub struct Park(mpsc::Sender<ParkOrder>);

/// Freeze or thaw, and tell when that is done.
#[derive(Debug)]
struct ParkOrder {
    is_parked: bool,
    done_tx: oneshot::Sender<Result<(), Failure>>,
}

impl Park {
    /// Parks the instance, or unparks it, and returns when that is so. Repeating is harmless.
    ///
    /// # Errors
    ///
    /// When the launcher cannot, or the instance has ended.
    pub async fn set(&self, is_parked: bool) -> Result<(), Failure> {
        let gone = || Failure::engine("the instance has ended");
        let (done_tx, done_rx) = oneshot::channel();
        self.0.send(ParkOrder { is_parked, done_tx }).await.ok().ok_or_else(gone)?;
        done_rx.await.ok().ok_or_else(gone)?
    }
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text without its end of line, shortened if it was very long.
    pub text: String,
    /// Lines before this one that were left out because nobody took them in time.
    pub left_out: u64,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As asked, in time.
    Stopped,
    /// Asked, but not in time: killed.
    Killed,
    /// Without being asked: it crashed, ran out of memory, was evicted, or got lost.
    Crashed(Failure),
}

/// The two ends that a launcher keeps and the instance that it hands out.
struct Wires {
    lines_tx: mpsc::Sender<Line>,
    exit_tx: oneshot::Sender<Exit>,
    orders: Orders,
}

/// What is asked of an instance.
struct Orders {
    stop_rx: watch::Receiver<Option<Duration>>,
    park_rx: mpsc::Receiver<ParkOrder>,
}

/// The next thing that is asked of an instance.
enum Order {
    /// End, within this time.
    Stop(Duration),
    /// Freeze or thaw.
    Park(ParkOrder),
}

fn wire(address: SocketAddr) -> (Instance, Wires) {
    let (lines_tx, lines) = mpsc::channel(LINES_LEN);
    let (exit_tx, exit) = oneshot::channel();
    let (stop_tx, stop_rx) = watch::channel(None);
    // Orders are given one after the other.
    let (park_tx, park_rx) = mpsc::channel(1);
    let instance = Instance { address, lines, exit, stop: Stop(stop_tx), park: Park(park_tx) };
    (instance, Wires { lines_tx, exit_tx, orders: Orders { stop_rx, park_rx } })
}

impl Orders {
    /// Waits until something is asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Order {
        tokio::select! {
            biased;
            drain = stop_asked(&mut self.stop_rx) => Order::Stop(drain),
            Some(order) = self.park_rx.recv() => Order::Park(order),
        }
    }
}

impl ParkOrder {
    fn done(self, result: Result<(), Failure>) {
        // Whoever asked may have gone.
        self.done_tx.send(result).ok();
    }
}

/// Waits until an end is asked for and returns the time it may take.
async fn stop_asked(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(asked) => asked.unwrap_or_default(),
        // The last handle is gone: nobody waits for a graceful end.
        Err(_) => Duration::ZERO,
    }
}
