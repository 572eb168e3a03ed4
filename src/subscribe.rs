//! `weft subscribe`: follows a stream, with or without the cluster keeping what is done.

use std::collections::BTreeMap;

use weft_client::{
    Client, ReadItem, ReadOptions, Subscription, SubscriptionItem, SubscriptionOptions, spec_of,
};
use weft_proto::filter::Filter;
use weft_proto::resource::{Kind, SubscriptionSpec};

use crate::output::{Format, Out};
use crate::when::When;

/// Arguments of `weft subscribe`.
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Writes one record a line, as weft replay does, until it is stopped with ctrl-C.

Without --subscription nothing is remembered. With it, the cluster remembers what was written here:
the next call goes on behind it. The subscription must exist; weft apply creates one.

Examples:
  weft subscribe orders
  weft subscribe orders --from earliest --filter-type 'order.*'
  weft subscribe orders --subscription audit -o json >> audit.jsonl")]
pub(crate) struct Args {
    /// The stream: NAME or NAMESPACE/NAME
    pub(crate) stream: String,

    /// Where to start: earliest, latest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(long, default_value = "latest", allow_hyphen_values = true)]
    from: When,

    /// Join this durable subscription instead; it knows where to start and what to pass
    #[arg(long, value_name = "NAME", conflicts_with_all = ["from", "filter_type"])]
    subscription: Option<String>,

    /// Only events of this type, or with a type that starts so if it ends in *
    #[arg(long, value_name = "TYPE")]
    filter_type: Option<String>,

    /// Order events of all partitions by append time
    #[arg(long, conflicts_with = "subscription")]
    merged: bool,

    /// Ask the leaders first: with --from latest, nothing acknowledged before the command is shown,
    /// and nothing after it is missed
    #[arg(long, conflicts_with = "subscription")]
    linearizable: bool,
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<()> {
    match args.subscription {
        None => {
            let options = ReadOptions {
                from: args.from.position(),
                filters: type_filter(args.filter_type.as_deref()),
                merged: args.merged,
                linearizable: args.linearizable,
                ..ReadOptions::follow(args.stream)
            };
            follow(client, options, format).await
        }
        Some(name) => {
            check_stream(client, &args.stream, &name).await?;
            let member = client.subscribe(&name, SubscriptionOptions::default());
            consume(member, format).await
        }
    }
}

/// A type, a prefix that ends in `*`, or `*` for all: as in bindings of schemas.
fn type_filter(text: Option<&str>) -> Vec<Filter> {
    let one = |value: &str| BTreeMap::from([("type".to_owned(), value.to_owned())]);
    match text.map(|text| (text, text.strip_suffix('*'))) {
        None | Some((_, Some(""))) => Vec::new(),
        Some((_, Some(prefix))) => vec![Filter::Prefix(one(prefix))],
        Some((exact, None)) => vec![Filter::Exact(one(exact))],
    }
}

async fn follow(client: &Client, options: ReadOptions, format: Format) -> anyhow::Result<()> {
    let mut reader = client.read(options).await?;
    let mut out = Out::new();
    loop {
        let item = tokio::select! {
            biased;
            stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
            item = reader.next() => item?,
        };
        match item {
            None => return Ok(()),
            Some(ReadItem::CaughtUp) => {}
            Some(ReadItem::Batch(batch)) => {
                for record in batch.into_records() {
                    out.record(&record, format)?;
                }
                out.flush()?;
            }
        }
    }
}

/// Acknowledges what standard output has taken.
async fn consume(mut member: Subscription, format: Format) -> anyhow::Result<()> {
    let acker = member.acker();
    let mut out = Out::new();
    loop {
        let item = tokio::select! {
            biased;
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                drop(acker);
                member.close().await;
                return Ok(());
            }
            item = member.next() => item?,
        };
        let SubscriptionItem::Delivery(delivery) = item else { continue };
        let held = delivery.all();
        for record in delivery.batch.into_records() {
            out.record(&record, format)?;
        }
        out.flush()?;
        // If the answer does not come, the events come again.
        drop(acker.ack(held).await?);
    }
}

async fn check_stream(client: &Client, stream: &str, subscription: &str) -> anyhow::Result<()> {
    let resource = client.catalog().get(Kind::Subscription, subscription).await?;
    let spec: SubscriptionSpec = spec_of(&resource)?;
    let qualified = |name: &str| name.parse::<weft_proto::QualifiedName>();
    if qualified(&spec.stream)? != qualified(stream)? {
        anyhow::bail!("subscription {subscription} reads stream {}, not {stream}", spec.stream);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_makes_a_prefix() {
        let text = |wanted| serde_json::to_string(&type_filter(wanted)).unwrap();

        assert_eq!(text(Some("order.placed")), r#"[{"exact":{"type":"order.placed"}}]"#);
        assert_eq!(text(Some("order.*")), r#"[{"prefix":{"type":"order."}}]"#);
        assert_eq!(text(Some("*")), "[]");
        assert_eq!(text(None), "[]");
    }
}
