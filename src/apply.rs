//! `weft apply`: creates or changes any resources.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use weft_client::proto::v1;
use weft_client::{Client, PutOptions};
use weft_proto::resource::{Kind, Manifest};

use crate::get;
use crate::output::{Format, Out};

/// Arguments of `weft apply`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The file holds one or more resources, in YAML separated by ---, or in JSON (an object or an array).
Applying the same file again changes nothing.

Example:
  apiVersion: weft/v1
  kind: Stream
  metadata:
    name: orders
  spec:
    partitions: 3
    retention:
      max_age: 24h

  weft apply -f orders.yaml --dry-run
  weft apply -f orders.yaml")]
pub(crate) struct Args {
    /// The file; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: String,

    /// Check everything and show what would change; change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(args: &Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let manifests = read(&args.file)?;
    apply(client, &manifests, args.dry_run, format).await
}

/// Reads all resources of a file, checks them, and sorts them so that what others need comes first.
pub(crate) fn read(file: &str) -> anyhow::Result<Vec<Manifest>> {
    let text = read_text(file)?;
    let manifests = parse(&text).with_context(|| format!("cannot read {file}"))?;
    anyhow::ensure!(!manifests.is_empty(), "there is no resource in {file}");
    Ok(manifests)
}

/// The text of a file, or of standard input.
pub(crate) fn read_text(file: &str) -> anyhow::Result<String> {
    String::from_utf8(read_bytes(file)?).with_context(|| format!("{file} is not UTF-8 text"))
}

/// The bytes of a file, or of standard input.
pub(crate) fn read_bytes(file: &str) -> anyhow::Result<Vec<u8>> {
    if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| format!("cannot read {file}"))
}

fn parse(text: &str) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests: Vec<Manifest> = match text.trim_start().chars().next() {
        Some('[') => serde_json::from_str(text)?,
        Some('{') => {
            serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>()?
        }
        _ => serde_saphyr::from_multiple(text)?,
    };
    for (place, manifest) in manifests.iter().enumerate() {
        manifest.to_resource().map_err(|error| {
            let field = error.field().map(|field| format!("{field}: ")).unwrap_or_default();
            anyhow::anyhow!(
                "resource {} ({} {}): {field}{error}",
                place + 1,
                manifest.kind,
                manifest.metadata.name
            )
        })?;
    }
    let order = |kind: &str| {
        let kind: Option<Kind> = kind.parse().ok();
        Kind::ALL.iter().position(|&other| Some(other) == kind)
    };
    manifests.sort_by_key(|manifest| order(&manifest.kind));
    Ok(manifests)
}

/// Puts each resource and tells what became of it. One that is refused does not stop the others.
pub(crate) async fn apply(
    client: &Client,
    manifests: &[Manifest],
    dry_run: bool,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    let mut code = ExitCode::SUCCESS;
    for manifest in manifests {
        let resource = manifest.to_resource()?;
        let kind: Kind = resource.kind.parse()?;
        let name = get::name_of(&resource);
        let before = if dry_run { client.catalog().find(kind, &name).await? } else { None };
        let options = PutOptions { dry_run, ..PutOptions::default() };
        let (word, notes) = match client.catalog().put(resource, options).await {
            Ok(put) => {
                let mut notes =
                    if dry_run { difference(before.as_ref(), manifest)? } else { Vec::new() };
                notes.extend(put.warnings.into_iter().map(|text| format!("warning: {text}")));
                (word_of(put.change, dry_run), notes)
            }
            // Nothing after it will do better.
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => {
                code = ExitCode::FAILURE;
                let field = error.field().map(|field| format!("{field}: ")).unwrap_or_default();
                ("refused", vec![format!("{field}{error}")])
            }
        };
        if format == Format::Json {
            out.json(&serde_json::json!({
                "kind": kind.as_str(), "name": name, "result": word, "notes": notes,
            }))?;
            continue;
        }
        out.line(&format!("{} {name}: {word}", kind.as_str().to_lowercase()))?;
        for note in notes {
            out.line(&format!("  {note}"))?;
        }
    }
    out.flush()?;
    Ok(code)
}

const fn word_of(change: v1::Change, dry_run: bool) -> &'static str {
    match (change, dry_run) {
        (v1::Change::Created, false) => "created",
        (v1::Change::Updated, false) => "updated",
        (v1::Change::Unchanged, _) => "unchanged",
        (v1::Change::Created, true) => "would be created",
        (v1::Change::Updated, true) => "would be updated",
        (v1::Change::Unspecified, _) => "applied",
    }
}

/// Lines that go (`-`) and lines that come (`+`), with the lines around them that stay.
fn difference(before: Option<&v1::Resource>, after: &Manifest) -> anyhow::Result<Vec<String>> {
    let old = match before {
        Some(resource) => get::yaml(&Manifest::from_resource(resource)?)?,
        None => String::new(),
    };
    // The same way of writing on both sides: names and kinds as the cluster has them.
    let new = get::yaml(&Manifest::from_resource(&after.to_resource()?)?)?;
    Ok(line_difference(&old, &new))
}

fn line_difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old == new {
        return Vec::new();
    }
    // Longest common subsequence from the end; resources are short.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(format!("  {}", old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
apiVersion: weft/v1
kind: Function
metadata:
  name: billing
spec:
  command: [./billing]
  triggers: [{stream: orders}]
---
apiVersion: weft/v1
kind: Stream
metadata:
  name: orders
spec:
  partitions: 3
";

    #[test]
    fn what_others_need_comes_first() {
        let manifests = parse(TWO).unwrap();

        let kinds: Vec<_> = manifests.iter().map(|manifest| manifest.kind.as_str()).collect();
        assert_eq!(kinds, ["Stream", "Function"]);
    }

    #[test]
    fn an_export_is_taken_back_in_yaml_and_json() {
        for manifest in parse(TWO).unwrap() {
            let resource = manifest.to_resource().unwrap();
            let yaml = get::yaml(&manifest).unwrap();
            let json = serde_json::to_string(&[&manifest]).unwrap();

            for text in [yaml, json] {
                let again = parse(&text).unwrap();
                assert_eq!(again[0].to_resource().unwrap(), resource, "{text}");
            }
        }
    }

    #[test]
    fn a_wrong_field_is_named_with_its_resource() {
        let text = TWO.replace("partitions: 3", "partitions: 0");

        let error = parse(&text).unwrap_err().to_string();

        assert!(error.contains("resource 2") && error.contains("spec.partitions"), "{error}");
    }

    #[test]
    fn a_difference_shows_what_goes_and_what_comes() {
        let lines = line_difference("a\nb\nc", "a\nx\nc");

        assert_eq!(lines, ["  a", "- b", "+ x", "  c"]);
        assert!(line_difference("a", "a").is_empty());
    }
}
