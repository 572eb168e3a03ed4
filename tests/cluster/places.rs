//! Places that are named by an event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use weft_client::{Client, EventPlace, ReadItem, ReadOptions, Reason, resource_of};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::event::EventView;
use weft_proto::resource::{Kind, ReplayJobSpec};
use weft_proto::{Timestamp, v1};

use super::harness::process::{Ended, run};
use super::harness::{Cluster, put};
use super::lent::{STREAM, SUBSCRIPTION, create, drain, event, join, publish, shared};

/// An event of another source than those of `lent`.
fn foreign(number: usize) -> bytes::Bytes {
    use prost::Message as _;
    let own = CloudEvent::decode(event(number, 1)).unwrap();
    CloudEvent { source: "/other".to_owned(), ..own }.encode_to_vec().into()
}

/// Where each event is: partition, offset, append time; by source and number.
type Story = BTreeMap<(String, usize), (u32, u64, Timestamp)>;

async fn story(client: &Client) -> Story {
    let mut reader = client.read(ReadOptions::all(STREAM)).await.unwrap();
    let mut found = Story::new();
    while let Some(item) = reader.next().await.unwrap() {
        let ReadItem::Batch(batch) = item else { continue };
        for (offset, event) in &batch.events {
            let view = EventView::parse(event).unwrap();
            let key = (view.source.to_owned(), view.id.parse().unwrap());
            found.insert(key, (batch.partition.get(), offset.get(), batch.append_time));
        }
    }
    found
}

/// Where the place of an event is in each partition, told by everything that is stored.
fn expected(story: &Story, number: usize) -> BTreeMap<u32, u64> {
    let (own, offset, time) = story[&("/shop".to_owned(), number)];
    let mut places = BTreeMap::new();
    for partition in 0..3 {
        let all = story.values().filter(|(at, ..)| *at == partition);
        let end = all.clone().map(|(_, offset, _)| offset + 1).max().unwrap_or(0);
        let later = all.filter(|(.., appended)| *appended >= time).map(|(_, offset, _)| *offset);
        places.insert(partition, later.min().unwrap_or(end));
    }
    places.insert(own, offset);
    places
}

fn moved(cursors: &[v1::SeekResult]) -> BTreeMap<u32, u64> {
    cursors.iter().map(|cursor| (cursor.partition, cursor.offset)).collect()
}

fn named(id: usize) -> EventPlace {
    EventPlace { id: id.to_string(), ..EventPlace::default() }
}

async fn weft(cluster: &Cluster, line: &str) -> Ended {
    let endpoint = cluster.nodes[0].endpoint();
    let mut words: Vec<&str> = vec!["--endpoint", &endpoint];
    words.extend(line.split(' '));
    run(&words, "").await
}

/// Three partitions with events of different times in each.
async fn filled() -> (Cluster, Client) {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 3, &shared(&json!({}))).await;
    for first in [0, 20, 40] {
        publish(&client, first..first + 20, 12).await;
        // So that append times differ.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (cluster, client)
}

