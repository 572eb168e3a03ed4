//! Appends that expect where the last event of a subject is: optimistic concurrency as event sourcing
//! needs it, with whatever leader, after whatever kill.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use weft_client::{
    Client, Error, Options, Position, PublisherOptions, PutOptions, ReadItem, ReadOptions, Reason,
    resource_of,
};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::event::{EventView, partition_of_key};
use weft_proto::resource::Kind;
use weft_proto::v1::publish_result::Outcome;
use weft_proto::v1::{ExpectedOffset, ExpectedSubject, PublishRequest, UnmetExpectation};

use super::harness::node::Node;
use super::harness::process::run;
use super::harness::{Cluster, eventually, put, within};

const STREAM: &str = "carts";
const LIMIT: Duration = Duration::from_mins(2);

fn event(id: &str, subject: &str, data: &str) -> Bytes {
    let attr = Some(Attr::CeString(subject.to_owned()));
    let event = CloudEvent {
        id: id.to_owned(),
        source: "/shop".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "cart.changed".to_owned(),
        attributes: [("subject".to_owned(), CloudEventAttributeValue { attr })].into(),
        data: Some(Data::TextData(data.to_owned())),
    };
    event.encode_to_vec().into()
}

fn expected(subject: &str, offset: Option<u64>) -> ExpectedSubject {
    ExpectedSubject { subject: subject.to_owned(), offset, partition: None }
}

/// Publishes these events if the subjects are where they are expected.
async fn publish(
    client: &Client,
    events: Vec<Bytes>,
    subjects: Vec<ExpectedSubject>,
) -> Result<Vec<(u64, bool)>, Error> {
    let request = PublishRequest {
        stream: STREAM.to_owned(),
        events,
        expected_subjects: subjects,
        ..PublishRequest::default()
    };
    let results = client.publish_once(request).await?;
    let place = |outcome: Option<Outcome>| match outcome.unwrap() {
        Outcome::Receipt(receipt) => (receipt.offset, receipt.duplicate),
        Outcome::Refusal(refusal) => panic!("{refusal:?}"),
    };
    Ok(results.into_iter().map(|result| place(result.outcome)).collect())
}

/// What an error says of each expectation that failed: subject, expected, actual.
type Told = (Option<String>, Option<u64>, Option<u64>);

fn told(unmet: &[UnmetExpectation]) -> Vec<Told> {
    unmet.iter().map(|one| (one.subject.clone(), one.expected, one.actual)).collect()
}

fn of(subject: &str, expected: Option<u64>, actual: Option<u64>) -> Told {
    (Some(subject.to_owned()), expected, actual)
}

#[tokio::test]
async fn an_append_goes_in_only_if_all_subjects_are_where_they_are_expected() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({ "subject_index": true })).await;
    // The own events of a batch do not count.
    let first = vec![event("1", "a", "1"), event("2", "b", "1"), event("3", "a", "2")];
    let both = || vec![expected("a", None), expected("b", None)];
    let stored = publish(&client, first.clone(), both()).await.unwrap();
    assert_eq!(stored, [(0, false), (1, false), (2, false)]);

    // Who was not told may ask again, though by now the expectation is wrong.
    let again = publish(&client, first.clone(), both()).await.unwrap();
    assert_eq!(again, [(0, true), (1, true), (2, true)]);
    // With one that is new among them it is another batch, and is refused as a whole.
    let mixed = vec![first[0].clone(), event("4", "a", "3")];
    let error = publish(&client, mixed, vec![expected("a", Some(0))]).await.unwrap_err();
    assert_eq!(told(error.unmet()), [of("a", Some(0), Some(2))]);

    let right = vec![expected("a", Some(2)), expected("b", Some(1)), expected("new", None)];
    assert_eq!(publish(&client, vec![event("5", "a", "")], right).await.unwrap(), [(3, false)]);
    // All that is wrong is told at once, together with the end of the partition.
    let request = PublishRequest {
        stream: STREAM.to_owned(),
        events: vec![event("6", "a", "")],
        expected: vec![ExpectedOffset { partition: 0, offset: 3 }],
        expected_subjects: vec![
            expected("a", Some(2)),
            expected("b", Some(1)),
            expected("new", Some(0)),
            expected("b2", None),
        ],
        ..PublishRequest::default()
    };
    let error = client.publish_once(request).await.unwrap_err();
    assert_eq!((error.reason(), error.offset()), (Reason::WrongOffset, Some(4)));
    let end = (None, Some(3), Some(4));
    assert_eq!(told(error.unmet()), [end, of("a", Some(2), Some(3)), of("new", Some(0), None)]);
    // What the refused batches claimed is free again.
    let id_free = publish(&client, vec![event("6", "a", "")], vec![expected("a", Some(3))]).await;
    assert_eq!(id_free.unwrap(), [(4, false)]);
}

