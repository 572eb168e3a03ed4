//! Publishes orders while the broker that leads their partition is killed.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use weft_client::{Client, PendingBatch, PublisherOptions, Reason, Receipt};
use weft_proto::Error;

use super::check::Seen;
use super::{orders, per_second};
use crate::cluster::Cluster;

const BATCH: usize = 50;
/// Batches on their way.
const WINDOW: usize = 8;
/// Batches with a malformed order among the good ones.
const MALFORMED_BATCHES: usize = 5;
/// An election takes about a second.
const LEADER_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// What became of the orders.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Acknowledged, in the order of publishing.
    pub(super) acknowledged: Vec<Seen>,
    /// Retries that the cluster recognised.
    pub(super) recognised: usize,
    /// Malformed orders that were refused, and what the first refusal said.
    pub(super) refused: usize,
    pub(super) refusal: String,
    /// The broker that was killed.
    pub(super) killed: usize,
    pub(super) killed_pid: u32,
    /// Acknowledged events per second until then.
    pub(super) events_per_second: f64,
    /// Longest pause between two acknowledgements after that.
    pub(super) gap: Duration,
    /// Whatever was not as it should be.
    pub(super) problems: Vec<String>,
}

/// Publishes this many orders, and some malformed ones among them.
pub(super) async fn publish(
    client: &Client,
    cluster: &mut Cluster,
    stream: &str,
    events: usize,
) -> anyhow::Result<Published> {
    let publisher = client.publisher(stream, PublisherOptions::default()).await?;
    let batches = batches(events);
    let half = batches.len() / 2;
    let mut result = Published::default();
    let mut pending = VecDeque::new();
    let begin = Instant::now();
    let mut last = begin;
    for (place, batch) in batches.into_iter().enumerate() {
        if place == half {
            result.events_per_second = per_second(result.acknowledged.len(), begin);
            // Some batches are on their way: their fate is in doubt, and must come out right.
            let leader = leader(client, cluster, stream).await?;
            result.killed = leader;
            last = Instant::now();
            result.killed_pid = cluster.kill(leader).await?;
        }
        let events = batch.iter().map(|order| order.event.clone()).collect();
        pending.push_back((batch, publisher.publish_batch(events).await?));
        if pending.len() == WINDOW
            && let Some(oldest) = pending.pop_front()
        {
            result.settle(oldest, &mut last).await;
        }
    }
    while let Some(oldest) = pending.pop_front() {
        result.settle(oldest, &mut last).await;
    }
    publisher.close().await;
    Ok(result)
}

#[derive(Debug)]
struct Order {
    id: String,
    event: Bytes,
    malformed: bool,
}

fn batches(events: usize) -> Vec<Vec<Order>> {
    let numbers: Vec<usize> = (0..events).collect();
    let count = numbers.len().div_ceil(BATCH);
    let every = (count / MALFORMED_BATCHES).max(1);
    let batch = |(place, numbers): (usize, &[usize])| {
        let good = |&number: &usize| Order {
            id: orders::id(number),
            event: orders::order(number),
            malformed: false,
        };
        let mut batch: Vec<_> = numbers.iter().map(good).collect();
        if place % every == 0 && place / every < MALFORMED_BATCHES {
            let event = orders::malformed(place);
            let middle = batch.len() / 2;
            batch
                .insert(middle, Order { id: format!("malformed {place}"), event, malformed: true });
        }
        batch
    };
    numbers.chunks(BATCH).enumerate().map(batch).collect()
}

/// The number of the broker that leads the stream's only partition.
async fn leader(client: &Client, cluster: &Cluster, stream: &str) -> anyhow::Result<usize> {
    let deadline = Instant::now() + LEADER_MAX;
    loop {
        let routes = client.route(stream).await?;
        if let Some(address) = routes.first().and_then(|route| route.leader_address.as_deref()) {
            let number = cluster.number_of(address);
            return number.with_context(|| format!("the leader {address} is none of the brokers"));
        }
        if Instant::now() >= deadline {
            bail!("stream {stream} has no leader");
        }
        sleep(POLL).await;
    }
}

impl Published {
    async fn settle(&mut self, (batch, pending): (Vec<Order>, PendingBatch), last: &mut Instant) {
        let outcome = pending.outcome().await;
        let now = Instant::now();
        if self.killed != 0 {
            self.gap = self.gap.max(now - *last);
        }
        *last = now;
        for (order, result) in batch.iter().zip(outcome.receipts()) {
            self.note(order, result);
        }
    }

    fn note(&mut self, order: &Order, result: Result<Receipt, Error>) {
        let id = &order.id;
        match result {
            Ok(_) if order.malformed => {
                self.problems.push(format!("the {id} order was accepted"));
            }
            Ok(receipt) => {
                self.recognised += usize::from(receipt.duplicate);
                self.acknowledged.push(Seen {
                    partition: receipt.partition.get(),
                    offset: receipt.offset.get(),
                    id: id.clone(),
                });
            }
            Err(error) if order.malformed && is_fault(&error) => {
                self.refused += 1;
                if self.refusal.is_empty() {
                    let pointer = error.field().unwrap_or_default();
                    self.refusal = format!("{} at {pointer}: {error}", error.reason().as_str());
                }
            }
            Err(error) => self.problems.push(format!(
                "{id}: {} {} ({})",
                error.reason().as_str(),
                error,
                error.field().unwrap_or("no field")
            )),
        }
    }
}

/// Whether the refusal is for the right reason and points at the right place.
fn is_fault(error: &Error) -> bool {
    error.reason() == Reason::SchemaViolation
        && error.field().is_some_and(|field| field.ends_with(orders::FAULT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_published_once_and_some_malformed_ones() {
        for events in [100, 5_000, 5_001] {
            let all: Vec<_> = batches(events).into_iter().flatten().collect();

            let good = all.iter().filter(|order| !order.malformed);
            let ids: Vec<_> = good.map(|order| order.id.clone()).collect();
            assert_eq!(ids, (0..events).map(orders::id).collect::<Vec<_>>());
            assert!(all.len() > events, "{events}");
        }
    }
}
