//! Publishing as fast as the window allows, or one event after the other.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio::time::Instant;
use weft_client::{AckLevel, Client, PendingBatch, PublisherOptions};
use weft_proto::v1::{PublishRequest, publish_result::Outcome};

use super::bed::{ACK, Bed, Target};
use super::event::{Load, event, payload};
use super::process::{Footprint, cpu_seconds, footprint, written};
use super::times::{Percentiles, Times};
use crate::publish::Ack;

/// What to publish, and where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) how: How,
    /// Wait until the brokers write no more, and tell what they wrote and how much memory they took.
    #[arg(long, conflicts_with = "endpoint")]
    footprint: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// In which form events travel, and how many at once.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
pub(super) struct How {
    /// Events in each call of the publisher.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    batch: u32,
    /// Events on their way at once, over all publishers.
    #[arg(long, default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Publishers that share events and window.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    publishers: u32,
    /// What a message to the cluster holds.
    #[arg(long, value_enum, default_value_t = Form::Joined)]
    form: Form,
    /// When an event is acknowledged.
    #[arg(long, value_enum, default_value_t = ACK)]
    ack: Ack,
}

/// What a message to the cluster holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// Whatever waits, as the publisher of the client library joins it.
    Joined,
    /// What one call of the publisher had; with `--batch 1`, one event.
    Single,
    /// One event, in a call of its own without a publisher.
    Unary,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    nodes: usize,
    #[serde(flatten)]
    published: Published,
    #[serde(flatten)]
    footprint: Option<Footprint>,
}

/// What became of the events.
#[derive(Debug, Serialize)]
pub(super) struct Published {
    ack: Ack,
    size: u32,
    pub(super) events: u64,
    batch: u32,
    window: u32,
    publishers: u32,
    form: Form,
    #[serde(flatten)]
    pub(super) rate: Rate,
    /// From the call of the publisher to the acknowledgement.
    latency_us: Percentiles,
}

/// How fast events went, and what that took.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Rate {
    seconds: f64,
    events_per_second: f64,
    /// Of payload, in units of 1,000,000 bytes.
    megabytes_per_second: f64,
    /// Of this process and the brokers, over payload of 1,000,000,000 bytes. Of this process alone
    /// when the cluster ran already.
    cpu_seconds_per_gb: f64,
    cpu_includes_brokers: bool,
}

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "figures for people, of a few digits")]
    pub(super) fn new(
        events: u64,
        size: u32,
        elapsed: Duration,
        (cpu, brokers): (f64, bool),
    ) -> Self {
        let payload = events as f64 * f64::from(size);
        let seconds = elapsed.as_secs_f64();
        Self {
            seconds,
            events_per_second: events as f64 / seconds,
            megabytes_per_second: payload / seconds / 1e6,
            cpu_seconds_per_gb: cpu / (payload / 1e9),
            cpu_includes_brokers: brokers,
        }
    }

    pub(super) fn events_per_second(&self) -> f64 {
        self.events_per_second
    }
}

pub(super) async fn measure(args: &Publish, bed: &Bed, stream: &str) -> anyhow::Result<Found> {
    let brokers = bed.brokers();
    let before = written(&brokers)?;
    let published = publish(&args.load, args.how, bed, stream).await?;
    let footprint = if args.footprint {
        let payload = f64::from(args.load.size) * f64::from(args.load.events);
        Some(footprint(&brokers, &before, payload).await?)
    } else {
        None
    };
    Ok(Found { nodes: bed.nodes, published, footprint })
}