#[tokio::test]
async fn expectations_belong_to_the_partitions_that_the_request_writes_to() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let spec = json!({ "partitions": 2, "subject_index": true });
    put(&client, Kind::Stream, STREAM, &spec).await;
    let subjects: Vec<String> = (0..8).map(|number| format!("cart/{number}")).collect();
    let of_partition = |partition| {
        let mut own = subjects.iter().filter(|one| partition_of_key(one, 2).get() == partition);
        own.next().unwrap().as_str()
    };
    let [zero, one] = [of_partition(0), of_partition(1)];
    let events = || vec![event("1", zero, ""), event("2", one, "")];

    // Both partitions are wrong, and each says so with its own subject.
    let request = PublishRequest {
        stream: STREAM.to_owned(),
        events: events(),
        expected_subjects: vec![expected(zero, Some(5)), expected(one, Some(6))],
        ..PublishRequest::default()
    };
    let results = client.publish_once(request).await.unwrap();
    let refusals = results.into_iter().map(|result| match result.outcome.unwrap() {
        Outcome::Refusal(refusal) => (refusal.reason, told(&refusal.unmet)),
        Outcome::Receipt(receipt) => panic!("{receipt:?}"),
    });
    let wrong = "WRONG_OFFSET".to_owned();
    let each =
        [(wrong.clone(), vec![of(zero, Some(5), None)]), (wrong, vec![of(one, Some(6), None)])];
    assert_eq!(refusals.collect::<Vec<_>>(), each);
    let right = vec![expected(zero, None), expected(one, None)];
    assert_eq!(publish(&client, events(), right).await.unwrap().len(), 2);

    // The same subject in the other partition is another one.
    let elsewhere = PublishRequest {
        stream: STREAM.to_owned(),
        events: vec![event("3", zero, "")],
        partition: Some(1),
        expected_subjects: vec![expected(zero, None)],
        ..PublishRequest::default()
    };
    client.publish_once(elsewhere).await.unwrap();
    let named = ExpectedSubject { partition: Some(1), ..expected(zero, Some(0)) };
    let error = publish(&client, vec![event("4", one, "")], vec![named]).await.unwrap_err();
    assert_eq!(told(error.unmet()), [of(zero, Some(0), Some(1))]);

    let none_goes_there = vec![expected(zero, None)];
    let twice = vec![expected(one, None), expected(one, Some(1))];
    let empty = vec![expected("", None)];
    let long = vec![expected(&"s".repeat(1_025), None)];
    let many = vec![expected(one, None); 1_001];
    for (subjects, field) in [
        (none_goes_there, "expected_subjects[0].partition"),
        (twice, "expected_subjects[1].subject"),
        (empty, "expected_subjects[0].subject"),
        (long, "expected_subjects[0].subject"),
        (many, "expected_subjects"),
    ] {
        let refused = publish(&client, vec![event("5", one, "")], subjects).await.unwrap_err();
        assert_eq!(refused.field(), Some(field), "{refused}");
        assert!(!refused.is_retryable(), "{refused}");
    }
}

