//! The load: publishes to a stream of its own, and reads it back.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use prost::Message as _;
use rand::Rng as _;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use weft_client::{Client, PendingBatch, PublisherOptions, ReadItem, ReadOptions};
use weft_client::{PutOptions, resource_of};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::Data;
use weft_proto::resource::Kind;

use super::machine::{cpu_seconds, micros};
use super::{Args, Load};

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    p50: u64,
    p99: u64,
    p999: u64,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) events: u64,
    pub(super) elapsed: Duration,
    pub(super) latency: Latency,
    pub(super) cpu_seconds: f64,
}

/// Measures on a stream that exists for this purpose only.
pub(super) async fn measure(
    args: &Args,
    load: &Load,
    client: &Client,
    brokers: &[u32],
) -> anyhow::Result<Measured> {
    let stream = format!("bench-{:016x}", rand::random::<u64>());
    let resource = resource_of(Kind::Stream, &stream, &json!({}))?;
    client.catalog().put(resource, PutOptions::default()).await?;
    let measured = on_stream(args, load, (client, &stream), brokers).await;
    let deleted = client.catalog().delete(Kind::Stream, &stream, None).await;
    let measured = measured?;
    deleted.with_context(|| format!("cannot delete the stream {stream}"))?;
    Ok(measured)
}

async fn on_stream(
    args: &Args,
    load: &Load,
    (client, stream): (&Client, &str),
    brokers: &[u32],
) -> anyhow::Result<Measured> {
    let published = publish(load, client, stream, brokers).await?;
    match args {
        Args::Publish(_) => Ok(published),
        Args::Replay(_) => {
            let cpu = cpu_seconds(brokers)?;
            let begin = Instant::now();
            let events = read(client, stream).await?;
            let elapsed = begin.elapsed();
            if events != published.events {
                bail!("{} events were acknowledged, but {events} are read", published.events);
            }
            let cpu_seconds = cpu_seconds(brokers)? - cpu;
            Ok(Measured { elapsed, cpu_seconds, ..published })
        }
    }
}

async fn publish(
    load: &Load,
    client: &Client,
    stream: &str,
    brokers: &[u32],
) -> anyhow::Result<Measured> {
    let publisher = client.publisher(stream, PublisherOptions::default()).await?;
    let window = (load.window / load.batch).max(1) as usize;
    // Random, so that neither disk nor wire can compress it.
    let mut payload = vec![0; load.size as usize];
    rand::rng().fill_bytes(&mut payload);
    let payload = Bytes::from(payload);
    let mut window_open: VecDeque<(Instant, PendingBatch)> = VecDeque::new();
    let mut times = Histogram::<u64>::new(3)?;
    let mut stored = 0;
    let mut next = 0;
    let cpu = cpu_seconds(brokers)?;
    let begin = Instant::now();
    while next < load.events || !window_open.is_empty() {
        while next < load.events && window_open.len() < window {
            let end = next.saturating_add(load.batch).min(load.events);
            let events = (next..end).map(|number| event(number, &payload)).collect();
            next = end;
            let sent = Instant::now();
            window_open.push_back((sent, publisher.publish_batch(events).await?));
        }
        if let Some((sent, pending)) = window_open.pop_front() {
            let outcome = pending.outcome().await;
            if let Some(error) = outcome.first_error() {
                return Err(error).context("an event was not acknowledged");
            }
            stored += outcome.stored() as u64;
            times.record_n(micros(sent), outcome.stored() as u64)?;
        }
    }
    let elapsed = begin.elapsed();
    let cpu_seconds = cpu_seconds(brokers)? - cpu;
    publisher.close().await;
    let latency = Latency {
        p50: times.value_at_quantile(0.5),
        p99: times.value_at_quantile(0.99),
        p999: times.value_at_quantile(0.999),
    };
    Ok(Measured { events: stored, elapsed, latency, cpu_seconds })
}

fn event(number: u32, payload: &Bytes) -> Bytes {
    let event = CloudEvent {
        id: number.to_string(),
        source: "/weft/bench".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "dev.weft.bench".to_owned(),
        data: Some(Data::BinaryData(payload.clone())),
        ..CloudEvent::default()
    };
    event.encode_to_vec().into()
}

/// Number of events from the first to the present end.
async fn read(client: &Client, stream: &str) -> anyhow::Result<u64> {
    let mut reader = client.read(ReadOptions::all(stream)).await?;
    while let Some(item) = reader.next().await? {
        // Only the count is of interest; the reader has checked that offsets rise.
        if let ReadItem::Batch(batch) = item {
            drop(batch);
        }
    }
    Ok(reader.summary().events)
}
