//! `weft subscription`: creates durable subscriptions, moves them, and looks after what they gave up.

use clap::{Subcommand, ValueEnum};
use weft_client::proto::v1;
use weft_client::{Client, EventPlace, Position, PutOptions, Redrive, resource_of};
use weft_proto::PartitionId;
use weft_proto::event::{EventView, to_json};
use weft_proto::resource::{DurationText, Kind, Start, SubscriptionMode, SubscriptionSpec};

use crate::get;
use crate::output::{Format, Out};
use crate::when::{self, When};

/// Letters of one page.
const PAGE: u32 = 1_000;

/// Arguments of `weft subscription`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a subscription to a stream; the cluster remembers what is done
    #[command(after_help = "\
Modes: exclusive (the newest member gets everything, in order), shared (each event goes to one of the
members), key-shared (the same; events of one key come one after another). Everything else can be set
and changed with weft apply: see docs/subscriptions.md.

Examples:
  weft subscription create billing --stream orders --mode key-shared --from earliest
  weft subscribe orders --subscription billing")]
    Create(Create),
    /// Move the cursor: what is before counts as done, what follows comes (again)
    #[command(after_help = "\
What was delivered before and is not acknowledged is fenced: acknowledging it is refused.

Examples:
  weft subscription seek billing --to -1h
  weft subscription seek billing --to 4711 --partition 2
  weft subscription seek billing --to-event order-1 --event-source /shop")]
    Seek {
        /// NAME or NAMESPACE/NAME
        name: String,
        #[command(flatten)]
        goal: Goal,
        /// Only in this partition
        #[arg(long, value_name = "N")]
        partition: Option<u32>,
    },
    /// Show one, and how far it is
    Describe {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// Show events that were given up, and why
    DeadLetters {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// Show so many at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Deliver dead letters again, to this subscription alone
    #[command(after_help = "\
Examples:
  weft subscription redrive billing --dry-run
  weft subscription redrive billing --letter 0/17 --letter 0/20-25
  weft subscription redrive billing --rate 100")]
    Redrive {
        #[command(flatten)]
        which: Which,
        /// So many a second from each partition; without it as fast as members take them
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
        rate: u32,
    },
    /// Settle dead letters without delivering them
    Discard {
        #[command(flatten)]
        which: Which,
        /// Discard all of them: needed when no --letter says which
        #[arg(long, conflicts_with = "letter")]
        all: bool,
    },
}

#[derive(clap::Args, Debug)]
struct Goal {
    /// earliest, latest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(
        long,
        allow_hyphen_values = true,
        value_name = "WHEN",
        required_unless_present = "to_event",
        conflicts_with = "to_event"
    )]
    to: Option<When>,
    /// The event with this `id`: it comes next. In other partitions than its own, what was appended at
    /// its time or later
    #[arg(long, value_name = "ID")]
    to_event: Option<String>,
    /// The `source` of the event; needed where events of several sources have the id
    #[arg(long, value_name = "SOURCE", requires = "to_event")]
    event_source: Option<String>,
    /// Look for the event from here on: an RFC 3339 time, or an age such as -7d; without it among all
    /// that is stored
    #[arg(long, allow_hyphen_values = true, value_name = "WHEN", requires = "to_event")]
    event_since: Option<When>,
}

#[derive(clap::Args, Debug)]
struct Create {
    /// NAME or NAMESPACE/NAME
    name: String,
    /// The stream that it reads
    #[arg(long)]
    stream: String,
    /// Who gets what when there are several members
    #[arg(long, value_enum, default_value_t = Mode::Exclusive)]
    mode: Mode,
    /// Where it begins: earliest, latest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(long, default_value = "latest", allow_hyphen_values = true, value_name = "WHEN")]
    from: When,
    /// How long an event is lent before it is delivered again: 30s, 5m, ...
    #[arg(long, value_name = "AGE")]
    lease: Option<DurationText>,
    /// Deliveries that may fail before an event is a dead letter; 0 = any number
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Exclusive,
    Shared,
    KeyShared,
}

