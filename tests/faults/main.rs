//! Faults: real brokers under load, killed, stopped, cut off and out of disk; then whether anything
//! that they promised was broken.
//!
//! Without arguments, as `cargo test` runs it: the tests of the checkers and a short seeded round.
//! `cargo test --test faults -- campaign --help` tells of the rest.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "of tests, and of the harness they share")]

mod campaign;
mod check;
mod inject;
mod lab;
mod plan;
mod planted;
mod round;
mod scripted;
mod work;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::check::tests;
use self::lab::Lab;
use self::lab::node::Program;
use self::plan::Plan;
use self::round::{Setting, Verdict, play};
use self::work::Lies;

/// Set in a process that has mounts of its own.
const APART: &str = "WEFT_FAULTS_APART";
const NODES: usize = 3;
const DATA_GROUPS: u32 = 3;
/// Of the short piece.
const SEED: u64 = 1;
const KILLS: usize = 20;
const NAMES: [&str; 7] = ["campaign", "round", "summary", "check", "planted", "scripted", "help"];

#[derive(Debug, Parser)]
#[command(name = "faults", about = "Fault injection for clusters of real brokers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays seeded rounds for hours; results go to a file, so that it can be resumed.
    Campaign {
        /// How long, all runs in this folder together.
        #[arg(long, default_value_t = 1.0)]
        hours: f64,
        /// Of the first round; each further round counts one up.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Of the faults of one round.
        #[arg(long, default_value_t = 180)]
        round_seconds: u64,
        /// Goes on with what is in the folder.
        #[arg(long)]
        resume: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Plays the round of one seed again, and keeps its history and logs.
    Round {
        #[arg(long)]
        seed: u64,
        #[arg(long, default_value_t = 180)]
        round_seconds: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Prints the table of a campaign.
    Summary {
        #[arg(long)]
        dir: PathBuf,
    },
    /// Runs brokers that are broken on purpose; each must be caught. Needs a debug build.
    Planted {
        /// Only those whose name contains this.
        #[arg(default_value = "")]
        name: String,
        /// Also plays each round without the bug: nothing may be found then.
        #[arg(long)]
        controls: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Plays schedules that random faults rarely build.
    Scripted {
        /// Only those whose name contains this.
        #[arg(default_value = "")]
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Checks a history that was kept.
    Check { history: PathBuf },
}

#[derive(Debug, Args)]
struct Common {
    /// Where data, histories and results go; on a disk like that of a broker.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The program under test.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_weft"))]
    weft: PathBuf,
    /// Keeps what valid rounds leave, too.
    #[arg(long)]
    keep: bool,
}

impl Common {
    fn setting(self, name: &str, keep: bool) -> anyhow::Result<Setting> {
        let dir = campaign::folder(self.dir, name)?;
        let lab = Arc::new(Lab::new(&dir.join("lab"), NODES)?);
        for (tool, why) in &lab.missing {
            println!("not possible here: {tool:?}: {why}");
        }
        let program = Program { weft: self.weft, data_groups: DATA_GROUPS, env: Vec::new() };
        let keep = keep || self.keep;
        Ok(Setting { lab, program, lies: Lies::default(), dir, keep })
    }
}

fn main() -> ExitCode {
    apart();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("error: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run())
}

/// Becomes this program again, with mounts of its own: nobody else pins a disk whose power fails,
/// and whatever is mounted goes with the process. Without the right to do so it goes on as it is.
fn apart() {
    if std::env::var_os(APART).is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(program);
    // Returns only when it fails.
    _ = command.args(std::env::args_os().skip(1)).env(APART, "1").exec();
}

async fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    // Options of the usual test programs must not fail: cargo hands them to all.
    let first = args.get(1).map_or("", String::as_str);
    let known = NAMES.contains(&first) || ["--help", "-h"].contains(&first);
    let work = async { if known { command(Cli::parse()).await } else { short(&args[1..]).await } };
    // Whatever was mounted or started is taken down on the way out.
    let result = tokio::select! {
        result = work => result,
        stopped = stopped() => stopped,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// SIGINT or SIGTERM.
async fn stopped() -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    anyhow::bail!("stopped by a signal; a campaign goes on with --resume")
}

async fn command(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Campaign { hours, seed, round_seconds, resume, common } => {
            let setting = common.setting("campaign", false)?;
            let time = Duration::from_secs_f64(hours * 3_600.0);
            let round = Duration::from_secs(round_seconds);
            campaign::run(&setting, seed, time, round, resume).await
        }
        Command::Round { seed, round_seconds, common } => {
            let setting = common.setting("round", true)?;
            let plan = Plan::random(seed, Duration::from_secs(round_seconds));
            println!("{plan:#?}");
            let outcome = play(&setting, &plan, &format!("round-{seed}")).await?;
            println!("{}", campaign::line(&outcome));
            Ok(outcome.verdict == Verdict::Valid)
        }
        Command::Planted { name, controls, common } => {
            planted::run(&common.setting("planted", true)?, &name, controls).await
        }
        Command::Scripted { name, common } => {
            let setting = common.setting("scripted", false)?;
            scripted::run(&setting, &|script| script.contains(&name)).await
        }
        Command::Summary { dir } => campaign::summary(&dir),
        Command::Check { history } => {
            let mut records = check::history::History::new();
            for line in std::fs::read_to_string(history)?.lines() {
                records.push(serde_json::from_str(line)?);
            }
            let findings = check::check(&records);
            findings.anomalies.iter().for_each(|anomaly| println!("{anomaly}"));
            println!("{:?}", findings.counts);
            Ok(findings.anomalies.is_empty())
        }
    }
}

/// The checkers' own tests, then a round with some kills.
async fn short(args: &[String]) -> anyhow::Result<bool> {
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(*part));
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in tests::NAMES {
            println!("{name}: test");
        }
        println!("short_round: test");
        for name in scripted::short_names() {
            println!("{name}: test");
        }
        return Ok(true);
    }
    let mut good = tests::run(&wanted);
    let scripts = scripted::short_names();
    let script = |name: &str| scripts.contains(&name) && wanted(name);
    if wanted("short_round") || scripts.iter().any(|name| script(name)) {
        let weft = env!("CARGO_BIN_EXE_weft").into();
        let common = Common { dir: None, weft, keep: false };
        let setting = common.setting("short", false)?;
        if wanted("short_round") {
            let outcome = play(&setting, &Plan::short(SEED, KILLS), "short").await?;
            println!("short_round: {}", campaign::line(&outcome));
            good &= outcome.verdict == Verdict::Valid;
        }
        good &= scripted::run(&setting, &script).await?;
        if good {
            std::fs::remove_dir_all(&setting.dir)?;
        }
    }
    Ok(good)
}
