//! `weft get`: shows resources as people write them.

use serde_json::Value;
use weft_client::Client;
use weft_proto::resource::{Kind, Manifest};
use weft_proto::v1;

use crate::access::columns;
use crate::output::{Format, Out};

/// Arguments of `weft get`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  weft get streams
  weft get grants
  weft get function billing -o yaml
  weft get all -o yaml > mesh.yaml    # weft apply -f mesh.yaml takes it back")]
pub(crate) struct Args {
    /// stream, schema, subscription, function, webhook, grant, limit, containerpolicy, or all
    #[arg(value_parser = kinds)]
    kind: Kinds,

    /// NAME or NAMESPACE/NAME; all of the kind without it
    name: Option<String>,
}

#[derive(Clone, Debug)]
struct Kinds(Vec<Kind>);

fn kinds(text: &str) -> Result<Kinds, String> {
    if text == "all" {
        return Ok(Kinds(Kind::ALL.to_vec()));
    }
    text.parse()
        .map(|kind| Kinds(vec![kind]))
        .map_err(|error: weft_client::Error| error.to_string())
}

pub(crate) async fn run(args: Args, client: &Client, format: Option<Format>) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let only = match args.kind.0.as_slice() {
        [kind] => Some(*kind),
        _ => None,
    };
    for kind in args.kind.0 {
        match &args.name {
            Some(name) => found.push(client.catalog().get(kind, name).await?),
            None => found.extend(client.catalog().list(kind, "").await?),
        }
    }
    // One resource is looked at; a list is looked through.
    let usual = if args.name.is_some() { Format::Yaml } else { Format::Table };
    show(&found, only, format.unwrap_or(usual))
}

/// Writes resources: `only` of one kind, or of any.
pub(crate) fn show(
    resources: &[v1::Resource],
    only: Option<Kind>,
    format: Format,
) -> anyhow::Result<()> {
    if format != Format::Table {
        return export(resources, format);
    }
    let (head, row): (&[&str], Row) = match only {
        Some(Kind::Grant) => (&columns::GRANT, columns::grant),
        Some(Kind::Limit) => (&columns::LIMIT, columns::limit),
        Some(Kind::ContainerPolicy) => (&columns::POLICY, columns::policy),
        _ => (&["KIND", "NAME", "GENERATION"], any),
    };
    let rows = resources.iter().map(row).collect::<anyhow::Result<_>>()?;
    Out::new().table(head, rows)
}

type Row = fn(&v1::Resource) -> anyhow::Result<Vec<String>>;

#[expect(clippy::unnecessary_wraps, reason = "rows of some kinds can fail")]
fn any(resource: &v1::Resource) -> anyhow::Result<Vec<String>> {
    Ok(vec![resource.kind.clone(), name_of(resource), resource.generation.to_string()])
}

/// The name as the command line takes it.
pub(crate) fn name_of(resource: &v1::Resource) -> String {
    match resource.namespace.as_str() {
        "" | "default" => resource.name.clone(),
        namespace => format!("{namespace}/{}", resource.name),
    }
}

/// Writes resources so that `weft apply` takes them back. In JSON, one a line.
pub(crate) fn export(resources: &[v1::Resource], format: Format) -> anyhow::Result<()> {
    let manifests = resources.iter().map(Manifest::from_resource);
    let mut manifests = manifests.collect::<weft_client::Result<Vec<_>>>()?;
    manifests.iter_mut().for_each(leave_out_made);
    let mut out = Out::new();
    if format == Format::Yaml {
        for (place, manifest) in manifests.iter().enumerate() {
            if place > 0 {
                out.line("---")?;
            }
            out.line(yaml(manifest)?.trim_end())?;
        }
        return Ok(out.flush()?);
    }
    manifests.iter().try_for_each(|manifest| out.json(manifest))
}

/// Revisions of functions are made by each cluster for itself: it takes none of another.
fn leave_out_made(manifest: &mut Manifest) {
    if manifest.kind.parse().ok() == Some(Kind::Function)
        && let Some(spec) = manifest.spec.as_object_mut()
    {
        spec.remove("revisions");
    }
}

/// A resource as YAML.
pub(crate) fn yaml(manifest: &Manifest) -> anyhow::Result<String> {
    // Through a value, so that members have one order.
    let value: Value = serde_json::to_value(manifest)?;
    Ok(serde_saphyr::to_string(&value)?)
}
