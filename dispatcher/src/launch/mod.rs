//! Starts and stops instances; the seam behind which the kinds of runtime differ.
//!
//! A launcher is thin: it starts one instance, reports its lines and its end, and stops it. How
//! many there should be, and when one is started again, is decided elsewhere. One conformance
//! suite (`tests/launch`) runs against all.

pub mod fake;
mod lines;
pub mod process;
mod shim;

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use weft_proto::QualifiedName;

use crate::delivery::InstanceId;
pub use shim::shim;

/// Lines that may wait to be taken; what comes on top is counted and left out.
const LINES_LEN: usize = 256;

/// Somewhere to run functions.
pub trait Launcher: Send + Sync + std::fmt::Debug {
    /// Starts one instance.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was started.
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Instance, LaunchError>>;
}

/// Starts nothing: the operator has enabled no launcher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disabled;

impl Launcher for Disabled {
    fn start(&self, _launch: Launch) -> BoxFuture<'_, Result<Instance, LaunchError>> {
        let message = "functions as processes are not enabled in this dispatcher's configuration \
                       (process.enabled, process.directories)";
        Box::pin(async move { Err(LaunchError::Denied(message.to_owned())) })
    }
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Identity of the new instance.
    pub id: InstanceId,
    /// The function it belongs to.
    pub function: QualifiedName,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The whole environment, less what the launcher adds.
    pub env: Vec<(String, String)>,
}

/// Why nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The operator does not allow this.
    #[error("{0}")]
    Denied(String),
    /// The definition of the function cannot work.
    #[error("{0}")]
    Invalid(String),
    /// It might work later.
    #[error("{0}")]
    Failed(String),
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
}

/// Asks an instance to end. When the last handle is dropped, the instance is killed.
#[derive(Debug)]
pub struct Stop(watch::Sender<Option<Duration>>);

impl Stop {
    /// The instance may finish what it has in flight, at most for `drain`. Repeating is harmless.
    pub fn stop(&self, drain: Duration) {
        self.0.send_if_modified(|asked| {
            let is_new = asked.is_none();
            *asked = asked.or(Some(drain));
            is_new
        });
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
    /// Without being asked; the text says how.
    Crashed(String),
}

/// The two ends that a launcher keeps and the instance that it hands out.
struct Wires {
    lines_tx: mpsc::Sender<Line>,
    exit_tx: oneshot::Sender<Exit>,
    stop_rx: watch::Receiver<Option<Duration>>,
}

fn wire(address: SocketAddr) -> (Instance, Wires) {
    let (lines_tx, lines) = mpsc::channel(LINES_LEN);
    let (exit_tx, exit) = oneshot::channel();
    let (stop_tx, stop_rx) = watch::channel(None);
    let instance = Instance { address, lines, exit, stop: Stop(stop_tx) };
    (instance, Wires { lines_tx, exit_tx, stop_rx })
}

/// Waits until an end is asked for and returns the time it may take.
async fn stop_asked(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(asked) => asked.unwrap_or_default(),
        // The last handle is gone: nobody waits for a graceful end.
        Err(_) => Duration::ZERO,
    }
}
