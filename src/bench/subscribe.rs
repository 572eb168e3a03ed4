//! Delivering what is stored to members that acknowledge each event, beside reading it once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::{pending, try_join_all};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use weft_client::{
    Client, PutOptions, Settling, SubscriptionItem, SubscriptionOptions, resource_of,
};
use weft_proto::resource::Kind;

use super::bed::{Bed, Target};
use super::event::Load;
use super::process::cpu_seconds;
use super::publish::{self, How, Rate};
use super::replay::read;
use super::times::{Percentiles, Times};

/// Acknowledgements whose answers a member waits for at once.
const OPEN_LEN: usize = 65_536;
/// Without any event for this long, events are lost.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What to publish first, and how to take it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Subscribe {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    how: How,
    /// Mode of the subscription.
    #[arg(long, value_enum, default_value_t = Mode::Shared)]
    mode: Mode,
    /// What one acknowledgement is about.
    #[arg(long, value_enum, default_value_t = Acks::Event)]
    acks: Acks,
    /// Members that share the events, each with a connection of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    members: u32,
    /// Events that each member may have unacknowledged.
    #[arg(long, default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    credit: u32,
    /// How often to read and to deliver, in turns; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Each event to one member, in no order.
    Shared,
    /// Each event to one member, those of a key in their order.
    KeyShared,
    /// All events of a partition to one member, in their order; nothing is lent.
    Exclusive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Acks {
    /// One event; the client library sends what waits together.
    Event,
    /// All events of one delivery.
    Delivery,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    nodes: usize,
    size: u32,
    events: u64,
    mode: Mode,
    acks: Acks,
    members: u32,
    credit: u32,
    rounds: u32,
    /// Until the last acknowledgement is answered.
    delivered: Rate,
    read: Rate,
    /// Rate of delivery over rate of reading.
    ratio: f64,
    /// From the call that acknowledges to its answer: it is stored by a majority then.
    acknowledged_us: Percentiles,
}

pub(super) async fn measure(args: &Subscribe, bed: &Bed, stream: &str) -> anyhow::Result<Found> {
    let events = publish::publish(&args.load, args.how, bed, stream).await?.events;
    let (mut reads, mut deliveries) = (Vec::new(), Vec::new());
    let mut times = Times::new()?;
    for round in 0..args.rounds {
        let client = bed.another_client()?;
        reads.push(
            rated(args, bed, async {
                match read(&client, stream).await? {
                    all if all == events => Ok(events),
                    other => bail!("{events} events were acknowledged, but {other} are read"),
                }
            })
            .await?,
        );
        let name = format!("{stream}-{round}");
        let mode = serde_json::to_value(args.mode)?;
        let spec = json!({"stream": stream, "mode": mode, "start": "earliest"});
        let resource = resource_of(Kind::Subscription, &name, &spec)?;
        bed.client.catalog().put(resource, PutOptions::default()).await?;
        deliveries.push(rated(args, bed, take(args, bed, &name, events, &mut times)).await?);
        bed.client.catalog().delete(Kind::Subscription, &name, None).await?;
    }
    let (read, delivered) = (median(reads)?, median(deliveries)?);
    Ok(Found {
        nodes: bed.nodes,
        size: args.load.size,
        events,
        mode: args.mode,
        acks: args.acks,
        members: args.members,
        credit: args.credit,
        rounds: args.rounds,
        ratio: delivered.events_per_second() / read.events_per_second(),
        delivered,
        read,
        acknowledged_us: times.percentiles(),
    })
}

/// How fast something takes all events.
async fn rated(
    args: &Subscribe,
    bed: &Bed,
    work: impl Future<Output = anyhow::Result<u64>>,
) -> anyhow::Result<Rate> {
    let brokers = bed.brokers();
    let cpu = cpu_seconds(&brokers)?;
    let begin = Instant::now();
    let events = work.await?;
    let elapsed = begin.elapsed();
    let cpu = cpu_seconds(&brokers)? - cpu;
    Ok(Rate::new(events, args.load.size, elapsed, (cpu, !brokers.is_empty())))
}

fn median(mut rates: Vec<Rate>) -> anyhow::Result<Rate> {
    rates.sort_by(|a, b| a.events_per_second().total_cmp(&b.events_per_second()));
    rates.get(rates.len() / 2).copied().context("nothing was measured")
}

/// Takes and acknowledges all events; answers how many acknowledgements are stored.
async fn take(
    args: &Subscribe,
    bed: &Bed,
    name: &str,
    events: u64,
    times: &mut Times,
) -> anyhow::Result<u64> {
    let left = Left { events: AtomicU64::new(events), done: CancellationToken::new() };
    let members = (0..args.members).map(|_| {
        let left = &left;
        async move { member(&bed.another_client()?, args, name, left).await }
    });
    let gathered = try_join_all(members).await?;
    gathered.iter().try_for_each(|own| times.add(own))?;
    Ok(events)
}

/// What no member has done yet.
struct Left {
    events: AtomicU64,
    done: CancellationToken,
}

impl Left {
    /// Takes off what is acknowledged.
    fn settled(&self, events: u64) {
        if self.events.fetch_sub(events, Ordering::Relaxed) <= events {
            self.done.cancel();
        }
    }
}

/// An acknowledgement that is not answered: since when, for how many events.
type Open = (Instant, u64, Settling);

/// One member, until nothing is left.
async fn member(
    client: &Client,
    args: &Subscribe,
    name: &str,
    left: &Left,
) -> anyhow::Result<Times> {
    let options = SubscriptionOptions {
        events_max: args.credit,
        bytes_max: 64 << 20,
        ..SubscriptionOptions::default()
    };
    let mut member = client.subscribe(name, options);
    let acker = member.acker();
    let mut times = Times::new()?;
    let mut open: VecDeque<Open> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            () = left.done.cancelled() => break,
            settled = next_settled(&mut open) => {
                let (since, events) = settled?;
                times.record_since(since, events)?;
                left.settled(events);
            }
            item = timeout(SILENCE_MAX, member.next()), if open.len() < OPEN_LEN => {
                let item = item.context("no event came for a long time")??;
                let SubscriptionItem::Delivery(delivery) = item else { continue };
                match args.acks {
                    Acks::Event => {
                        for place in 0..delivery.batch.events.len() {
                            open.push_back((Instant::now(), 1, acker.ack(delivery.one(place)).await?));
                        }
                    }
                    Acks::Delivery => {
                        let events = delivery.batch.events.len() as u64;
                        open.push_back((Instant::now(), events, acker.ack(delivery.all()).await?));
                    }
                }
            }
        }
    }
    drop(acker);
    member.close().await;
    Ok(times)
}

/// The answer to the oldest acknowledgement; it never comes if there is none.
async fn next_settled(open: &mut VecDeque<Open>) -> anyhow::Result<(Instant, u64)> {
    let Some((since, events, settling)) = open.front_mut() else { return pending().await };
    settling.await.context("an event was not acknowledged")?;
    let settled = (*since, *events);
    open.pop_front();
    Ok(settled)
}
