//! How long nothing is acknowledged after the leader is killed.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use weft_client::{Client, Pending, PublisherOptions};

use super::bed::{ACK, Bed, Target};
use super::event::{event, payload};
use super::times::{Percentiles, Times};
use crate::cluster::Cluster;
use crate::publish::Ack;

/// Between two events of the trickle.
const GAP: Duration = Duration::from_millis(5);
/// Events that may be unacknowledged: as many as the longest gap that is measured needs.
const PENDING_LEN: usize = 16_384;
/// Without an acknowledgement for this long the cluster is lost, and so is the measurement.
const GAP_MAX: Duration = Duration::from_mins(1);
const CAUGHT_UP_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
/// From the moment when all is well to the next kill.
const CALM: Duration = Duration::from_millis(500);

/// How often to kill.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Failover {
    /// Number of kills; each killed broker is started again and catches up before the next one.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Bytes of payload in each event.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    size: u32,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    nodes: usize,
    ack: Ack,
    size: u32,
    /// Acknowledged in the whole time.
    events: u64,
    kills: u32,
    /// From the kill to the first acknowledgement of an event that was published after it.
    resumed_us: Percentiles,
    /// From the start of the killed broker until it had all that the others have.
    caught_up_us: Percentiles,
}

pub(super) async fn measure(args: &Failover, bed: &mut Bed, stream: &str) -> anyhow::Result<Found> {
    let client = bed.client.clone();
    let nodes = bed.nodes;
    if nodes < 3 {
        bail!("{nodes} brokers have no majority without the leader: take --nodes 3 or more");
    }
    let cluster = bed.cluster()?;
    let (stop, stopped) = watch::channel(false);
    let (acknowledged, news) = watch::channel(None);
    let trickle = trickle(&client, (stream, args.size), stopped, acknowledged);
    let kills = async {
        let found = kills(args.kills, (&client, stream), cluster, news).await;
        // The trickle looks for it; it has ended only if it failed.
        _ = stop.send(true);
        found
    };
    let (events, (resumed, caught_up)) = tokio::try_join!(trickle, kills)?;
    Ok(Found {
        nodes,
        ack: ACK,
        size: args.size,
        events,
        kills: args.kills,
        resumed_us: resumed.percentiles(),
        caught_up_us: caught_up.percentiles(),
    })
}

/// Publishes one event after the other without waiting, and tells of the newest one that is
/// acknowledged when it was published. Answers how many there were.
async fn trickle(
    client: &Client,
    (stream, size): (&str, u32),
    stop: watch::Receiver<bool>,
    news: watch::Sender<Option<Instant>>,
) -> anyhow::Result<u64> {
    let publisher = client.publisher(stream, PublisherOptions::default()).await?;
    let payload = payload(size);
    let (sent, mut pending) = mpsc::channel::<(Instant, Pending)>(PENDING_LEN);
    let publishing = async {
        let sent = sent;
        let mut number = 0;
        while !*stop.borrow() {
            let now = Instant::now();
            sent.send((now, publisher.send(event(number, &payload)).await?)).await?;
            number = number.wrapping_add(1);
            sleep(GAP).await;
        }
        anyhow::Ok(())
    };
    let settling = async {
        let mut events = 0;
        while let Some((at, event)) = pending.recv().await {
            event.await.context("an event was not acknowledged")?;
            events += 1;
            news.send_replace(Some(at));
        }
        anyhow::Ok(events)
    };
    Ok(tokio::try_join!(publishing, settling)?.1)
}

/// Kills so often; answers the times until writes went on and until the killed broker was back.
async fn kills(
    kills: u32,
    (client, stream): (&Client, &str),
    cluster: &mut Cluster,
    mut news: watch::Receiver<Option<Instant>>,
) -> anyhow::Result<(Times, Times)> {
    let (mut resumed, mut caught_up) = (Times::new()?, Times::new()?);
    acknowledged_after(Instant::now(), &mut news).await?;
    for _ in 0..kills {
        sleep(CALM).await;
        let leader = leader(client, cluster, stream).await?;
        let killed = Instant::now();
        cluster.kill(leader).await?;
        acknowledged_after(killed, &mut news).await?;
        resumed.record_since(killed, 1)?;

        let started = Instant::now();
        cluster.restart(leader).await?;
        has_all(cluster, leader).await?;
        caught_up.record_since(started, 1)?;
    }
    Ok((resumed, caught_up))
}

/// Waits until an event is acknowledged that was published after this moment.
async fn acknowledged_after(
    moment: Instant,
    news: &mut watch::Receiver<Option<Instant>>,
) -> anyhow::Result<()> {
    let after = news.wait_for(|newest| newest.is_some_and(|at| at > moment));
    match timeout(GAP_MAX, after).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_closed)) => bail!("the publisher stopped"),
        Err(_elapsed) => bail!("nothing was acknowledged for {} s", GAP_MAX.as_secs()),
    }
}

/// The number of the broker that leads the stream's only partition.
async fn leader(client: &Client, cluster: &Cluster, stream: &str) -> anyhow::Result<usize> {
    let deadline = Instant::now() + GAP_MAX;
    while Instant::now() < deadline {
        let routes = client.route(stream).await?;
        if let Some(address) = routes.first().and_then(|route| route.leader_address.as_deref()) {
            let number = cluster.number_of(address);
            return number.with_context(|| format!("the leader {address} is none of the brokers"));
        }
        sleep(POLL).await;
    }
    bail!("the stream has no leader for {} s", GAP_MAX.as_secs())
}

/// Waits until a broker has applied, in each group, what all others had committed just before.
async fn has_all(cluster: &Cluster, number: usize) -> anyhow::Result<()> {
    let endpoints = cluster.plan().endpoints();
    let at = |place: usize| -> anyhow::Result<Client> {
        let endpoint = endpoints.get(place).context("there is no such broker")?.clone();
        Ok(Client::connect(&weft_client::Options::new([endpoint]))?)
    };
    let place = number.checked_sub(1).context("brokers count from 1")?;
    let deadline = Instant::now() + CAUGHT_UP_MAX;
    let mut wanted = std::collections::BTreeMap::new();
    for other in (0..endpoints.len()).filter(|other| *other != place) {
        for group in at(other)?.status().await?.groups {
            let index = wanted.entry(group.id).or_insert(0);
            *index = group.committed_index.max(*index);
        }
    }
    let broker = at(place)?;
    loop {
        let groups = broker.status().await?.groups;
        let applied = |id: &u32| {
            let group = groups.iter().find(|group| group.id == *id);
            group.map_or(0, |group| group.applied_index)
        };
        if wanted.iter().all(|(id, index)| applied(id) >= *index) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("broker {number} has not caught up within {} s", CAUGHT_UP_MAX.as_secs());
        }
        sleep(POLL).await;
    }
}
