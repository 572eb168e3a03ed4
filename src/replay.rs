//! `weft replay`: reads a stored range again, and ends.

use std::fmt::Write as _;

use weft_client::{Client, ReadItem, ReadOptions, Reader};

use crate::output::{Format, Out, hex};
use crate::progress::Progress;
use crate::when::When;

/// Arguments of `weft replay`.
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Writes one event a line; with -o json, as
{\"partition\":0,\"offset\":5,\"time\":\"...\",\"event\":{...}}. Events of one partition come by offset, partitions are merged by time. Subscriptions and functions notice nothing.

Examples:
  weft replay orders
  weft replay orders --from -1h --to latest
  weft replay orders --from 2026-03-01T12:00:00Z --to 2026-03-01T13:00:00Z -o json > noon.jsonl
  weft replay orders --from 100 --to 200 | head
  weft replay orders --checksum > orders.jsonl")]
pub(crate) struct Args {
    /// The stream: NAME or NAMESPACE/NAME
    pub(crate) stream: String,

    /// Where to start: earliest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(long, default_value = "earliest", allow_hyphen_values = true)]
    from: When,

    /// Where to stop, exclusive; latest is what is stored when the command begins
    #[arg(long, default_value = "latest", allow_hyphen_values = true)]
    to: When,

    /// Stop after this many events
    #[arg(long, value_name = "N")]
    max: Option<u64>,

    /// Ask the leaders first: everything acknowledged before the command is in sight
    #[arg(long)]
    linearizable: bool,

    /// Write the SHA-256 of the range and what each partition gave to standard error; the same
    /// range has the same checksum on every replica
    #[arg(long)]
    checksum: bool,
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<()> {
    let mut reader = client
        .read(ReadOptions {
            from: args.from.position(),
            to: Some(args.to.position()),
            events_max: args.max,
            linearizable: args.linearizable,
            checksum: args.checksum,
            ..ReadOptions::all(args.stream)
        })
        .await?;
    let mut out = Out::new();
    let progress = Progress::new("replaying");
    while let Some(item) = reader.next().await? {
        let ReadItem::Batch(batch) = item else { continue };
        progress.add(batch.events.len());
        for record in batch.into_records() {
            out.record(&record, format)?;
        }
    }
    out.flush()?;
    drop(progress);
    if let Some(sums) = sums(&reader) {
        std::io::Write::write_all(&mut std::io::stderr(), sums.as_bytes())?;
    }
    Ok(())
}

/// The checksum and what it is made of, if it was asked for.
fn sums(reader: &Reader) -> Option<String> {
    let mut text = format!("sha256 {}\n", hex(&reader.checksum()?));
    for sum in reader.partitions() {
        let offsets = sum.offsets.map_or_else(
            || "no events".to_owned(),
            |(first, last)| {
                format!("offsets {first}..={last}, {} events, {} bytes", sum.events, sum.bytes)
            },
        );
        let holes = sum.holes.map_or_else(String::new, |holes| format!(", {holes} holes"));
        let sha256 = sum.sha256.map(|sum| hex(&sum)).unwrap_or_default();
        _ = writeln!(text, "partition {}: {offsets}{holes}, sha256 {sha256}", sum.partition);
    }
    Some(text)
}