#[tokio::test]
async fn a_stream_without_the_index_says_how_to_get_it() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;

    let refused = publish(&client, vec![event("1", "a", "")], vec![expected("a", None)]).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.reason(), Reason::FailedPrecondition);
    assert_eq!(refused.field(), Some("expected_subjects"));
    assert!(refused.message().contains("weft stream create --subject-index"), "{refused}");

    let later = resource_of(Kind::Stream, STREAM, &json!({ "subject_index": true })).unwrap();
    let fixed = client.catalog().put(later, PutOptions::default()).await.unwrap_err();
    assert_eq!(fixed.field(), Some("spec.subject_index"), "{fixed}");
    assert!(fixed.message().contains("create another stream"), "{fixed}");
}

#[tokio::test]
async fn the_command_line_takes_expectations_and_shows_what_failed() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.nodes[0].endpoint();
    let weft = async |args: &[&str], input: &str| {
        let args: Vec<&str> = ["--endpoint", &endpoint].iter().chain(args).copied().collect();
        run(&args, input).await
    };
    let created = weft(&["stream", "create", STREAM, "--subject-index"], "").await;
    assert_eq!(created.code, Some(0), "{created:?}");
    let line = |id: &str| {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/shop", "type": "t", "subject": "cart/1",
        });
        format!("{event}\n")
    };
    let publish = ["publish", STREAM, "--expect", "0=0", "--expect-subject", "cart/1=none"];

    let done = weft(&publish, &(line("1") + &line("2"))).await;
    assert_eq!((done.code, done.stdout.trim()), (Some(0), "2 published"), "{done:?}");
    let failed = weft(&publish, &line("3")).await;

    assert_eq!(failed.code, Some(1));
    let lines = [
        "nothing was published (WRONG_OFFSET):",
        "partition 0: ends at 2, expected 0",
        "partition 0: last event with subject \"cart/1\": 1, expected none",
    ];
    for line in lines {
        assert!(failed.stderr.contains(line), "{}", failed.stderr);
    }
    let right = ["publish", STREAM, "--expect", "0=2", "--expect-subject", "cart/1=1"];
    assert_eq!(weft(&right, &line("3")).await.code, Some(0));
}

/// A client of one node, once that node knows the stream.
async fn of_node(cluster: &Cluster, node: usize) -> Client {
    let client = Client::connect(&Options::new([cluster.nodes[node].endpoint()])).unwrap();
    eventually(LIMIT, "knowing the stream", async || client.route(STREAM).await.ok()).await;
    client
}

/// Subjects of the writers, spread over both partitions.
const SUBJECTS: [&str; 3] = ["cart/1", "cart/2", "cart/3"];
/// Changes that each writer makes to each subject.
const CHANGES: usize = 40;

