//! `weft subscribe`: follows a stream, with or without the cluster keeping what is done.

use weft_client::{
    Client, Position, ReadItem, ReadOptions, Subscription, SubscriptionItem, SubscriptionOptions,
    spec_of,
};
use weft_proto::resource::{Kind, SubscriptionSpec};

use crate::output::{Format, Out};
use crate::when::When;

/// Arguments of `weft subscribe`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Writes one record a line, as weft replay does, until it is stopped with ctrl-C.

Without --subscription nothing is remembered. With it, the cluster remembers what was written here:
the next call goes on behind it. The subscription must exist; weft apply creates one.

Examples:
  weft subscribe orders
  weft subscribe orders --from earliest
  weft subscribe orders --subscription audit >> audit.jsonl")]
pub(crate) struct Args {
    /// The stream: NAME or NAMESPACE/NAME
    pub(crate) stream: String,

    /// Where to start: earliest, latest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(long, default_value = "latest", allow_hyphen_values = true)]
    from: When,

    /// Join this durable subscription instead; it knows where to start
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    subscription: Option<String>,
}

pub(crate) async fn run(
    args: Args,
    client: &Client,
    format: Option<Format>,
) -> anyhow::Result<()> {
    let format = format.unwrap_or(Format::Json);
    match args.subscription {
        None => follow(client, args.stream, args.from.position(), format).await,
        Some(name) => {
            check_stream(client, &args.stream, &name).await?;
            let member = client.subscribe(&name, SubscriptionOptions::default());
            consume(member, format).await
        }
    }
}

async fn follow(
    client: &Client,
    stream: String,
    from: Position,
    format: Format,
) -> anyhow::Result<()> {
    let options = ReadOptions { from, ..ReadOptions::follow(stream) };
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
        let SubscriptionItem::Delivery { epoch, batch } = item else { continue };
        let partition = batch.partition;
        let (Some(first), Some(last)) = (batch.events.first(), batch.events.last()) else {
            continue;
        };
        let offsets = first.0..=last.0;
        for record in batch.into_records() {
            out.record(&record, format)?;
        }
        out.flush()?;
        // If the answer does not come, the events come again.
        drop(acker.ack(partition, epoch, offsets).await?);
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
