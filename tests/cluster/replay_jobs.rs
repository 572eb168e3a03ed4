//! Replay jobs: a stored range that is delivered to one subscription again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use weft_client::{
    Client, Delivery, Position, PutOptions, Reason, Redrive, Subscription, resource_of,
};
use weft_proto::event::EventView;
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::harness::process::run;
use super::harness::{Cluster, eventually, put, within};
use super::lent::{
    LIMIT, STREAM, SUBSCRIPTION, all_settled, create, dead_letters, drain, join, next, numbers,
    publish, shared,
};

const JOB: &str = "backfill";

fn job(more: &Value) -> Value {
    let mut spec = json!({"target": {"subscription": SUBSCRIPTION}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

async fn change(client: &Client, more: &Value) -> weft_client::Result<()> {
    let wanted = resource_of(Kind::ReplayJob, JOB, &job(more))?;
    client.catalog().put(wanted, PutOptions::default()).await.map(drop)
}

/// Events that are not settled yet.
async fn left(client: &Client) -> u64 {
    let progress = client.replay_progress(JOB).await.unwrap();
    let left = |one: &v1::Progress| one.end - one.watermark;
    progress.iter().map(left).sum()
}

async fn is_done(client: &Client) {
    let done = async || (left(client).await == 0).then_some(());
    eventually(LIMIT, "the end of the replay", done).await;
}

/// What events of a delivery say of their replay: by number, job and offset.
fn marks(delivery: &Delivery) -> Vec<(usize, String, u64)> {
    let events = delivery.batch.events.iter();
    let mark = |event: &bytes::Bytes| {
        let view = EventView::parse(event).unwrap();
        let job = view.attribute("weftreplayjob")?.into_owned();
        let offset = view.attribute("weftoffset")?.parse().unwrap();
        Some((view.id.parse().unwrap(), job, offset))
    };
    events.filter_map(|(_, event)| mark(event)).collect()
}

/// Takes and acknowledges what comes of a replay until so many different events came.
async fn replayed(member: &mut Subscription, all: usize) -> BTreeMap<usize, u64> {
    let acker = member.acker();
    let mut seen = BTreeMap::new();
    while seen.len() < all {
        let delivery = next(member, LIMIT).await.expect("more events");
        acker.ack(delivery.all()).await.unwrap().await.unwrap();
        for (number, job, offset) in marks(&delivery) {
            assert_eq!(job, format!("default/{JOB}"));
            assert!(delivery.replay_job.is_some());
            assert_eq!(seen.insert(number, offset), None, "{number} twice");
        }
    }
    seen
}

#[tokio::test]
async fn a_range_comes_again_to_one_subscription_beside_what_is_new() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 2, &shared(&json!({"mode": "key-shared"}))).await;
    put(&client, Kind::Subscription, "audit", &json!({"stream": STREAM, "mode": "shared"})).await;
    publish(&client, 0..100, 10).await;
    let mut member = join(&client, "one", 30);
    let acker = member.acker();
    drain(&mut member, &acker, &mut BTreeSet::new(), 100).await;
    all_settled(&client).await;

    put(&client, Kind::ReplayJob, JOB, &job(&json!({}))).await;
    publish(&client, 100..130, 10).await;

    let (mut again, mut new) = (BTreeMap::new(), BTreeSet::new());
    within(LIMIT, "old and new events", async {
        while again.len() < 100 || new.len() < 30 {
            let delivery = next(&mut member, LIMIT).await.expect("more events");
            acker.ack(delivery.all()).await.unwrap().await.unwrap();
            if delivery.replay_job.is_none() {
                assert_eq!(marks(&delivery), []);
                new.extend(numbers(&delivery));
            }
            for (number, _, offset) in marks(&delivery) {
                assert_eq!(again.insert(number, offset), None, "{number} twice");
            }
        }
    })
    .await;
    assert_eq!(new, (100..130).collect());
    assert_eq!(again.into_keys().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    is_done(&client).await;
    all_settled(&client).await;

    // Nobody else noticed.
    let options = weft_client::SubscriptionOptions::default();
    let mut audit = client.subscribe("audit", options);
    let audits = audit.acker();
    let mut seen = BTreeSet::new();
    while seen.len() < 130 {
        let delivery = next(&mut audit, Duration::from_secs(2)).await;
        let Some(delivery) = delivery else { break };
        assert_eq!((delivery.replay_job, marks(&delivery)), (None, vec![]));
        seen.extend(numbers(&delivery));
        audits.ack(delivery.all()).await.unwrap().await.unwrap();
    }
    assert_eq!(seen, (0..130).collect(), "as they were published, after it was made");
}

#[tokio::test]
async fn a_replay_is_paused_resumed_and_cancelled() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    create(&client, 1, &shared(&json!({}))).await;
    publish(&client, 0..60, 10).await;
    let mut member = join(&client, "one", 10);
    let acker = member.acker();
    drain(&mut member, &acker, &mut BTreeSet::new(), 60).await;

    let slow = json!({"state": "paused", "pace": {"per_second": 2}});
    put(&client, Kind::ReplayJob, JOB, &job(&slow)).await;
    publish(&client, 60..70, 10).await;
    let mut seen = BTreeSet::new();
    drain(&mut member, &acker, &mut seen, 10).await;
    assert_eq!(seen, (60..70).collect(), "it is paused, and holds nothing up");
    assert_eq!(left(&client).await, 60);

    change(&client, &json!({"pace": {"per_second": 2}})).await.unwrap();
    let first = replayed(&mut member, 3).await;
    change(&client, &slow).await.unwrap();
    let before = left(&client).await;
    assert!((1..=57).contains(&before), "{before}");

    change(&client, &json!({})).await.unwrap();
    // One more may have been on its way when it was paused.
    let mut rest = BTreeMap::new();
    within(LIMIT, "the rest", async {
        while first.len() + rest.len() < 60 {
            let delivery = next(&mut member, LIMIT).await.expect("more events");
            acker.ack(delivery.all()).await.unwrap().await.unwrap();
            rest.extend(marks(&delivery).into_iter().map(|(number, _, offset)| (number, offset)));
        }
    })
    .await;
    assert!(first.keys().all(|number| !rest.contains_key(number)), "nothing is repeated");
    is_done(&client).await;

    // Another one is cancelled, and stays so.
    client.catalog().delete(Kind::ReplayJob, JOB, None).await.unwrap();
    put(&client, Kind::ReplayJob, JOB, &job(&json!({"pace": {"per_second": 2}}))).await;
    replayed(&mut member, 2).await;
    change(&client, &json!({"state": "cancelled"})).await.unwrap();
    publish(&client, 70..75, 10).await;
    let mut seen = BTreeSet::new();
    while !seen.is_superset(&(70..75).collect()) {
        let delivery = next(&mut member, LIMIT).await.expect("new events");
        // Of the cancelled job, one may have been on its way; nobody knows of it any more.
        if delivery.replay_job.is_none() {
            acker.ack(delivery.all()).await.unwrap().await.unwrap();
            seen.extend(numbers(&delivery));
        }
    }
    assert!(left(&client).await > 50);
    let error = change(&client, &json!({})).await.unwrap_err();
    assert_eq!(error.reason(), Reason::FailedPrecondition);
    assert_eq!(error.field(), Some("spec.state"));
    all_settled(&client).await;
}

#[tokio::test]
async fn a_replay_goes_on_after_its_leader_was_killed() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 1, &shared(&json!({"lease": "5m"}))).await;
    publish(&client, 0..200, 10).await;
    client.seek(SUBSCRIPTION, None, Position::Latest).await.unwrap();
    let route = client.route(STREAM).await.unwrap();
    let leader = usize::try_from(route[0].leader.unwrap()).unwrap() - 1;
    let other = (leader + 1) % 3;
    let options = weft_client::Options::new([cluster.nodes[other].endpoint()]);
    let near = Client::connect(&options).unwrap();
    let mut member = join(&near, "one", 20);
    let acker = member.acker();
    put(&client, Kind::ReplayJob, JOB, &job(&json!({}))).await;

    let mut seen: BTreeMap<usize, u32> = BTreeMap::new();
    let mut count = |delivery: &Delivery| {
        for (number, ..) in marks(delivery) {
            *seen.entry(number).or_default() += 1;
        }
        seen.len()
    };
    let mut held = Vec::new();
    while held.iter().map(|delivery: &Delivery| delivery.batch.events.len()).sum::<usize>() < 20 {
        let delivery = next(&mut member, LIMIT).await.unwrap();
        count(&delivery);
        held.push(delivery);
    }
    cluster.nodes[leader].kill();
    for delivery in &held {
        let settling = acker.ack(delivery.all()).await.unwrap();
        within(LIMIT, "an acknowledgement over a leader's death", settling).await.unwrap();
    }
    within(LIMIT, "the rest", async {
        loop {
            let delivery = next(&mut member, LIMIT).await.unwrap();
            acker.ack(delivery.all()).await.unwrap().await.unwrap();
            if count(&delivery) == 200 {
                break;
            }
        }
    })
    .await;

    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    is_done(&near).await;
}

