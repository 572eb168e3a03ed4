//! `weft bench`: how fast a cluster takes events and gives them back, as one JSON object.

mod machine;
mod run;

use std::path::PathBuf;
use std::pin::pin;

use anyhow::{Context as _, bail};
use serde::Serialize;
use weft_broker::config::Profile;
use weft_client::{Client, Options};

use self::machine::Fsync;
use crate::cluster::{Cluster, Plan, Ports};
use crate::settings::Connection;
use crate::{signals, telemetry};

/// Measure a cluster of broker processes, or one that runs already.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Publish events; each is acknowledged once a majority has it on disk.
    Publish(Load),
    /// Publish events, then measure reading all of them once.
    Replay(Load),
}

/// What to publish, and where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Load {
    /// Brokers of the cluster that is made for this measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=5))]
    nodes: u16,
    /// Bytes of payload in each event.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    size: u32,
    /// Number of events.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    events: u32,
    /// Events in each call of the publisher.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    batch: u32,
    /// Events on their way at once.
    #[arg(long, default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Folder for the cluster, on the disk that is to be measured; left empty afterwards. Default:
    /// the folder for temporary files, which may be in memory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Measure this cluster instead. The stream that is made for it is deleted afterwards.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    endpoint: Vec<String>,
    /// What to log: a level, or a list as in `info,weft_client=debug`.
    #[arg(long, default_value = "error", value_name = "FILTER")]
    log: String,
}

/// The result. Fields are part of the interface: scripts read them.
#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    /// Unknown for a cluster that runs already and does not answer.
    nodes: usize,
    size: u32,
    events: u64,
    batch: u32,
    window: u32,
    seconds: f64,
    events_per_second: f64,
    /// Of payload, in units of 1,000,000 bytes.
    megabytes_per_second: f64,
    /// From the call of the publisher to the acknowledgement; in a replay, of its publishing.
    latency_us: run::Latency,
    ack: &'static str,
    /// In the folder of the cluster; without one, where it runs is not known.
    fdatasync_us: Option<Fsync>,
    /// Of this process and the brokers, over payload of 1,000,000,000 bytes. Of this process alone
    /// when the cluster ran already.
    cpu_seconds_per_gb: f64,
    cpu_includes_brokers: bool,
    machine: machine::Machine,
    version: &'static str,
    commit: Option<&'static str>,
}

/// Measures and prints.
pub(crate) fn run(args: &Args, connection: &Connection) -> anyhow::Result<()> {
    let (Args::Publish(load) | Args::Replay(load)) = args;
    telemetry::start(&load.log)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(async {
        let mut stop = pin!(signals::stop()?);
        tokio::select! {
            report = measure(args, load, connection) => report,
            () = &mut stop => bail!("stopped before the end"),
        }
    })?;
    print(&report)
}

#[expect(clippy::print_stdout, reason = "the result is for standard output")]
fn print(report: &Report) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

async fn measure(args: &Args, load: &Load, connection: &Connection) -> anyhow::Result<Report> {
    if !load.endpoint.is_empty() {
        let client = connection.client_of(load.endpoint.clone())?;
        let nodes = client.status().await?.nodes.len();
        return report(args, load, (&client, nodes), (&[], None)).await;
    }
    let mut folder = tempfile::Builder::new();
    folder.prefix("weft-bench-");
    let folder = match &load.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
            folder.tempdir_in(dir)?
        }
        None => folder.tempdir()?,
    };
    // Before the cluster starts: the disk has nothing else to do.
    let path = folder.path().to_owned();
    let fsync = tokio::task::spawn_blocking(move || machine::fsync(&path)).await??;
    let plan = Plan {
        dir: folder.path().to_owned(),
        ports: Ports::free(usize::from(load.nodes))?,
        data_groups: 3,
        profile: Profile::Normal,
    };
    let client = Client::connect(&Options::new(plan.endpoints()))?;
    let cluster = Cluster::start(plan).await?;
    let nodes = usize::from(load.nodes);
    let report = report(args, load, (&client, nodes), (&cluster.pids(), Some(fsync))).await;
    cluster.stop().await?;
    report
}

#[expect(clippy::cast_precision_loss, reason = "figures for people, of a few digits")]
async fn report(
    args: &Args,
    load: &Load,
    (client, nodes): (&Client, usize),
    (brokers, fdatasync_us): (&[u32], Option<Fsync>),
) -> anyhow::Result<Report> {
    let measured = run::measure(args, load, client, brokers).await?;
    let events = measured.events as f64;
    let payload = events * f64::from(load.size);
    let seconds = measured.elapsed.as_secs_f64();
    Ok(Report {
        what: match args {
            Args::Publish(_) => "publish",
            Args::Replay(_) => "replay",
        },
        nodes,
        size: load.size,
        events: measured.events,
        batch: load.batch,
        window: load.window,
        seconds,
        events_per_second: events / seconds,
        megabytes_per_second: payload / seconds / 1e6,
        latency_us: measured.latency,
        ack: "durable",
        fdatasync_us,
        cpu_seconds_per_gb: measured.cpu_seconds / (payload / 1e9),
        cpu_includes_brokers: !brokers.is_empty(),
        machine: machine::machine(),
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("WEFT_COMMIT"),
    })
}
