//! `weft demo`: what Weft promises, shown and checked on this machine in less than a minute.

mod check;
mod orders;
mod publish;
mod scenario;

use std::path::Path;
use std::pin::pin;

use anyhow::{Context as _, bail};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_broker::config::Profile;
use weft_client::{Client, Options};
use weft_proto::trace::{Telemetry, Tracer};

use crate::cluster::{Cluster, Plan, Ports};
use crate::{signals, telemetry};

const NODES: usize = 3;

/// Show and check, on three brokers of this machine, what Weft promises.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep the folder with data and logs.
    #[arg(long)]
    keep: bool,
    /// Orders to publish.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    events: u32,
    /// What to log: a level, or a list as in `info,weft_dispatcher=debug`.
    #[arg(long, default_value = "error", value_name = "FILTER")]
    log: String,
}

/// Runs the demo; fails with everything that is not as it should be.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    telemetry::start(&args.log)?;
    let mut folder = tempfile::Builder::new().prefix("weft-demo-").tempdir()?;
    let result = tokio::runtime::Runtime::new()?.block_on(async {
        let stop = signals::stop()?;
        tokio::select! {
            result = play(args, folder.path()) => result,
            () = stop => bail!("stopped before the end"),
        }
    });
    if args.keep {
        folder.disable_cleanup(true);
        say(&format!("data and logs are kept in {}", folder.path().display()));
    }
    result
}

async fn play(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let begin = Instant::now();
    let plan = Plan {
        dir: folder.to_owned(),
        ports: Ports::free(NODES)?,
        data_groups: 2,
        profile: Profile::Small,
        telemetry: Telemetry::default(),
    };
    let dispatcher = plan.dispatcher()?;
    let client = Client::connect(&Options::new(plan.endpoints()))?;
    let mut cluster = Cluster::start(plan).await?;
    step(begin, &format!("{NODES} brokers are ready, as processes {:?}", cluster.pids()));

    let token = CancellationToken::new();
    let mut dispatcher =
        pin!(weft_dispatcher::run(dispatcher, Tracer::default(), token.cancelled()));
    let found = tokio::select! {
        ended = &mut dispatcher => {
            ended.context("the dispatcher failed")?;
            bail!("the dispatcher stopped by itself");
        }
        found = scenario::play(&client, &mut cluster, args.events as usize, begin) => found,
    };
    token.cancel();
    dispatcher.await.context("the dispatcher failed while stopping")?;
    let stopped = cluster.stop().await;
    let mut problems = found?;
    problems.extend(stopped.err().map(|error| error.to_string()));
    if problems.is_empty() {
        step(begin, "all stopped; everything was as promised");
        return Ok(());
    }
    bail!("not as promised:\n  - {}", problems.join("\n  - "))
}

/// Events per second since then.
#[expect(clippy::cast_precision_loss, reason = "a figure for people, of a few digits")]
fn per_second(events: usize, begin: Instant) -> f64 {
    events as f64 / begin.elapsed().as_secs_f64()
}

/// Tells what happened, and how long after the begin.
fn step(begin: Instant, text: &str) {
    say(&format!("{:6.2} s  {text}", begin.elapsed().as_secs_f64()));
}

#[expect(clippy::print_stdout, reason = "the demo is for people who watch it")]
fn say(line: &str) {
    println!("{line}");
}