/// Publishes all events and waits for all acknowledgements; fails when one is not acknowledged.
pub(super) async fn publish(
    load: &Load,
    how: How,
    bed: &Bed,
    stream: &str,
) -> anyhow::Result<Published> {
    let brokers = bed.brokers();
    let payload = payload(load.size);
    let cpu = cpu_seconds(&brokers)?;
    let begin = Instant::now();
    let results = match how.form {
        Form::Unary => vec![unary(load, how, &bed.client, stream, &payload).await?],
        Form::Joined | Form::Single => {
            let numbers = parts(load.events, how.publishers);
            let windows = parts(how.window, how.publishers);
            let publishers = numbers.into_iter().zip(windows).map(|(numbers, share)| {
                let how = How { window: share.end - share.start, ..how };
                window(numbers, how, &bed.client, stream, &payload)
            });
            try_join_all(publishers).await?
        }
    };
    let elapsed = begin.elapsed();
    let cpu = cpu_seconds(&brokers)? - cpu;
    let mut all = Times::new()?;
    let mut events = 0;
    for (stored, times) in results {
        events += stored;
        all.add(&times)?;
    }
    Ok(Published {
        ack: how.ack,
        size: load.size,
        events,
        batch: how.batch,
        window: how.window,
        publishers: how.publishers,
        form: how.form,
        rate: Rate::new(events, load.size, elapsed, (cpu, !brokers.is_empty())),
        latency_us: all.percentiles(),
    })
}

/// Cuts a range into parts of about equal length. Events need numbers of their own: the broker
/// takes one that it has seen for a repetition.
fn parts(whole: u32, count: u32) -> Vec<Range<u32>> {
    let length = |place| whole / count + u32::from(place < whole % count);
    let mut end = 0;
    let part = |place| {
        let begin = end;
        end += length(place);
        begin..end
    };
    (0..count).map(part).collect()
}

/// One publisher that keeps its window full. Answers how many events are stored.
async fn window(
    numbers: Range<u32>,
    how: How,
    client: &Client,
    stream: &str,
    payload: &Bytes,
) -> anyhow::Result<(u64, Times)> {
    let mut options = PublisherOptions { ack: how.ack.into(), ..PublisherOptions::default() };
    if how.form == Form::Single {
        options.batch_events_max = how.batch as usize;
    }
    let publisher = client.publisher(stream, options).await?;
    let calls = (how.window / how.batch).max(1) as usize;
    let mut open: VecDeque<(Instant, PendingBatch)> = VecDeque::new();
    let mut times = Times::new()?;
    let mut stored = 0;
    let mut next = numbers.start;
    while next < numbers.end || !open.is_empty() {
        while next < numbers.end && open.len() < calls {
            let end = next.saturating_add(how.batch).min(numbers.end);
            let events = (next..end).map(|number| event(number, payload)).collect();
            next = end;
            let sent = Instant::now();
            open.push_back((sent, publisher.publish_batch(events).await?));
        }
        if let Some((sent, pending)) = open.pop_front() {
            let outcome = pending.outcome().await;
            if let Some(error) = outcome.first_error() {
                return Err(error).context("an event was not acknowledged");
            }
            stored += outcome.stored() as u64;
            times.record_since(sent, outcome.stored() as u64)?;
        }
    }
    publisher.close().await;
    Ok((stored, times))
}

/// A call for each event, so many at once.
async fn unary(
    load: &Load,
    how: How,
    client: &Client,
    stream: &str,
    payload: &Bytes,
) -> anyhow::Result<(u64, Times)> {
    let call = |number| async move {
        let sent = Instant::now();
        let request = PublishRequest {
            stream: stream.to_owned(),
            events: vec![event(number, payload)],
            ack: AckLevel::from(how.ack).to_wire().into(),
            ..PublishRequest::default()
        };
        let results = client.publish_once(request).await?;
        let outcome = results.into_iter().next().and_then(|result| result.outcome);
        match outcome {
            Some(Outcome::Receipt(_)) => anyhow::Ok(sent),
            _ => anyhow::bail!("an event was not acknowledged: {outcome:?}"),
        }
    };
    let calls = futures::stream::iter(0..load.events).map(call);
    let mut calls = pin!(calls.buffer_unordered(how.window as usize));
    let mut times = Times::new()?;
    let mut stored = 0;
    while let Some(sent) = calls.try_next().await? {
        stored += 1;
        times.record_since(sent, 1)?;
    }
    Ok((stored, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole_and_differ_by_one_at_most() {
        assert_eq!(parts(10, 3), [0..4, 4..7, 7..10]);
        assert_eq!(parts(2, 3), [0..1, 1..2, 2..2]);
        assert_eq!(parts(u32::MAX, 1), std::iter::once(0..u32::MAX).collect::<Vec<_>>());
    }
}
