//! Which revisions of a function get events.

use anyhow::Context as _;
use weft_client::proto::v1;
use weft_client::{Client, PutOptions, Redrive, spec_of, status_of};
use weft_proto::event::EventView;
use weft_proto::resource::{FunctionSpec, FunctionStatus, Kind, LATEST, Revision, TrafficSpec};

use crate::get;
use crate::output::{Format, Out};

/// Dead letters of one page.
const PAGE: u32 = 1_000;

/// `NAME=PERCENT`.
pub(super) fn part(text: &str) -> Result<TrafficSpec, String> {
    let wrong = || format!("{text:?} is no part: write REVISION=PERCENT, such as latest=10");
    let (revision, percent) = text.split_once('=').ok_or_else(wrong)?;
    let percent = percent.trim_end_matches('%').parse().map_err(|_not_a_number| wrong())?;
    Ok(TrafficSpec { revision: revision.to_owned(), percent, tag: None })
}

/// Lists them, the newest first.
pub(super) async fn list(client: &Client, name: &str, format: Format) -> anyhow::Result<()> {
    let function = client.catalog().get(Kind::Function, name).await?;
    let spec: FunctionSpec = spec_of(&function)?;
    let status: FunctionStatus = status_of(&function)?;
    if format != Format::Table {
        return Out::new().json(&serde_json::to_value(&spec.revisions)?);
    }
    let shares = spec.shares();
    let rows = spec.revisions.iter().rev().map(|revision| {
        let share = shares.iter().find(|(one, _)| one.name == revision.name);
        let running = status.revisions.iter().find(|one| one.name == revision.name);
        let ready = running.map_or(0, |one| one.instances.ready);
        vec![
            revision.name.clone(),
            share.map_or_else(String::new, |(_, percent)| format!("{percent}%")),
            ready.to_string(),
            revision.created.clone(),
            revision.by.clone(),
            runs(revision),
        ]
    });
    let head = ["REVISION", "TRAFFIC", "READY", "MADE", "BY", "RUNS"];
    Out::new().table(&head, rows.collect())
}

fn runs(revision: &Revision) -> String {
    match &revision.template.image {
        Some(image) => image.clone(),
        None => revision.template.command.join(" "),
    }
}

/// Shares events out anew.
pub(super) async fn split(
    client: &Client,
    name: &str,
    parts: Vec<TrafficSpec>,
    format: Format,
) -> anyhow::Result<()> {
    let function = client.catalog().get(Kind::Function, name).await?;
    change(client, function, parts, format).await
}

/// Gives all events to an earlier revision: the one before the one that gets most now, or a named one.
pub(super) async fn rollback(
    client: &Client,
    name: &str,
    to: Option<String>,
    format: Format,
) -> anyhow::Result<()> {
    let function = client.catalog().get(Kind::Function, name).await?;
    let spec: FunctionSpec = spec_of(&function)?;
    let revision = if let Some(revision) = to {
        revision
    } else {
        let shares = spec.shares();
        let now = shares.iter().max_by_key(|(one, percent)| (*percent, one.number()));
        let now = now.map_or(0, |(revision, _)| revision.number());
        let before = spec.revisions.iter().rev().find(|one| one.number() < now);
        before.map(|one| one.name.clone()).context("there is no earlier revision")?
    };
    change(client, function, vec![TrafficSpec { revision, percent: 100, tag: None }], format).await
}

async fn change(
    client: &Client,
    mut function: v1::Resource,
    parts: Vec<TrafficSpec>,
    format: Format,
) -> anyhow::Result<()> {
    let mut spec: FunctionSpec = spec_of(&function)?;
    // `latest` alone is what holds without a word.
    let is_default =
        matches!(parts.as_slice(), [only] if only.revision == LATEST && only.percent == 100);
    spec.traffic = if is_default { Vec::new() } else { parts };
    function.spec = serde_json::to_vec(&spec)?.into();
    let options =
        PutOptions { expected_generation: Some(function.generation), ..PutOptions::default() };
    let name = get::name_of(&function);
    let stored = client.catalog().put(function, options).await?.resource;
    let spec: FunctionSpec = spec_of(&stored)?;
    let shares = spec.shares();
    let mut out = Out::new();
    if format == Format::Table {
        let text = |(revision, percent): &(&Revision, u32)| format!("{} {percent}%", revision.name);
        let text: Vec<String> = shares.iter().map(text).collect();
        out.line(&format!("function {name}: {}", text.join(", ")))?;
        return Ok(out.flush()?);
    }
    let value = |(revision, percent): &(&Revision, u32)| serde_json::json!({"revision": revision.name, "percent": percent});
    out.json(&shares.iter().map(value).collect::<serde_json::Value>())
}

/// Delivers dead letters of a function again, to whoever gets its events now.
pub(super) async fn redrive(
    client: &Client,
    name: &str,
    trigger: &str,
    failed_by: Option<&str>,
    is_dry_run: bool,
    format: Format,
) -> anyhow::Result<()> {
    let function = client.catalog().get(Kind::Function, name).await?;
    let spec: FunctionSpec = spec_of(&function)?;
    let names: Vec<&str> = spec.triggers.iter().map(|one| one.name.as_str()).collect();
    anyhow::ensure!(
        names.contains(&trigger),
        "{name} has no trigger {trigger}; name one by --trigger: {}",
        names.join(", ")
    );
    let own = FunctionSpec::subscription_name(&function.name.parse()?, trigger)?;
    let subscription = format!("{}/{own}", function.namespace);
    let letters = match failed_by {
        None => Vec::new(),
        Some(revision) => failed(client, &subscription, revision).await?,
    };
    let mut events = 0;
    // Without any named, all are meant.
    if failed_by.is_none() || !letters.is_empty() {
        loop {
            let redrive = Redrive { letters: letters.clone(), is_dry_run, ..Redrive::default() };
            let answer = client.redrive(&subscription, redrive).await?;
            events += answer.events;
            if !answer.more || is_dry_run {
                break;
            }
        }
    }
    let mut out = Out::new();
    if format != Format::Table {
        return out.json(&serde_json::json!({"events": events, "dry_run": is_dry_run}));
    }
    let verb = if is_dry_run { "would be delivered" } else { "are delivered" };
    out.line(&format!("{events} dead letters of {subscription} {verb} again"))?;
    Ok(out.flush()?)
}

/// Dead letters whose last failure was that of a revision.
async fn failed(
    client: &Client,
    subscription: &str,
    revision: &str,
) -> anyhow::Result<Vec<v1::DeadLetterRange>> {
    let begins = format!("{revision}: ");
    let (mut found, mut page): (Vec<v1::DeadLetterRange>, _) = (Vec::new(), String::new());
    loop {
        let answer = client.dead_letters(subscription, PAGE, &page).await?;
        for letter in &answer.letters {
            let view = EventView::parse(&letter.event);
            let error = view.and_then(|view| view.attribute("weftlasterror"));
            if !error.is_some_and(|error| error.starts_with(&begins)) {
                continue;
            }
            let (partition, offset) = (letter.partition, letter.offset);
            match found.last_mut() {
                Some(range) if range.partition == partition && range.last + 1 == offset => {
                    range.last = offset;
                }
                _ => found.push(v1::DeadLetterRange { partition, first: offset, last: offset }),
            }
        }
        if answer.next_page.is_empty() {
            return Ok(found);
        }
        page = answer.next_page;
    }
}
