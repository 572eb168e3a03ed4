//! Composition root: the mesh, the launcher, and a roster for each kind of resource that is run.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;
use weft_proto::trace::Tracer;
use weft_proto::{Error, Result};

use crate::Config;
use crate::delivery::Random;
use crate::function::Functions;
use crate::launch::guard::Guard;
use crate::launch::{Disabled, Labels, Launcher, Secrets, process};
use crate::metrics;
use crate::policies::{Follower, Policies};
use crate::port::{Mesh, WireMesh};
use crate::roster::Roster;
use crate::tasks::Tasks;
use crate::webhook::Webhooks;

/// Longest wait for the removal of containers at the end.
const REMOVE_MAX: Duration = Duration::from_secs(10);

/// Runs the functions and webhooks of a mesh until stopped, then finishes what is in flight. Spans go to
/// `tracer`.
///
/// # Errors
///
/// `Invalid` when the configuration cannot work; `Internal` when a part of this program broke.
pub async fn run(
    config: Config,
    tracer: Tracer,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    let mesh = WireMesh::connect(&config)?;
    let webhooks = |tasks| Webhooks::new(&config, tasks, member(), tracer.clone());
    let webhooks = config.webhooks.enabled.then(|| webhooks(TaskTracker::new())).transpose()?;
    let (containers, ends) = containers(&config)?;
    let launcher: Arc<dyn Launcher> = if config.process.enabled {
        let process = process::Config {
            directories: config.process.directories,
            shim: process::Shim::this_program(),
            secrets: Secrets::new(config.process.secrets, "process.secrets"),
            scratch: config.process.scratch.unwrap_or_else(std::env::temp_dir),
        };
        let launcher = process::Processes::new(process, TaskTracker::new());
        let failed = |error| Error::internal("cannot start the launcher").with_source(error);
        Arc::new(launcher.map_err(failed)?)
    } else {
        Arc::new(Disabled)
    };
    let (policies, follower) = Policies::followed();
    let labels = Labels { cluster: config.cluster, dispatcher: member() };
    let launcher = Arc::new(Guard::new(launcher, containers, policies, labels));
    let running = run_all(Arc::new(mesh), launcher, Some(follower), webhooks, tracer, stop);
    // Large, and part of the futures of whoever runs a dispatcher beside something else.
    let result = Box::pin(running).await;
    // Containers outlive this process, if they are not removed.
    ends.close();
    tokio::time::timeout(REMOVE_MAX, ends.wait()).await.ok();
    result
}

/// The launcher of containers and its tasks, and first the end of those that a dead dispatcher left
/// behind.
#[cfg(feature = "docker")]
fn containers(config: &Config) -> Result<(Arc<dyn Launcher>, TaskTracker)> {
    use crate::launch::docker::{Config as Settings, Containers};

    let docker = &config.docker;
    let tasks = TaskTracker::new();
    if !docker.enabled {
        return Ok((Arc::new(Disabled), tasks));
    }
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let settings = Settings {
        socket: docker.socket.clone(),
        network: docker.network.clone(),
        connect: docker.connect,
        pull: docker.pull,
        secrets: Secrets::new(docker.secrets.clone(), "docker.secrets"),
        cluster: config.cluster.clone(),
        owner: docker.owner.clone().unwrap_or_else(host),
    };
    let failed = |error| Error::internal("cannot start the launcher").with_source(error);
    let launcher = Containers::new(settings, tasks.clone()).map_err(failed)?;
    let cleaner = launcher.clone();
    tasks.spawn(async move {
        if let Err(failure) = cleaner.remove_leftovers().await {
            tracing::warn!(%failure, "cannot look for containers that were left behind");
        }
    });
    Ok((Arc::new(launcher), tasks))
}

/// There is none in this program; a configuration that wants one was refused.
#[cfg(not(feature = "docker"))]
fn containers(_config: &Config) -> Result<(Arc<dyn Launcher>, TaskTracker)> {
    Ok((Arc::new(Disabled), TaskTracker::new()))
}

/// Runs the functions of a mesh until stopped, with parts of the caller's choice, and no webhooks.
pub async fn run_with(
    mesh: Arc<dyn Mesh>,
    launcher: Arc<dyn Launcher>,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    run_all(mesh, launcher, None, None, Tracer::default(), stop).await
}

async fn run_all(
    mesh: Arc<dyn Mesh>,
    launcher: Arc<dyn Launcher>,
    follower: Option<Follower>,
    webhooks: Option<Webhooks>,
    tracer: Tracer,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    metrics::describe();
    let token = CancellationToken::new();
    let _stop_all = token.clone().drop_guard();
    let tasks = Tasks::new(token.clone());
    if let Some(webhooks) = webhooks {
        let runs_in = webhooks.tasks();
        let webhooks = Roster::new(webhooks, Arc::clone(&mesh), runs_in);
        tasks.spawn("webhooks", |stop| webhooks.run(stop));
    }
    if let Some(follower) = follower {
        let mesh = Arc::clone(&mesh);
        tasks.spawn("policies", |stop| follower.run(mesh, stop));
    }
    let functions = Functions {
        mesh: Arc::clone(&mesh),
        launcher,
        tasks: tasks.tracker(),
        member: member(),
        tracer,
    };
    let functions = Roster::new(functions, mesh, tasks.tracker());
    let (result_tx, result_rx) = tokio::sync::oneshot::channel();
    tasks.spawn("functions", |stop| async move {
        let result = functions.run(stop).await;
        result_tx.send(result).ok();
        Ok(())
    });
    tokio::select! {
        () = stop => info!("stopping: finishing what is in flight"),
        () = token.cancelled() => {}
    }
    token.cancel();
    let result = result_rx.await;
    tasks.ended().await;
    result.unwrap_or_else(|_| Err(Error::internal("the dispatcher's main task died")))
}

/// A name among the members of subscriptions that no other dispatcher has.
fn member() -> String {
    format!("dispatcher-{:016x}", Random::new(rand::random()).next())
}
