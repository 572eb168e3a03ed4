//! `weft replay-job`: sends a stored range to the members of one subscription again.

use clap::{Subcommand, ValueEnum};
use weft_client::{Client, Position, PutOptions, ReadItem, ReadOptions, resource_of};
use weft_proto::resource::{
    self, EventAt, FunctionTarget, Kind, Place, ReplayJobSpec, ReplayPace, ReplayState,
    ReplayTarget, Start, SubscriptionSpec,
};
use weft_proto::{Offset, v1};

use crate::filter::Filters;
use crate::get;
use crate::output::{Format, Out};
use crate::when::{self, When};

/// Arguments of `weft replay-job`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Begin to deliver a stored range to a subscription, webhook or function, beside what it gets anyway
    #[command(after_help = "\
Its members get the events with the attributes weftreplayjob (the name of the job) and weftoffset, and
settle them as all others; what fails is tried again and given up by the rules of the subscription. Its
cursor does not move, and no other subscription or function notices.

Examples:
  weft replay-job start backfill --subscription billing --dry-run
  weft replay-job start backfill --subscription billing --from 2026-03-01T00:00:00Z --to 2026-04-01T00:00:00Z
  weft replay-job start again --subscription billing --from -1h --cel 'data.total > 100' --pace 50
  weft replay-job start missed --webhook billing --from 4711
  weft replay-job start compare --function billing --revision billing-00002 --from -1h
  weft replay-job start outage --subscription billing --from-event order-17 --to-event order-99 --from-source /shop
  weft replay-job start rehearsal --subscription billing --from -1d --pace original")]
    Start(Box<StartArgs>),
    /// List replay jobs
    List,
    /// Show one, and how far it is
    Describe {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// Deliver nothing more of it for the time being
    Pause {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
    /// Go on with one that is paused, or at another pace
    Resume {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// From now on: fastest, original, or so many events a second
        #[arg(long, value_name = "PACE", value_parser = pace)]
        pace: Option<ReplayPace>,
    },
    /// End it for good; what was settled stays so
    Cancel {
        /// NAME or NAMESPACE/NAME
        name: String,
    },
}

#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
#[derive(clap::Args, Debug)]
struct StartArgs {
    /// NAME or NAMESPACE/NAME
    name: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    range: Range,
    /// With --function: the trigger whose stream is replayed, by whose rules
    #[arg(long, value_name = "TRIGGER", default_value = "default")]
    trigger: String,
    /// With --function: the revision that gets the events; by default they are shared out as all others
    #[arg(long, value_name = "REVISION", requires = "function")]
    revision: Option<String>,
    #[command(flatten)]
    filters: Filters,
    /// fastest (as members take them), original (with the pauses between their append times, in each
    /// partition), or so many events a second
    #[arg(long, default_value = "fastest", value_parser = pace)]
    pace: ReplayPace,
    /// Make it, and let it wait for weft replay-job resume
    #[arg(long)]
    paused: bool,
    /// Count the events, and make nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args, Debug)]
struct Range {
    /// Where to start: earliest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(
        long,
        default_value = "earliest",
        allow_hyphen_values = true,
        value_name = "WHEN",
        conflicts_with = "from_event"
    )]
    from: When,
    /// Where to stop, exclusive; latest is what is stored when the job is made
    #[arg(
        long,
        default_value = "latest",
        allow_hyphen_values = true,
        value_name = "WHEN",
        conflicts_with = "to_event"
    )]
    to: When,
    /// Start with the event that has this `id`; in other partitions than its own, with what was appended
    /// at its time or later
    #[arg(long, value_name = "ID")]
    from_event: Option<String>,
    /// The `source` of that event; needed where events of several sources have the id
    #[arg(long, value_name = "SOURCE", requires = "from_event")]
    from_source: Option<String>,
    /// Stop before the event that has this `id`
    #[arg(long, value_name = "ID")]
    to_event: Option<String>,
    /// The `source` of that event
    #[arg(long, value_name = "SOURCE", requires = "to_event")]
    to_source: Option<String>,
    /// Look for both events from here on: an RFC 3339 time, or an age such as -7d; without it among all
    /// that is stored
    #[arg(long, allow_hyphen_values = true, value_name = "WHEN")]
    event_since: Option<When>,
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Target {
    /// Who gets the events: a subscription in mode shared or key-shared
    #[arg(long, value_name = "NAME")]
    subscription: Option<String>,
    /// Who gets the events: the receiver of a webhook
    #[arg(long, value_name = "NAME")]
    webhook: Option<String>,
    /// Who gets the events: a function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Pace {
    Fastest,
    Original,
}

