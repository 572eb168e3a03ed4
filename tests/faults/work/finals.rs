//! After all faults: what each replica has, asked for by fresh clients, from the floor to the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep, timeout};
use weft_client::{Client, Error, ErrorKind, Options, Position, ReadItem, ReadOptions, Reason};

use super::event::seen;
use super::recorder::Recorder;
use super::{PARTITIONS, STREAMS};
use crate::check::history::{Key, Record, Seen};
use crate::lab::cluster::Cluster;

/// For replicas to have the same.
const SAME_MAX: Duration = Duration::from_mins(1);
const READ_MAX: Duration = Duration::from_mins(3);
const PAUSE: Duration = Duration::from_millis(250);

type Bounds = BTreeMap<Key, (u64, u64)>;

/// Reads everything from each node. The answer says what is wrong when they never agree; what they
/// have is noted all the same.
pub(crate) async fn read(
    cluster: &Cluster,
    recorder: &Arc<Recorder>,
) -> anyhow::Result<Option<String>> {
    let mut clients = Vec::new();
    for node in &cluster.nodes {
        // Patient ones: there is no fault any more, and a busy machine is none.
        clients.push(Client::connect(&Options::new([node.endpoint()]))?);
    }
    let (bounds, complaint) = settled(&clients).await?;
    for (node, client) in clients.iter().enumerate() {
        for (stream, name) in (0..).zip(STREAMS) {
            for partition in 0..PARTITIONS {
                let key = Key { stream, partition };
                let &(floor, end) = bounds[node].get(&key).context("a partition is missing")?;
                let read = above_floor(client, name, key, floor);
                let (floor, seen) = timeout(READ_MAX, read)
                    .await
                    .with_context(|| format!("{key} of node {node} cannot be read in time"))?
                    .with_context(|| format!("reading {key} of node {node}"))?;
                recorder.add(|t| Record::Final { t, node, key, floor, end, seen });
            }
        }
    }
    Ok(complaint)
}

/// Waits until all nodes end at the same offsets.
async fn settled(clients: &[Client]) -> anyhow::Result<(Vec<Bounds>, Option<String>)> {
    let begin = Instant::now();
    loop {
        let mut all = Vec::new();
        let mut silent = None;
        for (node, client) in clients.iter().enumerate() {
            match bounds_of(client).await {
                Ok(bounds) => all.push(bounds),
                Err(error) => silent = Some(format!("node {node} does not answer: {error}")),
            }
        }
        if silent.is_none() && all.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok((all, None));
        }
        if begin.elapsed() > SAME_MAX {
            if let Some(silent) = silent {
                bail!(silent);
            }
            let what = format!("the replicas differ after {SAME_MAX:?}: {all:?}");
            return Ok((all, Some(what)));
        }
        sleep(PAUSE).await;
    }
}

async fn bounds_of(client: &Client) -> weft_client::Result<Bounds> {
    let mut bounds = Bounds::new();
    for (stream, name) in (0..).zip(STREAMS) {
        let offsets = match client.locate(name, Position::Latest).await {
            // With the stream, all its events are gone: a loss for the checkers to name.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                for partition in 0..PARTITIONS {
                    bounds.insert(Key { stream, partition }, (0, 0));
                }
                continue;
            }
            located => located?,
        };
        for offset in offsets {
            let key = Key { stream, partition: offset.partition };
            bounds.insert(key, (offset.earliest, offset.latest));
        }
    }
    Ok(bounds)
}

/// Retention may raise the floor while we look.
async fn above_floor(
    client: &Client,
    stream: &str,
    key: Key,
    mut floor: u64,
) -> anyhow::Result<(u64, Vec<Seen>)> {
    loop {
        match partition_of(client, stream, key, floor).await {
            Err(error) if error.reason() == Reason::UnknownStream => {
                return Ok((floor, Vec::new()));
            }
            Ok(seen) => return Ok((floor, seen)),
            Err(error) if error.reason() == Reason::OffsetOutOfRange => {
                let bounds = bounds_of(client).await?;
                let risen = bounds.get(&key).map_or(floor, |(risen, _)| *risen);
                if risen <= floor {
                    return Err(error.into());
                }
                floor = risen;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who follows a stream reads from the node that it asks; a range would be read from the leader.
async fn partition_of(
    client: &Client,
    stream: &str,
    key: Key,
    floor: u64,
) -> weft_client::Result<Vec<Seen>> {
    let options = ReadOptions {
        partitions: vec![key.partition],
        from: Position::Offset(weft_proto::Offset(floor)),
        ..ReadOptions::follow(stream)
    };
    let mut reader = client.read(options).await?;
    let mut found = Vec::new();
    loop {
        match reader.next().await? {
            Some(ReadItem::Batch(batch)) => {
                found.extend(batch.events.iter().map(|(at, event)| seen(at.get(), event)));
            }
            Some(ReadItem::CaughtUp) => return Ok(found),
            None => return Err(Error::internal("a read that follows ended")),
        }
    }
}
