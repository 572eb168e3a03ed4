//! `weft function`: deploys, lists, describes and deletes functions; shows their logs.

use std::process::ExitCode;

use clap::Subcommand;
use weft_client::proto::v1;
use weft_client::{Client, spec_of, status_of};
use weft_proto::resource::{FunctionSpec, FunctionStatus, Kind};

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
    for condition in status.conditions.iter().filter(|condition| !condition.message.is_empty()) {
        out.line(&format!("{} is {}: {}", condition.kind, condition.status, condition.message))?;
    }
    let rows = status.triggers.iter().map(|trigger| {
        let numbers =
            [trigger.lag, trigger.in_flight, trigger.delivered, trigger.failed, trigger.retrying];
        let numbers = numbers.iter().map(u64::to_string);
        std::iter::once(trigger.name.clone()).chain(numbers).collect()
    });
    let head = ["TRIGGER", "LAG", "IN FLIGHT", "DELIVERED", "FAILED", "RETRYING"];
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
