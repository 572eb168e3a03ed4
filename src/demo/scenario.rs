//! The demo itself: each step does something, and checks it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use weft_client::{Client, Position, PutOptions, ReadOptions, resource_of};
use weft_proto::filter::Filter;
use weft_proto::resource::Kind;
use weft_proto::{Offset, Timestamp};

use super::check::{Seen, differences};
use super::publish::{Published, publish};
use super::{orders, per_second, step};
use crate::cluster::{Cluster, program};

const ORDERS: &str = "orders";
const CONFIRMATIONS: &str = "confirmations";
/// Without progress for this long, replies will not come any more.
const STALL_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// Plays all steps; answers everything that was not as promised.
pub(super) async fn play(
    client: &Client,
    cluster: &mut Cluster,
    events: usize,
    begin: Instant,
) -> anyhow::Result<Vec<String>> {
    prepare(client).await?;
    step(begin, "schema, streams and the function `confirm` are in place");

    let published = publish(client, cluster, ORDERS, events).await?;
    tell(&published, begin);
    let Published { acknowledged, mut problems, killed, .. } = published;
    if acknowledged.len() != events {
        problems.push(format!("{} of {events} orders were acknowledged", acknowledged.len()));
    }

    let restart = Instant::now();
    cluster.restart(killed).await?;
    let took = restart.elapsed().as_secs_f64();
    step(begin, &format!("broker {killed} is back, {took:.2} s after its restart"));

    let waited = Instant::now();
    problems.extend(confirmed(client, &acknowledged).await?);
    let took = waited.elapsed().as_secs_f64();
    step(begin, &format!("each order has its confirmation; waited {took:.2} s more"));

    problems.extend(replay(client, &acknowledged, begin).await?);
    Ok(problems)
}

async fn prepare(client: &Client) -> anyhow::Result<()> {
    let program = program()?;
    let program = program.to_str().context("the path of this program is no text")?;
    let resources: [(Kind, &str, Value); 4] = [
        (Kind::Schema, "order", json!({ "document": orders::schema() })),
        (
            Kind::Stream,
            ORDERS,
            json!({
                "schemas": [{ "type": orders::PLACED, "schema": "order", "mode": "enforce" }],
            }),
        ),
        (Kind::Stream, CONFIRMATIONS, json!({})),
        (
            Kind::Function,
            "confirm",
            json!({
                "command": [program, "sample-function"],
                "triggers": [{
                    "stream": ORDERS,
                    "start": "earliest",
                    "filters": [{ "exact": { "type": orders::PLACED } }],
                }],
                "reply": { "stream": CONFIRMATIONS },
            }),
        ),
    ];
    for (kind, name, spec) in resources {
        let resource = resource_of(kind, name, &spec)?;
        let put = client.catalog().put(resource, PutOptions::default()).await;
        put.with_context(|| format!("cannot create the {} {name}", kind.as_str()))?;
    }
    Ok(())
}

fn tell(published: &Published, begin: Instant) {
    let count = published.acknowledged.len();
    let rate = published.events_per_second;
    step(begin, &format!("{count} orders are acknowledged ({rate:.0} events/s until the kill)"));
    let (refused, refusal) = (published.refused, &published.refusal);
    step(begin, &format!("{refused} malformed orders were refused, the first with {refusal}"));
    let (killed, pid) = (published.killed, published.killed_pid);
    let gap = published.gap.as_millis();
    let recognised = published.recognised;
    let text = format!(
        "half-way, broker {killed} (process {pid}, the leader) was killed: \
         acknowledgements paused for {gap} ms, {recognised} retried orders were recognised"
    );
    step(begin, &text);
}

