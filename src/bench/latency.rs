//! From the moment when an event is due to the moment when a reader that follows has it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use weft_client::resource_of;
use weft_client::{Acker, Batch, Client, Pending, PublisherOptions, PutOptions, ReadItem};
use weft_client::{ReadOptions, Reader, Subscription, SubscriptionItem, SubscriptionOptions};
use weft_proto::resource::Kind;

use super::bed::{ACK, Bed, Target};
use super::event::{event, payload};
use super::pace::Pace;
use super::process::cpu_seconds;
use super::publish::Rate;
use super::times::{Percentiles, Times};
use crate::publish::Ack;

/// Events that may be unacknowledged; at the limit the cluster cannot keep the rate at all.
const PENDING_LEN: usize = 65_536;
/// Events of the first second are not counted: connections are made, code is loaded.
const WARM_UP_SECONDS: u32 = 1;
/// Without any event for this long, the reader has lost the stream.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const CREDIT_EVENTS: u32 = 16_384;

/// At which rate to publish, and who reads.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Latency {
    /// Events in each second, whatever the cluster does.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// How long to measure, after one second of warm-up.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Bytes of payload in each event.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    size: u32,
    /// Who reads.
    #[arg(long, value_enum, default_value_t = Via::Follow)]
    via: Via,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Via {
    /// A reader that follows the stream.
    Follow,
    /// A member of a durable subscription that acknowledges each event.
    Subscription,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    nodes: usize,
    ack: Ack,
    size: u32,
    /// Counted ones.
    events: u64,
    rate: u32,
    via: Via,
    #[serde(flatten)]
    achieved: Rate,
    /// From when an event was due until the reader had it.
    latency_us: Percentiles,
    /// From when an event was due until its publisher had the acknowledgement.
    acknowledged_us: Percentiles,
}

pub(super) async fn measure(args: &Latency, bed: &Bed, stream: &str) -> anyhow::Result<Found> {
    let reader = Tail::begin(args.via, bed, stream).await?;
    let brokers = bed.brokers();
    let counted_from = args.rate * WARM_UP_SECONDS;
    let total = counted_from.saturating_add(args.rate.saturating_mul(args.seconds));
    // The publisher makes its connection before the first event is due.
    let publisher = bed.client.publisher(stream, PublisherOptions::default()).await?;
    let payload = payload(args.size);
    let (sent, pending) = mpsc::channel(PENDING_LEN);
    let cpu = cpu_seconds(&brokers)?;
    let pace = Pace::new(Instant::now() + Duration::from_millis(100), args.rate);
    let runtime = tokio::runtime::Handle::current();
    let publishing = std::thread::spawn(move || -> anyhow::Result<()> {
        for number in 0..total {
            let event = event(number, &payload);
            pace.wait(number);
            let pending = runtime.block_on(publisher.send(event))?;
            if sent.blocking_send(pending).is_err() {
                break;
            }
        }
        Ok(())
    });
    let begin = Instant::now();
    let acknowledged = acknowledged(pending, pace, counted_from);
    let (acknowledged, read) =
        tokio::try_join!(acknowledged, reader.read(pace, counted_from, total))?;
    let elapsed = begin.elapsed();
    let cpu = cpu_seconds(&brokers)? - cpu;
    match tokio::task::spawn_blocking(move || publishing.join()).await? {
        Ok(result) => result.context("an event was not published")?,
        Err(_panic) => bail!("the publishing thread ended early"),
    }
    let (size, events) = (args.size, u64::from(total));
    Ok(Found {
        nodes: bed.nodes,
        ack: ACK,
        size,
        events: u64::from(total - counted_from),
        rate: args.rate,
        via: args.via,
        achieved: Rate::new(events, size, elapsed, (cpu, !brokers.is_empty())),
        latency_us: read.percentiles(),
        acknowledged_us: acknowledged.percentiles(),
    })
}

/// Times until events were acknowledged; they come in order.
async fn acknowledged(
    mut pending: mpsc::Receiver<Pending>,
    pace: Pace,
    counted_from: u32,
) -> anyhow::Result<Times> {
    let mut times = Times::new()?;
    let mut number = 0;
    while let Some(event) = pending.recv().await {
        event.await.context("an event was not acknowledged")?;
        if number >= counted_from {
            times.record_since(pace.due(number), 1)?;
        }
        number += 1;
    }
    Ok(times)
}

/// Whoever waits at the end of the stream.
enum Tail {
    Follow(Box<Reader>),
    Subscription(Box<Subscription>, Acker),
}

impl Tail {
    async fn begin(via: Via, bed: &Bed, stream: &str) -> anyhow::Result<Self> {
        let client = bed.another_client()?;
        match via {
            Via::Follow => follow(&client, stream).await,
            Via::Subscription => subscribe(&client, stream).await,
        }
    }

    /// Reads all events and answers the times of those that count.
    async fn read(mut self, pace: Pace, counted_from: u32, total: u32) -> anyhow::Result<Times> {
        let mut times = Times::new()?;
        let mut number = 0;
        while number < total {
            let next = timeout(SILENCE_MAX, self.next()).await;
            let Some(batch) = next.context("no event came for a long time")?? else { continue };
            for (offset, _) in &batch.events {
                // The stream is new and has one partition and one publisher: no gap, no repetition.
                if offset.get() != u64::from(number) {
                    bail!("event {number} should come, but event {offset} came");
                }
                if number >= counted_from {
                    times.record_since(pace.due(number), 1)?;
                }
                number += 1;
            }
        }
        if let Self::Subscription(member, acker) = self {
            drop(acker);
            member.close().await;
        }
        Ok(times)
    }

    async fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        match self {
            Self::Follow(reader) => match reader.next().await? {
                Some(ReadItem::Batch(batch)) => Ok(Some(batch)),
                Some(ReadItem::CaughtUp) => Ok(None),
                None => bail!("the stream ended"),
            },
            Self::Subscription(member, acker) => match member.next().await? {
                SubscriptionItem::Delivery(delivery) => {
                    // That it is stored is not waited for: the next event may come before.
                    drop(acker.ack(delivery.all()).await?);
                    Ok(Some(delivery.batch))
                }
                _ => Ok(None),
            },
        }
    }
}

async fn follow(client: &Client, stream: &str) -> anyhow::Result<Tail> {
    let mut reader = client.read(ReadOptions::follow(stream)).await?;
    loop {
        match timeout(SILENCE_MAX, reader.next()).await?? {
            Some(ReadItem::CaughtUp) => return Ok(Tail::Follow(Box::new(reader))),
            Some(ReadItem::Batch(_)) => {}
            None => bail!("the stream ended"),
        }
    }
}

async fn subscribe(client: &Client, stream: &str) -> anyhow::Result<Tail> {
    let spec = json!({ "stream": stream });
    let resource = resource_of(Kind::Subscription, stream, &spec)?;
    client.catalog().put(resource, PutOptions::default()).await?;
    let options = SubscriptionOptions { events_max: CREDIT_EVENTS, ..Default::default() };
    let mut member = client.subscribe(stream, options);
    while !matches!(timeout(SILENCE_MAX, member.next()).await??, SubscriptionItem::Assigned { .. })
    {
    }
    let acker = member.acker();
    Ok(Tail::Subscription(Box::new(member), acker))
}
