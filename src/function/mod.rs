//! `weft function`: deploys, lists, describes and deletes functions; shows their logs; shares
//! events out among their revisions.

mod invoke;
mod revisions;

use std::process::ExitCode;

use clap::Subcommand;
use weft_client::proto::v1;
use weft_client::{Client, spec_of, status_of};
use weft_proto::resource::{FunctionSpec, FunctionStatus, Kind, TrafficSpec};

use crate::delete::delete;
use crate::output::{Format, Out};
use crate::{apply, get};

/// Arguments of `weft function`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Deploy functions from a file
    #[command(after_help = "\
Example:
  apiVersion: weft/v1
  kind: Function
  metadata:
    name: billing
  spec:
    command: [./billing]
    triggers:
      - stream: orders
        start: earliest
    scaling: {max: 4}

  weft function deploy -f billing.yaml

The function is an HTTP server on the port in $PORT; it gets each event as a CloudEvent by POST.")]
    Deploy {
        /// The file; - is standard input
        #[arg(short, long, value_name = "FILE")]
        file: String,
        /// Check everything and show what would change; change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List functions and how they are doing
    List,
    /// Show a function: what it shall be, and how it is doing
    Describe {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// Show the newest lines that the instances of a function wrote, at most 100
    Logs {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// List the revisions of a function, the newest first
    Revisions {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// Share the events of a function out among revisions
    #[command(after_help = "\
Which events a revision gets is decided by a hash of their key: all events of a key go to the same one.

Examples:
  weft function split billing billing-00002=90 latest=10
  weft function split billing latest=100")]
    Split {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// REVISION=PERCENT; together 100
        #[arg(required = true, value_parser = revisions::part)]
        parts: Vec<TrafficSpec>,
    },
    /// Give all events of a function to an earlier revision
    #[command(after_help = "\
Without --to it is the one before that which gets most of them now. The definition stays; weft function
split NAME latest=100 goes on with it.")]
    Rollback {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// The revision
        #[arg(long, value_name = "REVISION")]
        to: Option<String>,
    },
    /// Send one event to a function and tell what came of it
    #[command(after_help = "\
The event is published to the stream of the trigger: whoever else reads that gets it as well.

Examples:
  weft function invoke billing --type order.placed --data '{\"total\":5}'
  weft function invoke billing --event order.json

Exit codes: 0 done; 1 anything else; 2 wrong usage.")]
    Invoke(Box<invoke::Args>),
    /// Deliver what a function gave up again, to whichever revision gets its events now
    #[command(after_help = "\
Examples:
  weft function rollback billing
  weft function redrive billing --failed-by billing-00003 --dry-run")]
    Redrive {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// The trigger whose dead letters they are
        #[arg(long, default_value = "default")]
        trigger: String,
        /// Only what failed at this revision last
        #[arg(long, value_name = "REVISION")]
        failed_by: Option<String>,
        /// Count them, and deliver nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a function; its events in flight end first
    Delete {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Deploy { file, dry_run } => return deploy(client, &file, dry_run, format).await,
        Verb::List => list(client, format).await?,
        Verb::Describe { name } => describe(client, &name, format).await?,
        Verb::Logs { name } => logs(client, &name, format).await?,
        Verb::Revisions { name } => revisions::list(client, &name, format).await?,
        Verb::Split { name, parts } => revisions::split(client, &name, parts, format).await?,
        Verb::Rollback { name, to } => revisions::rollback(client, &name, to, format).await?,
        Verb::Invoke(args) => return invoke::run(*args, client, format).await,
        Verb::Redrive { name, trigger, failed_by, dry_run } => {
            let failed_by = failed_by.as_deref();
            revisions::redrive(client, &name, &trigger, failed_by, dry_run, format).await?;
        }
        Verb::Delete { name } => delete(client, Kind::Function, &name, format).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn deploy(
    client: &Client,
    file: &str,
    dry_run: bool,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let manifests = apply::read(file)?;
    let other = manifests.iter().find(|m| m.kind.parse::<Kind>().ok() != Some(Kind::Function));
    if let Some(other) = other {
        anyhow::bail!("{file} has a {}; weft apply -f {file} takes all kinds", other.kind);
    }
    apply::apply(client, &manifests, dry_run, format).await
}

async fn list(client: &Client, format: Format) -> anyhow::Result<()> {
    let functions = client.catalog().list(Kind::Function, "").await?;
    if format != Format::Table {
        return get::export(&functions, format);
    }
    let rows = functions.iter().map(|function| {
        let spec: FunctionSpec = spec_of(function)?;
        let status: FunctionStatus = status_of(function)?;
        let streams = spec.triggers.iter().map(|trigger| trigger.stream.as_str());
        Ok(vec![
            get::name_of(function),
            state_of(function, &status),
            format!("{}/{}", status.instances.ready, spec.scaling.max),
            status.triggers.iter().map(|trigger| trigger.lag).sum::<u64>().to_string(),
            streams.collect::<Vec<_>>().join(" "),
        ])
    });
    let rows = rows.collect::<anyhow::Result<_>>()?;
    Out::new().table(&["FUNCTION", "STATE", "INSTANCES", "LAG", "STREAMS"], rows)
}

/// What holds at present, as far as it is about the present spec.
fn state_of(function: &v1::Resource, status: &FunctionStatus) -> String {
    if function.status.is_empty() {
        return "no dispatcher has seen it".to_owned();
    }
    if status.observed_generation < function.generation {
        return "changing".to_owned();
    }
    let holds = status.conditions.iter().filter(|condition| condition.status);
    let words: Vec<_> = holds.map(|condition| condition.kind.as_str()).collect();
    if words.is_empty() { "idle".to_owned() } else { words.join(" ") }
}

async fn describe(client: &Client, name: &str, format: Format) -> anyhow::Result<()> {
    let function = client.catalog().get(Kind::Function, name).await?;
    let status: FunctionStatus = status_of(&function)?;
    if format == Format::Json {
        let spec: serde_json::Value = spec_of(&function)?;
        let value = serde_json::json!({
            "name": get::name_of(&function), "generation": function.generation,
            "spec": spec, "status": status,
        });
        return Out::new().json(&value);
    }
    get::export(std::slice::from_ref(&function), Format::Yaml)?;
    let mut out = Out::new();
    out.line(&format!("\nstate: {}", state_of(&function, &status)))?;
    let instances = status.instances;
    out.line(&format!("instances: {} ready, {} starting\n", instances.ready, instances.starting))?;
    for one in &status.revisions {
        let well = if one.circuit_open { "; it fails, and is only asked now and then" } else { "" };
        let (ready, starting) = (one.instances.ready, one.instances.starting);
        out.line(&format!(
            "revision {}: {}% of the events, {ready} ready, {starting} starting{well}",
            one.name, one.percent
        ))?;
    }
    for condition in status.conditions.iter().filter(|condition| !condition.message.is_empty()) {
        out.line(&format!("{} is {}: {}", condition.kind, condition.status, condition.message))?;
    }
    let rows = status.triggers.iter().map(|trigger| {
        let numbers = [
            trigger.lag,
            trigger.in_flight,
            trigger.delivered,
            trigger.failed,
            trigger.dead,
            trigger.blocked,
        ];
        let numbers = numbers.iter().map(u64::to_string);
        std::iter::once(trigger.name.clone()).chain(numbers).collect()
    });
    let head = ["TRIGGER", "LAG", "IN FLIGHT", "DELIVERED", "FAILED", "DEAD", "BLOCKED"];
    out.table(&head, rows.collect())?;
    for error in &status.last_errors {
        out.line(&format!("error: {error}"))?;
    }
    Ok(out.flush()?)
}

#[expect(clippy::print_stderr, reason = "a remark for people, beside an empty result")]
async fn logs(client: &Client, name: &str, format: Format) -> anyhow::Result<()> {
    let function = client.catalog().get(Kind::Function, name).await?;
    let status: FunctionStatus = status_of(&function)?;
    if status.logs.is_empty() && format != Format::Json {
        eprintln!("{name} wrote nothing of late");
    }
    let mut out = Out::new();
    for line in &status.logs {
        match format {
            Format::Json => out.line(&serde_json::to_string(line)?)?,
            _ => out.line(&format!("{}  {}  {}", line.time, line.instance, line.line))?,
        }
    }
    Ok(out.flush()?)
}
