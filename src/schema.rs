//! `weft schema`: registers, lists, gets and checks schemas; binds them to streams.

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::value::RawValue;
use weft_client::proto::v1;
use weft_client::{Client, PutOptions, resource_of, spec_of, status_of};
use weft_proto::resource::{
    BindingMode, BindingSpec, BindingVersion, Kind, SchemaFormat, SchemaSpec, SchemaStatus,
    StreamSpec,
};

use crate::apply::read_text;
use crate::get;
use crate::output::{Format, Out};

/// Arguments of `weft schema`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Register a schema, or its next version; the same document again changes nothing
    #[command(after_help = "Example:\n  weft schema register order -f order.schema.json")]
    Register(Document),
    /// Check what register would do, without doing it
    #[command(after_help = "Example:\n  weft schema check order -f order.schema.json")]
    Check(Document),
    /// List schemas
    List,
    /// Show a version of a schema: the document as it was registered
    Get {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// The newest without it
        #[arg(long = "schema-version", value_name = "N")]
        number: Option<u32>,
    },
    /// Let a schema govern events of a type in a stream
    #[command(after_help = "\
The most specific type wins: a type, a prefix that ends in *, or * for all events.

Examples:
  weft schema bind orders --type 'order.*' --schema order
  weft schema bind orders --type 'order.*' --schema order --pin 2
  weft schema bind orders --type 'order.*' --schema order --mode off")]
    Bind(Bind),
}

#[derive(clap::Args, Debug)]
struct Document {
    /// NAME or NAMESPACE/NAME
    name: String,

    /// File with the JSON Schema; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: String,
}

#[derive(clap::Args, Debug)]
struct Bind {
    /// The stream: NAME or NAMESPACE/NAME
    stream: String,

    /// Type of the events: exact, a prefix that ends in *, or *
    #[arg(long = "type", value_name = "TYPE")]
    ty: String,

    /// The schema: NAME or NAMESPACE/NAME
    #[arg(long)]
    schema: String,

    /// Stay with this version; without it the newest governs
    #[arg(long, value_name = "N")]
    pin: Option<u32>,

    /// enforce refuses events that do not fit; off checks nothing
    #[arg(long, default_value = "enforce", value_parser = mode)]
    mode: BindingMode,
}

fn mode(text: &str) -> Result<BindingMode, String> {
    match text {
        "enforce" => Ok(BindingMode::Enforce),
        "off" => Ok(BindingMode::Off),
        _ => Err("write enforce or off".to_owned()),
    }
}

impl Args {
    pub(crate) fn stream(&self) -> Option<&str> {
        match &self.verb {
            Verb::Bind(bind) => Some(&bind.stream),
            _ => None,
        }
    }
}

pub(crate) async fn run(
    args: Args,
    client: &Client,
    format: Option<Format>,
) -> anyhow::Result<()> {
    match args.verb {
        Verb::Register(document) => register(&document, false, client).await,
        Verb::Check(document) => register(&document, true, client).await,
        Verb::List => list(client, format).await,
        Verb::Get { name, number } => show(&name, number, client).await,
        Verb::Bind(bind) => run_bind(&bind, client).await,
    }
}

async fn register(document: &Document, dry_run: bool, client: &Client) -> anyhow::Result<()> {
    let Document { name, file } = document;
    let text = read_text(file)?;
    let document: Box<RawValue> =
        serde_json::from_str(&text).with_context(|| format!("{file} is not JSON"))?;
    let spec = SchemaSpec { format: SchemaFormat::JsonSchema, document };
    let resource = resource_of(Kind::Schema, name, &spec)?;
    let options = PutOptions { dry_run, ..PutOptions::default() };
    let put = client.catalog().put(resource, options).await?;
    let versions = status_of::<SchemaStatus>(&put.resource)?.versions;
    let newest = versions.last().map_or_else(String::new, |newest| {
        format!(" (version {}, id {})", newest.version, newest.id)
    });
    let mut out = Out::new();
    out.line(&match (put.change, dry_run) {
        (v1::Change::Unchanged, _) => format!("schema {name} is this document already{newest}"),
        (_, true) => format!("schema {name} would be accepted"),
        (_, false) => format!("schema {name} is registered{newest}"),
    })?;
    for warning in put.warnings {
        out.line(&format!("  warning: {warning}"))?;
    }
    Ok(out.flush()?)
}

async fn list(client: &Client, format: Option<Format>) -> anyhow::Result<()> {
    let schemas = client.catalog().list(Kind::Schema, "").await?;
    if let Some(format @ (Format::Json | Format::Yaml)) = format {
        return get::export(&schemas, format);
    }
    let rows = schemas.iter().map(|schema| {
        let versions = status_of::<SchemaStatus>(schema)?.versions;
        let newest = versions.last();
        let text = |number: Option<u32>| number.map_or_else(String::new, |n| n.to_string());
        Ok(vec![
            get::name_of(schema),
            text(newest.map(|newest| newest.version)),
            text(newest.map(|newest| newest.id)),
        ])
    });
    let rows = rows.collect::<anyhow::Result<_>>()?;
    Out::new().table(&["SCHEMA", "VERSION", "ID"], rows)
}

async fn show(name: &str, number: Option<u32>, client: &Client) -> anyhow::Result<()> {
    let schema = client.catalog().get(Kind::Schema, name).await?;
    let versions = status_of::<SchemaStatus>(&schema)?.versions;
    let found = match number {
        Some(number) => versions.iter().find(|version| version.version == number),
        None => versions.last(),
    };
    let Some(found) = found else {
        let last = versions.last().map_or(0, |last| last.version);
        anyhow::bail!("schema {name} has no such version; the newest is {last}");
    };
    let mut out = Out::new();
    out.line(found.document.get())?;
    Ok(out.flush()?)
}

async fn run_bind(bind: &Bind, client: &Client) -> anyhow::Result<()> {
    let catalog = client.catalog();
    // Also gives the error that names the command to create it.
    client.route(&bind.stream).await?;
    let stream = catalog.get(Kind::Stream, &bind.stream).await?;
    let mut spec: StreamSpec = spec_of(&stream)?;
    let binding = BindingSpec {
        event_type: bind.ty.clone(),
        schema: bind.schema.clone(),
        version: bind.pin.map_or(BindingVersion::Latest, BindingVersion::Number),
        mode: bind.mode,
    };
    match spec.schemas.iter_mut().find(|other| other.event_type == bind.ty) {
        Some(other) => *other = binding,
        None => spec.schemas.push(binding),
    }
    let mut changed = resource_of(Kind::Stream, &bind.stream, &spec)?;
    changed.labels.clone_from(&stream.labels);
    // Someone else may have changed the stream since it was read.
    let expected_generation = Some(stream.generation);
    let put = catalog.put(changed, PutOptions { expected_generation, dry_run: false }).await?;
    let mut out = Out::new();
    let Bind { stream, ty, schema, .. } = bind;
    let word = match bind.mode {
        BindingMode::Enforce => "governs",
        BindingMode::Off => "is bound to, and not enforced for,",
    };
    out.line(&format!("schema {schema} {word} events of type {ty} in stream {stream}"))?;
    for warning in put.warnings {
        out.line(&format!("  warning: {warning}"))?;
    }
    Ok(out.flush()?)
}
