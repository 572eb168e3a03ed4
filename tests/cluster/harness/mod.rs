//! Real brokers as child processes, with real data folders, on loopback.

#[path = "../../harness/daemon.rs"]
pub(crate) mod daemon;
pub(crate) mod http;
pub(crate) mod node;
#[path = "../../harness/pki.rs"]
pub(crate) mod pki;
#[path = "../../harness/ports.rs"]
pub(crate) mod ports;
#[path = "../../harness/probe.rs"]
pub(crate) mod probe;
pub(crate) mod process;

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};
use weft_client::{Client, Options, PutOptions, resource_of};
use weft_proto::resource::Kind;

use self::node::Node;
use self::ports::Ports;
use self::process::POLL;

/// Tests run as threads; more brokers at once than the machine has cores would only disturb each
/// other. A node alone takes one share, a cluster both.
static ROOM: Semaphore = Semaphore::const_new(SHARES as usize);
const SHARES: u32 = 2;

/// A place to work in, and the right to start processes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    _share: SemaphorePermit<'static>,
}

impl Place {
    /// Waits for its turn.
    pub(crate) async fn new(shares: u32) -> Self {
        let share = ROOM.acquire_many(shares).await.unwrap();
        Self {
            dir: tempfile::Builder::new().prefix("weft-test-").tempdir().unwrap(),
            _share: share,
        }
    }
}

/// Brokers that form a cluster. The processes end before their folders go.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) place: Place,
}

impl Cluster {
    /// A cluster of one or three nodes that can serve.
    pub(crate) async fn start(nodes: usize) -> Self {
        let mut cluster = Self::new(nodes).await;
        cluster.start_all().await;
        cluster
    }

    /// The same, with no process started yet.
    pub(crate) async fn new(nodes: usize) -> Self {
        let place = Place::new(if nodes == 1 { 1 } else { SHARES }).await;
        let ports = Ports::free(nodes);
        let founders = match nodes {
            1 => Vec::new(),
            _ => ports.iter().map(|ports| ports.peer).collect(),
        };
        let node = |(number, &ports)| {
            Node::new(place.dir.path().join(format!("node-{number}")), ports, founders.clone())
        };
        Self { nodes: (1..).zip(&ports).map(node).collect(), place }
    }

    /// Starts all nodes and waits until each can serve.
    pub(crate) async fn start_all(&mut self) {
        self.nodes.iter_mut().for_each(Node::start);
        for node in &mut self.nodes {
            node.ready().await;
        }
    }

    /// A node that does not belong to the cluster, not started.
    pub(crate) fn stranger(&self) -> Node {
        Node::new(self.place.dir.path().join("stranger"), Ports::free(1)[0], Vec::new())
    }

    /// A client that knows all nodes.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.options()).unwrap()
    }

    pub(crate) fn options(&self) -> Options {
        let tls = self.nodes.first().and_then(Node::tls);
        Options { tls, ..Options::new(self.nodes.iter().map(Node::endpoint)) }
    }
}

/// Creates or changes a resource.
pub(crate) async fn put(client: &Client, kind: Kind, name: &str, spec: &Value) {
    let resource = resource_of(kind, name, spec).unwrap();
    client.catalog().put(resource, PutOptions::default()).await.unwrap();
}

/// The result of something that must not take for ever.
pub(crate) async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    let Ok(result) = timeout(limit, work).await else {
        panic!("{what} took longer than {limit:?}");
    };
    result
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begin = Instant::now();
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(POLL).await;
        }
    };
    let Ok(answer) = timeout(limit, asking).await else {
        panic!("{what} did not happen within {:?}", begin.elapsed());
    };
    answer
}
