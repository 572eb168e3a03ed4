//! `weft audit show`: the record as people read it.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use weft_client::{Client, ReadItem, Record};
use weft_proto::event::EventView;

use crate::output::{Format, Out, printable};
use crate::when::When;

/// Arguments of `weft audit show`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where to start: earliest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(long, default_value = "earliest", allow_hyphen_values = true)]
    from: When,

    /// Only what this principal did or was refused
    #[arg(long, value_name = "P")]
    principal: Option<String>,

    /// Only what was refused or ended
    #[arg(long)]
    denied: bool,
}

/// One record.
#[derive(Debug, Serialize)]
struct Entry {
    offset: u64,
    time: String,
    act: String,
    #[serde(flatten)]
    what: What,
}

/// The data of an event of the record.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct What {
    principal: String,
    outcome: String,
    verb: String,
    resource: String,
    reason: String,
    remote: String,
    count: u64,
}

pub(super) async fn run(args: &Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let mut reader = super::read(client, args.from).await?;
    let mut out = Out::new();
    while let Some(item) = reader.next().await? {
        let ReadItem::Batch(batch) = item else { continue };
        for record in batch.into_records() {
            let entry = entry(&record);
            if !is_wanted(&entry, args) {
                continue;
            }
            let line = match format {
                Format::Table => line(&entry),
                Format::Json | Format::Yaml => serde_json::to_string(&entry)?,
            };
            out.line(&line)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The record of an event. What cannot be read is shown as far as it can be: `verify` judges.
fn entry(record: &Record) -> Entry {
    let offset = record.offset.get();
    let stored = record.append_time.to_string();
    let Some(view) = EventView::parse(&record.event) else {
        return Entry { offset, time: stored, act: "unreadable".to_owned(), what: What::default() };
    };
    let time = view.attribute("time").map_or(stored, std::borrow::Cow::into_owned);
    let act = view.ty.strip_prefix("io.weft.audit.").unwrap_or(view.ty).to_owned();
    let data = view.data_bytes().unwrap_or_default();
    Entry { offset, time, act, what: serde_json::from_slice(data).unwrap_or_default() }
}

fn is_wanted(entry: &Entry, args: &Args) -> bool {
    let by = args.principal.as_ref().is_none_or(|wanted| *wanted == entry.what.principal);
    by && (!args.denied || entry.what.outcome == "denied")
}

fn line(entry: &Entry) -> String {
    let Entry { offset, time, act, what } = entry;
    let What { principal, outcome, verb, resource, reason, remote, count } = what;
    let mut text = format!("{offset}  {time}  {outcome:<7}  {act:<15}  {principal}");
    if !resource.is_empty() {
        // The act says it already, but for a refusal.
        let verb = if verb == act { "" } else { &*format!("{verb} ") };
        text = format!("{text}  {verb}{resource}");
    }
    if !reason.is_empty() {
        text = format!("{text}  ({reason})");
    }
    if !remote.is_empty() {
        text = format!("{text}  from {remote}");
    }
    if *count > 1 {
        text = format!("{text}  {count} times");
    }
    // Names come from callers.
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(principal: &str, outcome: &str) -> Entry {
        let what = What {
            principal: principal.to_owned(),
            outcome: outcome.to_owned(),
            verb: "publish".to_owned(),
            resource: "shop/orders\u{1b}[2J".to_owned(),
            reason: "no grant".to_owned(),
            remote: "10.0.0.1".to_owned(),
            count: 3,
        };
        Entry { offset: 7, time: "T".to_owned(), act: "denied".to_owned(), what }
    }

    #[test]
    fn a_record_is_one_line_that_cannot_steer_the_terminal() {
        assert_eq!(
            line(&of("key:shop/a", "denied")),
            "7  T  denied   denied           key:shop/a  publish shop/orders [2J  (no grant)  \
             from 10.0.0.1  3 times"
        );
    }

    #[test]
    fn principal_and_denied_choose() {
        let args = |principal: Option<&str>, denied| Args {
            from: "earliest".parse().unwrap(),
            principal: principal.map(str::to_owned),
            denied,
        };
        let entry = of("key:shop/a", "allowed");
        assert!(is_wanted(&entry, &args(None, false)));
        assert!(is_wanted(&entry, &args(Some("key:shop/a"), false)));
        assert!(!is_wanted(&entry, &args(Some("key:shop"), false)));
        assert!(!is_wanted(&entry, &args(None, true)));
    }

    #[test]
    fn what_is_no_record_is_shown_all_the_same() {
        let record = Record {
            partition: weft_proto::PartitionId(0),
            offset: weft_proto::Offset(3),
            append_time: weft_proto::Timestamp::from_micros(1),
            schema: None,
            event: b"\xff".to_vec().into(),
        };
        assert_eq!(entry(&record).act, "unreadable");
    }
}
