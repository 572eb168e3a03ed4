//! Events on loan to clients that ask, wait and go.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use weft_client::Client;
use weft_proto::resource::Kind;

use super::{BATCH, STREAM, batch, port};
use crate::harness::http::{Answer, ask, send};
use crate::harness::{Cluster, eventually, put, within};

const LIMIT: Duration = Duration::from_mins(1);
const VERSION: &str = "api-version=2024-06-01";

async fn create(client: &Client, partitions: usize, more: &Value) {
    put(client, Kind::Stream, STREAM, &json!({"partitions": partitions})).await;
    let mut spec = json!({"stream": STREAM, "mode": "shared", "start": "earliest"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    put(client, Kind::Subscription, "billing", &spec).await;
}

async fn act(port: u16, verb: &str, query: &str, body: &str) -> Answer {
    let target = format!("/topics/orders/eventsubscriptions/billing:{verb}?{VERSION}{query}");
    ask(port, "POST", &target, &[("content-type", "application/json")], body.as_bytes()).await
}

/// Numbers of events, how often they were delivered, their locks.
async fn receive(port: u16, events: usize, wait: usize) -> Vec<(usize, u64, String)> {
    let answer = act(port, "receive", &format!("&maxEvents={events}&maxWaitTime={wait}"), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    let one = |one: &Value| {
        let properties = &one["brokerProperties"];
        let number = one["event"]["data"]["number"].as_u64().unwrap();
        let lock = properties["lockToken"].as_str().unwrap().to_owned();
        (usize::try_from(number).unwrap(), properties["deliveryCount"].as_u64().unwrap(), lock)
    };
    told["value"].as_array().unwrap().iter().map(one).collect()
}

/// Locks that succeeded, and codes of those that did not.
async fn settle(port: u16, verb: &str, query: &str, locks: &[&str]) -> (usize, Vec<String>) {
    let answer = act(port, verb, query, &json!({"lockTokens": locks}).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    let failed = told["failedLockTokens"].as_array().unwrap();
    assert!(failed.iter().all(|one| one["error"]["message"].as_str().unwrap().len() > 5));
    let codes = failed.iter().map(|one| one["error"]["code"].as_str().unwrap().to_owned());
    (told["succeededLockTokens"].as_array().unwrap().len(), codes.collect())
}

async fn publish(port: u16, ids: std::ops::Range<usize>) {
    let target = format!("/topics/orders:publish?{VERSION}");
    let answer = ask(port, "POST", &target, &[BATCH], &batch(ids)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
}

async fn letters(client: &Client) -> usize {
    client.dead_letters("billing", 100, "").await.unwrap().letters.len()
}

#[tokio::test]
async fn events_are_received_and_settled_in_each_way() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    create(&client, 3, &json!({"lease": "5m"})).await;
    let port = port(&cluster);
    assert!(receive(port, 10, 0).await.is_empty());
    publish(port, 0..20).await;

    let mut all = Vec::new();
    within(LIMIT, "all events", async {
        while all.len() < 20 {
            all.extend(receive(port, 7, 10).await);
        }
    })
    .await;
    let numbers: BTreeSet<usize> = all.iter().map(|one| one.0).collect();
    assert!(numbers.len() == 20 && all.iter().all(|one| one.1 == 1), "{all:?}");
    all.sort_unstable();
    let lock = |number: usize| all[number].2.as_str();
    let locks: Vec<&str> = (0..17).map(lock).collect();

    assert_eq!(settle(port, "acknowledge", "", &locks).await, (17, vec![]));
    // The same again is no mistake, another act is.
    assert_eq!(settle(port, "acknowledge", "", &locks).await, (17, vec![]));
    assert_eq!(settle(port, "release", "", &locks[..1]).await, (0, vec!["LockExpired".to_owned()]));
    assert_eq!(settle(port, "acknowledge", "", &["x"]).await, (0, vec!["LockInvalid".to_owned()]));
    assert_eq!(settle(port, "acknowledge", "", &[]).await, (0, vec![]));
    assert_eq!(settle(port, "renewLock", "", &[lock(17)]).await, (1, vec![]));
    assert_eq!(settle(port, "acknowledge", "", &[lock(17)]).await, (1, vec![]));
    assert_eq!(settle(port, "reject", "", &[lock(18)]).await, (1, vec![]));
    assert_eq!(letters(&client).await, 1);
    assert_eq!(settle(port, "release", "&releaseDelayInSeconds=0", &[lock(19)]).await, (1, vec![]));
    let again = receive(port, 1, 60).await;
    assert_eq!((again[0].0, again[0].1), (19, 2));
    // One after the other: of an event that is settled, an older lock may be told that it is.
    assert_eq!(settle(port, "acknowledge", "", &[lock(19)]).await.0, 0);
    assert_eq!(settle(port, "acknowledge", "", &[&again[0].2]).await.0, 1);
    assert!(receive(port, 10, 0).await.is_empty());
}

#[tokio::test]
async fn a_lock_ends_by_its_time_and_not_before() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let retry = json!({"base": "10ms", "cap": "10ms", "attempts": 2});
    create(&client, 1, &json!({"lease": "2s", "grace": "0s", "retry": retry})).await;
    let port = port(&cluster);
    publish(port, 0..1).await;

    let first = receive(port, 1, 60).await;
    // Nobody is attached, and there is no grace: the lock holds all the same.
    assert_eq!(settle(port, "renewLock", "", &[&first[0].2]).await.0, 1);
    let second = receive(port, 1, 60).await;
    assert_eq!((second[0].0, second[0].1), (0, 2));
    assert_eq!(
        settle(port, "acknowledge", "", &[&first[0].2]).await,
        (0, vec!["LockExpired".to_owned()])
    );
    let given_up = async || (letters(&client).await == 1).then_some(());
    eventually(LIMIT, "giving up", given_up).await;
}

#[tokio::test]
async fn what_a_closed_connection_did_not_take_comes_again_uncounted() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let retry = json!({"attempts": 1});
    create(&client, 4, &json!({"lease": "10m", "retry": retry})).await;
    let port = port(&cluster);
    let target = format!(
        "/topics/orders/eventsubscriptions/billing:receive?{VERSION}&maxEvents=100&maxWaitTime=120"
    );
    for round in 0..6 {
        let waiting = send(port, "POST", &target, &[], b"").await;
        // The members of the request are there, on their way, or not yet.
        tokio::time::sleep(Duration::from_millis(30 * (round % 3))).await;
        // It ends, and only then there are events: nobody shall wait for a lease of ten minutes.
        drop(waiting);
        let first = usize::try_from(round).unwrap() * 4;
        publish(port, first..first + 4).await;
    }

    let mut seen = BTreeSet::new();
    within(LIMIT, "all events", async {
        while seen.len() < 24 {
            for (number, count, lock) in receive(port, 100, 5).await {
                assert_eq!(count, 1, "{number}");
                seen.insert(number);
                assert_eq!(settle(port, "acknowledge", "", &[&lock]).await.0, 1);
            }
        }
    })
    .await;
    assert_eq!(letters(&client).await, 0);
}

#[tokio::test]
async fn locks_are_settled_at_any_node_and_over_the_death_of_a_leader() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 1, &json!({"lease": "5m"})).await;
    let route = client.route(STREAM).await.unwrap();
    let leader = usize::try_from(route[0].leader.unwrap()).unwrap() - 1;
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.ports.http).collect();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    publish(ports[leader], 0..10).await;
    // The others may not know the subscription yet.
    let known = async || {
        let answer = act(ports[others[0]], "receive", "&maxEvents=4&maxWaitTime=30", "").await;
        (answer.status == 200).then(|| answer.json())
    };
    let told = eventually(LIMIT, "receiving", known).await;
    let locks: Vec<String> = told["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["brokerProperties"]["lockToken"].as_str().unwrap().to_owned())
        .collect();
    let locks: Vec<&str> = locks.iter().map(String::as_str).collect();
    assert_eq!(locks.len(), 4);
    assert_eq!(settle(ports[others[1]], "acknowledge", "", &locks[..2]).await, (2, vec![]));

    cluster.nodes[leader].kill();
    let settled = async || {
        let body = json!({"lockTokens": locks}).to_string();
        let answer = act(ports[others[1]], "acknowledge", "", &body).await;
        (answer.status == 200).then(|| answer.json())
    };
    let told = eventually(LIMIT, "settling", settled).await;
    // Those that were settled before, and those that the new leader had to be told of.
    assert_eq!(told["succeededLockTokens"].as_array().unwrap().len(), 4, "{told}");
    let mut rest = BTreeSet::new();
    within(LIMIT, "the rest", async {
        while rest.len() < 6 {
            for (number, count, lock) in receive(ports[others[0]], 100, 10).await {
                assert_eq!(count, 1);
                assert!(rest.insert(number), "{number} came twice");
                assert_eq!(settle(ports[others[0]], "acknowledge", "", &[&lock]).await.0, 1);
            }
        }
    })
    .await;
}