#[tokio::test]
async fn what_fails_in_a_replay_is_a_dead_letter_that_says_so() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    create(&client, 1, &shared(&json!({}))).await;
    publish(&client, 0..10, 10).await;
    client.seek(SUBSCRIPTION, None, Position::Latest).await.unwrap();
    put(&client, Kind::ReplayJob, JOB, &job(&json!({}))).await;
    let mut member = join(&client, "one", 1);
    let acker = member.acker();
    let mut taken = 0;
    while taken < 10 {
        let delivery = next(&mut member, LIMIT).await.unwrap();
        taken += 1;
        if numbers(&delivery) == [4] {
            acker.reject(delivery.all(), "no such cart").await.unwrap().await.unwrap();
        } else {
            acker.ack(delivery.all()).await.unwrap().await.unwrap();
        }
    }
    is_done(&client).await;

    let letters = dead_letters(&client).await;
    assert_eq!(letters.keys().collect::<Vec<_>>(), [&4]);
    assert_eq!(letters[&4]["weftreplayjob"], format!("default/{JOB}"));
    assert_eq!(letters[&4]["weftreason"], "rejected");
    assert_eq!(letters[&4]["weftoffset"], "4");

    client.redrive(SUBSCRIPTION, Redrive::default()).await.unwrap();
    let delivery = next(&mut member, LIMIT).await.unwrap();
    assert!(delivery.is_redriven);
    assert_eq!((numbers(&delivery), marks(&delivery)), (vec![4], vec![]), "as it was published");
    acker.ack(delivery.all()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn ranges_and_filters_choose_what_comes_and_a_dry_run_counts_it() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    create(&client, 1, &shared(&json!({"filters": [{"sql": "subject <> 'cart/3'"}]}))).await;
    publish(&client, 0..50, 10).await;
    client.seek(SUBSCRIPTION, None, Position::Latest).await.unwrap();
    let weft = async |line: &str, filter: &str| {
        let endpoint = cluster.nodes[0].endpoint();
        let mut words: Vec<&str> = vec!["--endpoint", &endpoint, "replay-job"];
        words.extend(line.split(' '));
        if !filter.is_empty() {
            words.extend(["--sql", filter]);
        }
        run(&words, "").await
    };
    let low = "subject IN ('cart/0', 'cart/1', 'cart/2', 'cart/3', 'cart/4')";
    let start = "start backfill --subscription billing --from 10 --to 30 --dry-run";
    let counted = weft(start, low).await;
    assert_eq!(counted.code, Some(0), "{}", counted.stderr);
    assert!(counted.stdout.starts_with("8 of 20 events ("), "{}", counted.stdout);
    let listed = weft("list", "").await;
    assert!(!listed.stdout.contains("backfill"), "{}", listed.stdout);

    let start = start.replace(" --dry-run", "");
    let started = weft(&start, low).await;
    assert_eq!(started.stdout, "replay job backfill: goes through 20 events\n");
    let mut member = join(&client, "one", 100);
    let seen = replayed(&mut member, 8).await;
    assert!(seen.iter().all(|(&number, &offset)| number as u64 == offset));
    let wanted = (10..30).filter(|number| number % 10 < 5 && number % 10 != 3);
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    is_done(&client).await;

    let listed = weft("list", "").await;
    assert!(listed.stdout.contains("done   20/20"), "{}", listed.stdout);
    let told = weft("describe backfill -o json", "").await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["state"], "done");
    assert_eq!(told["partitions"][0]["to"], 30);
    // By time: nothing was stored by then, and all of it.
    let none = "start none --subscription billing --to 2020-01-01T00:00:00Z";
    assert_eq!(weft(none, "").await.stdout, "replay job none: goes through 0 events\n");
    let all = "start all --subscription billing --from 2020-01-01T00:00:00Z --paused";
    assert_eq!(weft(all, "").await.stdout, "replay job all: goes through 50 events\n");
    assert_eq!(weft("resume all --pace original", "").await.stdout, "replay job all: runs\n");
    replayed_of(&mut member, "default/all", 45).await;
}