fn pace(text: &str) -> Result<ReplayPace, String> {
    if let Ok(rate) = text.parse() {
        return Ok(ReplayPace::PerSecond(rate));
    }
    match Pace::from_str(text, false) {
        Ok(Pace::Fastest) => Ok(ReplayPace::Fastest),
        Ok(Pace::Original) => Ok(ReplayPace::Original),
        Err(_) => Err("write fastest, original, or a number of events a second".to_owned()),
    }
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<()> {
    match args.verb {
        Verb::Start(args) => start(*args, client, format).await,
        Verb::List => list(client, format).await,
        Verb::Describe { name } => describe(&name, client, format).await,
        Verb::Pause { name } => change(&name, ReplayState::Paused, None, client, format).await,
        Verb::Resume { name, pace } => {
            change(&name, ReplayState::Running, pace, client, format).await
        }
        Verb::Cancel { name } => change(&name, ReplayState::Cancelled, None, client, format).await,
    }
}

async fn start(args: StartArgs, client: &Client, format: Format) -> anyhow::Result<()> {
    let since = when::since(args.range.event_since)?.map(|since| since.to_string());
    let Range { from, to, from_event, from_source, to_event, to_source, .. } = args.range;
    let spec = ReplayJobSpec {
        from: place(from, from_event, from_source, since.as_ref()),
        to: place(to, to_event, to_source, since.as_ref()),
        filters: args.filters.filters().map_err(anyhow::Error::msg)?,
        pace: args.pace,
        state: if args.paused { ReplayState::Paused } else { ReplayState::Running },
        ..ReplayJobSpec::new(args.target.subscription.unwrap_or_default())
    };
    let spec = match (args.target.webhook, args.target.function) {
        (Some(webhook), _) => ReplayJobSpec { target: ReplayTarget::Webhook(webhook), ..spec },
        (None, Some(name)) => {
            let (trigger, revision) = (args.trigger, args.revision);
            let target = ReplayTarget::Function(FunctionTarget { name, trigger, revision });
            ReplayJobSpec { target, ..spec }
        }
        (None, None) => spec,
    };
    let wanted = resource_of(Kind::ReplayJob, &args.name, &spec)?;
    let options = PutOptions { expected_generation: Some(0), dry_run: args.dry_run };
    let stored = client.catalog().put(wanted, options).await?.resource;
    let spec: ReplayJobSpec = resource::parse(Kind::ReplayJob, &stored.spec)?;
    let offsets: u64 = ranges(&spec).map(|range| range.to - range.from).sum();
    let mut out = Out::new();
    if !args.dry_run {
        if format != Format::Table {
            let made = serde_json::json!({ "replay_job": args.name, "offsets": offsets });
            return out.json(&made);
        }
        out.line(&format!("replay job {}: goes through {offsets} events", args.name))?;
        return Ok(out.flush()?);
    }
    let (events, bytes) = count(&spec, client).await?;
    if format != Format::Table {
        let counted = serde_json::json!({ "events": events, "bytes": bytes, "offsets": offsets, "dry_run": true });
        return out.json(&counted);
    }
    out.line(&format!(
        "{events} of {offsets} events ({bytes} bytes) would be delivered to {}",
        target_of(&spec)?
    ))?;
    Ok(out.flush()?)
}

fn place(
    when: When,
    event: Option<String>,
    source: Option<String>,
    since: Option<&String>,
) -> Place {
    if let Some(id) = event {
        return Place::Event(EventAt { id, source, since: since.cloned() });
    }
    Place::At(match when.position() {
        Position::Earliest => Start::Earliest,
        Position::Latest => Start::Latest,
        Position::Offset(offset) => Start::Offset(offset.get()),
        Position::Time(time) => Start::Time(time.to_string()),
    })
}

fn ranges(spec: &ReplayJobSpec) -> impl Iterator<Item = resource::ReplayPartition> {
    spec.resolved.iter().flat_map(|range| range.partitions.iter().copied())
}

/// Events that the job would deliver, and their bytes: reads them all.
async fn count(spec: &ReplayJobSpec, client: &Client) -> anyhow::Result<(u64, u64)> {
    let target = spec.target.subscription()?.to_string();
    let target = client.catalog().get(Kind::Subscription, &target).await?;
    let target: SubscriptionSpec = resource::parse(Kind::Subscription, &target.spec)?;
    let (mut events, mut bytes) = (0, 0);
    for range in ranges(spec) {
        let options = ReadOptions {
            partitions: vec![range.partition],
            from: Position::Offset(Offset(range.from)),
            to: Some(Position::Offset(Offset(range.to))),
            filters: spec.filters.iter().chain(&target.filters).cloned().collect(),
            ..ReadOptions::all(target.stream.clone())
        };
        let mut reader = client.read(options).await?;
        while let Some(item) = reader.next().await? {
            let ReadItem::Batch(batch) = item else { continue };
            events += batch.events.len() as u64;
            bytes += batch.events.iter().map(|(_, event)| event.len() as u64).sum::<u64>();
        }
    }
    Ok((events, bytes))
}

async fn list(client: &Client, format: Format) -> anyhow::Result<()> {
    let jobs = client.catalog().list(Kind::ReplayJob, "").await?;
    if format != Format::Table {
        return get::export(&jobs, format);
    }
    let mut rows = Vec::new();
    for job in &jobs {
        let spec: ReplayJobSpec = resource::parse(Kind::ReplayJob, &job.spec)?;
        let name = get::name_of(job);
        let progress = client.replay_progress(&name).await.unwrap_or_default();
        rows.push(vec![name, state_of(&spec, &progress), share(&progress), target_of(&spec)?]);
    }
    Out::new().table(&["REPLAY JOB", "STATE", "DONE", "TARGET"], rows)
}

fn target_of(spec: &ReplayJobSpec) -> anyhow::Result<String> {
    let kind = match &spec.target {
        ReplayTarget::Subscription(_) => "subscription",
        ReplayTarget::Webhook(_) => "webhook",
        ReplayTarget::Function(_) => "function",
    };
    Ok(format!("{kind} {}", spec.target.name()?))
}

/// What of the range is done.
fn share(progress: &[v1::Progress]) -> String {
    let all: u64 = progress.iter().map(|one| one.end - one.from).sum();
    let done: u64 = progress.iter().map(done).sum();
    format!("{done}/{all}")
}

fn done(one: &v1::Progress) -> u64 {
    one.watermark.saturating_sub(one.from).saturating_add(one.settled_above)
}

fn state_of(spec: &ReplayJobSpec, progress: &[v1::Progress]) -> String {
    let is_known = ranges(spec).count() == progress.len();
    let word = match spec.state {
        ReplayState::Cancelled => "cancelled",
        _ if is_known && progress.iter().all(|one| one.watermark >= one.end) => "done",
        _ if !is_known => "its target is gone",
        ReplayState::Paused => "paused",
        ReplayState::Running => "running",
    };
    word.to_owned()
}

async fn describe(name: &str, client: &Client, format: Format) -> anyhow::Result<()> {
    let job = client.catalog().get(Kind::ReplayJob, name).await?;
    let spec: ReplayJobSpec = resource::parse(Kind::ReplayJob, &job.spec)?;
    let progress = client.replay_progress(name).await?;
    let state = state_of(&spec, &progress);
    if format == Format::Json {
        let partitions: Vec<_> = progress.iter().map(to_json).collect();
        let value = serde_json::json!({
            "name": get::name_of(&job), "state": state, "spec": spec, "partitions": partitions,
        });
        return Out::new().json(&value);
    }
    get::export(std::slice::from_ref(&job), Format::Yaml)?;
    let mut out = Out::new();
    out.line(&format!("\nstate: {state}\ndone: {} events\n", share(&progress)))?;
    let rows = progress.iter().map(|one| {
        let numbers = [
            u64::from(one.partition),
            one.from,
            one.watermark,
            one.end,
            done(one),
            one.given_back,
            one.overtaken,
        ];
        numbers.iter().map(u64::to_string).collect()
    });
    let heads = ["PARTITION", "FROM", "NEXT", "TO", "DONE", "GIVEN BACK", "LOST"];
    out.table(&heads, rows.collect())?;
    Ok(out.flush()?)
}

fn to_json(one: &v1::Progress) -> serde_json::Value {
    serde_json::json!({
        "partition": one.partition, "from": one.from, "watermark": one.watermark, "to": one.end,
        "done": done(one), "given_back": one.given_back, "lost": one.overtaken,
    })
}

async fn change(
    name: &str,
    state: ReplayState,
    pace: Option<ReplayPace>,
    client: &Client,
    format: Format,
) -> anyhow::Result<()> {
    let job = client.catalog().get(Kind::ReplayJob, name).await?;
    let spec: ReplayJobSpec = resource::parse(Kind::ReplayJob, &job.spec)?;
    let spec = ReplayJobSpec { state, pace: pace.unwrap_or(spec.pace), ..spec };
    let wanted = v1::Resource { labels: job.labels, ..resource_of(Kind::ReplayJob, name, &spec)? };
    let options = PutOptions { expected_generation: Some(job.generation), ..PutOptions::default() };
    client.catalog().put(wanted, options).await?;
    let word = match state {
        ReplayState::Running => "runs",
        ReplayState::Paused => "is paused",
        ReplayState::Cancelled => "is cancelled",
    };
    let mut out = Out::new();
    if format != Format::Table {
        return out.json(&serde_json::json!({ "replay_job": name, "state": state }));
    }
    out.line(&format!("replay job {name}: {word}"))?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_word_or_a_rate() {
        assert_eq!(pace("fastest"), Ok(ReplayPace::Fastest));
        assert_eq!(pace("original"), Ok(ReplayPace::Original));
        assert_eq!(pace("50"), Ok(ReplayPace::PerSecond(50)));
        for wrong in ["", "fast", "-1", "1.5", "50/s"] {
            assert!(pace(wrong).unwrap_err().contains("a second"), "{wrong:?}");
        }
    }

    #[test]
    fn an_event_is_a_place_and_a_place_beside_it_is_none() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            range: Range,
        }
        let read = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.range);
        let range = read("x --from-event 1 --from-source /s --to -1h").unwrap();
        let event = EventAt { id: "1".to_owned(), source: Some("/s".to_owned()), since: None };
        assert_eq!(
            place(range.from, range.from_event, range.from_source, None),
            Place::Event(event)
        );
        assert!(matches!(place(range.to, range.to_event, None, None), Place::At(Start::Time(_))));
        for wrong in ["x --from-event 1 --from 7", "x --to-event 1 --to 7", "x --to-source /s"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_job_is_done_when_all_of_its_range_is() {
        use resource::{ReplayPartition, ReplayRange};
        let partition = |partition| ReplayPartition { partition, from: 5, to: 9 };
        let range = ReplayRange { target_uid: 1, partitions: vec![partition(0), partition(1)] };
        let spec = ReplayJobSpec { resolved: Some(range), ..ReplayJobSpec::new("billing") };
        let at = |watermark| v1::Progress { from: 5, end: 9, watermark, ..v1::Progress::default() };

        assert_eq!(state_of(&spec, &[at(9), at(8)]), "running");
        assert_eq!(share(&[at(9), at(8)]), "7/8");
        assert_eq!(state_of(&spec, &[at(9), at(9)]), "done");
        assert_eq!(state_of(&spec, &[]), "its target is gone");
        let paused = ReplayJobSpec { state: ReplayState::Paused, ..spec };
        assert_eq!(state_of(&paused, &[at(9), at(8)]), "paused");
        assert_eq!(state_of(&paused, &[at(9), at(9)]), "done");
    }
}
