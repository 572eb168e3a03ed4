//! `weft schema`: registers, lists, gets and checks schemas; binds them to streams.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::value::RawValue;
use weft_client::proto::v1;
use weft_client::{Client, PutOptions, resource_of, spec_of, status_of};
use weft_proto::resource::{
    BindingMode, BindingSpec, BindingVersion, Kind, SchemaFormat, SchemaSpec, SchemaStatus,
    SchemaVersion, StreamSpec,
};
use weft_registry::{Limits, Schema, Verdict, Violation};

use crate::apply::{read_bytes, read_text};
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
    /// Check whether a payload fits a schema; nothing is published
    #[command(after_help = "\
Exit code 0: it fits; 1: it does not, and standard error tells where.

Example:
  weft schema check order -f payload.json")]
    Check {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// File with the payload; - is standard input
        #[arg(short, long, value_name = "FILE")]
        file: String,
        /// The newest without it
        #[arg(long = "version", value_name = "N")]
        number: Option<u32>,
    },
    /// List schemas
    List,
    /// Show a version of a schema: the document as it was registered
    Get {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// The newest without it
        #[arg(long = "version", value_name = "N")]
        number: Option<u32>,
    },
    /// Let a schema govern events of a type in a stream
    #[command(after_help = "\
The most specific type wins: a type, a prefix that ends in *, or * for all events.

Examples:
  weft schema bind orders --type 'order.*' --schema order
  weft schema bind orders --type 'order.*' --schema order --version 2
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
    #[arg(long = "version", value_name = "N")]
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

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Register(document) => register(&document, client, format).await?,
        Verb::Check { name, file, number } => {
            return check(client, (&name, number), &file, format).await;
        }
        Verb::List => list(client, format).await?,
        Verb::Get { name, number } => show(&name, number, client).await?,
        Verb::Bind(bind) => run_bind(&bind, client, format).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn register(document: &Document, client: &Client, format: Format) -> anyhow::Result<()> {
    let Document { name, file } = document;
    let text = read_text(file)?;
    let document: Box<RawValue> =
        serde_json::from_str(text.trim()).with_context(|| format!("{file} is not JSON"))?;
    let spec = SchemaSpec { format: SchemaFormat::JsonSchema, document };
    let mut resource = resource_of(Kind::Schema, name, &spec)?;
    // Another version does not take the labels away.
    if let Some(before) = client.catalog().find(Kind::Schema, name).await? {
        resource.labels = before.labels;
    }
    let put = client.catalog().put(resource, PutOptions::default()).await?;
    let versions = status_of::<SchemaStatus>(&put.resource)?.versions;
    let newest = versions.last();
    let word = match put.change {
        v1::Change::Unchanged => "unchanged",
        _ => "registered",
    };
    let mut out = Out::new();
    if format == Format::Json {
        return out.json(&serde_json::json!({
            "kind": "Schema", "name": name, "result": word, "warnings": put.warnings,
            "version": newest.map(|newest| newest.version), "id": newest.map(|newest| newest.id),
        }));
    }
    let newest = newest.map_or_else(String::new, |newest| {
        format!(" (version {}, id {})", newest.version, newest.id)
    });
    out.line(&format!("schema {name}: {word}{newest}"))?;
    for warning in put.warnings {
        out.line(&format!("  warning: {warning}"))?;
    }
    Ok(out.flush()?)
}

/// The document of a version, the newest without a number.
async fn fetch(client: &Client, name: &str, number: Option<u32>) -> anyhow::Result<SchemaVersion> {
    let schema = client.catalog().get(Kind::Schema, name).await?;
    let versions = status_of::<SchemaStatus>(&schema)?.versions;
    let last = versions.last().map_or(0, |last| last.version);
    let wanted = number.unwrap_or(last);
    let found = versions.into_iter().find(|version| version.version == wanted);
    found.with_context(|| format!("schema {name} has no version {wanted}; the newest is {last}"))
}

/// Checks here, with the code that brokers check with.
async fn check(
    client: &Client,
    (name, number): (&str, Option<u32>),
    file: &str,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let payload = read_bytes(file)?;
    let found = fetch(client, name, number).await?;
    let schema = Schema::compile(found.document.get().as_bytes(), &Limits::default())
        .with_context(|| format!("schema {name} version {} is not usable", found.version))?;
    let verdict = schema.check(&payload);
    let mut out = Out::new();
    let version = found.version;
    let (fits, text) = match &verdict {
        Verdict::Fits => (true, format!("{file} fits schema {name} version {version}")),
        Verdict::Violation(violation) => (false, explain(violation)),
    };
    if format == Format::Json {
        let violation = match &verdict {
            Verdict::Fits => None,
            Verdict::Violation(violation) => Some(serde_json::json!({
                "pointer": violation.pointer, "schema_pointer": violation.schema_pointer,
                "keyword": violation.keyword, "message": violation.message,
                "more": violation.more,
            })),
        };
        out.json(&serde_json::json!({
            "schema": name, "version": version, "fits": fits, "violation": violation,
        }))?;
    } else if fits {
        out.line(&text)?;
        out.flush()?;
    }
    if !fits {
        let text = format!("{file} does not fit schema {name} version {version}: {text}\n");
        std::io::stderr().write_all(text.as_bytes())?;
    }
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(violation: &Violation) -> String {
    let Violation { pointer, keyword, message, more, .. } = violation;
    let place = if pointer.is_empty() { "the whole payload" } else { pointer };
    let more = if *more > 0 { format!("; and {more} more") } else { String::new() };
    format!("at {place}: {message} ({keyword}){more}")
}

async fn list(client: &Client, format: Format) -> anyhow::Result<()> {
    let schemas = client.catalog().list(Kind::Schema, "").await?;
    if format != Format::Table {
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
    let found = fetch(client, name, number).await?;
    let mut out = Out::new();
    out.line(found.document.get())?;
    Ok(out.flush()?)
}

async fn run_bind(bind: &Bind, client: &Client, format: Format) -> anyhow::Result<()> {
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
    if format == Format::Json {
        return out.json(&serde_json::json!({
            "kind": "Stream", "name": bind.stream, "generation": put.resource.generation,
            "schemas": spec.schemas, "warnings": put.warnings,
        }));
    }
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
