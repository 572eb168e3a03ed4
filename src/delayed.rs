//! `weft stream delayed` and `cancel-delayed`: events that wait for their time.

use std::process::ExitCode;

use serde_json::json;
use weft_client::Client;
use weft_client::proto::v1::{self, CancelOutcome};
use weft_proto::Timestamp;

use crate::output::{Format, Out, printable};

/// Events of one page.
const PAGE: u32 = 1_000;

/// Arguments of `weft stream delayed`.
#[derive(clap::Args, Debug)]
pub(crate) struct List {
    /// NAME or NAMESPACE/NAME
    pub(crate) name: String,
    /// Show so many at most
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    /// Go on behind what was shown before: what that said at its end
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PAGE")]
    page: String,
}

/// Arguments of `weft stream cancel-delayed`.
#[derive(clap::Args, Debug)]
pub(crate) struct Cancel {
    /// NAME or NAMESPACE/NAME
    pub(crate) name: String,
    /// The `id` of the event
    #[arg(long)]
    id: String,
    /// Its `source`; needed where events of several sources with this id wait
    #[arg(long)]
    source: Option<String>,
}

fn time(micros: u64) -> String {
    Timestamp::from_micros(micros).to_string()
}

/// Shows what waits.
pub(crate) async fn list(args: List, client: &Client, format: Format) -> anyhow::Result<()> {
    let mut out = Out::new();
    let (mut events, mut page) = (Vec::new(), args.page);
    loop {
        let most = u32::try_from(args.limit.saturating_sub(events.len())).unwrap_or(PAGE).min(PAGE);
        if most == 0 {
            break;
        }
        let answer = client.delayed(&args.name, most, &page).await?;
        events.extend(answer.events);
        page = answer.next_page;
        if page.is_empty() {
            break;
        }
    }
    if format != Format::Table {
        let events: Vec<_> = events.iter().map(to_json).collect();
        return out.json(&json!({ "events": events, "nextPage": page }));
    }
    let rows = events.iter().map(|one| {
        let texts = [time(one.due_us), one.id.clone(), one.source.clone(), one.r#type.clone()];
        let partition = one.partition.to_string();
        texts.into_iter().map(|text| printable(&text)).chain([partition]).collect()
    });
    let heads = ["DUE", "EVENT", "SOURCE", "TYPE", "PARTITION"];
    out.table(&heads, rows.collect())?;
    if !page.is_empty() {
        out.line(&format!("there may be more: --page {page}"))?;
        out.flush()?;
    }
    Ok(())
}

fn to_json(one: &v1::DelayedEvent) -> serde_json::Value {
    json!({
        "id": one.id, "source": one.source, "type": one.r#type, "partition": one.partition,
        "due": time(one.due_us), "appended": time(one.append_time_us),
    })
}

/// Takes an event back, and tells what became of it.
pub(crate) async fn cancel(
    args: Cancel,
    client: &Client,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let answer = client.cancel_delayed(&args.name, &args.id, args.source.as_deref()).await?;
    let mut out = Out::new();
    if format == Format::Table {
        out.line(&printable(&told(&args.id, &answer)))?;
        out.flush()?;
    } else {
        let word = answer.outcome().as_str_name().trim_start_matches("CANCEL_OUTCOME_");
        out.json(&json!({
            "id": args.id, "source": answer.source, "outcome": word.to_lowercase().replace('_', "-"),
            "due": (answer.due_us > 0).then(|| time(answer.due_us)),
            "partition": answer.partition, "offset": answer.offset,
        }))?;
    }
    Ok(match answer.outcome() {
        CancelOutcome::Cancelled | CancelOutcome::Gone => ExitCode::SUCCESS,
        CancelOutcome::TooLate | CancelOutcome::Unspecified => ExitCode::FAILURE,
    })
}

fn told(id: &str, answer: &v1::CancelDelayedResponse) -> String {
    let source = &answer.source;
    match answer.outcome() {
        CancelOutcome::Cancelled => {
            format!("event {id} of {source}: cancelled; it was due at {}", time(answer.due_us))
        }
        CancelOutcome::TooLate => format!(
            "event {id} of {source}: too late, it was delivered to {}/{}",
            answer.partition.unwrap_or_default(),
            answer.offset.unwrap_or_default()
        ),
        CancelOutcome::Gone => format!(
            "event {id} of {source}: waits no more, and is not in the stream; it was cancelled before, \
             or retention has taken it away since"
        ),
        CancelOutcome::Unspecified => {
            format!("event {id}: unknown to this client, which is older than the broker")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_sentence_of_its_own() {
        let told = |outcome: CancelOutcome| {
            let mut answer = v1::CancelDelayedResponse {
                source: "/shop".to_owned(),
                due_us: 1_000_000,
                partition: Some(2),
                offset: Some(7),
                ..v1::CancelDelayedResponse::default()
            };
            answer.set_outcome(outcome);
            told("r-1", &answer)
        };
        assert_eq!(
            told(CancelOutcome::Cancelled),
            "event r-1 of /shop: cancelled; it was due at 1970-01-01T00:00:01.000000Z"
        );
        assert_eq!(
            told(CancelOutcome::TooLate),
            "event r-1 of /shop: too late, it was delivered to 2/7"
        );
        assert!(told(CancelOutcome::Gone).contains("cancelled before"));
        assert!(told(CancelOutcome::Unspecified).contains("older"));
    }
}
