//! `weft webhook`: lists, describes, enables and deletes webhooks.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use weft_client::proto::v1;
use weft_client::{Client, PutOptions, spec_of, status_of};
use weft_proto::resource::{Kind, WebhookSpec, WebhookStatus};

use crate::delete::delete;
use crate::get;
use crate::output::{Format, Out};

/// Whoever enables a webhook again changes its definition: this label says when.
const ENABLED_LABEL: &str = "weft.enabled";

/// Arguments of `weft webhook`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  apiVersion: weft/v1
  kind: Webhook
  metadata: {name: billing}
  spec:
    stream: orders
    url: https://billing.example.com/events

  weft apply -f billing.yaml
  weft webhook describe billing")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List webhooks and how they are doing
    List,
    /// Show a webhook: what it shall be, and how it is doing
    Describe {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// Try again: after the receiver said that it is gone (410), or without waiting any longer
    Enable {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// Delete a webhook; its events in flight end first
    Delete {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::List => list(client, format).await?,
        Verb::Describe { name } => describe(client, &name, format).await?,
        Verb::Enable { name } => enable(client, &name, format).await?,
        Verb::Delete { name } => delete(client, Kind::Webhook, &name, format).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, format: Format) -> anyhow::Result<()> {
    let webhooks = client.catalog().list(Kind::Webhook, "").await?;
    if format != Format::Table {
        return get::export(&webhooks, format);
    }
    let rows = webhooks.iter().map(|webhook| {
        let spec: WebhookSpec = spec_of(webhook)?;
        let status: WebhookStatus = status_of(webhook)?;
        Ok(vec![
            get::name_of(webhook),
            state_of(webhook, &status),
            status.lag.to_string(),
            spec.stream,
            spec.url.to_string(),
        ])
    });
    let rows = rows.collect::<anyhow::Result<_>>()?;
    Out::new().table(&["WEBHOOK", "STATE", "LAG", "STREAM", "URL"], rows)
}

/// `Ready`, or the first reason why it is not, as far as it is about the present spec.
fn state_of(webhook: &v1::Resource, status: &WebhookStatus) -> String {
    if status.observed_generation == 0 {
        return "no dispatcher has seen it".to_owned();
    }
    if status.observed_generation < webhook.generation {
        return "changing".to_owned();
    }
    let ready = status.conditions.iter().find(|condition| condition.kind == "Ready");
    ready.map_or_else(|| "unknown".to_owned(), |ready| ready.reason.clone())
}

async fn describe(client: &Client, name: &str, format: Format) -> anyhow::Result<()> {
    let webhook = client.catalog().get(Kind::Webhook, name).await?;
    let status: WebhookStatus = status_of(&webhook)?;
    if format == Format::Json {
        let spec: serde_json::Value = spec_of(&webhook)?;
        let value = serde_json::json!({
            "name": get::name_of(&webhook), "generation": webhook.generation,
            "spec": spec, "status": status,
        });
        return Out::new().json(&value);
    }
    get::export(std::slice::from_ref(&webhook), Format::Yaml)?;
    let mut out = Out::new();
    out.line(&format!("\nstate: {}", state_of(&webhook, &status)))?;
    let rate = status.consent.rate_per_minute;
    let rate = rate.map_or_else(String::new, |rate| format!(", {rate} requests a minute"));
    let asked = match status.consent.asked.as_str() {
        "" => String::new(),
        time => format!(" (asked {time})"),
    };
    out.line(&format!("consent: {}{rate}{asked}", status.consent.state))?;
    out.line(&format!("circuit: {}\n", status.circuit))?;
    let troubles = status.conditions.iter().filter(|condition| condition.kind != "Ready");
    for condition in troubles.filter(|condition| !condition.message.is_empty()) {
        out.line(&format!("{} is {}: {}", condition.kind, condition.status, condition.message))?;
    }
    let numbers = [status.lag, status.in_flight, status.delivered, status.failed, status.rejected];
    let row = numbers.iter().map(u64::to_string).collect();
    out.table(&["LAG", "IN FLIGHT", "DELIVERED", "FAILED", "REJECTED"], vec![row])?;
    for error in &status.last_errors {
        out.line(&format!("error: {error}"))?;
    }
    Ok(out.flush()?)
}

async fn enable(client: &Client, name: &str, format: Format) -> anyhow::Result<()> {
    let found = client.catalog().get(Kind::Webhook, name).await?;
    let now = jiff::Timestamp::now().to_string();
    let mut labels: BTreeMap<String, String> = found.labels.clone();
    labels.insert(ENABLED_LABEL.to_owned(), now);
    let wanted = v1::Resource {
        kind: found.kind,
        namespace: found.namespace,
        name: found.name,
        labels,
        spec: found.spec,
        ..v1::Resource::default()
    };
    let options =
        PutOptions { expected_generation: Some(found.generation), ..PutOptions::default() };
    let put = client.catalog().put(wanted, options).await?;
    if format == Format::Json {
        let value = serde_json::json!({
            "name": get::name_of(&put.resource), "generation": put.resource.generation,
        });
        return Out::new().json(&value);
    }
    let mut out = Out::new();
    out.line(&format!("webhook {name} is tried again"))?;
    Ok(out.flush()?)
}
