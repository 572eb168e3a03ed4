//! A broken read goes on where it broke.

use bytes::Bytes;
use futures::StreamExt as _;
use weft_client::{Position, ReadItem, ReadOptions, ReadSummary};
use weft_proto::Offset;

use crate::fake::Fake;

async fn filled(partitions: usize, events: u64) -> (Fake, weft_client::Client) {
    let (fake, client) = Fake::start(partitions).await;
    for partition in &mut fake.state().partitions {
        partition.log = (0..events).map(|n| Bytes::from(n.to_string())).collect();
    }
    fake.state().read_frames_max = Some(2);
    (fake, client)
}

#[tokio::test]
async fn a_range_is_complete_and_merged_by_time_over_many_connections() {
    let (fake, client) = filled(2, 50).await;

    let mut reader = client.read(ReadOptions::all("orders")).await.unwrap();
    let mut seen = Vec::new();
    while let Some(item) = reader.next().await.unwrap() {
        let ReadItem::Batch(batch) = item else { panic!("a range does not catch up") };
        seen.extend(batch.into_records().map(|r| (r.append_time, r.partition, r.offset)));
    }

    assert!(fake.state().reads > 8, "the connections did not break");
    assert!(seen.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1) || a.2 < b.2));
    for partition in 0..2 {
        let offsets: Vec<_> =
            seen.iter().filter(|r| r.1.get() == partition).map(|r| r.2.get()).collect();
        assert_eq!(offsets, (0..50).collect::<Vec<_>>());
    }
    // 10 events of one digit and 40 of two.
    assert_eq!(reader.summary(), ReadSummary { events: 100, bytes: 180 });
}

#[tokio::test]
async fn a_followed_stream_catches_up_once_without_gap_or_repetition() {
    let (_fake, client) = filled(2, 20).await;

    let options =
        ReadOptions { from: Position::Offset(Offset(5)), ..ReadOptions::follow("orders") };
    let mut reader = client.read(options).await.unwrap();
    let mut seen = Vec::new();
    loop {
        match reader.next().await.unwrap().unwrap() {
            ReadItem::CaughtUp => break,
            ReadItem::Batch(batch) => {
                seen.extend(batch.into_records().map(|r| (r.partition.get(), r.offset.get())));
            }
        }
    }

    seen.sort_unstable();
    let all = (0..2).flat_map(|partition| (5..20).map(move |offset| (partition, offset)));
    assert_eq!(seen, all.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_limit_ends_the_read() {
    let (_fake, client) = filled(1, 50).await;
    let options = ReadOptions { events_max: Some(7), ..ReadOptions::all("orders") };

    let reader = client.read(options).await.unwrap();
    let records: Vec<_> = reader.into_records().map(Result::unwrap).collect().await;

    assert_eq!(records.len(), 7);
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_left_for_another() {
    let (fake, client) = filled(1, 5).await;
    fake.state().isolated = Some(0);

    for options in [ReadOptions::all("orders"), ReadOptions::follow("orders")] {
        let options = ReadOptions { from: Position::Earliest, events_max: Some(5), ..options };
        let records: Vec<_> = client.read(options).await.unwrap().into_records().collect().await;
        assert_eq!(records.into_iter().map(Result::unwrap).count(), 5);
    }
}
