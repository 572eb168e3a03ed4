//! Nothing is lost, nothing is doubled, order is kept.

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_client::{PublisherOptions, Reason};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::event::EventView;

use crate::fake::{Fake, Fault};

pub(crate) fn event(number: usize) -> Bytes {
    named(&format!("{number:06}"))
}

fn named(id: &str) -> Bytes {
    let event = CloudEvent {
        id: id.to_owned(),
        source: "/test".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "t".to_owned(),
        ..CloudEvent::default()
    };
    event.encode_to_vec().into()
}

fn ids(log: &[Bytes]) -> Vec<String> {
    log.iter().map(|bytes| EventView::parse(bytes).unwrap().id.to_owned()).collect()
}

fn faults(seed: u64) -> impl Iterator<Item = Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    std::iter::repeat_with(move || match random.random_range(0..12) {
        0 => Fault::LoseBefore,
        1 => Fault::LoseAfter,
        2 => Fault::NotApplied,
        3 => Fault::AppliedAfterAll,
        4 => Fault::Busy,
        5 => Fault::Slow,
        _ => Fault::None,
    })
}

#[tokio::test]
async fn each_event_is_stored_once_and_in_order_whatever_fails() {
    for seed in 0..4 {
        println!("seed {seed}");
        let (fake, client) = Fake::start(1).await;
        fake.state().faults.extend(faults(seed).take(60));
        let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();

        let mut pending = Vec::new();
        for number in 0..1_500 {
            pending.push(publisher.send(event(number)).await.unwrap());
            if number % 20 == 0 {
                tokio::task::yield_now().await;
            }
        }

        for (number, receipt) in pending.into_iter().enumerate() {
            assert_eq!(receipt.await.unwrap().offset.get(), number as u64);
        }
        let stored = ids(&fake.state().partitions[0].log);
        assert_eq!(stored, (0..1_500).map(|n| format!("{n:06}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn batches_over_several_partitions_give_each_event_its_receipt() {
    let (fake, client) = Fake::start(3).await;
    fake.state().faults.extend([Fault::LoseAfter, Fault::AppliedAfterAll, Fault::LoseBefore]);
    fake.state().faults.extend(faults(9).take(60));
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();

    let mut pending = Vec::new();
    for start in (0..3_000).step_by(100) {
        let events = (start..start + 100).map(event).collect();
        pending.push((start, publisher.publish_batch(events).await.unwrap()));
    }
    let mut receipts = Vec::new();
    for (start, batch) in pending {
        let outcome = batch.outcome().await;
        assert_eq!(outcome.stored(), 100);
        assert!(outcome.first_error().is_none());
        receipts.extend((start..).zip(outcome.receipts()));
    }

    assert_eq!(receipts.len(), 3_000);
    let state = fake.state();
    assert!(state.duplicates > 0, "no retry was recognised; do the faults work?");
    assert_eq!(state.partitions.iter().map(|p| p.log.len()).sum::<usize>(), 3_000);
    for (number, receipt) in receipts {
        let receipt = receipt.unwrap();
        let log = &state.partitions[receipt.partition.get() as usize].log;
        let at = usize::try_from(receipt.offset.get()).unwrap();
        assert_eq!(log[at], event(number));
    }
    for partition in &state.partitions {
        assert!(ids(&partition.log).is_sorted());
    }
}

#[tokio::test]
async fn a_refusal_reaches_its_event_and_no_other() {
    let (fake, client) = Fake::start(1).await;
    fake.state().faults.extend([Fault::LoseAfter, Fault::None, Fault::NotApplied]);
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();

    // Batches of refused events only take no place: the next batch must follow the one before.
    let batches = [
        vec![named("a"), named("bad-1"), named("b")],
        vec![named("bad-2"), named("bad-3")],
        vec![named("c")],
        vec![named("bad-4")],
        vec![named("d")],
    ];
    let mut results = Vec::new();
    for batch in batches {
        let outcome = publisher.publish_batch(batch).await.unwrap().outcome().await;
        results.extend(outcome.receipts());
    }

    let told: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(receipt) => receipt.offset.to_string(),
            Err(error) => format!("{} {}", error.reason(), error.field().unwrap_or_default()),
        })
        .collect();
    let bad = "SCHEMA_VIOLATION /a";
    assert_eq!(told, ["0", bad, "1", bad, bad, "2", bad, "3"]);
    assert_eq!(ids(&fake.state().partitions[0].log), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn many_refused_batches_in_flight_keep_the_order_of_the_rest() {
    let (fake, client) = Fake::start(1).await;
    fake.state().faults.extend(faults(5).take(40));
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();

    let mut pending = Vec::new();
    for number in 0..300 {
        let id = if number % 3 == 0 { format!("{number:06}") } else { format!("bad{number}") };
        let batch = publisher.publish_batch(vec![named(&id)]).await.unwrap();
        pending.push(batch);
        tokio::time::sleep(std::time::Duration::from_micros(100)).await;
    }
    let mut stored = 0;
    for batch in pending {
        stored += batch.outcome().await.stored();
    }

    assert_eq!(stored, 100);
    let log = ids(&fake.state().partitions[0].log);
    assert_eq!(log, (0..300).step_by(3).map(|n| format!("{n:06}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn flush_waits_for_what_was_published_before() {
    let (fake, client) = Fake::start(1).await;
    fake.state().faults.extend([Fault::Slow, Fault::LoseAfter]);
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    for number in 0..50 {
        drop(publisher.send(event(number)).await.unwrap());
    }

    publisher.flush().await;

    assert_eq!(fake.state().partitions[0].log.len(), 50);
}

#[tokio::test]
async fn a_dropped_publisher_lets_its_events_go() {
    let (fake, client) = Fake::start(1).await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let pending = publisher.send(event(0)).await.unwrap();

    drop(publisher);

    assert_eq!(pending.await.unwrap().offset.get(), 0);
    assert_eq!(fake.state().partitions[0].log.len(), 1);
}

#[tokio::test]
async fn an_unknown_stream_is_told_at_once() {
    let (_fake, client) = Fake::start(1).await;

    let error = client.publisher("nowhere", PublisherOptions::default()).await.unwrap_err();

    assert_eq!(error.reason(), Reason::UnknownStream);
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_left_for_another() {
    let (fake, client) = Fake::start(1).await;
    fake.state().isolated = Some(0);
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();

    assert_eq!(publisher.publish(event(0)).await.unwrap().offset.get(), 0);
    assert_eq!(fake.state().partitions[0].log.len(), 1);
}

#[tokio::test]
async fn an_event_that_is_too_large_does_not_affect_its_neighbours() {
    let (fake, client) = Fake::start(1).await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    // The server would end the stream over a frame above its limit.
    let large = Bytes::from(vec![0; 5 << 20]);

    let before = publisher.send(event(0)).await.unwrap();
    let error = publisher.send(large.clone()).await.unwrap_err();
    let batch = publisher.publish_batch(vec![event(1), large, event(2)]).await.unwrap();
    let outcome = batch.outcome().await;

    assert_eq!(error.reason(), Reason::TooLarge);
    before.await.unwrap();
    assert_eq!(outcome.stored(), 2);
    assert_eq!(outcome.first_error().map(|error| error.reason()), Some(Reason::TooLarge));
    assert_eq!(ids(&fake.state().partitions[0].log), ["000000", "000001", "000002"]);
}

#[tokio::test]
async fn an_answer_may_refuse_a_whole_batch_at_length() {
    let (_fake, client) = Fake::start(1).await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();

    // More than the 4 MiB that a client takes at most unless told otherwise.
    let events = (0..4_000).map(|number| named(&format!("bad{number}"))).collect();
    let outcome = publisher.publish_batch(events).await.unwrap().outcome().await;

    assert_eq!(outcome.stored(), 0);
    let refused = outcome.receipts().into_iter().filter_map(Result::err);
    assert!(refused.into_iter().all(|error| error.reason() == Reason::SchemaViolation));
}
