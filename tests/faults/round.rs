//! One round: a new cluster, its clients, the faults of a plan, the final reads, the verdict.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep};
use weft_client::{Client, PutOptions, resource_of};
use weft_proto::resource::Kind;

use crate::check::history::{Injected, Record};
use crate::check::{Class, Counts, check};
use crate::inject::{heal, inject};
use crate::lab::cluster::Cluster;
use crate::lab::node::{Node, Program};
use crate::lab::{Lab, Tool};
use crate::plan::Plan;
use crate::work::recorder::Recorder;
use crate::work::{Lies, PARTITIONS, STREAMS, Work, finals, lent};

/// Anomalies that a result shows; all are counted.
const SHOWN: usize = 20;
/// Clients have to get something done before anything is done to the cluster.
const BEGIN_MAX: Duration = Duration::from_secs(30);
const BEGIN_ACKS: u64 = 20;
/// What a partition of the second stream keeps.
const EVENTS_MAX: u64 = 3_000;
/// And once all is well again.
const RECOVER_MAX: Duration = Duration::from_mins(1);
const RECOVER_ACKS: u64 = 20;

/// Whether the promises were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// They were.
    Valid,
    /// They were not.
    Invalid,
    /// Nobody can tell: the harness, or a fault, did not work. Not good enough.
    Unknown,
}

/// How often a fault took hold, could not, or may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hits {
    pub(crate) installed: u64,
    pub(crate) skipped: u64,
    pub(crate) indeterminate: u64,
}

/// What became of a round; a line of the file of results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) verdict: Verdict,
    pub(crate) anomalies: BTreeMap<Class, usize>,
    pub(crate) examples: Vec<String>,
    /// Panics, ends that nobody asked for, and a cluster that does not recover.
    pub(crate) complaints: Vec<String>,
    /// Why the verdict is unknown.
    pub(crate) doubts: Vec<String>,
    pub(crate) faults: BTreeMap<String, Hits>,
    pub(crate) counts: Counts,
    /// Waits for an acknowledgement in milliseconds, by the kind of fault.
    #[serde(default)]
    pub(crate) waits: BTreeMap<String, Vec<u64>>,
    pub(crate) seconds: u64,
    /// Where the history and the logs are, when they were kept.
    pub(crate) kept: Option<PathBuf>,
}

/// What a round needs beside its plan.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) lab: Arc<Lab>,
    pub(crate) program: Program,
    pub(crate) lies: Lies,
    /// A folder for each round is made here.
    pub(crate) dir: PathBuf,
    /// Also what a valid round leaves is kept.
    pub(crate) keep: bool,
}

/// Plays a round to its end. An error of the harness is a round of unknown verdict.
pub(crate) async fn play(setting: &Setting, plan: &Plan, name: &str) -> anyhow::Result<Outcome> {
    let folder = setting.dir.join(name);
    // An earlier run was stopped in the middle of this round.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let begin = Instant::now();
    let recorder = Arc::new(Recorder::new(&folder.join("history.jsonl"))?);
    let mut complaints = Vec::new();
    let mut doubts = Vec::new();
    if let Err(error) = events(setting, plan, &folder, &recorder, &mut complaints).await {
        doubts.push(format!("{error:#}"));
    }
    let history = recorder.finish()?;
    let findings = check(&history);
    let faults = hits(&history);
    for (name, hits) in faults.iter().filter(|(_, hits)| hits.indeterminate > 0) {
        doubts.push(format!("{name}: nobody knows whether {} took hold", hits.indeterminate));
    }
    if findings.counts.acked == 0 || findings.counts.final_reads == 0 {
        doubts.push("nothing was acknowledged, or nothing read in the end".to_owned());
    }
    let bad = !findings.anomalies.is_empty() || !complaints.is_empty();
    let verdict = match (bad, doubts.is_empty()) {
        (true, _) => Verdict::Invalid,
        (false, true) => Verdict::Valid,
        (false, false) => Verdict::Unknown,
    };
    let kept = (setting.keep || verdict != Verdict::Valid).then(|| folder.clone());
    let outcome = Outcome {
        plan: plan.clone(),
        verdict,
        anomalies: findings.classes(),
        examples: findings.anomalies.iter().take(SHOWN).map(ToString::to_string).collect(),
        complaints,
        doubts,
        faults,
        counts: findings.counts,
        waits: findings.waits,
        seconds: begin.elapsed().as_secs(),
        kept,
    };
    fs::write(folder.join("outcome.json"), serde_json::to_vec_pretty(&outcome)?)?;
    if outcome.kept.is_none() {
        fs::remove_dir_all(&folder)?;
    }
    Ok(outcome)
}

