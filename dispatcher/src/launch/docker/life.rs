//! The life of one container: lines, the end and its reason, parking, stopping, removal.

use std::net::IpAddr;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{KillContainerOptionsBuilder, LogsOptionsBuilder};
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::warn;
use weft_proto::resource::BytesText;

use super::{engine, failure};
use crate::launch::{Exit, Failure, FailureKind, Line, Order, ParkOrder, Wires, lines};

/// Longest wait for the rest of the output once the container has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after the engine was lost from sight.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// So often an engine that does not answer is asked about a container.
const LOOKS_MAX: u32 = 20;
/// Bytes of output on their way to the cutter of lines.
const PIPE_BYTES: usize = 16 * 1_024;
/// What the kernel adds to the number of a signal that ended a program.
const SIGNAL_BASE: i64 = 128;
const SIGKILL: i64 = 9;
/// What the first process of a container ends with when there is no program, or none that it may run.
const NO_PROGRAM: [i64; 2] = [126, 127];

/// A container. Dropping it removes it, whatever it does.
pub(super) struct Container {
    docker: Docker,
    id: String,
    tasks: TaskTracker,
    is_removed: bool,
}

impl Container {
    pub(super) const fn new(docker: Docker, id: String, tasks: TaskTracker) -> Self {
        Self { docker, id, tasks, is_removed: false }
    }

    pub(super) async fn start(&self) -> Result<(), Failure> {
        self.docker.start_container(&self.id, None).await.map_err(|error| failure(&error))
    }

    /// Its address in a network of the engine.
    pub(super) async fn address(&self, network: &str) -> Result<IpAddr, Failure> {
        let found = self.docker.inspect_container(&self.id, None).await;
        let found = found.map_err(|error| failure(&error))?;
        // One that has ended already has none; how it ended is more to the point.
        if let Some(state) = &found.state
            && state.running == Some(false)
        {
            return Ok(IpAddr::from([127, 0, 0, 1]));
        }
        let networks = found.network_settings.and_then(|settings| settings.networks);
        let address = networks.and_then(|networks| networks.get(network)?.ip_address.clone());
        let address = address.and_then(|text| text.parse().ok());
        let missing = || Failure::engine(format!("it has no address in the network {network}"));
        address.ok_or_else(missing)
    }

    async fn kill(&self, signal: &str) {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        // It may have ended by itself a moment ago.
        if let Err(error) = self.docker.kill_container(&self.id, Some(options)).await
            && !is_gone(&error)
        {
            warn!(container = %self.id, %error, "cannot signal a container");
        }
    }

    async fn set_parked(&self, is_parked: bool) -> Result<(), Failure> {
        let result = if is_parked {
            self.docker.pause_container(&self.id).await
        } else {
            self.docker.unpause_container(&self.id).await
        };
        match result {
            Ok(()) => Ok(()),
            // Only one that runs can be paused, and only one that is paused can go on.
            Err(Error::DockerResponseServerError { status_code: 409 | 500, message })
                if message.contains("already paused") || message.contains("is not paused") =>
            {
                Ok(())
            }
            Err(error) => Err(failure(&error)),
        }
    }

