//! `weft bench`: how fast a cluster takes events and gives them back, as one JSON object.

mod bed;
mod disk;
mod event;
mod failover;
mod latency;
mod machine;
mod many;
mod pace;
mod process;
mod publish;
mod replay;
mod subscribe;
mod times;

use std::path::PathBuf;
use std::pin::pin;

use anyhow::bail;
use serde::Serialize;

use self::bed::{Bed, Target};
use self::disk::Disk;
use self::machine::Machine;
use crate::settings::Connection;
use crate::{signals, telemetry};

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Args {
    #[command(flatten)]
    Cluster(Work),
    /// Measure the disk alone, as the others do before and after.
    Disk(OnDisk),
}

/// Measure a cluster of broker processes, or one that runs already.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Work {
    /// Publish events; each is acknowledged once a majority has it on disk.
    Publish(publish::Publish),
    /// Publish events, then measure reading all of them once.
    Replay(replay::Replay),
    /// Publish events, then measure delivering them to members that acknowledge, beside reading.
    Subscribe(subscribe::Subscribe),
    /// Make many subscriptions with a member each, and measure what they cost and how they are served.
    Subscriptions(many::Subscriptions),
    /// Publish at a fixed rate while a reader follows, and measure from when each event was due.
    Latency(latency::Latency),
    /// Kill the leader again and again, and measure until events are acknowledged once more.
    Failover(failover::Failover),
}

/// Which disk.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OnDisk {
    /// Folder on the disk that is to be measured; made when it is missing.
    #[arg(long)]
    dir: PathBuf,
}

impl Work {
    fn target(&self) -> &Target {
        match self {
            Self::Publish(args) => &args.target,
            Self::Replay(args) => &args.target,
            Self::Subscribe(args) => &args.target,
            Self::Subscriptions(args) => &args.target,
            Self::Latency(args) => &args.target,
            Self::Failover(args) => &args.target,
        }
    }
}

/// The result. Fields are part of the interface: scripts read them.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    found: Found,
    /// From before the measurement, in the folder of the cluster; without one, where it runs is
    /// not known.
    #[serde(flatten)]
    disk: Option<Disk>,
    disk_after: Option<Disk>,
    machine: Machine,
    version: &'static str,
    commit: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
enum Found {
    Publish(publish::Found),
    Replay(replay::Found),
    Subscribe(subscribe::Found),
    Subscriptions(many::Found),
    Latency(latency::Found),
    Failover(failover::Found),
    Disk,
}

/// Measures and prints.
pub(crate) fn run(args: &Args, connection: &Connection) -> anyhow::Result<()> {
    telemetry::start(match args {
        Args::Cluster(work) => &work.target().log,
        Args::Disk(_) => "error",
    })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (found, disk, disk_after) = runtime.block_on(async {
        let mut stop = pin!(signals::stop()?);
        tokio::select! {
            found = measure(args, connection) => found,
            () = &mut stop => bail!("stopped before the end"),
        }
    })?;
    print(&Report {
        found,
        disk,
        disk_after,
        machine: machine::machine(),
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("WEFT_COMMIT"),
    })
}

#[expect(clippy::print_stdout, reason = "the result is for standard output")]
fn print(report: &Report) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

/// What was found, and what the disk could do before and after.
async fn measure(
    args: &Args,
    connection: &Connection,
) -> anyhow::Result<(Found, Option<Disk>, Option<Disk>)> {
    let work = match args {
        Args::Disk(args) => return Ok((Found::Disk, Some(disk::probe(&args.dir).await?), None)),
        Args::Cluster(work) => work,
    };
    let mut bed = Bed::start(work.target(), connection).await?;
    let stream = bed.create_stream().await?;
    let found = match work {
        Work::Publish(args) => publish::measure(args, &bed, &stream).await.map(Found::Publish),
        Work::Replay(args) => replay::measure(args, &mut bed, &stream).await.map(Found::Replay),
        Work::Subscribe(args) => {
            subscribe::measure(args, &bed, &stream).await.map(Found::Subscribe)
        }
        Work::Subscriptions(args) => {
            many::measure(args, &bed, &stream).await.map(Found::Subscriptions)
        }
        Work::Latency(args) => latency::measure(args, &bed, &stream).await.map(Found::Latency),
        Work::Failover(args) => {
            failover::measure(args, &mut bed, &stream).await.map(Found::Failover)
        }
    };
    let ended = bed.end(&stream).await;
    // What went wrong first is of more interest than what followed from it.
    let found = found?;
    let (disk, disk_after) = ended?;
    Ok((found, disk, disk_after))
}
