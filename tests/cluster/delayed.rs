//! Events that are delivered at a time of their own.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use weft_client::{Client, Options, PublisherOptions, ReadItem, ReadOptions, Receipt};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::event::EventView;
use weft_proto::resource::Kind;
use weft_proto::v1::{CancelOutcome, DelayedEvent};
use weft_proto::{Reason, Timestamp};

use super::harness::process::{Ended, run};
use super::harness::{Cluster, eventually, put, within};

const STREAM: &str = "reminders";
const LIMIT: Duration = Duration::from_mins(1);

pub(crate) fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap())
}

/// An event, to be delivered at a time or at once.
fn event(number: usize, deliverat: Option<Timestamp>) -> Bytes {
    let attr = |text: String| CloudEventAttributeValue { attr: Some(Attr::CeString(text)) };
    let mut attributes = vec![("subject".to_owned(), attr(format!("user/{}", number % 5)))];
    attributes.extend(deliverat.map(|at| ("deliverat".to_owned(), attr(at.to_string()))));
    let event = CloudEvent {
        id: number.to_string(),
        source: "/reminders".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "reminder.due".to_owned(),
        attributes: attributes.into_iter().collect(),
        data: Some(Data::TextData("call".to_owned())),
    };
    event.encode_to_vec().into()
}

async fn publish(client: &Client, events: Vec<Bytes>) -> Vec<Receipt> {
    let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
    let mut receipts = Vec::new();
    for event in events {
        receipts.push(publisher.send(event).await.unwrap());
    }
    let mut found = Vec::new();
    for receipt in receipts {
        found.push(within(LIMIT, "publishing", receipt).await.unwrap());
    }
    found
}

/// Number and append time of all events of the stream, in the order of their partition.
async fn stored(client: &Client) -> Vec<(usize, Timestamp)> {
    let mut reader = client.read(ReadOptions::all(STREAM)).await.unwrap();
    let mut found = Vec::new();
    while let Some(item) = reader.next().await.unwrap() {
        let ReadItem::Batch(batch) = item else { continue };
        for (_, event) in &batch.events {
            let number = EventView::parse(event).unwrap().id.parse().unwrap();
            found.push((number, batch.append_time));
        }
    }
    found
}

async fn arrived(client: &Client, count: usize) -> Vec<(usize, Timestamp)> {
    let all = async || Some(stored(client).await).filter(|found| found.len() >= count);
    eventually(LIMIT, "delivery", all).await
}

#[tokio::test]
async fn events_come_when_their_time_has_come_and_not_before() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 2})).await;
    let begin = now();
    let later = |millis| Some(begin.saturating_add(Duration::from_millis(millis)));
    // The longer an event is to wait, the earlier it is published; every third is for now.
    let due = |number: usize| {
        if number.is_multiple_of(3) { None } else { later(4_000 - 60 * number as u64) }
    };
    let events = (0..60).map(|number| event(number, due(number))).collect();

    let receipts = publish(&client, events).await;

    for (number, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt.delayed, !number.is_multiple_of(3), "{number}");
    }
    let found = arrived(&client, 60).await;
    let numbers: BTreeSet<_> = found.iter().map(|(number, _)| *number).collect();
    assert_eq!((found.len(), numbers.len()), (60, 60), "each exactly once");
    for (number, time) in &found {
        let due = due(*number).unwrap_or(begin);
        // All nodes share one clock here, and append times are rounded down.
        assert!(time.saturating_add(Duration::from_millis(1)) >= due, "{number} came too early");
    }
}

#[tokio::test]
async fn a_killed_leader_delays_no_event_for_ever_and_doubles_none() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 3})).await;
    let at =
        |number: usize| now().saturating_add(Duration::from_millis(1_000 + 10 * number as u64));
    let events: Vec<_> = (0..300).map(|number| event(number, Some(at(number)))).collect();
    let receipts = publish(&client, events.clone()).await;
    assert!(receipts.iter().all(|receipt| receipt.delayed && !receipt.duplicate));

    // Who sends it again, is told where it waits.
    let again = publish(&client, events).await;
    for (first, again) in receipts.iter().zip(&again) {
        let known = Receipt { duplicate: true, ..*first };
        assert!(again.delayed && again.duplicate, "{again:?}");
        assert_eq!((again.partition, again.offset), (known.partition, known.offset));
    }
    eventually(LIMIT, "the first", async || (!stored(&client).await.is_empty()).then_some(()))
        .await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.nodes[0].ready().await;
    cluster.nodes[1].kill();
    cluster.nodes[1].start();
    cluster.nodes[1].ready().await;

    let found = arrived(&client, 300).await;
    let numbers: BTreeSet<_> = found.iter().map(|(number, _)| *number).collect();
    assert_eq!((found.len(), numbers.len()), (300, 300), "each exactly once");
}

