//! `weft filter test`: which events filters let pass, and why the others do not.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use prost::Message as _;
use serde_json::json;
use serde_json::value::RawValue;
use weft_client::Error;
use weft_proto::event::{self, EVENT_BYTES_MAX};
use weft_proto::filter::{Candidate, Compiled, Filter, Finding, to_wire};
use weft_proto::resource::{self, Kind, SubscriptionSpec};
use weft_proto::v1;

use crate::output::{Format, Out, printable};
use crate::settings::Connection;
use crate::when::When;

/// A filter that is none.
const BAD_FILTER: u8 = 2;

/// Arguments of `weft filter`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

impl Args {
    /// The stream that it is about.
    pub(crate) fn stream(&self) -> Option<&str> {
        let Verb::Test(test) = &self.verb;
        test.stream.as_deref()
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Try filters on events from a file, or on what a stream has stored
    #[command(after_help = "\
Without --stream and --subscription nothing is asked of a cluster. An event must pass all filters that
are given.

Exit codes: 0 all events pass; 1 some do not, or the command failed; 2 a filter is wrong.

Examples:
  weft filter test --sql \"type LIKE 'order.%' AND EXISTS subject\" --event order.json
  weft filter test --cel 'data.total > 100' --event - < orders.jsonl
  weft filter test --filter '{\"any\":[{\"exact\":{\"type\":\"a\"}},{\"sql\":\"hop < 3\"}]}' --event -
  weft filter test --stream orders --from -1h --cel 'data.total > 100'
  weft filter test --stream orders --subscription audit
  weft filter test --subscription audit --event order.json")]
    Test(Box<Test>),
}

/// Filters on the command line.
#[derive(clap::Args, Debug)]
pub(crate) struct Filters {
    /// Filters in JSON: one, or a list of which all must pass
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,

    /// A CESQL expression over attributes
    #[arg(long, value_name = "EXPRESSION")]
    sql: Option<String>,

    /// A CEL expression over the payload: data, and ce for the attributes
    #[arg(long, value_name = "EXPRESSION")]
    cel: Option<String>,
}

#[derive(clap::Args, Debug)]
struct Test {
    #[command(flatten)]
    filters: Filters,

    /// Structured JSON events, one after the other or in a list; - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "stream")]
    event: Option<String>,

    /// Try them on what this stream has stored: NAME or NAMESPACE/NAME
    #[arg(long, conflicts_with = "event")]
    stream: Option<String>,

    /// The filters of this subscription, on events from a file or on what its stream has stored
    #[arg(long, value_name = "NAME", conflicts_with_all = ["filter", "sql", "cel"])]
    subscription: Option<String>,

    /// Where to start: earliest, an offset, an RFC 3339 time, or an age such as -1h
    #[arg(long, default_value = "earliest", allow_hyphen_values = true, requires = "stream")]
    from: When,

    /// Where to stop, exclusive
    #[arg(long, default_value = "latest", allow_hyphen_values = true, requires = "stream")]
    to: When,

    /// Look at so many events at most
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "stream")]
    max: u32,
}

pub(crate) async fn run(
    args: Args,
    connection: &Connection,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let Verb::Test(test) = args.verb;
    let filters = match test.filters.filters() {
        Ok(filters) => filters,
        Err(problem) => return bad_filter(&problem),
    };
    match (&test.stream, &test.subscription) {
        (None, None) => local(&test, &filters, format),
        (None, Some(name)) => {
            let subscription = connection.client()?.catalog().get(Kind::Subscription, name).await?;
            let spec: SubscriptionSpec = resource::parse(Kind::Subscription, &subscription.spec)?;
            local(&test, &spec.filters, format)
        }
        (Some(stream), _) => stored(&test, stream, &filters, connection, format).await,
    }
}