#[tokio::test]
async fn a_cursor_goes_to_an_event_and_elsewhere_to_its_time() {
    let (cluster, client) = filled().await;
    let mut member = join(&client, "one", 100);
    let acker = member.acker();
    drain(&mut member, &acker, &mut BTreeSet::new(), 60).await;
    let story = story(&client).await;
    let places = expected(&story, 27);

    let shown = weft(&cluster, "-o json subscription seek billing --to-event 27").await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let told: Vec<Value> = serde_json::from_str(&shown.stdout).unwrap();
    let number = |one: &Value, key: &str| one[key].as_u64().unwrap();
    let told: BTreeMap<u32, u64> = told
        .iter()
        .map(|one| (u32::try_from(number(one, "partition")).unwrap(), number(one, "offset")))
        .collect();
    assert_eq!(told, places);

    // It comes again, with what follows and nothing else.
    let again: BTreeSet<usize> = story
        .iter()
        .filter(|(_, (partition, offset, _))| *offset >= places[partition])
        .map(|((_, number), _)| *number)
        .collect();
    assert!(again.contains(&27) && again.len() < 60, "{again:?}");
    let mut seen = BTreeSet::new();
    drain(&mut member, &acker, &mut seen, again.len()).await;
    assert_eq!(seen, again);

    // By its source it is known without looking through everything; which is the same place.
    let place = EventPlace { source: Some("/shop".to_owned()), ..named(27) };
    assert_eq!(moved(&client.seek_to_event(SUBSCRIPTION, None, place).await.unwrap()), places);
    let one = Some(weft_proto::PartitionId(1));
    let one = client.seek_to_event(SUBSCRIPTION, one, named(27)).await.unwrap();
    assert_eq!(moved(&one), BTreeMap::from([(1, places[&1])]));
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_clear_moves_nothing() {
    let (cluster, client) = filled().await;
    let before = client.subscription_progress(SUBSCRIPTION).await.unwrap();
    let refused = async |place| client.seek_to_event(SUBSCRIPTION, None, place).await.unwrap_err();

    let none = refused(named(99)).await;
    assert_eq!((none.reason(), none.field()), (Reason::UnknownResource, Some("to_event.id")));
    assert_eq!(none.message(), "default/orders has no event 99");
    let none = refused(EventPlace { source: Some("/x".to_owned()), ..named(7) }).await;
    assert_eq!(none.message(), "default/orders has no event 7 of /x");
    let time = story(&client).await[&("/shop".to_owned(), 7)].2;
    let since = Some(time.saturating_add(Duration::from_millis(1)));
    for source in [None, Some("/shop".to_owned())] {
        let none = refused(EventPlace { since, source, ..named(7) }).await;
        assert_eq!(none.reason(), Reason::UnknownResource, "{none}");
    }

    let publisher = client.publisher(STREAM, weft_client::PublisherOptions::default()).await;
    publisher.unwrap().send(foreign(7)).await.unwrap().await.unwrap();
    let two = refused(named(7)).await;
    assert_eq!((two.reason(), two.field()), (Reason::InvalidArgument, Some("to_event.source")));
    assert!(two.message().ends_with("/other, /shop"), "{two}");
    let shown = weft(&cluster, "subscription seek billing --to-event 7").await;
    assert_eq!(shown.code, Some(1), "{}", shown.stdout);
    assert!(shown.stderr.contains("/other, /shop"), "{}", shown.stderr);
    let both = weft(&cluster, "subscription seek billing --to 7 --to-event 7").await;
    assert_eq!(both.code, Some(2));

    let after = client.subscription_progress(SUBSCRIPTION).await.unwrap();
    let places = |all: &[v1::Progress]| all.iter().map(|one| one.watermark).collect::<Vec<_>>();
    assert_eq!(places(&after), places(&before));
    let other =
        weft(&cluster, "subscription seek billing --to-event 7 --event-source /other").await;
    assert_eq!(other.code, Some(0), "{}", other.stderr);
}

#[tokio::test]
async fn a_replay_job_goes_from_one_event_to_another() {
    let (cluster, client) = filled().await;
    let mut member = join(&client, "one", 100);
    let acker = member.acker();
    drain(&mut member, &acker, &mut BTreeSet::new(), 60).await;
    let story = story(&client).await;
    let (from, to) = (expected(&story, 11), expected(&story, 47));
    let wanted: BTreeSet<usize> = story
        .iter()
        .filter(|(_, (at, offset, _))| (from[at]..to[at]).contains(offset))
        .map(|((_, number), _)| *number)
        .collect();
    assert!(wanted.contains(&11) && !wanted.contains(&47), "{wanted:?}");

    let line = "replay-job start again --subscription billing --from-event 11 --to-event 47 \
                --to-source /shop --event-since -1h";
    let counted = weft(&cluster, &format!("{line} --dry-run")).await;
    let all = wanted.len();
    assert!(
        counted.stdout.starts_with(&format!("{all} of {all} events (")),
        "{} {}",
        counted.stdout,
        counted.stderr
    );
    let started = weft(&cluster, line).await;
    assert_eq!(started.stdout, format!("replay job again: goes through {all} events\n"));
    let mut seen = BTreeSet::new();
    drain(&mut member, &acker, &mut seen, all).await;
    assert_eq!(seen, wanted);

    // It is fixed: the place is not looked for again.
    let stored = client.catalog().get(Kind::ReplayJob, "again").await.unwrap();
    let spec: ReplayJobSpec = serde_json::from_slice(&stored.spec).unwrap();
    let resolved = spec.resolved.unwrap().partitions;
    assert!(resolved.iter().all(|one| from[&one.partition] == one.from));
    let paused = weft(&cluster, "replay-job pause again").await;
    assert_eq!(paused.code, Some(0), "{}", paused.stderr);

    let job = |from: Value| json!({"target": {"subscription": SUBSCRIPTION}, "from": from});
    let refused = async |from: Value| {
        let wanted = resource_of(Kind::ReplayJob, "none", &job(from)).unwrap();
        client.catalog().put(wanted, weft_client::PutOptions::default()).await.unwrap_err()
    };
    let none = refused(json!({"event": "99"})).await;
    assert_eq!((none.reason(), none.field()), (Reason::UnknownResource, Some("spec.from.event")));
    let none = refused(json!({"event": "7", "source": "/other"})).await;
    assert_eq!(none.message(), "default/orders has no event 7 of /other");
    put(&client, Kind::ReplayJob, "one", &job(json!({"event": "59", "source": "/shop"}))).await;
    drain(&mut member, &acker, &mut BTreeSet::new(), 1).await;
}