/// More gaps between those that wait than a cursor can hold: none is delivered without being settled,
/// or it would come again with the next leader.
#[tokio::test]
async fn any_number_may_wait_between_those_that_come() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 1, "dedup": false})).await;
    let (soon, late) = (now(), now().saturating_add(Duration::from_hours(1)));
    let due = |number: usize| if number.is_multiple_of(2) { soon } else { late };
    let all = 36_000;
    publish(&client, (0..all).map(|number| event(number, Some(due(number)))).collect()).await;
    let first = arrived(&client, all / 2).await;

    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.nodes[0].ready().await;
    // The new leader delivers what it finds unsettled before what comes now.
    publish(&client, vec![event(all, Some(soon))]).await;
    let found = arrived(&client, all / 2 + 1).await;

    assert_eq!(first.len(), all / 2);
    let numbers: BTreeSet<_> = found.iter().map(|(number, _)| *number).collect();
    assert_eq!((found.len(), numbers.len()), (all / 2 + 1, all / 2 + 1), "each exactly once");
    assert!(numbers.contains(&all));
}

#[tokio::test]
async fn a_bad_time_is_refused_and_nothing_can_be_expected_of_an_event_that_waits() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 1})).await;
    let far = now().saturating_add(Duration::from_hours(24 * 400));
    let soon = now().saturating_add(Duration::from_hours(1));

    let request = |events, atomic, expected: Option<u64>| weft_proto::v1::PublishRequest {
        stream: STREAM.to_owned(),
        events,
        atomic,
        expected: expected
            .map(|offset| weft_proto::v1::ExpectedOffset { partition: 0, offset })
            .into_iter()
            .collect(),
        ..weft_proto::v1::PublishRequest::default()
    };
    let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
    let refused = publisher.send(event(1, Some(far))).await.unwrap().await.unwrap_err();
    assert_eq!(refused.field(), Some("deliverat"));
    assert!(refused.message().contains("366 days"), "{refused}");

    let expects = request(vec![event(2, Some(soon))], false, Some(0));
    let refused = client.publish_once(expects).await.unwrap_err();
    assert_eq!(refused.field(), Some("deliverat"));

    let mixed = request(vec![event(3, Some(soon)), event(4, None)], true, None);
    let refused = client.publish_once(mixed).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::AtomicScope);
    assert_eq!(stored(&client).await.len(), 0, "nothing of a refused batch is there");

    // Time that has passed is no mistake: the event comes at once, once.
    let past = "2001-02-03T04:05:06Z".parse().unwrap();
    let receipts = publish(&client, vec![event(5, Some(past)), event(5, Some(past))]).await;
    assert!(receipts[1].duplicate);
    let found = arrived(&client, 1).await;
    assert_eq!(found.len(), 1);
    // Where no repeats are looked for, a retry of the batch would double it: it is known all the same.
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 1, "dedup": false})).await;
    let receipts = publish(&client, vec![event(6, Some(soon)), event(6, Some(soon))]).await;
    assert!(receipts[1].duplicate && receipts[0].offset == receipts[1].offset);
}

/// All that waits, in pages of so many.
async fn waiting(client: &Client, page_len: u32) -> Vec<DelayedEvent> {
    let (mut all, mut page) = (Vec::new(), String::new());
    loop {
        let answer = client.delayed(STREAM, page_len, &page).await.unwrap();
        assert!(answer.events.len() <= page_len as usize);
        all.extend(answer.events);
        if answer.next_page.is_empty() {
            return all;
        }
        page = answer.next_page;
    }
}

fn ids(events: &[DelayedEvent]) -> BTreeSet<usize> {
    events.iter().map(|one| one.id.parse().unwrap()).collect()
}

async fn weft(cluster: &Cluster, line: &str) -> Ended {
    let endpoint = cluster.nodes[0].endpoint();
    let mut words: Vec<&str> = vec!["--endpoint", &endpoint, "stream"];
    words.extend(line.split(' '));
    run(&words, "").await
}