/// Waits until each order has a reply; answers how often each reply is there.
async fn replies(client: &Client, wanted: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let of_type = BTreeMap::from([("type".to_owned(), orders::CONFIRMED.to_owned())]);
    let filters = vec![Filter::Exact(of_type)];
    let mut most = 0;
    let mut progress = Instant::now();
    loop {
        let (read, _) = read(client, CONFIRMATIONS, Position::Earliest, filters.clone()).await?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for reply in read {
            *counts.entry(reply.id).or_default() += 1;
        }
        if counts.len() >= wanted {
            return Ok(counts);
        }
        if counts.len() > most {
            most = counts.len();
            progress = Instant::now();
        }
        if progress.elapsed() >= STALL_MAX {
            let seconds = STALL_MAX.as_secs();
            bail!("{most} of {wanted} orders are confirmed, and none more for {seconds} s");
        }
        sleep(POLL).await;
    }
}

/// Confirmations that may come twice: what was in flight when the leader died is delivered again.
const REPEATS_MAX: usize = 64;

/// Whether each order has its confirmation. Delivery is at least once: what was in flight when the
/// leader was killed may be confirmed again, under the same id, and nothing else.
async fn confirmed(client: &Client, acknowledged: &[Seen]) -> anyhow::Result<Vec<String>> {
    let mut counts = replies(client, acknowledged.len()).await?;
    let mut wrong = Vec::new();
    let mut repeats = 0;
    for order in acknowledged {
        // As `weft sample-function` names its replies.
        let id = format!("{}/{}/confirmed", orders::SOURCE, order.id);
        match counts.remove(&id) {
            Some(1) => {}
            Some(count) => repeats += count - 1,
            None => wrong.push(format!("{} is not confirmed", order.id)),
        }
    }
    if repeats > REPEATS_MAX {
        wrong.push(format!(
            "{repeats} confirmations are repeated, more than {REPEATS_MAX} in flight"
        ));
    }
    wrong.extend(counts.keys().map(|id| format!("the confirmation {id} belongs to no order")));
    let more = wrong.len().saturating_sub(3);
    wrong.truncate(3);
    if more > 0 {
        wrong.push(format!("and {more} more confirmations are wrong"));
    }
    Ok(wrong)
}

async fn replay(
    client: &Client,
    acknowledged: &[Seen],
    begin: Instant,
) -> anyhow::Result<Vec<String>> {
    let started = Instant::now();
    let (all, times) = read(client, ORDERS, Position::Earliest, Vec::new()).await?;
    let rate = per_second(all.len(), started);
    let mut problems = differences("replay of everything", acknowledged, &all);
    step(begin, &format!("{} orders are replayed ({rate:.0} events/s) and compared", all.len()));

    let middle = acknowledged.len() / 2;
    let (Some(event), Some(&time)) = (acknowledged.get(middle), times.get(middle)) else {
        problems.push("there is nothing to replay from the middle".to_owned());
        return Ok(problems);
    };
    let (by_offset, _) =
        read(client, ORDERS, Position::Offset(Offset(event.offset)), Vec::new()).await?;
    let expected = acknowledged.get(middle..).unwrap_or_default();
    problems.extend(differences("replay by offset", expected, &by_offset));

    let (by_time, _) = read(client, ORDERS, Position::Time(time), Vec::new()).await?;
    let first = times.partition_point(|&earlier| earlier < time);
    let expected = acknowledged.get(first..).unwrap_or_default();
    problems.extend(differences("replay by time", expected, &by_time));
    let text = format!(
        "replays from offset {} ({} events) and from {time} ({} events) are compared",
        event.offset,
        by_offset.len(),
        by_time.len()
    );
    step(begin, &text);
    Ok(problems)
}

/// Everything from a position to the present end that passes the filters, with the append times.
async fn read(
    client: &Client,
    stream: &str,
    from: Position,
    filters: Vec<Filter>,
) -> anyhow::Result<(Vec<Seen>, Vec<Timestamp>)> {
    let options = ReadOptions { from, filters, ..ReadOptions::all(stream) };
    let mut records = std::pin::pin!(client.read(options).await?.into_records());
    let (mut seen, mut times) = (Vec::new(), Vec::new());
    while let Some(record) = records.try_next().await? {
        seen.push(Seen::read(&record).with_context(|| format!("{stream}: not an event was read"))?);
        times.push(record.append_time);
    }
    Ok((seen, times))
}
