//! The engine, and whose containers are in it.

use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use tokio::time::sleep;
use tracing::{info, warn};

use super::Config;
use crate::launch::Launch;

/// For an answer of the engine, in seconds.
const TIMEOUT_SECS: u64 = 120;
const REMOVALS_MAX: u32 = 10;
const REMOVE_AGAIN: Duration = Duration::from_millis(200);
const CLUSTER: &str = "weft.cluster";
const OWNER: &str = "weft.owner";
/// Which process of a dispatcher started it.
const LIFE: &str = "weft.life";

/// Connects to an engine, and speaks a version of its API that it knows.
pub(super) async fn connect(socket: &Path) -> Result<Docker, Error> {
    let path = socket.to_string_lossy();
    Docker::connect_with_unix(&path, TIMEOUT_SECS, bollard::API_DEFAULT_VERSION)?
        .negotiate_version()
        .await
}

/// A name that lives as long as this process: a socket without a file, which the kernel closes.
#[derive(Debug)]
pub(super) struct Alive {
    life: String,
    _socket: UnixListener,
}

impl Alive {
    pub(super) fn new() -> io::Result<Self> {
        let life = format!("{:016x}", rand::random::<u64>());
        let socket = UnixListener::bind_addr(&address(&life)?)?;
        Ok(Self { life, _socket: socket })
    }

    /// Whether the process of another name has died. Only those of this host can be asked.
    fn is_dead(&self, life: &str) -> bool {
        let bound = address(life).and_then(|address| UnixListener::bind_addr(&address));
        life != self.life && bound.is_ok()
    }
}

fn address(life: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("weft-dispatcher-{life}"))
}

/// What is written on a container.
pub(super) fn labels(config: &Config, alive: &Alive, launch: &Launch) -> HashMap<String, String> {
    [
        (CLUSTER, config.cluster.clone()),
        (OWNER, config.owner.clone()),
        (LIFE, alive.life.clone()),
        ("weft.dispatcher", launch.labels.dispatcher.clone()),
        ("weft.fn", launch.function.to_string()),
        ("weft.rev", launch.revision.clone()),
        ("weft.instance", launch.id.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Removes containers of this cluster and owner whose dispatcher is dead.
pub(super) async fn remove_dead(
    docker: &Docker,
    config: &Config,
    alive: &Alive,
) -> Result<usize, Error> {
    let labels = vec![format!("{CLUSTER}={}", config.cluster), format!("{OWNER}={}", config.owner)];
    let filters = HashMap::from([("label", labels)]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let mut removed = 0;
    for found in docker.list_containers(Some(options)).await? {
        let life = found.labels.as_ref().and_then(|labels| labels.get(LIFE));
        let (Some(id), true) = (&found.id, life.is_some_and(|life| alive.is_dead(life))) else {
            continue;
        };
        match remove(docker, id).await {
            Ok(()) => {
                info!(container = %id, "removed what a dead dispatcher left");
                removed += 1;
            }
            Err(error) => warn!(container = %id, %error, "cannot remove a container"),
        }
    }
    Ok(removed)
}

/// Removes a container whether it runs or not; one that is gone already is fine.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<(), Error> {
    let options = || RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let mut tries = 1;
    loop {
        match docker.remove_container(id, Some(options())).await {
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
            // It may be starting, or be removed by somebody else at this moment.
            Err(_) if tries < REMOVALS_MAX => {
                tries += 1;
                sleep(REMOVE_AGAIN).await;
            }
            other => return other,
        }
    }
}