    /// Waits for its end, also over a time in which the engine does not answer.
    async fn ended(&self) {
        let mut looks = 0;
        while looks < LOOKS_MAX {
            let mut waiting = Box::pin(self.docker.wait_container(&self.id, None));
            match waiting.next().await {
                // A code that is not 0 is told as an error.
                Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => return,
                Some(Err(error)) if is_gone(&error) => return,
                Some(Err(Error::RequestTimeoutError)) => {}
                Some(Err(_)) | None => {
                    looks += 1;
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// How it ended.
    async fn verdict(&self, memory: BytesText) -> Failure {
        let found = match self.docker.inspect_container(&self.id, None).await {
            Ok(found) => found,
            Err(error) if is_gone(&error) => {
                return Failure::engine("somebody removed the container");
            }
            Err(error) => return Failure::engine(format!("lost sight of it: {error}")),
        };
        let state = found.state.unwrap_or_default();
        let code = state.exit_code.unwrap_or_default();
        let exit_code = i32::try_from(code).ok();
        if state.oom_killed == Some(true) {
            let message = format!("killed: it needed more than its {memory} of memory");
            return Failure::new(FailureKind::Oom, message).with_exit_code(exit_code);
        }
        if NO_PROGRAM.contains(&code) {
            let message = format!("exited with code {code}: its program cannot be run");
            return Failure::new(FailureKind::BadImage, message).with_exit_code(exit_code);
        }
        let message = match code - SIGNAL_BASE {
            SIGKILL => "killed by SIGKILL".to_owned(),
            signal @ 1..=64 => format!("killed by signal {signal}"),
            _ => format!("exited with code {code}"),
        };
        Failure::new(FailureKind::CrashLoop, message).with_exit_code(exit_code)
    }

    /// Passes on what it writes, from its beginning to its end.
    async fn forward(docker: Docker, id: String, lines_tx: mpsc::Sender<Line>) {
        let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).build();
        let mut output = Box::pin(docker.logs(&id, Some(options)));
        let (reader, mut writer) = tokio::io::simplex(PIPE_BYTES);
        let pump = async move {
            while let Some(Ok(piece)) = output.next().await {
                if writer.write_all(piece.as_ref()).await.is_err() {
                    break;
                }
            }
            writer.shutdown().await.ok();
        };
        tokio::join!(pump, lines::forward(reader, lines_tx));
    }

    async fn remove(mut self) {
        match engine::remove(&self.docker, &self.id).await {
            Ok(()) => self.is_removed = true,
            Err(error) => warn!(container = %self.id, %error, "cannot remove a container"),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.is_removed {
            return;
        }
        let (docker, id) = (self.docker.clone(), self.id.clone());
        self.tasks.spawn(async move {
            if let Err(error) = engine::remove(&docker, &id).await {
                warn!(container = %id, %error, "cannot remove a container");
            }
        });
    }
}

/// Runs a container to its end, tells it, and removes what is left.
pub(super) async fn supervise(container: Container, mut wires: Wires, memory: BytesText) {
    let output = Container::forward(container.docker.clone(), container.id.clone(), wires.lines_tx);
    tokio::pin!(output);
    let mut output_open = true;
    let exit = {
        let ending = run_to_end(&container, &mut wires.orders, memory);
        tokio::pin!(ending);
        loop {
            tokio::select! {
                exit = &mut ending => break exit,
                () = &mut output, if output_open => output_open = false,
            }
        }
    };
    if output_open {
        timeout(OUTPUT_TIMEOUT, output).await.ok();
    }
    wires.exit_tx.send(exit).ok();
    container.remove().await;
}

async fn run_to_end(
    container: &Container,
    orders: &mut crate::launch::Orders,
    memory: BytesText,
) -> Exit {
    let ended = container.ended();
    tokio::pin!(ended);
    let mut is_parked = false;
    let drain = loop {
        let order = tokio::select! {
            biased;
            () = &mut ended => return Exit::Crashed(container.verdict(memory).await),
            order = orders.next() => order,
        };
        match order {
            Order::Stop(drain) => break drain,
            Order::Park(order) => is_parked = park(container, order).await.unwrap_or(is_parked),
        }
    };
    // An engine signals nobody who is paused.
    if is_parked {
        container.set_parked(false).await.ok();
    }
    if !drain.is_zero() {
        container.kill("SIGTERM").await;
        if timeout(drain, &mut ended).await.is_ok() {
            return Exit::Stopped;
        }
    }
    container.kill("SIGKILL").await;
    ended.await;
    Exit::Killed
}

async fn park(container: &Container, order: ParkOrder) -> Option<bool> {
    let is_parked = order.is_parked;
    let result = container.set_parked(is_parked).await;
    let is_so = result.is_ok().then_some(is_parked);
    order.done(result);
    is_so
}

/// Whether a container is not there any more, or not running.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404 | 409, .. })
}
