//! Runs instances as containers of a Docker engine, or of another with the same API.
//!
//! Nothing but the engine knows what runs: labels say whose a container is, and a container whose
//! dispatcher died is removed by the next one. A container is removed only after its exit code
//! and its last lines were read.

mod engine;
mod image;
mod life;
mod shape;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use futures::future::BoxFuture;
use tokio::sync::{OnceCell, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use weft_proto::resource::{Rule, Runtime};

use super::probe::ready;
use super::{Caps, Failure, FailureKind, Instance, Launch, Launcher, Progress, Run, Secrets, wire};
use crate::{Connect, Pull};
use engine::Alive;

/// Starts at the same time: an engine only becomes slower by more.
const STARTS_MAX: usize = 10;

/// Settings of the launcher.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the engine listens.
    pub socket: PathBuf,
    /// The network of the engine to which containers belong.
    pub network: String,
    /// Whether they do, or use that of the host.
    pub connect: Connect,
    /// When images are fetched.
    pub pull: Pull,
    /// Where environments find secrets.
    pub secrets: Secrets,
    /// The cluster, on labels: leftovers of others are not touched.
    pub cluster: String,
    /// Who removes what a dispatcher left behind: dispatchers of the same name.
    pub owner: String,
}

/// The launcher.
#[derive(Clone, Debug)]
pub struct Containers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    /// Tells other dispatchers of this host that this one lives.
    alive: Alive,
    docker: OnceCell<Docker>,
    starts: Semaphore,
    tasks: TaskTracker,
}

impl Containers {
    /// A launcher whose work is done on `tasks`. The engine may come later.
    ///
    /// # Errors
    ///
    /// When this process cannot make itself known.
    pub fn new(config: Config, tasks: TaskTracker) -> std::io::Result<Self> {
        let inner = Inner {
            config,
            alive: Alive::new()?,
            docker: OnceCell::new(),
            starts: Semaphore::new(STARTS_MAX),
            tasks,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Removes what dispatchers of this name left behind, if the engine can be reached.
    ///
    /// # Errors
    ///
    /// When the engine does not answer, or refuses.
    pub async fn remove_leftovers(&self) -> Result<usize, Failure> {
        let docker = self.engine().await?;
        engine::remove_dead(docker, &self.0.config, &self.0.alive)
            .await
            .map_err(|error| failure(&error))
    }

    async fn engine(&self) -> Result<&Docker, Failure> {
        let connect = || engine::connect(&self.0.config.socket);
        self.0.docker.get_or_try_init(connect).await.map_err(|error| {
            let socket = self.0.config.socket.display();
            Failure::engine(format!("the container engine at {socket} does not answer: {error}"))
        })
    }

    /// Creates a container that goes with what is returned, also if nobody waits for it any more.
    async fn create(
        &self,
        docker: &Docker,
        body: ContainerCreateBody,
    ) -> Result<life::Container, Failure> {
        let (created_tx, created_rx) = oneshot::channel();
        let (docker, tasks) = (docker.clone(), self.0.tasks.clone());
        self.0.tasks.spawn(async move {
            let created = docker.create_container(None, body).await;
            let container = created.map(|created| life::Container::new(docker, created.id, tasks));
            created_tx.send(container).ok();
        });
        let gone = |_| Failure::engine("the launcher has ended");
        created_rx.await.map_err(gone)?.map_err(|error| failure(&error))
    }

    async fn launch(&self, launch: Launch, progress: Progress) -> Result<Instance, Failure> {
        let Run::Container { image, args, port } = &launch.run else {
            return Err(Failure::config("a command is not run as a container"));
        };
        let env = self.0.config.secrets.env(&launch.function.namespace, &launch.env).await?;
        let closed = |_| Failure::engine("the launcher has ended");
        let _turn = self.0.starts.acquire().await.map_err(closed)?;
        let docker = self.engine().await?;
        let config = &self.0.config;
        // Among others on the host there is no port that is free for all of them.
        let port = if config.connect == Connect::Host { free_port()? } else { *port };
        let image = image::present(docker, image, config.pull == Pull::Missing, &progress).await?;
        let labels = engine::labels(config, &self.0.alive, &launch);
        let body = shape::body(config, &launch, shape::Given { image, args, env, port, labels });
        let container = self.create(docker, body).await?;
        container.start().await?;
        let address = if config.connect == Connect::Host {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            container.address(&config.network).await?
        };
        let (instance, wires) = wire(SocketAddr::new(address, port));
        let memory = launch.resources.memory;
        self.0.tasks.spawn(life::supervise(container, wires, memory));
        ready(instance, &launch.probe.clone().unwrap_or_default()).await
    }
}

impl Launcher for Containers {
    fn caps(&self, _runtime: Runtime) -> Caps {
        let mut enforces: BTreeSet<Rule> = [
            Rule::Memory,
            Rule::Cpu,
            Rule::Pids,
            Rule::ReadOnlyRoot,
            Rule::NonRoot,
            Rule::DropCapabilities,
            Rule::NoEscalation,
            Rule::Digest,
        ]
        .into();
        if self.0.config.connect == Connect::Bridge {
            enforces.insert(Rule::Network);
        }
        Caps { can_park: true, enforces, count_max: None }
    }

    fn start(
        &self,
        launch: Launch,
        progress: Progress,
    ) -> BoxFuture<'_, Result<Instance, Failure>> {
        Box::pin(self.launch(launch, progress))
    }
}

/// A port that nobody has. Somebody may take it before the container does; then the start fails,
/// and the next one gets another.
fn free_port() -> Result<u16, Failure> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let failed = |error| Failure::engine(format!("there is no free port: {error}"));
    address.map(|address| address.port()).map_err(failed)
}

/// What an engine said, word for word.
fn failure(error: &Error) -> Failure {
    let Error::DockerResponseServerError { status_code, message } = error else {
        return Failure::engine(format!("the container engine: {error}"));
    };
    let kind = match status_code {
        400 => FailureKind::Config,
        _ if is_no_program(message) => FailureKind::BadImage,
        _ => FailureKind::Engine,
    };
    Failure::new(kind, message.clone())
}

/// Whether an engine means that an image holds nothing that it can run.
fn is_no_program(message: &str) -> bool {
    [
        "executable file not found",
        "exec format error",
        "No command specified",
        "no command specified",
    ]
    .iter()
    .any(|words| message.contains(words))
}