async fn events(
    setting: &Setting,
    plan: &Plan,
    folder: &Path,
    recorder: &Arc<Recorder>,
    complaints: &mut Vec<String>,
) -> anyhow::Result<()> {
    let (lab, program) = (Arc::clone(&setting.lab), setting.program.clone());
    let mut cluster = Cluster::new(lab, program, folder, plan.nodes, plan.disk)?;
    cluster.start()?;
    cluster.ready().await?;
    make_streams(&cluster).await?;
    let work = Work::start(&cluster, recorder, setting.lies)?;
    if !acknowledged(recorder, BEGIN_ACKS, BEGIN_MAX).await {
        anyhow::bail!("a healthy cluster acknowledges nothing");
    }
    sleep(Duration::from_millis(plan.quiet)).await;
    for &(fault, wait) in &plan.steps {
        inject(&mut cluster, fault, recorder).await?;
        sleep(Duration::from_millis(wait)).await;
    }
    heal(&mut cluster)?;
    cluster.ready().await?;
    if !acknowledged(recorder, RECOVER_ACKS, RECOVER_MAX).await {
        complaints.push(format!("nothing is acknowledged {RECOVER_MAX:?} after the last fault"));
    }
    complaints.extend(work.stop().await?);
    complaints.extend(finals::read(&cluster, recorder).await.context("the final reads")?);
    if setting.lab.has(Tool::Shim) {
        for node in &cluster.nodes {
            anyhow::ensure!(node.control.calls()? > 0, "the shim of node {} is blind", node.number);
        }
    }
    cluster.nodes.iter_mut().for_each(Node::look);
    complaints.extend(cluster.complaints()?);
    Ok(())
}

async fn make_streams(cluster: &Cluster) -> anyhow::Result<()> {
    let client = Client::connect(&cluster.options())?;
    // Retries must be recognised by their numbers alone in one of them, and floors must rise.
    let specs = [
        json!({ "partitions": PARTITIONS }),
        json!({ "partitions": PARTITIONS, "dedup": false, "retention": { "max_events": EVENTS_MAX } }),
        json!({ "partitions": PARTITIONS }),
    ];
    for (name, spec) in STREAMS.into_iter().zip(&specs) {
        let resource = resource_of(Kind::Stream, name, spec)?;
        client.catalog().put(resource, PutOptions::default()).await?;
    }
    lent::create(&client).await
}

/// Waits for so many more acknowledgements.
async fn acknowledged(recorder: &Recorder, more: u64, limit: Duration) -> bool {
    let (begin, before) = (Instant::now(), recorder.acked());
    while recorder.acked() < before + more {
        if begin.elapsed() > limit {
            return false;
        }
        sleep(Duration::from_millis(50)).await;
    }
    true
}

fn hits(history: &[Record]) -> BTreeMap<String, Hits> {
    let mut faults: BTreeMap<String, Hits> = BTreeMap::new();
    for record in history {
        let Record::Fault { name, state, .. } = record else { continue };
        let hits = faults.entry(name.clone()).or_default();
        match state {
            Injected::Installed => hits.installed += 1,
            Injected::Skipped => hits.skipped += 1,
            Injected::Indeterminate => hits.indeterminate += 1,
            Injected::Begun | Injected::Healed => {}
        }
    }
    faults
}