#[derive(clap::Args, Debug)]
struct Which {
    /// NAME or NAMESPACE/NAME
    name: String,
    /// PARTITION/OFFSET or PARTITION/FIRST-LAST, as dead-letters shows them; all without it
    #[arg(long, value_name = "P/OFFSET", value_parser = letters)]
    letter: Vec<v1::DeadLetterRange>,
    /// Count, and do nothing
    #[arg(long)]
    dry_run: bool,
}

fn letters(text: &str) -> Result<v1::DeadLetterRange, String> {
    let parsed = text.split_once('/').and_then(|(partition, offsets)| {
        let (first, last) = offsets.split_once('-').unwrap_or((offsets, offsets));
        let partition = partition.parse().ok()?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(v1::DeadLetterRange { partition, first, last })
    });
    parsed.ok_or_else(|| {
        format!("{text:?} is no dead letter; write PARTITION/OFFSET or PARTITION/FIRST-LAST")
    })
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<()> {
    match args.verb {
        Verb::Create(args) => create(args, client, format).await,
        Verb::Seek { name, goal, partition } => {
            seek(&name, goal, partition.map(PartitionId), client, format).await
        }
        Verb::Describe { name } => describe(&name, client, format).await,
        Verb::DeadLetters { name, limit } => dead_letters(&name, limit, client, format).await,
        Verb::Redrive { which, rate } => {
            let redrive = Redrive { per_second: rate, ..which.redrive() };
            take_up(&which, redrive, client, format).await
        }
        Verb::Discard { which, all } => {
            if which.letter.is_empty() && !all && !which.dry_run {
                anyhow::bail!("say which dead letters: --letter P/OFFSET, or --all");
            }
            let discard = Redrive { discards: true, ..which.redrive() };
            take_up(&which, discard, client, format).await
        }
    }
}

impl Which {
    fn redrive(&self) -> Redrive {
        let letters = self.letter.clone();
        Redrive { letters, is_dry_run: self.dry_run, ..Redrive::default() }
    }
}

async fn seek(
    name: &str,
    goal: Goal,
    partition: Option<PartitionId>,
    client: &Client,
    format: Format,
) -> anyhow::Result<()> {
    let moved = match (goal.to, goal.to_event) {
        (_, Some(id)) => {
            let since = when::since(goal.event_since)?;
            let event = EventPlace { id, source: goal.event_source, since };
            client.seek_to_event(name, partition, event).await?
        }
        (Some(to), None) => client.seek(name, partition, to.position()).await?,
        (None, None) => anyhow::bail!("say where to: --to WHEN, or --to-event ID"),
    };
    let mut out = Out::new();
    if format != Format::Table {
        let cursor = |one: &v1::SeekResult| serde_json::json!({ "partition": one.partition, "offset": one.offset });
        return out.json(&moved.iter().map(cursor).collect::<Vec<_>>());
    }
    for one in moved {
        out.line(&format!("partition {}: goes on at offset {}", one.partition, one.offset))?;
    }
    Ok(out.flush()?)
}

async fn create(args: Create, client: &Client, format: Format) -> anyhow::Result<()> {
    let mode = match args.mode {
        Mode::Exclusive => SubscriptionMode::Exclusive,
        Mode::Shared => SubscriptionMode::Shared,
        Mode::KeyShared => SubscriptionMode::KeyShared,
    };
    let start = match args.from.position() {
        Position::Earliest => Start::Earliest,
        Position::Latest => Start::Latest,
        Position::Offset(offset) => Start::Offset(offset.get()),
        Position::Time(time) => Start::Time(time.to_string()),
    };
    let mut spec = SubscriptionSpec { mode, start, ..SubscriptionSpec::new(args.stream) };
    spec.lease = args.lease.unwrap_or(spec.lease);
    spec.retry.attempts = args.attempts.unwrap_or(spec.retry.attempts);
    let resource = resource_of(Kind::Subscription, &args.name, &spec)?;
    let options = PutOptions { expected_generation: Some(0), ..PutOptions::default() };
    client.catalog().put(resource, options).await?;
    let mut out = Out::new();
    if format != Format::Table {
        return out.json(&serde_json::json!({ "subscription": args.name, "result": "created" }));
    }
    out.line(&format!("subscription {}: created", args.name))?;
    Ok(out.flush()?)
}

async fn describe(name: &str, client: &Client, format: Format) -> anyhow::Result<()> {
    let subscription = client.catalog().get(Kind::Subscription, name).await?;
    let progress = client.subscription_progress(name).await?;
    if format == Format::Json {
        let spec: serde_json::Value = serde_json::from_slice(&subscription.spec)?;
        let partition = |one: &v1::Progress| {
            serde_json::json!({
                "partition": one.partition, "watermark": one.watermark, "end": one.end,
                "settled_above": one.settled_above, "given_back": one.given_back,
                "lost": one.overtaken,
            })
        };
        let partitions: Vec<_> = progress.iter().map(partition).collect();
        return Out::new().json(&serde_json::json!({
            "name": get::name_of(&subscription), "spec": spec, "partitions": partitions,
        }));
    }
    get::export(std::slice::from_ref(&subscription), Format::Yaml)?;
    let mut out = Out::new();
    out.line("")?;
    let rows = progress.iter().map(|one| {
        let left = one.end.saturating_sub(one.watermark).saturating_sub(one.settled_above);
        let numbers =
            [u64::from(one.partition), one.watermark, one.end, left, one.given_back, one.overtaken];
        numbers.iter().map(u64::to_string).collect()
    });
    let heads = ["PARTITION", "NEXT", "END", "LEFT", "GIVEN BACK", "LOST"];
    out.table(&heads, rows.collect())?;
    Ok(out.flush()?)
}

async fn dead_letters(
    name: &str,
    limit: usize,
    client: &Client,
    format: Format,
) -> anyhow::Result<()> {
    let mut out = Out::new();
    let (mut shown, mut page) = (0, String::new());
    let mut rows = Vec::new();
    while shown < limit {
        let most = u32::try_from(limit - shown).unwrap_or(PAGE).min(PAGE);
        let answer = client.dead_letters(name, most, &page).await?;
        for letter in &answer.letters {
            shown += 1;
            let Some(view) = EventView::parse(&letter.event) else { continue };
            let said = |attribute: &str| view.attribute(attribute).unwrap_or_default().into_owned();
            let place = format!("{}/{}", letter.partition, letter.offset);
            if format == Format::Table {
                let (reason, attempts) = (said("weftreason"), said("weftattempts"));
                let from = format!("{}/{}", said("weftpartition"), said("weftoffset"));
                let (id, error) = (view.id.to_owned(), said("weftlasterror"));
                rows.push(vec![place, from, id, reason, attempts, error]);
            } else {
                out.line(&format!(r#"{{"letter":"{place}","event":{}}}"#, to_json(&view)))?;
            }
        }
        if answer.next_page.is_empty() {
            break;
        }
        page = answer.next_page;
    }
    if format == Format::Table {
        let heads = ["LETTER", "WAS AT", "EVENT", "REASON", "ATTEMPTS", "LAST ERROR"];
        out.table(&heads, rows)?;
    }
    Ok(out.flush()?)
}

async fn take_up(
    which: &Which,
    redrive: Redrive,
    client: &Client,
    format: Format,
) -> anyhow::Result<()> {
    let verb = if redrive.discards { "discarded" } else { "delivered again" };
    let (mut events, mut bytes) = (0, 0);
    loop {
        let answer = client.redrive(&which.name, redrive.clone()).await?;
        events += answer.events;
        bytes += answer.bytes;
        if !answer.more || redrive.is_dry_run {
            break;
        }
    }
    let mut out = Out::new();
    if format != Format::Table {
        return out.json(&serde_json::json!({
            "events": events, "bytes": bytes, "dry_run": redrive.is_dry_run,
        }));
    }
    let would = if redrive.is_dry_run { "would be" } else { "are" };
    out.line(&format!("{events} dead letters ({bytes} bytes) {would} {verb}"))?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_they_are_shown() {
        let range = |partition, first, last| v1::DeadLetterRange { partition, first, last };
        assert_eq!(letters("0/17").unwrap(), range(0, 17, 17));
        assert_eq!(letters("3/20-25").unwrap(), range(3, 20, 25));
        for wrong in ["", "17", "/", "0/", "0/5-3", "0/a", "-1/2", "0/1-2-3"] {
            assert!(letters(wrong).is_err(), "{wrong:?} was read");
        }
    }
}
