//! `weft event`: the story of one event.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};
use weft_client::Client;
use weft_client::proto::v1::{self, EventState};
use weft_proto::Timestamp;
use weft_proto::event::{EventView, to_json};
use weft_proto::trace::TraceContext;

use crate::output::{Format, Out, hex, printable};
use crate::when::When;

/// Arguments of `weft event`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Tell what became of an event: where it is, its schema, each subscription, what came of it
    #[command(after_help = "\
What is told follows from what the cluster stores: of attempts how many failed, and what the
last one said. Each single attempt is only in spans, see docs/tracing.md.

Examples:
  weft event trace order-1 --stream orders
  weft event trace order-1 --stream orders --source /shop --since -7d
  weft event trace order-1 --stream orders -o json

Exit codes: 0 found; 1 not found, or failed; 2 wrong usage.")]
    Trace(Trace),
}

#[derive(clap::Args, Debug)]
struct Trace {
    /// The `id` of the event
    id: String,
    /// The stream that it is in: NAME or NAMESPACE/NAME
    #[arg(long)]
    stream: String,
    /// Its `source`; without it whatever has the id is told of. With it, a new event is found at once
    #[arg(long)]
    source: Option<String>,
    /// Look from here on: earliest, an offset, an RFC 3339 time, or an age such as -7d
    #[arg(long, default_value = "-24h", allow_hyphen_values = true, value_name = "WHEN")]
    since: When,
    /// The same as --output json
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn stream(&self) -> &str {
        let Verb::Trace(trace) = &self.verb;
        &trace.stream
    }
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let Verb::Trace(trace) = args.verb;
    let request = v1::TraceEventRequest {
        stream: trace.stream.clone(),
        id: trace.id.clone(),
        source: trace.source.clone().unwrap_or_default(),
        from: Some(trace.since.position().into()),
        ..v1::TraceEventRequest::default()
    };
    let answer = client.trace_event(request).await?;
    let mut out = Out::new();
    let is_found = !answer.events.is_empty();
    if trace.json || format != Format::Table {
        out.json(&as_json(&answer))?;
    } else {
        let lines = if is_found { story(&answer) } else { nothing(&trace, &answer) };
        for line in lines {
            out.line(&printable(&line))?;
        }
        out.flush()?;
    }
    Ok(if is_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn nothing(trace: &Trace, answer: &v1::TraceEventResponse) -> Vec<String> {
    let of = trace.source.as_ref().map(|source| format!(" of {source}")).unwrap_or_default();
    let mut lines = vec![format!("no event {}{of} in {}", trace.id, trace.stream)];
    lines.extend(answer.searched.iter().map(|one| format!("  looked through {}", searched(one))));
    lines.push("  look further back: --since -7d, or --since earliest".to_owned());
    lines
}

fn searched(one: &v1::Searched) -> String {
    let cut = if one.cut { ", and not to the end: that would take too long" } else { "" };
    let from = if one.from_us == 0 { "its beginning".to_owned() } else { time(one.from_us) };
    let events = if one.events == 1 { "event" } else { "events" };
    format!("{} from {from} on: {} {events}{cut}", one.stream, one.events)
}

fn time(micros: u64) -> String {
    Timestamp::from_micros(micros).to_string()
}

fn story(answer: &v1::TraceEventResponse) -> Vec<String> {
    let mut lines = Vec::new();
    for event in &answer.events {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let stream = answer.searched.first().map_or("", |first| first.stream.as_str());
        lines.extend(head(stream, event));
        lines.push(String::new());
        if event.subscriptions.is_empty() {
            lines.push("no subscription of the stream that you may see".to_owned());
        }
        for one in &event.subscriptions {
            lines.extend(subscription(event, one));
        }
        if !event.related.is_empty() {
            lines.push(String::new());
        }
        lines.extend(event.related.iter().map(relative));
    }
    lines.push(String::new());
    let mut looked = answer.searched.iter();
    lines.extend(looked.next().map(|one| format!("looked for it in {}", searched(one))));
    lines.extend(looked.map(|one| format!("looked for what came of it in {}", searched(one))));
    lines
}

fn head(stream: &str, event: &v1::EventTrace) -> Vec<String> {
    let mut lines = Vec::new();
    let view = EventView::parse(&event.event);
    if let Some(view) = &view {
        lines.push(format!("event      {}  {}  {}", view.id, view.source, view.ty));
    }
    let (partition, offset) = (event.partition, event.offset);
    let at = time(event.append_time_us);
    lines.push(format!("stored     {stream}, partition {partition}, offset {offset}, at {at}"));
    let leads = match event.leader {
        Some(node) => format!("node {node} leads the partition now"),
        None => "the partition has no leader now".to_owned(),
    };
    let came = match event.ingest {
        Some(node) => format!("came in at node {node}"),
        None => "at which node it came in is not stored".to_owned(),
    };
    lines.push(format!("node       {came}; {leads}"));
    lines.push(match &event.schema {
        Some(schema) => {
            format!("schema     {} version {}: accepted under it", schema.schema, schema.version)
        }
        None => "schema     none governed it when it was published".to_owned(),
    });
    let Some(view) = view else { return lines };
    if let Some(trace) = TraceContext::of_event(&view) {
        let id = hex(&trace.parent().trace);
        let sampled = if trace.parent().sampled { "sampled" } else { "not sampled" };
        lines.push(format!("trace      {id}, {sampled} where it began"));
    }
    for (attribute, word) in [("causationid", "caused by "), ("correlationid", "flow      ")] {
        if let Some(value) = view.attribute(attribute) {
            lines.push(format!("{word} {value}"));
        }
    }
    lines
}

fn subscription(event: &v1::EventTrace, one: &v1::SubscriptionTrace) -> Vec<String> {
    let function = match one.function.as_str() {
        "" => String::new(),
        name => format!(" (function {name})"),
    };
    let mut lines = vec![format!("{}{function}: {}", one.subscription, state(one))];
    lines.extend(one.reasons.iter().map(|why| format!("    {}: {}", why.path, why.message)));
    if one.failed_attempts > 0 || !one.last_failure.is_empty() {
        let first = match one.first_failure_us {
            0 => String::new(),
            micros => format!(", the first at {}", time(micros)),
        };
        let last = match one.last_failure.as_str() {
            "" => String::new(),
            text => format!("; the last one: {text}"),
        };
        lines.push(format!("    failed deliveries: {}{first}{last}", one.failed_attempts));
    }
    if let Some(letter) = &one.dead_letter {
        let name = &one.subscription;
        let place = format!("{}/{}", event.partition, letter.offset);
        if !letter.replay_job.is_empty() {
            let (job, reason) = (&letter.replay_job, &letter.reason);
            lines.push(format!("    the replay job {job} gave it up ({reason})"));
        }
        lines.push(match (letter.settled, letter.redriven) {
            (true, _) => format!("    letter {place}: delivered again with success, or discarded"),
            (false, true) => format!("    letter {place}: on its way again"),
            (false, false) => format!(
                "    letter {place}: again with weft subscription redrive {name} --letter {place}"
            ),
        });
    }
    lines.extend(one.attempts.iter().map(|attempt| format!("    {attempt}")));
    lines
}

/// A sentence about where the event is.
fn state(one: &v1::SubscriptionTrace) -> String {
    match one.state() {
        EventState::Unspecified => {
            "unknown to this client, which is older than the broker".to_owned()
        }
        EventState::FilteredOut => "filtered out by the filters of today".to_owned(),
        EventState::BeforeStart => "not for it: it begins later".to_owned(),
        EventState::NotReached if one.watermark.is_none() => {
            "not delivered yet: nobody has joined".to_owned()
        }
        EventState::NotReached => "not delivered yet".to_owned(),
        EventState::Waiting => "waits for a member, or behind its key".to_owned(),
        EventState::Lent => match one.attempt {
            Some(attempt) => {
                let until = match one.lease_ends_us {
                    0 => String::new(),
                    micros => format!(", until {}", time(micros)),
                };
                format!("lent to {}, delivery {attempt}{until}", one.member)
            }
            None => format!("not settled; {} was given the partition last", one.member),
        },
        EventState::GivenBack => format!("given back, due again at {}", time(one.due_us)),
        EventState::Settled => "settled".to_owned(),
        EventState::DeadLetter => {
            let (reason, at) = one
                .dead_letter
                .as_ref()
                .map_or(("", 0), |letter| (letter.reason.as_str(), letter.time_us));
            format!("dead letter ({reason}) since {}", time(at))
        }
    }
}

fn relative(one: &v1::RelatedEvent) -> String {
    let job = match one.replay_job.as_str() {
        "" => String::new(),
        job => format!(" (replay job {job})"),
    };
    format!(
        "{:<10} {}  {} {}/{}  {}  {}  {}{job}",
        relation(one),
        one.id,
        one.stream,
        one.partition,
        one.offset,
        time(one.append_time_us),
        one.source,
        one.r#type
    )
}

fn relation(one: &v1::RelatedEvent) -> &'static str {
    match one.relation() {
        v1::EventRelation::Derived => "derived",
        v1::EventRelation::Correlated => "same flow",
        v1::EventRelation::Copy => "copy",
        v1::EventRelation::Unspecified => "related",
    }
}

fn as_json(answer: &v1::TraceEventResponse) -> Value {
    let events: Vec<Value> = answer.events.iter().map(event_json).collect();
    let searched = answer.searched.iter().map(|one| {
        json!({
            "stream": one.stream,
            "from": optional(one.from_us),
            "events": one.events,
            "cut": one.cut,
        })
    });
    json!({ "events": events, "searched": searched.collect::<Vec<_>>() })
}

fn optional(micros: u64) -> Option<String> {
    (micros > 0).then(|| time(micros))
}

fn event_json(event: &v1::EventTrace) -> Value {
    let text = EventView::parse(&event.event).map(|view| to_json(&view));
    let parsed = text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let schema = event.schema.as_ref().map(
        |schema| json!({ "id": schema.id, "schema": schema.schema, "version": schema.version }),
    );
    let related = event.related.iter().map(|one| {
        json!({
            "relation": relation(one),
            "stream": one.stream,
            "partition": one.partition,
            "offset": one.offset,
            "time": time(one.append_time_us),
            "id": one.id,
            "source": one.source,
            "type": one.r#type,
            "replayJob": Some(&one.replay_job).filter(|job| !job.is_empty()),
        })
    });
    json!({
        "partition": event.partition,
        "offset": event.offset,
        "time": time(event.append_time_us),
        "ingest": event.ingest,
        "leader": event.leader,
        "schema": schema,
        "event": parsed,
        "subscriptions": event.subscriptions.iter().map(subscription_json).collect::<Vec<_>>(),
        "related": related.collect::<Vec<_>>(),
    })
}

fn subscription_json(one: &v1::SubscriptionTrace) -> Value {
    let word = one.state().as_str_name().trim_start_matches("EVENT_STATE_").to_lowercase();
    let letter = one.dead_letter.as_ref().map(|letter| {
        json!({
            "offset": letter.offset,
            "time": time(letter.time_us),
            "reason": letter.reason,
            "redriven": letter.redriven,
            "settled": letter.settled,
            "replayJob": Some(&letter.replay_job).filter(|job| !job.is_empty()),
        })
    });
    let reason = |why: &v1::FilterFinding| json!({ "path": why.path, "message": why.message });
    json!({
        "subscription": one.subscription,
        "function": Some(&one.function).filter(|name| !name.is_empty()),
        "state": word.replace('_', "-"),
        "reasons": one.reasons.iter().map(reason).collect::<Vec<_>>(),
        "member": Some(&one.member).filter(|name| !name.is_empty()),
        "attempt": one.attempt,
        "leaseEnds": optional(one.lease_ends_us),
        "failedAttempts": one.failed_attempts,
        "firstFailure": optional(one.first_failure_us),
        "lastFailure": Some(&one.last_failure).filter(|text| !text.is_empty()),
        "due": optional(one.due_us),
        "deadLetter": letter,
        "watermark": one.watermark,
        "attempts": one.attempts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_sentence_and_a_word() {
        let states = [
            (EventState::FilteredOut, "filtered-out"),
            (EventState::BeforeStart, "before-start"),
            (EventState::NotReached, "not-reached"),
            (EventState::Waiting, "waiting"),
            (EventState::Lent, "lent"),
            (EventState::GivenBack, "given-back"),
            (EventState::Settled, "settled"),
            (EventState::DeadLetter, "dead-letter"),
        ];
        let mut sentences = std::collections::BTreeSet::new();
        for (word, name) in states {
            let mut one = v1::SubscriptionTrace { attempt: Some(2), ..Default::default() };
            one.set_state(word);
            assert_eq!(subscription_json(&one)["state"], name);
            sentences.insert(state(&one));
        }
        assert_eq!(sentences.len(), states.len(), "{sentences:?}");
    }

    #[test]
    fn a_dead_letter_is_told_with_the_command_that_delivers_it_again() {
        let letter =
            v1::DeadLetterTrace { offset: 3, reason: "attempts".into(), ..Default::default() };
        let mut one = v1::SubscriptionTrace {
            subscription: "default/billing".to_owned(),
            failed_attempts: 5,
            last_failure: "no".to_owned(),
            dead_letter: Some(letter),
            ..Default::default()
        };
        one.set_state(EventState::DeadLetter);
        let event = v1::EventTrace { partition: 1, ..Default::default() };

        let lines = subscription(&event, &one);

        assert!(
            lines[0].starts_with("default/billing: dead letter (attempts) since "),
            "{lines:?}"
        );
        assert_eq!(lines[1], "    failed deliveries: 5; the last one: no");
        assert!(lines[2].ends_with("weft subscription redrive default/billing --letter 1/3"));
    }
}
