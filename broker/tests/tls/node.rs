//! Brokers in this process, and clients that reach them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft_broker::access::Announce;
use weft_broker::config::{Cluster, Config, Listen, Node, Profile, Security, Store};
use weft_broker::{Process, RunError};
use weft_client::{Client, Options, Secret, Timeouts, Tls};

use crate::pki::{Authority, Signed};

/// Nothing here takes that long unless it hangs.
pub(crate) const HANGS: Duration = Duration::from_mins(1);

/// A folder with a file for everything that a configuration names.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Everything: a certificate for clients, and one for peers.
    pub(crate) fn security(&self, clients: &Signed, peer_ca: &str, peer: &Signed) -> Security {
        Security {
            certificate: Some(self.write("clients.pem", &clients.certificate)),
            key: Some(self.write("clients.key", &clients.key)),
            peer_ca: Some(self.write("peer-ca.pem", peer_ca)),
            peer_certificate: Some(self.write("peer.pem", &peer.certificate)),
            peer_key: Some(self.write("peer.key", &peer.key)),
            ..Security::default()
        }
    }
}

/// Configurations of nodes that found a cluster, without security.
pub(crate) fn configs(count: usize, files: &Files) -> Vec<Config> {
    // Held until all are found, so that none is found twice.
    let held: Vec<_> = (0..3 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |held: &TcpListener| held.local_addr().unwrap().to_string();
    let addresses: Vec<_> = held.iter().map(address).collect();
    let founders: Vec<_> = addresses.iter().skip(2).step_by(3).cloned().collect();
    let config = |(number, ports): (usize, &[String])| Config {
        node: Node { data: files.path().join(format!("data-{number}")) },
        listen: Listen {
            grpc: ports[0].clone(),
            http: ports[1].clone(),
            peer: ports[2].clone(),
            ..Listen::default()
        },
        cluster: Cluster {
            founders: if count == 1 { Vec::new() } else { founders.clone() },
            data_groups: 3,
            // Several nodes and other tests share the machine.
            election_min_ms: 1_500,
            election_max_ms: 3_000,
            ..Cluster::default()
        },
        store: Store { profile: Profile::Small },
        retention: weft_broker::config::Retention::default(),
        security: Security::default(),
        access: weft_broker::config::Access::default(),
        telemetry: weft_proto::trace::Telemetry::default(),
    };
    addresses.chunks(3).enumerate().map(config).collect()
}

/// A broker that runs until it is stopped.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
    first_key: watch::Receiver<Option<String>>,
}

impl Running {
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    pub(crate) fn start(config: Config) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let (key, first_key) = watch::channel(None);
        let announce = Announce::new(move |text| drop(key.send_replace(Some(text.to_owned()))));
        let process = Process { first_key: announce, ..Process::default() };
        let task = tokio::spawn(weft_broker::run(config, process, stopped));
        Self { stop, task, first_key }
    }

    /// The first key of the cluster, which one of its nodes shows.
    pub(crate) async fn first_key(nodes: &[Self]) -> String {
        let shown = nodes.iter().map(|node| {
            let mut first_key = node.first_key.clone();
            Box::pin(async move {
                let shown = first_key.wait_for(Option::is_some).await;
                match shown.ok().and_then(|key| key.clone()) {
                    Some(key) => key,
                    None => std::future::pending().await,
                }
            })
        });
        timeout(HANGS, futures::future::select_all(shown)).await.unwrap().0
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        timeout(HANGS, self.task).await.unwrap().unwrap().unwrap();
    }
}

/// One node with everything on, the authority of its client port, and an administrator's key.
pub(crate) async fn secured() -> (Files, Authority, Config, Running, String) {
    let (files, clients) = (Files::new(), Authority::new("clients"));
    let peers = Authority::new("peers");
    let mut config = configs(1, &files).remove(0);
    config.security = files.security(&clients.node(), &peers.pem, &peers.node());
    config.access.enforced = true;
    let running = Running::start(config.clone());
    let key = Running::first_key(std::slice::from_ref(&running)).await;
    client(&config, &clients, Some(&key)).status().await.unwrap();
    (files, clients, config, running, key)
}

pub(crate) fn client(config: &Config, authority: &Authority, token: Option<&str>) -> Client {
    let options = options(&format!("https://{}", config.listen.grpc), token);
    let tls = Tls { ca_pem: authority.pem.clone(), ..Tls::default() };
    Client::connect(&Options { tls: Some(tls), ..options }).unwrap()
}

pub(crate) fn options(endpoint: &str, token: Option<&str>) -> Options {
    let timeouts = Timeouts { call: Duration::from_secs(30), ..Timeouts::default() };
    Options { token: token.map(Secret::new), timeouts, ..Options::new([endpoint]) }
}