impl Filters {
    /// All that are given.
    pub(crate) fn filters(&self) -> Result<Vec<Filter>, String> {
        let mut filters: Vec<Filter> = match self.filter.as_deref().map(str::trim) {
            None => Vec::new(),
            Some(list) if list.starts_with('[') => serde_json::from_str(list).map_err(wrong)?,
            Some(one) => vec![serde_json::from_str(one).map_err(wrong)?],
        };
        filters.extend(self.sql.clone().map(Filter::Sql));
        filters.extend(self.cel.clone().map(Filter::Cel));
        Ok(filters)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn wrong(error: serde_json::Error) -> String {
    format!("--filter is wrong: {error}")
}

fn bad_filter(problem: &str) -> anyhow::Result<ExitCode> {
    warn(&[format!("error: {problem}")])?;
    Ok(ExitCode::from(BAD_FILTER))
}

/// Standard error, so that the output stays what it is.
fn warn(lines: &[String]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut to = std::io::stderr().lock();
    for line in lines {
        writeln!(to, "{}", printable(line))?;
    }
    Ok(())
}

fn local(test: &Test, filters: &[Filter], format: Format) -> anyhow::Result<ExitCode> {
    let filters = match Compiled::new(filters) {
        Ok(filters) => filters,
        Err(error) => return bad_filter(error.message()),
    };
    let warnings = filters.warnings();
    warn(
        &warnings
            .iter()
            .map(|one| format!("warning: {}: {}", one.path, one.message))
            .collect::<Vec<_>>(),
    )?;
    let mut out = Out::new();
    let (mut number, mut all_pass) = (0_u64, true);
    for json in read_events(test.event.as_deref().unwrap_or("-"))? {
        number += 1;
        let event = event::from_json(json.get().as_bytes())
            .with_context(|| format!("event {number} is none"))?;
        let bytes = event.encode_to_vec();
        let view = event::check(&bytes, EVENT_BYTES_MAX)
            .with_context(|| format!("event {number} is none"))?;
        let explanation = filters.explain(&Candidate::new(view));
        all_pass &= explanation.passes;
        if format == Format::Table {
            let verdict = if explanation.passes { "passes" } else { "does not pass" };
            let line = format!("{number}  {verdict}  {} {} {}", view.ty, view.source, view.id);
            out.line(&printable(&line))?;
            let others = explanation.errors.iter().filter(|one| !explanation.reasons.contains(one));
            let others = others.map(|one| (one, "error: "));
            let reasons = explanation.reasons.iter().map(|one| (one, ""));
            for (one, mark) in reasons.chain(others) {
                out.line(&printable(&format!("     {mark}{}: {}", one.path, one.message)))?;
            }
        } else {
            out.json(&json!({
                "event": {"id": view.id, "source": view.source, "type": view.ty},
                "passes": explanation.passes,
                "reasons": findings(&explanation.reasons),
                "errors": findings(&explanation.errors),
            }))?;
        }
    }
    out.flush()?;
    Ok(if all_pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn findings(findings: &[Finding]) -> Vec<serde_json::Value> {
    findings.iter().map(|one| json!({"path": one.path, "message": one.message})).collect()
}

/// Events one after the other; a list stands for its elements.
pub(crate) fn read_events(path: &str) -> anyhow::Result<Vec<Box<RawValue>>> {
    let mut text = String::new();
    if path == "-" {
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    }
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Box<RawValue>>() {
        let value = value.context("the events are no JSON")?;
        if value.get().starts_with('[') {
            events.extend(serde_json::from_str::<Vec<Box<RawValue>>>(value.get())?);
        } else {
            events.push(value);
        }
    }
    anyhow::ensure!(!events.is_empty(), "there is no event in {path}");
    Ok(events)
}

async fn stored(
    test: &Test,
    stream: &str,
    filters: &[Filter],
    connection: &Connection,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let request = v1::TestFilterRequest {
        stream: stream.to_owned(),
        filters: to_wire(filters),
        subscription: test.subscription.clone().unwrap_or_default(),
        from: Some(test.from.position().into()),
        to: Some(test.to.position().into()),
        events_max: test.max,
        ..v1::TestFilterRequest::default()
    };
    let answer = match connection.client()?.test_filter(request).await {
        Ok(answer) => answer,
        Err(error) if is_about_filters(&error) => return bad_filter(error.message()),
        Err(error) => return Err(error.into()),
    };
    let sentence = |one: &v1::FilterFinding| format!("{}: {}", one.path, one.message);
    warn(
        &answer
            .warnings
            .iter()
            .map(|one| format!("warning: {}", sentence(one)))
            .collect::<Vec<_>>(),
    )?;
    let mut out = Out::new();
    if format == Format::Table {
        for one in &answer.refused {
            let line = format!(
                "{}:{}  does not pass  {} {} {}",
                one.partition, one.offset, one.r#type, one.source, one.id
            );
            out.line(&printable(&line))?;
            for reason in &one.reasons {
                out.line(&printable(&format!("     {}", sentence(reason))))?;
            }
        }
        let more = if answer.cut { "; there are more events, see --max" } else { "" };
        out.line(&format!(
            "{} of {} events pass; an expression failed on {}{more}",
            answer.passed, answer.tested, answer.failed
        ))?;
    } else {
        let reason = |one: &v1::FilterFinding| json!({"path": one.path, "message": one.message});
        let refused = answer.refused.iter().map(|one| {
            json!({
                "partition": one.partition,
                "offset": one.offset,
                "event": {"id": one.id, "source": one.source, "type": one.r#type},
                "reasons": one.reasons.iter().map(reason).collect::<Vec<_>>(),
            })
        });
        out.json(&json!({
            "tested": answer.tested,
            "passed": answer.passed,
            "failed": answer.failed,
            "cut": answer.cut,
            "refused": refused.collect::<Vec<_>>(),
        }))?;
    }
    out.flush()?;
    let all_pass = answer.passed == answer.tested;
    Ok(if all_pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_about_filters(error: &Error) -> bool {
    error.field().is_some_and(|field| field.starts_with("filters["))
}
