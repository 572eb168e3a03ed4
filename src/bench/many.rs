//! Many subscriptions at once, each with a member: what they cost while nothing happens, and how fast
//! an event gets to all of them.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use weft_client::{Client, PublisherOptions, PutOptions, SubscriptionItem, SubscriptionOptions};
use weft_client::{Subscription, resource_of};
use weft_proto::resource::Kind;

use super::bed::{Bed, Target};
use super::event::{event, payload};
use super::process::{cpu_seconds, memory};
use super::times::{Percentiles, Times};

/// Members of one connection: a broker serves 100 calls of each.
const MEMBERS_OF_CLIENT: u32 = 64;
/// Subscriptions that are made, or joined, at once.
const AT_ONCE: usize = 64;
/// Without news for this long, something is lost.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// How long the cost of doing nothing is measured.
const IDLE: Duration = Duration::from_secs(10);
/// Events that a member may have unacknowledged.
const CREDIT_EVENTS: u32 = 256;

/// How many of what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Subscriptions {
    /// Subscriptions, each with one member.
    #[arg(long = "subscriptions", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    count: u32,
    /// Events that each of them gets.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    events: u32,
    /// Bytes of payload in each event.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    size: u32,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    nodes: usize,
    subscriptions: u32,
    events: u32,
    size: u32,
    /// Until all were in the catalog, and until all members had joined.
    create_seconds: f64,
    join_seconds: f64,
    /// Memory of each broker, resident: before, and with all members.
    memory_before_bytes: Vec<u64>,
    memory_joined_bytes: Vec<u64>,
    /// Processors that the brokers keep busy while nothing happens.
    idle_processors: f64,
    /// Until every member had acknowledged every event.
    deliver_seconds: f64,
    deliveries_per_second: f64,
    /// From the call that publishes an event until a member has it.
    latency_us: Percentiles,
}

pub(super) async fn measure(
    args: &Subscriptions,
    bed: &Bed,
    stream: &str,
) -> anyhow::Result<Found> {
    let brokers = bed.brokers();
    if brokers.is_empty() {
        bail!("this needs brokers of its own: leave --endpoint out");
    }
    let memory_before_bytes = memory(&brokers)?;
    let begin = Instant::now();
    create(args, bed, stream).await?;
    let create_seconds = begin.elapsed().as_secs_f64();

    let begin = Instant::now();
    let mut members = join(args, bed, stream).await?;
    let join_seconds = begin.elapsed().as_secs_f64();
    let memory_joined_bytes = memory(&brokers)?;

    let (cpu, own) = (cpu_seconds(&brokers)?, cpu_seconds(&[])?);
    sleep(IDLE).await;
    // That of this process is in both.
    let (cpu, own) = (cpu_seconds(&brokers)? - cpu, cpu_seconds(&[])? - own);
    let idle_processors = (cpu - own) / IDLE.as_secs_f64();

    let begin = Instant::now();
    let sent = publish(args, &bed.client, stream).await?;
    let taking: FuturesUnordered<_> =
        members.iter_mut().map(|member| take(args, member, &sent)).collect();
    let times = Times::new()?;
    let times = taking
        .try_fold(times, |mut all, own| async move {
            all.add(&own)?;
            Ok(all)
        })
        .await?;
    let elapsed = begin.elapsed().as_secs_f64();
    Ok(Found {
        nodes: bed.nodes,
        subscriptions: args.count,
        events: args.events,
        size: args.size,
        create_seconds,
        join_seconds,
        memory_before_bytes,
        memory_joined_bytes,
        idle_processors,
        deliver_seconds: elapsed,
        deliveries_per_second: f64::from(args.count) * f64::from(args.events) / elapsed,
        latency_us: times.percentiles(),
    })
}

fn name(stream: &str, number: u32) -> String {
    format!("{stream}-{number}")
}

async fn create(args: &Subscriptions, bed: &Bed, stream: &str) -> anyhow::Result<()> {
    let spec = json!({"stream": stream, "mode": "shared", "start": "earliest"});
    let all = futures::stream::iter(0..args.count).map(|number| {
        let resource = resource_of(Kind::Subscription, &name(stream, number), &spec);
        async {
            bed.client.catalog().put(resource?, PutOptions::default()).await?;
            anyhow::Ok(())
        }
    });
    all.buffer_unordered(AT_ONCE).try_collect().await
}

async fn join(args: &Subscriptions, bed: &Bed, stream: &str) -> anyhow::Result<Vec<Subscription>> {
    let mut client = bed.another_client()?;
    let mut joining = Vec::new();
    for number in 0..args.count {
        if number % MEMBERS_OF_CLIENT == 0 {
            client = bed.another_client()?;
        }
        joining.push(joined(client.clone(), name(stream, number)));
    }
    futures::stream::iter(joining).buffer_unordered(AT_ONCE).try_collect().await
}

/// A member that has its partition.
async fn joined(client: Client, name: String) -> anyhow::Result<Subscription> {
    let options = SubscriptionOptions { events_max: CREDIT_EVENTS, ..Default::default() };
    let mut member = client.subscribe(&name, options);
    loop {
        let item = timeout(SILENCE_MAX, member.next()).await;
        if let SubscriptionItem::Assigned { .. } = item.context("a member waits to join")?? {
            return Ok(member);
        }
    }
}

/// Publishes all events; says when.
async fn publish(
    args: &Subscriptions,
    client: &Client,
    stream: &str,
) -> anyhow::Result<Vec<Instant>> {
    let publisher = client.publisher(stream, PublisherOptions::default()).await?;
    let payload = payload(args.size);
    let mut sent = Vec::new();
    let mut receipts = Vec::new();
    for number in 0..args.events {
        sent.push(Instant::now());
        receipts.push(publisher.send(event(number, &payload)).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    publisher.close().await;
    Ok(sent)
}

/// Takes all events, each once, and waits until they are acknowledged.
async fn take(
    args: &Subscriptions,
    member: &mut Subscription,
    sent: &[Instant],
) -> anyhow::Result<Times> {
    let acker = member.acker();
    let mut times = Times::new()?;
    let mut left = u64::from(args.events);
    let mut settling = Vec::new();
    while left > 0 {
        let item = timeout(SILENCE_MAX, member.next()).await;
        let item = item.context("events did not come for a long time")??;
        let SubscriptionItem::Delivery(delivery) = item else { continue };
        for (offset, _) in &delivery.batch.events {
            // The stream is new and has one partition.
            let place = usize::try_from(offset.get())?;
            times.record_since(*sent.get(place).context("an event that was not published")?, 1)?;
            left = left.checked_sub(1).context("an event came twice")?;
        }
        settling.push(acker.ack(delivery.all()).await?);
    }
    for settled in settling {
        settled.await?;
    }
    Ok(times)
}