#[tokio::test]
async fn what_waits_is_listed_and_can_be_taken_back() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 2})).await;
    assert_eq!(waiting(&client, 10).await, []);
    let due = |number: usize| now().saturating_add(Duration::from_mins(60 + number as u64));
    let begin = now();
    publish(&client, (0..30).map(|number| event(number, Some(due(number)))).collect()).await;
    publish(&client, (30..35).map(|number| event(number, None)).collect()).await;

    let listed = waiting(&client, 7).await;
    assert_eq!((listed.len(), ids(&listed)), (30, (0..30).collect()), "each once");
    for one in &listed {
        assert_eq!((one.source.as_str(), one.r#type.as_str()), ("/reminders", "reminder.due"));
        let minutes = 60 + one.id.parse::<u64>().unwrap();
        let due = Timestamp::from_micros(one.due_us);
        let earliest = begin.saturating_add(Duration::from_mins(minutes));
        assert!(due >= earliest && due < earliest.saturating_add(Duration::from_mins(5)));
        assert!(one.partition < 2 && one.append_time_us >= begin.as_micros() - 1_000);
    }

    // Whichever node is asked; with the source and without it.
    for (number, node) in cluster.nodes.iter().enumerate() {
        let near = Client::connect(&Options::new([node.endpoint()])).unwrap();
        let source = (number > 0).then_some("/reminders");
        let done = near.cancel_delayed(STREAM, &number.to_string(), source).await.unwrap();
        assert_eq!(
            (done.outcome(), done.source.as_str()),
            (CancelOutcome::Cancelled, "/reminders")
        );
        assert!(done.due_us > begin.as_micros() && done.offset.is_none());
        let again = near.cancel_delayed(STREAM, &number.to_string(), source).await.unwrap();
        assert_eq!(again.outcome(), CancelOutcome::Gone, "asking again is harmless");
        let left = waiting(&near, 1_000).await;
        assert_eq!(ids(&left), (number + 1..30).collect());
    }
    let late = client.cancel_delayed(STREAM, "31", None).await.unwrap();
    assert_eq!(late.outcome(), CancelOutcome::TooLate);
    assert!(late.partition.is_some() && late.offset.is_some(), "{late:?}");
    let none = client.cancel_delayed(STREAM, "99", None).await.unwrap_err();
    assert_eq!((none.reason(), none.field()), (Reason::UnknownResource, Some("id")));
    let own = CloudEvent::decode(event(5, Some(due(5)))).unwrap();
    let other = CloudEvent { source: "/other".to_owned(), ..own };
    publish(&client, vec![other.encode_to_vec().into()]).await;
    let two = client.cancel_delayed(STREAM, "5", None).await.unwrap_err();
    assert_eq!((two.reason(), two.field()), (Reason::InvalidArgument, Some("source")));
    assert!(two.message().ends_with("/other, /reminders"), "{two}");

    // The next leaders know it, too.
    for node in &mut cluster.nodes {
        node.kill();
        node.start();
        node.ready().await;
    }
    assert_eq!(ids(&waiting(&client, 1_000).await), (3..30).collect());

    let shown = weft(&cluster, "delayed reminders --limit 4 -o json").await;
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["events"].as_array().unwrap().len(), 4);
    let page = shown["nextPage"].as_str().unwrap();
    let rest = weft(&cluster, &format!("delayed reminders --page {page}")).await;
    // A head, and of 27 and one of another source all but four.
    assert_eq!(rest.stdout.lines().count(), 1 + 24, "{}", rest.stdout);
    let line = "cancel-delayed reminders --id 5 --source /reminders";
    let done = weft(&cluster, line).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.starts_with("event 5 of /reminders: cancelled; it was due at "));
    let again = weft(&cluster, line).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stdout.contains("waits no more"), "{}", again.stdout);
    let late = weft(&cluster, "cancel-delayed reminders --id 31").await;
    assert_eq!(late.code, Some(1), "{}", late.stderr);
    assert!(late.stdout.contains("too late, it was delivered to "), "{}", late.stdout);
}

/// Taken back while its time comes and leaders die: one or the other, never both and never neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_delivered_or_taken_back_and_never_both() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 3})).await;
    let begin = now().saturating_add(Duration::from_secs(4));
    let all = 60;
    // The last ones are not due before the test is over.
    let last = all - 10;
    let at = move |number: usize| {
        let later = if number < last { 60 * number as u64 } else { 3_600_000 };
        begin.saturating_add(Duration::from_millis(later))
    };
    publish(&client, (0..all).map(|number| event(number, Some(at(number)))).collect()).await;

    let asked = client.clone();
    let asking = async move {
        let mut outcomes = Vec::new();
        for number in 0..all {
            // About when it is due, every other one somewhat before.
            let due = at(number.min(last - 1)).as_micros() - 300_000 * (number as u64 % 2);
            let until = due.saturating_sub(now().as_micros());
            tokio::time::sleep(Duration::from_micros(until)).await;
            let outcome = loop {
                let id = number.to_string();
                match asked.cancel_delayed(STREAM, &id, Some("/reminders")).await {
                    Ok(done) => break done.outcome(),
                    Err(error) => assert!(error.is_retryable(), "{number}: {error}"),
                }
            };
            outcomes.push(outcome);
        }
        outcomes
    };
    let killing = async {
        for node in 0..2 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.nodes[node].kill();
            cluster.nodes[node].start();
            cluster.nodes[node].ready().await;
        }
    };
    let both = Box::pin(async { tokio::join!(asking, killing) });
    let (outcomes, ()) = within(3 * LIMIT, "taking back", both).await;

    let is_late = |outcome: &CancelOutcome| *outcome == CancelOutcome::TooLate;
    let late: BTreeSet<usize> =
        (0..all).zip(&outcomes).filter(|(_, outcome)| is_late(outcome)).map(|(n, _)| n).collect();
    assert!(waiting(&client, 1_000).await.is_empty());
    let found = arrived(&client, late.len()).await;
    let delivered: BTreeSet<usize> = found.iter().map(|(number, _)| *number).collect();
    assert_eq!(delivered.len(), found.len(), "each at most once");
    assert_eq!(delivered, late, "{outcomes:?}");
    assert!(!late.contains(&last) && late.len() <= last, "{outcomes:?}");
}
