//! Replay jobs: somebody has stored events delivered again, pauses that, goes on, and gives up.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use weft_client::{Client, Options, Position, PutOptions, Timeouts, resource_of, spec_of};
use weft_proto::resource::{Kind, ReplayJobSpec, ReplayState};

use super::drain::{DRAIN_MAX, PAUSE};
use super::{REPLAYING, STREAM, SUBSCRIPTIONS};
use crate::check::history::{JobEnd, Key, Record};
use crate::work::STREAMS;
use crate::work::event::JOB_PREFIX;
use crate::work::recorder::Recorder;

const PAUSE_MS: std::ops::Range<u64> = 2_000..8_000;
/// Until a job is paused, until it goes on, and until it is cancelled.
const CHANGE_MS: std::ops::Range<u64> = 50..2_500;
/// Each job goes back by so many events in each partition, at most.
const BACK_MAX: u64 = 300;
/// Events a second of a slow job.
const SLOW: u32 = 60;
/// For one call: brokers may be away.
const CALL_MAX: Duration = Duration::from_secs(10);

/// A job that somebody asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    number: u64,
    subscription: usize,
    from: u64,
}

pub(super) struct Jobs {
    client: Client,
    recorder: Arc<Recorder>,
}

impl Jobs {
    pub(super) fn new(endpoints: &[String], recorder: &Arc<Recorder>) -> anyhow::Result<Self> {
        let timeouts = Timeouts { call: CALL_MAX, ..Timeouts::default() };
        let client = Client::connect(&Options { timeouts, ..Options::new(endpoints) })?;
        Ok(Self { client, recorder: Arc::clone(recorder) })
    }

    /// Asks for one job after the other; the answer names all that there may be.
    pub(super) async fn run(self, stop: CancellationToken) -> Vec<Asked> {
        let mut all = Vec::new();
        for number in 1.. {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(Duration::from_millis(rand::random_range(PAUSE_MS))) => {}
            }
            let subscription = rand::random_range(0..REPLAYING);
            let Ok(bounds) = self.client.locate(STREAMS[STREAM as usize], Position::Latest).await
            else {
                continue;
            };
            let latest = bounds.iter().map(|one| one.latest).min().unwrap_or_default();
            let from = latest.saturating_sub(rand::random_range(1..BACK_MAX));
            let job = Asked { number, subscription, from };
            all.push(job.clone());
            self.recorder.add(|t| Record::AskJob { t, job: number, from });
            // What is not answered may have been done all the same.
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = self.play(&job) => false,
            };
            if stopped {
                break;
            }
        }
        all
    }

    /// The life of a job.
    async fn play(&self, job: &Asked) {
        let pace = if rand::random() { json!("fastest") } else { json!({ "per_second": SLOW }) };
        drop(put(&self.client, job, "running", &pace).await);
        let change = async |state, pace| {
            sleep(Duration::from_millis(rand::random_range(CHANGE_MS))).await;
            drop(put(&self.client, job, state, pace).await);
        };
        match rand::random_range(0..8) {
            0 => change("cancelled", &pace).await,
            1..=4 => {
                change("paused", &pace).await;
                change("running", &json!("fastest")).await;
            }
            _ => {}
        }
    }
}

async fn put(client: &Client, job: &Asked, state: &str, pace: &Value) -> weft_client::Result<()> {
    let spec = json!({
        "target": { "subscription": SUBSCRIPTIONS[job.subscription].0 },
        "from": { "offset": job.from },
        "state": state,
        "pace": pace,
    });
    let resource = resource_of(Kind::ReplayJob, &name(job), &spec)?;
    client.catalog().put(resource, PutOptions::default()).await.map(drop)
}

fn name(job: &Asked) -> String {
    format!("{JOB_PREFIX}{}", job.number)
}

/// Waits until all that was asked for is done or cancelled, and notes what it was. The answer says what is
/// not.
pub(super) async fn finish(
    client: &Client,
    asked: &[Asked],
    recorder: &Recorder,
) -> anyhow::Result<Option<String>> {
    let begin = Instant::now();
    loop {
        let mut left = Vec::new();
        for job in asked {
            match look(client, job).await {
                Ok((JobEnd::Open, _)) => left.push(name(job)),
                Ok(_) => {}
                Err(error) => left.push(format!("{} ({error})", name(job))),
            }
        }
        let is_late = begin.elapsed() > DRAIN_MAX;
        if left.is_empty() || is_late {
            for job in asked {
                note(client, job, recorder).await?;
            }
            let what = format!("replay jobs do not end in {DRAIN_MAX:?}: {}", left.join("; "));
            return Ok((!left.is_empty()).then_some(what));
        }
        sleep(PAUSE).await;
    }
}

async fn note(client: &Client, job: &Asked, recorder: &Recorder) -> anyhow::Result<()> {
    let (end, spec) = look(client, job).await?;
    let ranges = spec.resolved.into_iter().flat_map(|range| range.partitions);
    let key = |partition| Key { stream: STREAM, partition };
    let ranges = ranges.map(|range| (key(range.partition), range.from, range.to)).collect();
    let (job, subscription) = (job.number, u32::try_from(job.subscription)?);
    recorder.add(|t| Record::Job { t, job, subscription, ranges, end });
    Ok(())
}

/// How far a job is. One that is not there, or paused, is put once more: an attempt that nobody answered
/// could take hold later, and is then nothing new.
async fn look(client: &Client, job: &Asked) -> weft_client::Result<(JobEnd, ReplayJobSpec)> {
    let mut found = client.catalog().find(Kind::ReplayJob, &name(job)).await?;
    if found.is_none() {
        put(client, job, "running", &json!("fastest")).await?;
        found = Some(client.catalog().get(Kind::ReplayJob, &name(job)).await?);
    }
    let spec: ReplayJobSpec = spec_of(&found.unwrap_or_default())?;
    let end = match spec.state {
        ReplayState::Cancelled => JobEnd::Cancelled,
        ReplayState::Paused => {
            put(client, job, "running", &json!("fastest")).await?;
            JobEnd::Open
        }
        ReplayState::Running => {
            let progress = client.replay_progress(&name(job)).await?;
            let is_done = progress.iter().all(|one| one.watermark >= one.end);
            if is_done { JobEnd::Done } else { JobEnd::Open }
        }
    };
    Ok((end, spec))
}
