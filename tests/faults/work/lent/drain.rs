//! The end of the members' work: all is settled, and what was given up is listed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weft_client::{Client, Options, Position};
use weft_proto::v1::StatusResponse;

use super::{STREAM, SUBSCRIPTIONS};
use crate::check::history::Record;
use crate::work::event::{replayed, seen};
use crate::work::recorder::Recorder;
use crate::work::{PARTITIONS, STREAMS};

/// For everything to be settled: leases end, what was given back comes again.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(90);
pub(super) const PAUSE: Duration = Duration::from_millis(250);
/// Dead letters listed at once.
const PAGE: u32 = 500;

/// Waits until all nodes say that everything is settled. The answer says what is not.
pub(super) async fn drained(endpoints: &[String]) -> anyhow::Result<Option<String>> {
    let mut nodes = Vec::new();
    for endpoint in endpoints {
        nodes.push(Client::connect(&Options::new([endpoint]))?);
    }
    let begin = Instant::now();
    loop {
        let mut left = Vec::new();
        for (node, client) in nodes.iter().enumerate() {
            match left_of(client).await {
                Ok(of_node) => {
                    left.extend(of_node.into_iter().map(|one| format!("node {node}: {one}")));
                }
                Err(error) => left.push(format!("node {node} does not answer: {error}")),
            }
        }
        if left.is_empty() {
            return Ok(None);
        }
        if begin.elapsed() > DRAIN_MAX {
            let what = left.join("; ");
            return Ok(Some(format!("not everything is settled after {DRAIN_MAX:?}: {what}")));
        }
        sleep(PAUSE).await;
    }
}

/// What is not settled, as one node knows it.
async fn left_of(client: &Client) -> weft_client::Result<Vec<String>> {
    let offsets = client.locate(STREAMS[STREAM as usize], Position::Latest).await?;
    let status = client.status().await?;
    let mut left = Vec::new();
    for (name, _) in SUBSCRIPTIONS {
        for partition in 0..PARTITIONS {
            let end = offsets.iter().find(|one| one.partition == partition).map(|one| one.latest);
            let cursor = watermark(&status, name, partition);
            if cursor < end {
                left.push(format!("{name}/{partition} is at {cursor:?} of {end:?}"));
            }
        }
    }
    Ok(left)
}

fn watermark(status: &StatusResponse, subscription: &str, partition: u32) -> Option<u64> {
    let of = |name: &str| name.rsplit('/').next() == Some(subscription);
    let own = status.subscriptions.iter().find(|one| of(&one.subscription))?;
    let cursor = own.cursors.iter().find(|cursor| cursor.partition == partition)?;
    Some(cursor.watermark)
}

/// Notes all dead letters.
pub(super) async fn letters(client: &Client, recorder: &Recorder) -> anyhow::Result<()> {
    for (subscription, (name, _)) in (0..).zip(SUBSCRIPTIONS) {
        // Of the subscription itself also where there are none: then it is known.
        let mut by_job = BTreeMap::from([(0, Vec::new())]);
        let mut page = String::new();
        loop {
            let answer = client.dead_letters(name, PAGE, &page).await?;
            for letter in answer.letters {
                let job = replayed(&letter.event).map_or(0, |(job, _)| job);
                by_job.entry(job).or_default().push(seen(0, &letter.event).value);
            }
            page = answer.next_page;
            if page.is_empty() {
                break;
            }
        }
        for (job, letters) in by_job {
            recorder.add(|t| Record::Letters { t, subscription, job, letters });
        }
    }
    Ok(())
}
