//! One broker: starts its parts in order, stops them in order.
//!
//! *Owns* all parts; they do not know each other. *Never* installs a signal handler or ends the
//! process: whoever calls [`run`] does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weft_proto::internal;
use weft_proto::trace::Tracer;
use weft_proto::{GroupId, NodeId};

use crate::access::jwt::Issuers;
use crate::access::{self, Access, Announce, Rules};
use crate::audit::{self, Audit};
use crate::birth::{Birth, Founding, Introducer};
use crate::config::{self, Config, ConfigError, Profile};
use crate::data::{DataGroup, DataMachine, reread_window, sequencer};
use crate::identity::{self, BALLAST_BYTES, BALLAST_BYTES_SMALL, Folder, Membership};
use crate::ingest::{Forwarder, Gates, Guard, Ingest, Parts as IngestParts, Remote, Reserve};
use crate::lend::Lender;
use crate::listen::{self, Limits, Port};
use crate::members::Members;
use crate::peer::grpc::{Grpc, Name};
use crate::peer::{Acquainted, Peer, server};
use crate::pledge::{self, Pledge};
use crate::presence::{Edge, announce, catch_up, draining, register};
use crate::raft::balance::Balance;
use crate::raft::group::{Group, Parts, Timers};
use crate::raft::groups::{Groups, Settings};
use crate::raft::log::Logs;
use crate::raft::snapshot::SnapshotPolicy;
use crate::read::History;
use crate::resources::{CatalogMachine, Resources};
use crate::retention::{Leader, Pace, Replica};
use crate::rpc::{self, Facts, Listener};
use crate::security::Secrets;
use crate::security::watched::Watch;
use crate::store::{self, RocksEngine, StoreError, Writer, WriterOptions};
use crate::tasks::Tasks;
use crate::{birth, http, retention};

/// How long each step of a stop may take.
const DRAIN_MAX: Duration = Duration::from_secs(3);
const STOP_MAX: Duration = Duration::from_secs(2);

