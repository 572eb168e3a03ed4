//! `weft stream`: creates, lists, describes and deletes streams, and looks after what waits in them.

use std::process::ExitCode;

use clap::Subcommand;
use weft_client::{Client, Position, PutOptions, Reason, resource_of, spec_of};
use weft_proto::resource::{Kind, MaxAge, Retention, StreamSpec};
use weft_proto::v1;

use crate::delayed;
use crate::delete::delete;
use crate::get;
use crate::output::{Format, Out};

/// Arguments of `weft stream`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a stream
    #[command(after_help = "\
Examples:
  weft stream create orders
  weft stream create clicks --partitions 8 --max-age 24h
  weft stream create ledger --max-age forever
  weft stream create carts --subject-index")]
    Create(Create),
    /// List streams
    List,
    /// Show a stream and its partitions
    Describe {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// List the events that wait for their time (attribute deliverat)
    #[command(after_help = "\
They come partition by partition, in the order in which they were published.

Examples:
  weft stream delayed reminders
  weft stream delayed reminders --limit 5000 -o json")]
    Delayed(delayed::List),
    /// Take an event back that waits for its time: it is not delivered
    #[command(after_help = "\
Examples:
  weft stream cancel-delayed reminders --id r-1
  weft stream cancel-delayed reminders --id r-1 --source /shop

Exit codes: 0 cancelled, now or before; 1 too late, or failed; 2 wrong usage.")]
    CancelDelayed(delayed::Cancel),
    /// Delete a stream and all its events, for good
    Delete {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
}

#[derive(clap::Args, Debug)]
struct Create {
    /// NAME or NAMESPACE/NAME
    name: String,

    /// Number of partitions, fixed for ever; events of one key keep their order
    #[arg(long, default_value_t = 1, value_name = "N")]
    partitions: u32,

    /// How long events stay: 7d, 24h, ... or forever
    #[arg(long, default_value = "7d", value_name = "AGE", value_parser = max_age)]
    max_age: MaxAge,

    /// Bytes that stay in each partition
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,

    /// Events that stay in each partition
    #[arg(long, value_name = "N")]
    max_events: Option<u64>,

    /// Keep the offset of the last event of each subject, so that publishers may expect it
    /// (weft publish --expect-subject); fixed for ever
    #[arg(long)]
    subject_index: bool,
}

fn max_age(text: &str) -> Result<MaxAge, String> {
    MaxAge::try_from(text.to_owned())
}

impl Args {
    pub(crate) fn stream(&self) -> Option<&str> {
        match &self.verb {
            Verb::Create(_) | Verb::List => None,
            Verb::Describe { name } | Verb::Delete { name } => Some(name),
            Verb::Delayed(args) => Some(&args.name),
            Verb::CancelDelayed(args) => Some(&args.name),
        }
    }
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Create(args) => create(args, client, format).await?,
        Verb::List => list(client, format).await?,
        Verb::Describe { name } => describe(&name, client, format).await?,
        Verb::Delayed(args) => delayed::list(args, client, format).await?,
        Verb::CancelDelayed(args) => return delayed::cancel(args, client, format).await,
        Verb::Delete { name } => delete(client, Kind::Stream, &name, format).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: Create, client: &Client, format: Format) -> anyhow::Result<()> {
    let said = |word| Out::new().result((Kind::Stream, &args.name), word, format);
    let spec = StreamSpec {
        partitions: args.partitions,
        retention: Retention {
            max_age: args.max_age,
            max_bytes: args.max_bytes,
            max_events: args.max_events,
        },
        subject_index: args.subject_index,
        ..StreamSpec::default()
    };
    let name = &args.name;
    let resource = resource_of(Kind::Stream, name, &spec)?;
    let options = PutOptions { expected_generation: Some(0), ..PutOptions::default() };
    let Err(error) = client.catalog().put(resource, options).await else {
        return said("created");
    };
    let exists = matches!(error.reason(), Reason::FailedPrecondition | Reason::AlreadyExists);
    if exists && let Some(found) = client.catalog().find(Kind::Stream, name).await? {
        if spec_of::<StreamSpec>(&found)? == spec {
            return said("unchanged");
        }
        anyhow::bail!(
            "stream {name} exists with other settings; see weft get stream {name} -o yaml, \
             and change it with weft apply"
        );
    }
    Err(error.into())
}

async fn list(client: &Client, format: Format) -> anyhow::Result<()> {
    let streams = client.catalog().list(Kind::Stream, "").await?;
    if format != Format::Table {
        return get::export(&streams, format);
    }
    let rows = streams.iter().map(|stream| {
        let spec: StreamSpec = spec_of(stream)?;
        let bindings = spec.schemas.iter().map(|b| format!("{}={}", b.event_type, b.schema));
        Ok(vec![
            get::name_of(stream),
            spec.partitions.to_string(),
            String::from(spec.retention.max_age),
            bindings.collect::<Vec<_>>().join(" "),
        ])
    });
    let rows = rows.collect::<anyhow::Result<_>>()?;
    Out::new().table(&["STREAM", "PARTITIONS", "MAX AGE", "SCHEMAS"], rows)
}

async fn describe(name: &str, client: &Client, format: Format) -> anyhow::Result<()> {
    // Also gives the error that names the command to create it.
    let routes = client.route(name).await?;
    let resource = client.catalog().get(Kind::Stream, name).await?;
    let offsets = client.locate(name, Position::Latest).await?;
    let streams = client.status().await?.streams;
    let full = get::name_of(&resource);
    let stored = streams.into_iter().find(|stored| stored.stream == full);
    let stored = stored.map(|stored| stored.partitions).unwrap_or_default();
    if format == Format::Json {
        let partitions: Vec<_> =
            offsets.iter().map(|at| partition_json(at, &routes, &stored)).collect();
        let spec: serde_json::Value = spec_of(&resource)?;
        let value = serde_json::json!({
            "name": get::name_of(&resource), "spec": spec, "partitions": partitions,
        });
        return Out::new().json(&value);
    }
    get::export(std::slice::from_ref(&resource), Format::Yaml)?;
    let mut out = Out::new();
    out.line("")?;
    let rows = offsets.iter().map(|at| {
        let events = at.latest.saturating_sub(at.earliest);
        let leader = leader_of(at.partition, &routes).unwrap_or_else(|| "ELECTING".to_owned());
        [at.partition.to_string(), at.earliest.to_string(), at.latest.to_string()]
            .into_iter()
            .chain([events.to_string(), bytes_of(at.partition, &stored).to_string(), leader])
            .collect()
    });
    out.table(&["PARTITION", "EARLIEST", "NEXT", "EVENTS", "BYTES", "LEADER"], rows.collect())
}

/// Bytes of the events that are stored, as the asked node sees it.
fn bytes_of(partition: u32, stored: &[v1::PartitionStatus]) -> u64 {
    stored.iter().find(|at| at.partition == partition).map_or(0, |at| at.bytes)
}

fn leader_of(partition: u32, routes: &[v1::PartitionRoute]) -> Option<String> {
    let route = routes.iter().find(|route| route.partition == partition)?;
    route.leader_address.clone()
}

fn partition_json(
    at: &v1::PartitionOffset,
    routes: &[v1::PartitionRoute],
    stored: &[v1::PartitionStatus],
) -> serde_json::Value {
    serde_json::json!({
        "partition": at.partition, "earliest": at.earliest, "next": at.latest,
        "bytes": bytes_of(at.partition, stored),
        "leader": leader_of(at.partition, routes),
    })
}
