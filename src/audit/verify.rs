//! `weft audit verify`: reads the record and checks its chain.

use std::process::ExitCode;

use weft_client::{Client, ReadItem};
use weft_proto::Timestamp;

use super::chain::{Break, Chain, Kept};
use crate::output::{Format, Out};
use crate::progress::Progress;
use crate::when::When;

/// Arguments of `weft audit verify`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where to start: earliest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(long, default_value = "earliest", allow_hyphen_values = true)]
    from: When,

    /// A record that must still be what it was
    #[arg(long = "expect", value_name = "OFFSET:HASH")]
    expected: Vec<Kept>,
}

pub(super) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let mut reader = super::read(client, args.from).await?;
    let mut chain = Chain::expecting(args.expected);
    let mut times: Option<(Timestamp, Timestamp)> = None;
    let progress = Progress::new("verifying");
    let broken = loop {
        let Some(item) = reader.next().await? else { break chain.handle_end().err() };
        let ReadItem::Batch(batch) = item else { continue };
        progress.add(batch.events.len());
        let mut events = batch.events.iter();
        let broken =
            events.find_map(|(offset, event)| chain.handle_event(offset.get(), event).err());
        if broken.is_some() {
            break broken;
        }
        let first = times.map_or(batch.append_time, |(first, _)| first);
        times = Some((first, batch.append_time));
    };
    drop(progress);
    tell(&chain, times, broken.as_ref(), format)?;
    Ok(if broken.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tell(
    chain: &Chain,
    times: Option<(Timestamp, Timestamp)>,
    broken: Option<&Break>,
    format: Format,
) -> anyhow::Result<()> {
    let mut out = Out::new();
    let (from, until) = times.map_or_else(Default::default, |(first, last)| {
        (Some(first.to_string()), Some(last.to_string()))
    });
    if format != Format::Table {
        return out.json(&serde_json::json!({
            "holds": broken.is_none(),
            "records": chain.count(),
            "first": chain.first(), "first_time": from,
            "last": chain.last().map(|last| last.offset), "last_time": until,
            "hash": chain.last().map(|last| last.hash.to_string()),
            "broken": broken.map(|at| serde_json::json!({
                "offset": at.offset, "problem": at.problem,
            })),
        }));
    }
    let good = if broken.is_some() { "before the break" } else { "the chain holds" };
    let records = if chain.count() == 1 { "record" } else { "records" };
    out.line(&format!("{} {records}: {good}", chain.count()))?;
    if let (Some(first), Some(last)) = (chain.first(), chain.last()) {
        let (from, until) = (from.unwrap_or_default(), until.unwrap_or_default());
        out.line(&format!("offsets {first} to {}", last.offset))?;
        out.line(&format!("stored  {from} to {until}"))?;
        out.line(&format!("last    {last}"))?;
    }
    out.flush()?;
    if let Some(Break { offset, problem }) = broken {
        let text = format!("error: the chain is broken at offset {offset}: {problem}\n");
        std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes())?;
    } else if let Some(last) = chain.last() {
        let advice = format!("keep this elsewhere, for the next time: --expect {last}\n");
        std::io::Write::write_all(&mut std::io::stderr(), advice.as_bytes())?;
    }
    Ok(())
}