/// Why a broker could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration makes no sense.
    #[error("the configuration is wrong: {0}")]
    Config(#[from] ConfigError),
    /// A port is taken, or the address is not of this machine.
    #[error("cannot listen on {address} ({key}): {source}")]
    Bind {
        /// The key that names it.
        key: &'static str,
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("{}", chain(.0))]
    Folder(#[from] identity::Error),
    /// The cluster cannot be joined.
    #[error("{}", chain(.0))]
    Birth(#[from] birth::Error),
    /// The store cannot be opened.
    #[error("the store in {path} cannot be opened: {}", chain(.source))]
    Store {
        /// Its folder.
        path: String,
        /// Why.
        source: StoreError,
    },
    /// What is on the disk is less than this node has promised.
    #[error(
        "this node is suspect: {reason}. Its disk may have lost what the cluster counts on, so it takes no part: it neither votes nor leads. Everything in {path} stays as it is; the other nodes go on while they are a majority. Keep the folder, do not start the node over it or over an empty one again; see docs/operations.md, 'A suspect node'"
    )]
    Suspect {
        /// Its data folder.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Raft cannot start.
    #[error("a Raft group cannot start: {}", chain(.0))]
    Raft(#[from] crate::raft::group::Error),
    /// The pledge cannot be read or written.
    #[error("{}", chain(.0))]
    Pledge(pledge::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A part failed while the broker ran.
    #[error("{0}")]
    Failed(String),
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

/// What the process lends to the broker.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Renders the metrics that the process records.
    pub metrics: Option<PrometheusHandle>,
    /// Shows the first key of a cluster, which nothing shows again.
    pub first_key: Announce,
    /// Looks at the files of certificates and keys; the process may ask it to.
    pub watch: Watch,
    /// Where spans are begun.
    pub tracer: Tracer,
}

/// The three listeners, bound before anything else: a port in use is found at once.
struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
    peer: TcpListener,
}

/// How the world reaches a node.
struct Edges {
    listeners: Listeners,
    secrets: Secrets,
    metrics: Option<PrometheusHandle>,
    first_key: Announce,
    tracer: Tracer,
}

/// Runs a broker until `stop` is ready or a part fails.
///
/// # Errors
///
/// Why it could not start, or which part failed; never after a stop that was asked for.
pub async fn run(
    config: Config,
    process: Process,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    config.check()?;
    let secrets = Secrets::load(&config, process.watch)?;
    listen::raise_open_files_limit();
    let listeners = bind(&config).await?;
    let folder = Folder::open(&config.node.data)?;
    // Before anything is written to it.
    birth::check_folder(&folder, &founding(&config))?;
    let pledge = open_pledge(&folder)?;
    let tasks = Tasks::new();
    let Process { metrics, first_key, tracer, .. } = process;
    let edges = Edges { listeners, secrets, metrics, first_key, tracer };
    let outcome = match Node::start(&config, (&folder, pledge), edges, &tasks, stop).await {
        Ok(Some(node)) => node.stop(&tasks).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error.in_folder(&config.node.data)),
    };
    // However it ended: a thread that still closes the store while the process ends finds locks of
    // RocksDB gone, and dies of it in the place of the exit code.
    tasks.stop(STOP_MAX).await;
    outcome
}

impl RunError {
    /// Says what it means that the disk has less than it should.
    fn in_folder(self, path: &Path) -> Self {
        let path = path.display().to_string();
        match self {
            Self::Store { source, .. } if source.is_suspect() => {
                Self::Suspect { path, reason: chain(&source) }
            }
            Self::Birth(error @ birth::Error::Suspect { .. }) => {
                Self::Suspect { path, reason: error.to_string() }
            }
            other => other,
        }
    }

    /// Whether this node must not be started again over this folder.
    pub fn is_suspect(&self) -> bool {
        matches!(self, Self::Suspect { .. })
    }
}

fn founding(config: &Config) -> Founding {
    Founding {
        address: config.listen.peer.clone(),
        founders: config.cluster.founders.clone(),
        data_groups: config.cluster.data_groups,
        checkpoint_bytes: config.cluster.checkpoint_bytes,
        join: config.cluster.join.clone(),
    }
}

fn open_pledge(folder: &Folder) -> Result<Arc<Pledge>, RunError> {
    let is_new = folder.identity()?.cluster.is_none();
    let opened = Pledge::open(&folder.pledge(), is_new);
    opened.map(Arc::new).map_err(|error| match error {
        pledge::Error::Io { .. } => RunError::Pledge(error),
        pledge::Error::Missing(_) | pledge::Error::Damaged(_) => {
            RunError::Suspect { path: folder.path().display().to_string(), reason: chain(&error) }
        }
    })
}

async fn bind(config: &Config) -> Result<Listeners, RunError> {
    let bind = |key, address: String| async move {
        TcpListener::bind(&address).await.map_err(|source| RunError::Bind { key, address, source })
    };
    Ok(Listeners {
        grpc: bind("listen.grpc", config.listen.grpc.clone()).await?,
        http: bind("listen.http", config.listen.http.clone()).await?,
        peer: bind("listen.peer", config.listen.peer.clone()).await?,
    })
}

/// A broker that runs.
struct Node {
    groups: Groups,
    writer: Writer,
    failure: watch::Receiver<Option<StoreError>>,
    broken: Vec<watch::Receiver<Option<String>>>,
    stop: CancellationToken,
    id: NodeId,
    /// Where it is said that this node leaves.
    leaving: (Resources, internal::CatalogNode),
    edge: Edge,
}

impl Node {
    /// Starts all parts; `None` when `stop` came first.
    #[expect(clippy::too_many_lines, reason = "the order of starting is read best in one piece")]
    async fn start(
        config: &Config,
        (folder, pledge): (&Folder, Arc<Pledge>),
        Edges { listeners, secrets, metrics, first_key, tracer }: Edges,
        tasks: &Tasks,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Option<Self>, RunError> {
        let asked = CancellationToken::new();
        let signal = asked.clone();
        tasks.spawn_short(async move {
            stop.await;
            signal.cancel();
        });
        let open = |tcp, port, tls| {
            listen::Listener::new(tcp, port, Limits::new(port, &config.listen), tls)
        };
        let grpc_port = open(listeners.grpc, Port::Grpc, secrets.grpc());
        let http_port = open(listeners.http, Port::Http, secrets.http());
        let peer_port = open(listeners.peer, Port::Peer, secrets.peer());
        let Secrets { peers: peer_tls, watch, .. } = secrets;
        tasks.spawn("secrets", move |stop| watch.run(stop));
        let (groups_tx, groups_rx) = watch::channel(None);
        let (registered_tx, registered_rx) = watch::channel(false);
        let (access_tx, access_rx) = watch::channel(None);
        let (services_tx, services_rx) = watch::channel(None);
        let health = http::Health {
            groups: groups_rx,
            registered: registered_rx,
            metrics,
            access: access_rx,
            services: services_rx,
        };
        tasks.spawn("http", move |stop| http::serve(http_port, health, stop));

        // Other founders may ask who this is before anybody knows the cluster.
        let birth = Birth::new(folder, Arc::clone(&pledge), founding(config))?;
        let introduction = birth.introduction();
        let peers = server::Node::new(birth.introduction()).demanding_ids(config.security.peer_ids);
        let remote = Remote::new();
        let (known, requests) = (peers.clone(), remote.clone());
        tasks.spawn("peers", move |stop| server::serve(peer_port, known, requests, stop));
        let nameless = Grpc::nameless(peer_tls.clone(), tasks.clone());
        let membership = tokio::select! {
            biased;
            () = asked.cancelled() => return Ok(None),
            membership = birth.complete(&nameless) => membership?,
        };
        let node = membership.node_id;
        info!(node = node.get(), cluster = membership.cluster_uid, "node known to its cluster");

        let introducer = Introducer::new(introduction, membership.clone());
        tasks.spawn("introduce", move |stop| introducer.run(Arc::new(nameless), stop));
        let parts = Store::open(config, (folder, &pledge), &membership, tasks)?;
        tasks.spawn("pledge", move |stop| pledge.run(stop));
        let name = Name { cluster_uid: membership.cluster_uid.clone(), node };
        let transport = Grpc::new(name.clone(), peer_tls, tasks.clone());
        let timers = Timers {
            heartbeat: Duration::from_millis(config.cluster.heartbeat_ms),
            election_min: Duration::from_millis(config.cluster.election_min_ms),
            election_max: Duration::from_millis(config.cluster.election_max_ms),
        };
        let settings = Settings { node, timers, transport: Arc::new(transport.clone()) };
        let guard = Guard::new(&config.node.data, reserve(config.store.profile));
        let groups = Groups::start(&settings, parts.rafts, tasks).await?;
        let groups = groups.closed_while(guard.out_of_room());
        let founders = membership.founders.iter();
        let founders = founders.map(|one| (one.node_id, one.address.clone())).collect();
        let known = Acquainted::new(Arc::new(groups.clone()), founders);
        peers.join(name, Arc::new(groups.clone()), Arc::new(known));
        let voters: Vec<Peer> = membership
            .founders
            .iter()
            .map(|founder| Peer { node: founder.node_id, address: founder.address.clone() })
            .collect();
        // Who joins later is told by the leaders who votes.
        if voters.iter().any(|founder| founder.node == node) {
            groups.initialize(&voters).await?;
        }

        let addresses = voters.iter().map(|peer| (peer.node, peer.address.clone())).collect();
        let forwarder = Forwarder::new(transport.clone(), addresses, tasks.clone());
        let missing = |group| RunError::Failed(format!("group {group} did not start"));
        let catalog = groups.get(GroupId::CATALOG).ok_or_else(|| missing(0))?.clone();
        let rules = crate::data::lock(&parts.catalog).rules();
        let resources = Resources::new(node, catalog, parts.catalog, forwarder.clone());
        let members = Members::new(resources.clone(), forwarder.clone(), voters.len());
        peers.admit_by(Arc::new(members.clone()));
        let (keeping, kept) = (members.clone(), groups.clone());
        tasks.spawn("members", move |stop| keeping.run(kept, stop));
        let history = History::start(tasks).map_err(RunError::Thread)?;
        let mut data = BTreeMap::new();
        let pace = Pace {
            tick: Duration::from_millis(config.retention.tick_ms),
            log_kept: Duration::from_millis(config.retention.log_kept_ms),
        };
        for (id, machine, log) in parts.data {
            let raft = groups.get(id).ok_or_else(|| missing(id.get()))?.clone();
            let directory = Arc::new(resources.clone());
            let (sequencer, inbox) = sequencer::channel();
            let engine = Arc::clone(&parts.engine);
            let writer = parts.writer.clone();
            let group = DataGroup { id, raft, log, engine, writer, sequencer, machine };
            let (reread, reads) = (group.clone(), history.clone());
            tasks.spawn("identities", move |stop| async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => Ok(()),
                    read = reread_window(reread, reads) => {
                        read?;
                        stop.cancelled().await;
                        Ok::<_, weft_proto::Error>(())
                    }
                }
            });
            let task = sequencer::Loop::new(
                inbox,
                group.clone(),
                history.clone(),
                node.to_string(),
                directory,
                tasks.clone(),
            );
            tasks.spawn("sequencer", move |stop| task.run(stop));
            let replica = Replica::new(group.clone(), history.clone(), parts.writer.clone());
            tasks.spawn("trim", move |stop| replica.run(stop));
            data.insert(id, group);
        }
        let watching = guard.clone();
        tasks.spawn("disk-guard", move |stop| watching.run(stop));
        let gates = Gates::new(resources.clone(), &membership.cluster_uid);
        let (access, inbox) = door(&config.access, rules, tasks)?;
        let lending = forwarder.clone();
        let ingest = Ingest::new(IngestParts {
            node,
            groups: data,
            resources: resources.clone(),
            gates,
            forwarder,
            guard,
            access: access.clone(),
        });
        for group in ingest.groups() {
            let mover = ingest.mover(group, history.clone());
            tasks.spawn("delayed", move |stop| mover.run(stop));
        }
        let lender = Lender::new(node, ingest.clone(), history.clone(), lending, tasks.clone());
        for group in ingest.groups() {
            let policies = Arc::new(resources.clone());
            let bytes = membership.checkpoint_bytes;
            let floors = Leader::new(group.clone(), policies, history.clone(), pace, bytes)
                .parting_by(lender.clone());
            tasks.spawn("retention", move |stop| floors.run(stop));
        }
        remote.open(ingest.clone(), lender.clone());
        if let Some(inbox) = inbox {
            let bootstrapped = resources.clone();
            tasks.spawn("bootstrap", move |stop| access::bootstrap(bootstrapped, first_key, stop));
            let run =
                access::key::random::<8>().map_err(|error| RunError::Failed(error.to_string()))?;
            let writer = audit::chain::Writer {
                source: format!("/weft/{}/nodes/{node}", membership.cluster_uid),
                run: format!("{node}-{:016x}", u64::from_le_bytes(run)),
                next: 0,
            };
            let parts = (ingest.clone(), history.clone());
            let writing = audit::Loop::new(inbox, parts, access.system(), writer);
            tasks.spawn("audit", move |stop| writing.run(stop));
        }
        access_tx.send_replace(Some(access.clone()));
        let facts = Facts { node, cluster_uid: membership.cluster_uid.clone() };
        // Clients leave before the groups stop.
        let edge = tasks.part();
        let services = rpc::Services {
            publish: rpc::PublishService::new(
                ingest.clone(),
                history.clone(),
                tasks.clone(),
                edge.token(),
            )
            .traced(tracer.clone()),
            read: rpc::ReadService::new(
                ingest.clone(),
                history.clone(),
                lender.clone(),
                edge.token(),
            )
            .traced(tracer),
            subscribe: rpc::SubscribeService::new(
                ingest.clone(),
                history.clone(),
                lender.clone(),
                edge.clone(),
            ),
            catalog: rpc::CatalogService::new(ingest.clone(), history.clone(), edge.token()),
            access: rpc::AccessService::new(resources.clone(), membership.cluster_uid),
            cluster: rpc::ClusterService::new(rpc::ClusterParts {
                facts,
                groups: groups.clone(),
                ingest: ingest.clone(),
                members,
                history,
                transport: Arc::new(transport),
            }),
        };
        let both = (services.publish.clone(), services.read.clone());
        let over_http = http::Services::new(ingest.clone(), both, lender, edge.clone());
        services_tx.send_replace(Some(Arc::new(over_http)));
        let listener = Listener { port: grpc_port, access };
        let (closing, closed) = (edge.token(), CancellationToken::new());
        let left = closed.clone();
        tasks.spawn("grpc", move |stop| async move {
            rpc::serve(listener, services, closing).await?;
            left.cancel();
            stop.cancelled().await;
            Ok::<_, tonic::transport::Error>(())
        });
        let edge = Edge { closing: edge.token(), closed, remote };
        groups_tx.send_replace(Some(groups.clone()));
        let groups_of_data: Vec<GroupId> =
            groups.iter().map(Group::id).filter(|id| *id != GroupId::CATALOG).collect();
        let own = internal::CatalogNode {
            id: node.get(),
            grpc_address: config.advertised().to_owned(),
            http_address: config.listen.http.clone(),
            peer_address: config.listen.peer.clone(),
            draining: false,
            ..internal::CatalogNode::default()
        };
        let balance = Balance {
            period: Duration::from_millis(config.cluster.balance_ms),
            draining: draining(&resources),
        };
        let balanced = groups.clone();
        tasks.spawn("balance", move |stop| balanced.balance(balance, stop));
        let leaving = (resources.clone(), own.clone());
        tasks.spawn_short(async move {
            register(&resources, own).await;
            // The next node may only be restarted when this one counts for a majority again.
            catch_up(&ingest, &groups_of_data).await;
            registered_tx.send_replace(true);
            // The receiver side lives as long as the HTTP port; keep the sender as long.
            std::future::pending::<()>().await;
        });
        Ok(Some(Self {
            groups,
            failure: parts.writer.failure(),
            writer: parts.writer,
            broken: parts.broken,
            stop: asked,
            id: node,
            leaving,
            edge,
        }))
    }

    /// Waits for a reason to stop, then stops in order.
    async fn stop(mut self, tasks: &Tasks) -> Result<(), RunError> {
        let failed = tokio::select! {
            biased;
            failed = self.failure.wait_for(Option::is_some) => {
                let error = failed.ok().and_then(|error| error.as_ref().map(|error| chain(error)));
                // Nobody knows what is on disk now: whatever is in flight stays unknown, and the
                // process must end without another write.
                let reason = error.unwrap_or_else(|| "the writer ended".to_owned());
                error!(node = self.id.get(), reason, "storage failed, stopping at once");
                return Err(RunError::Failed(format!("storage failed: {reason}")));
            }
            message = any_broken(&mut self.broken) => Some(message),
            () = tasks.stopping() => {
                Some(tasks.failure().unwrap_or("a part ended early").to_owned())
            }
            () = self.stop.cancelled() => None,
        };
        let Self { groups, writer, id, leaving: (resources, own), edge, .. } = self;
        if failed.is_none() {
            info!(node = id.get(), "stopping");
            announce(&resources, own).await;
            let kept = groups.drain(DRAIN_MAX).await;
            if kept > 0 {
                warn!(node = id.get(), kept, "some groups found no other leader");
            }
            edge.close().await;
        }
        groups.shutdown().await;
        // Whatever still holds a handle, a connection of a client for one, writes nothing any more.
        if let Err(error) = writer.close().await {
            warn!(error = %error, "the last writes are not on disk");
        }
        tasks.stop(STOP_MAX).await;
        match failed.or_else(|| tasks.failure().map(str::to_owned)) {
            Some(reason) => Err(RunError::Failed(reason)),
            None => Ok(()),
        }
    }
}

