//! `weft access`: why a decision is as it is, and which grants there are.

pub(crate) mod columns;

use anyhow::Context as _;
use clap::Subcommand;
use weft_client::{Client, spec_of};
use weft_proto::resource::{GrantSpec, Kind, Verb as Act, check_principal};
use weft_proto::v1;

use crate::get;
use crate::output::{Format, Out};

/// Arguments of `weft access`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say whether a principal may do something, and which grants decide
    #[command(after_help = "\
Verbs: publish, read, subscribe, view, edit, report, govern, operate.

Examples:
  weft access explain key:shop/orders-writer publish shop/orders
  weft access explain jwt:corp:ann read orders --group group:corp:analysts")]
    Explain(Explain),
    /// List grants: all, or those that name a principal
    #[command(after_help = "\
Examples:
  weft access grants
  weft access grants key:shop/orders-writer
  weft access grants jwt:corp:ann --group group:corp:analysts")]
    Grants {
        /// key:NAMESPACE/NAME, cert:URI, or jwt:ISSUER:SUBJECT
        #[arg(value_parser = principal)]
        principal: Option<String>,
        /// A group that it is in: group:ISSUER:NAME
        #[arg(long = "group", value_name = "G", value_parser = principal)]
        groups: Vec<String>,
    },
}

#[derive(clap::Args, Debug)]
struct Explain {
    /// key:NAMESPACE/NAME, cert:URI, or jwt:ISSUER:SUBJECT
    #[arg(value_parser = principal)]
    principal: String,

    /// What it wants to do
    #[arg(value_parser = act)]
    act: Act,

    /// NAME or NAMESPACE/NAME of the stream or other resource; it need not exist
    resource: String,

    /// A group that it is in: group:ISSUER:NAME
    #[arg(long = "group", value_name = "G", value_parser = principal)]
    groups: Vec<String>,
}

fn principal(text: &str) -> Result<String, String> {
    check_principal(text).map(|()| text.to_owned())
}

fn act(text: &str) -> Result<Act, String> {
    text.parse().map_err(|error: weft_client::Error| error.to_string())
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<()> {
    match args.verb {
        Verb::Explain(args) => explain(&args, client, format).await,
        Verb::Grants { principal, groups } => grants(principal, groups, client, format).await,
    }
}

async fn explain(args: &Explain, client: &Client, format: Format) -> anyhow::Result<()> {
    let Explain { principal, act, resource, groups } = args;
    let found = client.access().explain(principal, groups, *act, resource).await?;
    let verdict = match found.verdict() {
        v1::Verdict::Allowed => "allowed",
        v1::Verdict::Denied => "denied",
        v1::Verdict::SomeEvents => "some-events",
        v1::Verdict::Unspecified => "unknown",
    };
    let effect = |allows: bool| if allows { "allow" } else { "deny" };
    let mut out = Out::new();
    if format != Format::Table {
        let grant = |grant: &v1::ExplainedGrant| {
            serde_json::json!({
                "grant": grant.grant, "effect": effect(grant.allows), "decides": grant.decides,
                "condition": grant.condition,
            })
        };
        return out.json(&serde_json::json!({
            "principal": principal, "groups": groups, "verb": act.as_str(), "resource": resource,
            "verdict": verdict, "reason": found.reason,
            "grants": found.grants.iter().map(grant).collect::<Vec<_>>(),
        }));
    }
    out.line(&format!("{verdict}: {}", found.reason))?;
    if found.grants.is_empty() {
        return Ok(out.flush()?);
    }
    out.line("")?;
    let rows = found.grants.into_iter().map(|grant| {
        let decides = if grant.decides { "yes" } else { "" };
        vec![grant.grant, effect(grant.allows).to_owned(), decides.to_owned(), grant.condition]
    });
    out.table(&["GRANT", "EFFECT", "DECIDES", "EVENTS"], rows.collect())
}

async fn grants(
    principal: Option<String>,
    groups: Vec<String>,
    client: &Client,
    format: Format,
) -> anyhow::Result<()> {
    let mut found = client.catalog().list(Kind::Grant, "").await?;
    let wanted: Vec<String> = principal.into_iter().chain(groups).collect();
    if !wanted.is_empty() {
        let mut kept = Vec::new();
        for grant in found {
            let spec: GrantSpec = spec_of(&grant)
                .with_context(|| format!("grant {} is unreadable", get::name_of(&grant)))?;
            if is_about(&spec, &wanted) {
                kept.push(grant);
            }
        }
        found = kept;
    }
    get::show(&found, Some(Kind::Grant), format)
}

/// Whether a grant names one of these, or everybody.
fn is_about(spec: &GrantSpec, wanted: &[String]) -> bool {
    spec.principals.iter().any(|named| named == "*" || wanted.contains(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_about_whom_it_names_and_about_all_with_a_star() {
        let about = |principals: &str, wanted: &[&str]| {
            let json = format!(r#"{{"principals":{principals},"role":"reader"}}"#);
            let wanted: Vec<_> = wanted.iter().map(|&one| one.to_owned()).collect();
            is_about(&serde_json::from_str(&json).unwrap(), &wanted)
        };
        assert!(about(r#"["key:a/b","key:a/c"]"#, &["key:a/c"]));
        assert!(about(r#"["*"]"#, &["key:a/c"]));
        assert!(about(r#"["group:x:y"]"#, &["jwt:x:z", "group:x:y"]));
        assert!(!about(r#"["key:a/bc"]"#, &["key:a/b"]));
    }
}