async fn replayed_of(member: &mut Subscription, job: &str, all: usize) {
    let acker = member.acker();
    let mut seen = BTreeSet::new();
    while seen.len() < all {
        let delivery = next(member, LIMIT).await.expect("more events");
        acker.ack(delivery.all()).await.unwrap().await.unwrap();
        let marks = marks(&delivery).into_iter();
        seen.extend(marks.filter(|(_, own, _)| own == job).map(|(number, ..)| number));
    }
}

#[tokio::test]
async fn a_wrong_replay_is_refused_with_its_field() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    create(&client, 1, &json!({"stream": STREAM})).await;
    let put = async |spec: Value| {
        let wanted = resource_of(Kind::ReplayJob, JOB, &spec)?;
        client.catalog().put(wanted, PutOptions::default()).await.map(drop)
    };
    let refused = |outcome: weft_client::Result<()>| {
        let error = outcome.unwrap_err();
        (error.reason(), error.field().unwrap_or_default().to_owned(), error.to_string())
    };

    let (reason, field, text) = refused(put(job(&json!({}))).await);
    assert_eq!((reason, &*field), (Reason::FailedPrecondition, "spec.target.subscription"));
    assert!(text.contains("weft subscription seek"), "{text}");
    let nowhere = json!({"target": {"subscription": "nowhere"}});
    let (reason, field, _) = refused(put(nowhere).await);
    assert_eq!((reason, &*field), (Reason::UnknownResource, "spec.target.subscription"));

    client.catalog().delete(Kind::Subscription, SUBSCRIPTION, None).await.unwrap();
    self::put(&client, Kind::Subscription, SUBSCRIPTION, &shared(&json!({}))).await;
    publish(&client, 0..5, 1).await;
    put(job(&json!({}))).await.unwrap();
    // The same again changes nothing, and the range stays what it was.
    publish(&client, 5..9, 1).await;
    put(job(&json!({}))).await.unwrap();
    assert_eq!(client.replay_progress(JOB).await.unwrap()[0].end, 5);
    let (reason, field, _) = refused(put(job(&json!({"from": {"offset": 3}}))).await);
    assert_eq!((reason, &*field), (Reason::FailedPrecondition, "spec"));

    // Of another subscription of the same name it is no job.
    client.catalog().delete(Kind::Subscription, SUBSCRIPTION, None).await.unwrap();
    self::put(&client, Kind::Subscription, SUBSCRIPTION, &shared(&json!({}))).await;
    let error = client.replay_progress(JOB).await.unwrap_err();
    assert!(error.to_string().contains("was deleted"), "{error}");
    let mut member = join(&client, "one", 100);
    let acker = member.acker();
    drain(&mut member, &acker, &mut BTreeSet::new(), 9).await;
    all_settled(&client).await;
    assert!(next(&mut member, Duration::from_millis(700)).await.is_none());
}