async fn any_broken(broken: &mut [watch::Receiver<Option<String>>]) -> String {
    let waits = broken.iter_mut().map(|broken| {
        Box::pin(async move {
            // Copied at once: a borrow held further would keep `run` on one thread.
            match broken.wait_for(Option::is_some).await.map(|message| message.clone()) {
                Ok(message) => message.unwrap_or_default(),
                Err(_closed) => std::future::pending().await,
            }
        })
    });
    futures::future::select_all(waits).await.0
}

/// Who may do what; and where the records of it come out, if anybody is asked who they are.
fn door(
    config: &config::Access,
    rules: watch::Receiver<Arc<Rules>>,
    tasks: &Tasks,
) -> Result<(Access, Option<audit::Inbox>), RunError> {
    let (audit, inbox) = match config.enforced.then(Audit::new) {
        Some((audit, inbox)) => (audit, Some(inbox)),
        None => (Audit::none(), None),
    };
    let mut issuers = None;
    if !config.issuers.is_empty() {
        let known = Issuers::new(&config.issuers, access::jwt::Limits::default())?;
        let fetching = known.clone();
        tasks.spawn("issuers", move |stop| async move {
            fetching.run(stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        issuers = Some(known);
    }
    let settings = access::Settings {
        enforced: config.enforced,
        admins: config.admins.clone(),
        audit_required: config.audit_required,
    };
    Ok((Access::new(settings, rules, issuers, audit), inbox))
}

/// What the store gives to the groups.
struct Store {
    engine: Arc<dyn store::LogEngine>,
    writer: Writer,
    catalog: Arc<Mutex<CatalogMachine>>,
    data: Vec<(GroupId, Arc<Mutex<DataMachine>>, crate::raft::log::LogReader)>,
    rafts: Vec<Parts<crate::raft::log::GroupLog>>,
    broken: Vec<watch::Receiver<Option<String>>>,
}

impl Store {
    fn open(
        config: &Config,
        (folder, pledge): (&Folder, &Arc<Pledge>),
        membership: &Membership,
        tasks: &Tasks,
    ) -> Result<Self, RunError> {
        let path = folder.store();
        let failed = |source| RunError::Store { path: path.display().to_string(), source };
        let (profile, ballast, tail_bytes) = match config.store.profile {
            Profile::Normal => (store::Profile::Normal, BALLAST_BYTES, Logs::TAIL_BYTES_NORMAL),
            Profile::Small => (store::Profile::Small, BALLAST_BYTES_SMALL, Logs::TAIL_BYTES_SMALL),
        };
        let engine = open_engine(folder, profile, ballast).map_err(failed)?;
        let engine: Arc<dyn store::LogEngine> = Arc::new(engine);
        let options =
            WriterOptions { node: membership.node_id.to_string(), ..WriterOptions::default() };
        let (writer, writer_loop) = Writer::new(Arc::clone(&engine), &options);
        tasks
            .spawn_thread("writer", move |_stop| writer_loop.run_blocking())
            .map_err(RunError::Thread)?;
        let logs = Logs::new(Arc::clone(&engine), writer.clone(), tail_bytes);
        let logs = logs.pledged(Arc::clone(pledge));
        let catalog = Arc::new(Mutex::new(CatalogMachine::new(membership.data_groups)));
        let mut broken = vec![crate::data::lock(&catalog).broken()];
        let shared: Arc<dyn crate::raft::machine::SharedMachine> =
            Arc::<Mutex<CatalogMachine>>::clone(&catalog);
        let (mut parts, _log) =
            Parts::stored(&logs, GroupId::CATALOG, shared, SnapshotPolicy::AtApplied)
                .map_err(failed)?;
        parts.checkpoint_bytes = membership.checkpoint_bytes;
        let mut rafts = vec![parts];
        let mut data = Vec::new();
        for group in (1..=membership.data_groups).map(GroupId) {
            let machine = Arc::new(Mutex::new(DataMachine::new(group, writer.clone())));
            broken.push(crate::data::lock(&machine).broken());
            let shared: Arc<dyn crate::raft::machine::SharedMachine> =
                Arc::<Mutex<DataMachine>>::clone(&machine);
            let (mut parts, log) =
                Parts::stored(&logs, group, shared, SnapshotPolicy::AtFloor).map_err(failed)?;
            parts.checkpoint_bytes = membership.checkpoint_bytes;
            if let Some(purged) = log.purged() {
                let base = retention::base_of(&*engine, group, purged).map_err(failed)?;
                crate::data::lock(&machine).raise_base(base);
            }
            rafts.push(parts);
            data.push((group, machine, log));
        }
        Ok(Self { engine, writer, catalog, data, rafts, broken })
    }
}

/// Opens the store. A full disk leaves it no room even for that: then the ballast is given back.
fn open_engine(
    folder: &Folder,
    profile: store::Profile,
    ballast: u64,
) -> Result<RocksEngine, StoreError> {
    let path = folder.store();
    // A try that fails may leave half a file behind; so not only then.
    if folder.free_bytes().is_some_and(|free| free < ballast) && folder.release_ballast() {
        warn!(ballast, "the disk is full; the ballast is given back so that the store can open");
    }
    let engine = match RocksEngine::open(&path, profile) {
        Err(StoreError::Full { .. }) if folder.release_ballast() => {
            warn!(
                ballast,
                "the disk is full; the ballast is given back so that the store can open"
            );
            RocksEngine::open(&path, profile)?
        }
        opened => opened?,
    };
    // Where there is no room now, the guard of the disk tries again.
    if folder.free_bytes().is_none_or(|free| free / 2 > ballast)
        && let Err(error) = folder.reserve_ballast(ballast)
    {
        warn!(error = chain(&error), "the ballast is not reserved");
    }
    Ok(engine)
}

const fn reserve(profile: Profile) -> Reserve {
    match profile {
        // Twice the memtables, and twice the write-ahead log, whose files are kept to be written again.
        Profile::Normal => {
            let store_bytes = (2 * 256 + 2 * 256) << 20;
            Reserve { store_bytes, tenth_bytes_max: 5 << 30, ballast_bytes: BALLAST_BYTES }
        }
        Profile::Small => Reserve {
            store_bytes: 96 << 20,
            tenth_bytes_max: 96 << 20,
            ballast_bytes: BALLAST_BYTES_SMALL,
        },
    }
}
