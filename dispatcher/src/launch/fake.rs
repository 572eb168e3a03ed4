//! Runs instances as tasks of this process: for tests and simulations.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Exit, Instance, Launch, LaunchError, Launcher, Wires, lines, stop_asked, wire};

/// The instance dies: connections break, nothing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the instance died")]
pub struct Dies;

/// Answers requests.
pub type Handler = Arc<
    dyn Fn(Request<Bytes>) -> BoxFuture<'static, Result<Response<Full<Bytes>>, Dies>> + Send + Sync,
>;

/// What an instance does.
#[derive(Clone)]
pub struct Program {
    /// What it writes when it starts.
    pub lines: Vec<String>,
    /// How it answers; without it, it ends at once.
    pub handler: Option<Handler>,
    /// Whether it ends when asked to.
    pub obeys_stop: bool,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("lines", &self.lines).finish_non_exhaustive()
    }
}

/// Finds the program of a command.
pub type Programs = Arc<dyn Fn(&Launch) -> Result<Program, LaunchError> + Send + Sync>;

/// The launcher.
#[derive(Clone)]
pub struct Fakes {
    programs: Programs,
    tasks: TaskTracker,
}

impl fmt::Debug for Fakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fakes").finish_non_exhaustive()
    }
}

impl Fakes {
    /// A launcher that knows these programs.
    pub fn new(programs: Programs, tasks: TaskTracker) -> Self {
        Self { programs, tasks }
    }

    async fn launch(&self, launch: Launch) -> Result<Instance, LaunchError> {
        let program = (self.programs)(&launch)?;
        let failed = |error| LaunchError::Failed(format!("cannot listen: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let (instance, wires) = wire(listener.local_addr().map_err(failed)?);
        self.tasks.spawn(run(program, listener, wires));
        Ok(instance)
    }
}

impl Launcher for Fakes {
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Instance, LaunchError>> {
        Box::pin(self.launch(launch))
    }
}

async fn run(program: Program, listener: TcpListener, mut wires: Wires) {
    let mut outlet = lines::Outlet::new(wires.lines_tx);
    for line in program.lines {
        outlet.send(line);
    }
    let Some(handler) = program.handler else {
        wires.exit_tx.send(Exit::Crashed("exited with code 3".to_owned())).ok();
        return;
    };
    let drained = CancellationToken::new();
    let serving = serve(listener, handler, drained.clone());
    tokio::pin!(serving);
    let exit = tokio::select! {
        biased;
        _ = &mut serving => Exit::Crashed("died".to_owned()),
        drain = stop_asked(&mut wires.stop_rx) => {
            if drain.is_zero() {
                wires.exit_tx.send(Exit::Killed).ok();
                return;
            }
            if program.obeys_stop {
                drained.cancel();
            }
            match timeout(drain, serving).await {
                Ok(_) => Exit::Stopped,
                Err(_) => Exit::Killed,
            }
        }
    };
    wires.exit_tx.send(exit).ok();
}

/// Serves until `drain` is cancelled and open requests are answered, or until the handler dies.
pub async fn serve(
    listener: TcpListener,
    handler: Handler,
    drain: CancellationToken,
) -> Result<(), Dies> {
    let mut connections = FuturesUnordered::new();
    let mut draining = false;
    while !draining || !connections.is_empty() {
        tokio::select! {
            () = drain.cancelled(), if !draining => draining = true,
            accepted = listener.accept(), if !draining => {
                if let Ok((stream, _)) = accepted {
                    connections.push(connection(stream, Arc::clone(&handler), drain.clone()));
                } else {
                    // Out of descriptors: wait until some are free again.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            Some(ended) = connections.next() => ended?,
        }
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    handler: Handler,
    drain: CancellationToken,
) -> Result<(), Dies> {
    let service = service_fn(|request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (parts, body) = request.into_parts();
            // A sender that breaks off gets no answer, and that is all.
            let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
            handler(Request::from_parts(parts, body)).await
        }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    match ended {
        Err(error) if is_death(&error) => Err(Dies),
        // Any other error is the other side's.
        _ => Ok(()),
    }
}

fn is_death(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<Dies>)
}
