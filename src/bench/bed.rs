//! What is measured: a cluster made for it, or one that runs already.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::json;
use tempfile::TempDir;
use weft_broker::config::Profile;
use weft_client::{Client, Options, PutOptions, resource_of};
use weft_proto::resource::Kind;
use weft_proto::trace::Telemetry;

use super::disk::{self, Disk};
use crate::cluster::{Cluster, Plan, Ports};
use crate::publish::Ack;
use crate::settings::Connection;

/// The acknowledgement that all measurements wait for.
pub(super) const ACK: Ack = Ack::Durable;
const DATA_GROUPS: u32 = 3;
/// Tells the kernel to forget what files hold.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Which cluster to measure.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Target {
    /// Brokers of the cluster that is made for this measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=5))]
    nodes: u16,
    /// Folder for the cluster, on the disk that is to be measured; left empty afterwards. Default:
    /// the folder for temporary files, which may be in memory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Measure this cluster instead. The stream that is made for it is deleted afterwards.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    endpoint: Vec<String>,
    /// What to log: a level, or a list as in `info,weft_client=debug`.
    #[arg(long, default_value = "error", value_name = "FILTER")]
    pub(super) log: String,
}

/// The cluster under measurement.
#[derive(Debug)]
pub(super) struct Bed {
    options: Options,
    pub(super) client: Client,
    pub(super) nodes: usize,
    own: Option<Own>,
}

/// A cluster of this process.
#[derive(Debug)]
struct Own {
    /// `None` only while it is down.
    cluster: Option<Cluster>,
    folder: TempDir,
    disk: Disk,
}

impl Bed {
    /// Starts a cluster, or connects to the one that was named.
    pub(super) async fn start(target: &Target, connection: &Connection) -> anyhow::Result<Self> {
        if !target.endpoint.is_empty() {
            let options = connection.options_of(target.endpoint.clone())?;
            let client = Client::connect(&options)?;
            let nodes = client.status().await?.nodes.len();
            return Ok(Self { options, client, nodes, own: None });
        }
        let folder = folder(target)?;
        // Before the cluster starts: the disk has nothing else to do.
        let disk = disk::probe(folder.path()).await?;
        let plan = Plan {
            dir: folder.path().to_owned(),
            ports: Ports::free(usize::from(target.nodes))?,
            data_groups: DATA_GROUPS,
            profile: Profile::Normal,
            telemetry: Telemetry::default(),
        };
        let options = Options::new(plan.endpoints());
        let client = Client::connect(&options)?;
        let cluster = Some(Cluster::start(plan).await?);
        let nodes = usize::from(target.nodes);
        Ok(Self { options, client, nodes, own: Some(Own { cluster, folder, disk }) })
    }

    /// A client with connections of its own.
    pub(super) fn another_client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.options)?)
    }

    /// Process ids of the brokers; none of a cluster that runs already.
    pub(super) fn brokers(&self) -> Vec<u32> {
        let cluster = self.own.as_ref().and_then(|own| own.cluster.as_ref());
        cluster.map(Cluster::pids).unwrap_or_default()
    }

    /// The cluster that was made for the measurement.
    pub(super) fn cluster(&mut self) -> anyhow::Result<&mut Cluster> {
        let cluster = self.own.as_mut().and_then(|own| own.cluster.as_mut());
        cluster.context("this needs brokers of its own: leave --endpoint out")
    }

    /// Makes a stream that exists for this measurement only.
    pub(super) async fn create_stream(&self) -> anyhow::Result<String> {
        let stream = format!("bench-{:016x}", rand::random::<u64>());
        let resource = resource_of(Kind::Stream, &stream, &json!({}))?;
        self.client.catalog().put(resource, PutOptions::default()).await?;
        Ok(stream)
    }

    /// Restarts all brokers, with nothing of their files in memory.
    pub(super) async fn restart_cold(&mut self) -> anyhow::Result<()> {
        let plan = self.cluster()?.plan().clone();
        let Some(own) = &mut self.own else { bail!("there is no cluster to restart") };
        if let Some(cluster) = own.cluster.take() {
            cluster.stop().await?;
        }
        drop_caches().await?;
        own.cluster = Some(Cluster::start(plan).await?);
        // The start has read some of it again.
        drop_caches().await
    }

    /// Leaves nothing behind; answers what the disk could do before and what it can do now.
    pub(super) async fn end(self, stream: &str) -> anyhow::Result<(Option<Disk>, Option<Disk>)> {
        let Some(own) = self.own else {
            let deleted = self.client.catalog().delete(Kind::Stream, stream, None).await;
            deleted.with_context(|| format!("cannot delete the stream {stream}"))?;
            return Ok((None, None));
        };
        if let Some(cluster) = own.cluster {
            cluster.stop().await?;
        }
        let after = disk::probe(own.folder.path()).await?;
        Ok((Some(own.disk), Some(after)))
    }
}

fn folder(target: &Target) -> anyhow::Result<TempDir> {
    let mut folder = tempfile::Builder::new();
    folder.prefix("weft-bench-");
    let Some(dir) = &target.dir else { return Ok(folder.tempdir()?) };
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(folder.tempdir_in(dir)?)
}

/// Whether this process may do what a cold read needs; asked before anything is published.
pub(super) fn check_cold() -> anyhow::Result<()> {
    let opened = fs::OpenOptions::new().write(true).open(DROP_CACHES);
    opened.with_context(|| format!("a cold read needs to write {DROP_CACHES}: run it as root"))?;
    Ok(())
}

async fn drop_caches() -> anyhow::Result<()> {
    tokio::task::spawn_blocking(|| {
        // Pages that are not written yet cannot be dropped.
        rustix::fs::sync();
        fs::write(DROP_CACHES, "3").with_context(|| format!("cannot write {DROP_CACHES}"))
    })
    .await?
}