/// Changes the subjects in turn, as event sourcing does: on top of the last event that it knows, and
/// again on top of a newer one if somebody else was faster. Each event says what it was put on.
async fn change_all(client: Client, writer: usize, progress: tokio::sync::mpsc::Sender<()>) {
    let mut last: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    let mut attempt = 0;
    for change in 0..CHANGES * SUBJECTS.len() {
        let subject = SUBJECTS[(change + writer) % SUBJECTS.len()];
        let mut stored = None;
        while stored.is_none() {
            let known = last.get(subject).copied().flatten();
            attempt += 1;
            let id = format!("{writer}-{attempt}");
            let event = event(&id, subject, &json!({ "after": known }).to_string());
            stored = loop {
                let sent = vec![event.clone()];
                match publish(&client, sent, vec![expected(subject, known)]).await {
                    Ok(places) => break Some(places[0].0),
                    // Another writer was faster: this event will never be stored.
                    Err(error) if error.reason() == Reason::WrongOffset => {
                        let unmet = error.unmet();
                        assert_eq!((unmet.len(), unmet[0].expected), (1, known), "{error}");
                        assert_ne!(unmet[0].actual, known, "{error}");
                        last.insert(subject, unmet[0].actual);
                        break None;
                    }
                    // The same event again: if it is stored it is recognised.
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            };
        }
        last.insert(subject, stored);
        progress.send(()).await.unwrap();
    }
}

/// Everything that a node has, in the order of its offsets: partition, offset, subject, data, id.
async fn read_all(node: &Node) -> Vec<(u32, u64, String, String, String)> {
    let options = ReadOptions { from: Position::Earliest, ..ReadOptions::follow(STREAM) };
    let mut reader = node.client().read(options).await.unwrap();
    let reading = async {
        let mut found = Vec::new();
        loop {
            match reader.next().await.unwrap() {
                Some(ReadItem::Batch(batch)) => {
                    for record in batch.into_records() {
                        let view = EventView::parse(&record.event).unwrap();
                        let subject = view.attribute("subject").unwrap().into_owned();
                        let data = String::from_utf8(view.data_bytes().unwrap().to_vec()).unwrap();
                        let place = (record.partition.get(), record.offset.get());
                        found.push((place.0, place.1, subject, data, view.id.to_owned()));
                    }
                }
                Some(ReadItem::CaughtUp) => return found,
                None => panic!("a read that follows ended"),
            }
        }
    };
    within(LIMIT, "reading a replica", reading).await
}

/// Waits until all nodes have this many events.
async fn all_have(cluster: &Cluster, events: usize) {
    for node in &cluster.nodes {
        let client = node.client();
        let all = async || {
            let ends = client.locate(STREAM, Position::Latest).await.ok()?;
            let sum: u64 = ends.iter().map(|end| end.latest).sum();
            (sum == events as u64).then_some(())
        };
        eventually(LIMIT, "that a node has all events", all).await;
    }
}

/// Where the last events of subjects are, as whoever leads now says it: by an expectation of what
/// cannot be.
async fn last_offsets(client: &Client, subjects: &[String]) -> BTreeMap<String, Option<u64>> {
    let mut last = BTreeMap::new();
    // As many as there is room for in one answer.
    for subjects in subjects.chunks(50) {
        let wrong: Vec<_> = subjects.iter().map(|one| expected(one, Some(u64::MAX))).collect();
        let events: Vec<_> = subjects.iter().map(|one| event(one, one, "")).collect();
        let error = loop {
            match publish(client, events.clone(), wrong.clone()).await {
                Ok(places) => panic!("stored at {places:?}"),
                Err(error) if error.is_retryable() => {}
                Err(error) => break error,
            }
        };
        assert_eq!((error.reason(), error.unmet_omitted()), (Reason::WrongOffset, 0), "{error}");
        let told = error.unmet().iter();
        last.extend(told.map(|one| (one.subject.clone().unwrap(), one.actual)));
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_who_race_for_subjects_leave_unbroken_chains_whatever_becomes_of_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let spec = json!({ "partitions": 2, "subject_index": true });
    put(&cluster.client(), Kind::Stream, STREAM, &spec).await;
    let (progress, mut changes) = tokio::sync::mpsc::channel(1);
    let mut writers = tokio::task::JoinSet::new();
    let options = cluster.options();
    for writer in 0..4 {
        // Each begins with another node, and goes on with the next when that one is away.
        let mut endpoints = options.endpoints.clone();
        endpoints.rotate_left(writer % 3);
        of_node(&cluster, writer % 3).await;
        let client = Client::connect(&Options::new(endpoints)).unwrap();
        writers.spawn(change_all(client, writer, progress.clone()));
    }
    drop(progress);
    let all = 4 * CHANGES * SUBJECTS.len();
    let mut done = 0;
    while changes.recv().await.is_some() {
        done += 1;
        if done == all / 3 {
            let routes = cluster.client().route(STREAM).await.unwrap();
            let leader = routes[0].leader.expect("somebody leads while writers get on");
            let leader = usize::try_from(leader).unwrap() - 1;
            cluster.nodes[leader].kill();
            for _ in 0..all / 6 {
                changes.recv().await.expect("the others go on");
                done += 1;
            }
            cluster.nodes[leader].start();
            cluster.nodes[leader].ready().await;
        }
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    assert_eq!(done, all);

    all_have(&cluster, all).await;
    for node in &cluster.nodes {
        let stored = read_all(node).await;
        let ids: BTreeSet<_> = stored.iter().map(|(.., id)| id).collect();
        assert_eq!((stored.len(), ids.len()), (all, all));
        let mut last: BTreeMap<(u32, &str), u64> = BTreeMap::new();
        let mut ordered: Vec<_> = stored.iter().collect();
        ordered.sort_by_key(|(partition, offset, ..)| (*partition, *offset));
        for (partition, offset, subject, data, id) in ordered {
            let before = last.insert((*partition, subject), *offset);
            assert_eq!(data, &json!({ "after": before }).to_string(), "event {id} at {offset}");
        }
        assert_eq!(last.len(), SUBJECTS.len());
    }
}

/// With a checkpoint after every 64 KiB, most records lie below the newest one when all are killed:
/// a checkpoint must not be there without them, for nobody makes them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_survives_kill_9_of_all_nodes_and_is_the_same_with_every_leader() {
    let mut cluster = Cluster::new(3).await;
    for node in &mut cluster.nodes {
        "checkpoint_bytes = 65536\n".clone_into(&mut node.cluster_settings);
    }
    cluster.start_all().await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({ "subject_index": true })).await;
    let subjects: Vec<String> = (0..200).map(|number| format!("cart/{number}")).collect();
    let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
    let mut expected = BTreeMap::new();
    let mut stored = 0_u64;
    for round in 0..3 {
        for chunk in 0..15 {
            // A subject of which no event follows any more is as well remembered as others.
            let events = (0..100).map(|at| {
                let number = chunk * 100 + at;
                event(&format!("{round}-{number}"), &subjects[number % 199], &"x".repeat(100))
            });
            let outcome = publisher.publish_batch(events.collect()).await.unwrap().outcome().await;
            assert!(outcome.first_error().is_none(), "{:?}", outcome.first_error());
            for at in 0..100 {
                let subject = subjects[(chunk * 100 + at) % 199].clone();
                expected.insert(subject, Some(stored));
                stored += 1;
            }
        }
        expected.entry(subjects[199].clone()).or_insert(None);
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.start_all().await;
        assert_eq!(last_offsets(&client, &subjects).await, expected, "after kill {round}");
    }
    // Each node is away once, so that no leader is in front of all others.
    for node in 0..3 {
        cluster.nodes[node].kill();
        assert_eq!(last_offsets(&client, &subjects).await, expected, "without {node}");
        cluster.nodes[node].start();
        cluster.nodes[node].ready().await;
    }
}

#[tokio::test]
async fn a_subject_whose_events_retention_took_has_none() {
    let mut cluster = Cluster::new(1).await;
    "checkpoint_bytes = 65536\n".clone_into(&mut cluster.nodes[0].cluster_settings);
    "\n[retention]\ntick_ms = 100\nlog_kept_ms = 0\n".clone_into(&mut cluster.nodes[0].sections);
    cluster.start_all().await;
    let client = cluster.client();
    let spec = json!({ "subject_index": true, "retention": { "max_events": 10 } });
    put(&client, Kind::Stream, STREAM, &spec).await;
    publish(&client, vec![event("old", "old", "")], vec![expected("old", None)]).await.unwrap();
    let error = publish(&client, vec![event("x", "old", "")], vec![expected("old", None)]).await;
    assert_eq!(told(error.unwrap_err().unmet()), [of("old", None, Some(0))]);

    let others = (0..500).map(|id| event(&format!("n{id}"), &format!("n{id}"), ""));
    publish(&client, others.collect(), Vec::new()).await.unwrap();
    let trimmed = async || {
        let at = client.locate(STREAM, Position::Latest).await.ok()?;
        (at.first()?.earliest >= 490).then_some(())
    };
    eventually(LIMIT, "that the floor rises", trimmed).await;

    let gone = publish(&client, vec![event("y", "old", "")], vec![expected("old", Some(0))]).await;
    assert_eq!(told(gone.unwrap_err().unmet()), [of("old", Some(0), None)]);
    let kept = publish(&client, vec![event("z", "old", "")], vec![expected("old", None)]).await;
    assert_eq!(kept.unwrap(), [(501, false)]);
    // What retention left counts as ever.
    let left = publish(&client, vec![event("w", "n499", "")], vec![expected("n499", Some(500))]);
    assert_eq!(left.await.unwrap().len(), 1);
}
