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

use weft_proto::resource::{EnvVar, Runtime};

use super::{
    Caps, Exit, Failure, FailureKind, Instance, Launch, Launcher, Order, Progress, Secrets, Wires,
    lines, wire,
};

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
    /// What holds up its start, until it is ready.
    pub trouble: Option<Failure>,
    /// How long it takes to be ready.
    pub ready_after: Duration,
    /// What it writes when it starts.
    pub lines: Vec<String>,
    /// How it answers; without it, it ends at once.
    pub handler: Option<Handler>,
    /// Whether it ends when asked to.
    pub obeys_stop: bool,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            trouble: None,
            ready_after: Duration::ZERO,
            lines: Vec::new(),
            handler: None,
            obeys_stop: true,
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("lines", &self.lines).finish_non_exhaustive()
    }
}

/// Finds the program of a command.
pub type Programs = Arc<dyn Fn(&Launch) -> Result<Program, Failure> + Send + Sync>;

/// The launcher.
#[derive(Clone)]
pub struct Fakes {
    programs: Programs,
    tasks: TaskTracker,
    secrets: Secrets,
    caps: Caps,
}

impl fmt::Debug for Fakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fakes").finish_non_exhaustive()
    }
}

impl Fakes {
    /// A launcher that knows these programs.
    pub fn new(programs: Programs, tasks: TaskTracker) -> Self {
        let caps = Caps { can_park: true, ..Caps::default() };
        Self { programs, tasks, secrets: Secrets::default(), caps }
    }

    /// The same with secrets, and with other abilities.
    #[must_use]
    pub fn with(self, secrets: Secrets, caps: Caps) -> Self {
        Self { secrets, caps, ..self }
    }

    async fn launch(&self, mut launch: Launch, progress: Progress) -> Result<Instance, Failure> {
        let env = self.secrets.env(&launch.function.namespace, &launch.env).await?;
        let known = |(name, value): (String, weft_client::Secret)| EnvVar {
            name,
            value: Some(value.expose().to_owned()),
            secret_ref: None,
        };
        launch.env = env.into_iter().map(known).collect();
        let program = (self.programs)(&launch)?;
        if let Some(trouble) = program.trouble.clone() {
            progress.trouble(trouble);
        }
        let probe = launch.probe.unwrap_or_default();
        let budget_is_for_answers = probe.path.is_some();
        let budget = probe.initial_budget.0;
        tokio::time::sleep(program.ready_after.min(budget)).await;
        if program.ready_after > budget {
            let message = format!("not ready within {budget:?}");
            return Err(Failure::new(FailureKind::StartTimeout, message));
        }
        progress.clear();
        if program.handler.is_none() && budget_is_for_answers {
            let crash = Failure::new(FailureKind::CrashLoop, "exited with code 3");
            return Err(crash.with_exit_code(Some(3)).with_log_tail(program.lines));
        }
        let failed = |error| Failure::engine(format!("cannot listen: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let (instance, wires) = wire(listener.local_addr().map_err(failed)?);
        self.tasks.spawn(run(program, listener, wires));
        Ok(instance)
    }
}

impl Launcher for Fakes {
    fn caps(&self, _runtime: Runtime) -> Caps {
        self.caps.clone()
    }

    fn start(
        &self,
        launch: Launch,
        progress: Progress,
    ) -> BoxFuture<'_, Result<Instance, Failure>> {
        Box::pin(self.launch(launch, progress))
    }
}

async fn run(program: Program, listener: TcpListener, mut wires: Wires) {
    let mut outlet = lines::Outlet::new(wires.lines_tx);
    for line in program.lines {
        outlet.send(line);
    }
    let Some(handler) = program.handler else {
        let crash = Failure::new(FailureKind::CrashLoop, "exited with code 3");
        wires.exit_tx.send(Exit::Crashed(crash.with_exit_code(Some(3)))).ok();
        return;
    };
    let drained = CancellationToken::new();
    let serving = serve(listener, handler, drained.clone());
    tokio::pin!(serving);
    let mut is_parked = false;
    let drain = loop {
        tokio::select! {
            biased;
            // What is not polled stands still; its socket takes connections all the while.
            _ = &mut serving, if !is_parked => {
                let died = Failure::new(FailureKind::CrashLoop, "died");
                wires.exit_tx.send(Exit::Crashed(died)).ok();
                return;
            }
            order = wires.orders.next() => match order {
                Order::Stop(drain) => break drain,
                Order::Park(order) => {
                    is_parked = order.is_parked;
                    order.done(Ok(()));
                }
            },
        }
    };
    if drain.is_zero() {
        wires.exit_tx.send(Exit::Killed).ok();
        return;
    }
    if program.obeys_stop {
        drained.cancel();
    }
    let exit = match timeout(drain, serving).await {
        Ok(_) => Exit::Stopped,
        Err(_) => Exit::Killed,
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
