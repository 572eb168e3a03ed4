//! Reading everything that was published, once.

use anyhow::bail;
use serde::Serialize;
use tokio::time::Instant;
use weft_client::{Client, ReadItem, ReadOptions};

use super::bed::{Bed, Target, check_cold};
use super::event::Load;
use super::process::cpu_seconds;
use super::publish::{self, How, Rate};

/// What to publish first, and what to read.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    how: How,
    /// Read from the disk: restart the brokers and drop the page cache in between. Needs root.
    #[arg(long, conflicts_with = "endpoint")]
    cold: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    nodes: usize,
    size: u32,
    events: u64,
    cold: bool,
    #[serde(flatten)]
    rate: Rate,
}

pub(super) async fn measure(args: &Replay, bed: &mut Bed, stream: &str) -> anyhow::Result<Found> {
    if args.cold {
        check_cold()?;
    }
    let published = publish::publish(&args.load, args.how, bed, stream).await?.events;
    if args.cold {
        bed.restart_cold().await?;
    }
    let client = bed.another_client()?;
    let brokers = bed.brokers();
    let cpu = cpu_seconds(&brokers)?;
    let begin = Instant::now();
    let events = read(&client, stream).await?;
    let elapsed = begin.elapsed();
    let cpu = cpu_seconds(&brokers)? - cpu;
    if events != published {
        bail!("{published} events were acknowledged, but {events} are read");
    }
    let size = args.load.size;
    let rate = Rate::new(events, size, elapsed, (cpu, !brokers.is_empty()));
    Ok(Found { nodes: bed.nodes, size, events, cold: args.cold, rate })
}

/// Number of events from the first to the present end.
pub(super) async fn read(client: &Client, stream: &str) -> anyhow::Result<u64> {
    let mut reader = client.read(ReadOptions::all(stream)).await?;
    while let Some(item) = reader.next().await? {
        // Only the count is of interest; the reader has checked that offsets rise.
        if let ReadItem::Batch(batch) = item {
            drop(batch);
        }
    }
    Ok(reader.summary().events)
}
