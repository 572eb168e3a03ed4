//! Server-sent events: each event once, whatever breaks off in between.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use weft_proto::resource::Kind;

use super::{BATCH, EVENTS, STREAM, batch, port, post};
use crate::harness::http::{Open, ask, begin};
use crate::harness::{Cluster, put, within};

const LIMIT: Duration = Duration::from_mins(2);

async fn follow(port: u16, query: &str, last: Option<&str>) -> Open {
    let headers: Vec<_> = last.map(|id| ("last-event-id", id)).into_iter().collect();
    let open = begin(port, "GET", &format!("{EVENTS}?{query}"), &headers, b"").await;
    assert_eq!(open.head.status, 200, "{:?}", open.head);
    assert_eq!(open.head.header("content-type"), Some("text/event-stream; charset=utf-8"));
    open
}

#[tokio::test]
async fn a_stream_goes_on_exactly_where_it_broke_off() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 3})).await;
    let port = port(&cluster);
    assert_eq!(post(port, EVENTS, BATCH, &batch(0..40)).await.status, 202);

    // Broken off after each event.
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut last: Option<String> = None;
    for _ in 0..40 {
        let mut open = follow(port, "from=earliest", last.as_deref()).await;
        let sent = open.next().await.unwrap();
        assert_eq!(sent.event, "order.placed");
        let event = sent.json();
        assert_eq!(event, super::event(event["id"].as_str().unwrap().parse().unwrap()));
        *seen.entry(event["id"].as_str().unwrap().to_owned()).or_default() += 1;
        last = Some(sent.id);
    }
    assert!(seen.len() == 40 && seen.values().all(|times| *times == 1), "{seen:?}");
    let query = format!("lastEventId={}&to=latest", last.unwrap());
    assert_eq!(follow(port, &query, None).await.next().await, None);

    let mut some =
        follow(port, "from=earliest&to=latest&filter=INT(id)%20%3E%2035&limit=3", None).await;
    let mut count = 0;
    while let Some(sent) = some.next().await {
        assert!(sent.json()["data"]["number"].as_u64().unwrap() > 35);
        count += 1;
    }
    assert_eq!(count, 3);
    let mut late = follow(port, "from=2100-01-01T00:00:00Z&to=latest", None).await;
    assert_eq!(late.next().await, None);
}

#[tokio::test]
async fn what_was_not_sent_yet_is_not_missed_either() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let port = port(&cluster);
    assert_eq!(post(port, EVENTS, BATCH, &batch(0..5)).await.status, 202);

    // Nothing came, but the place is known: the client keeps the id of the first block.
    let mut open = follow(port, "", None).await;
    assert_eq!(post(port, EVENTS, BATCH, &batch(5..6)).await.status, 202);
    let first = open.next().await.unwrap();
    assert_eq!(first.json()["id"], "5");
    drop(open);
    assert_eq!(post(port, EVENTS, BATCH, &batch(6..9)).await.status, 202);
    let mut open = follow(port, "", Some(&first.id)).await;
    for id in ["6", "7", "8"] {
        assert_eq!(open.next().await.unwrap().json()["id"], id);
    }
}

#[tokio::test]
async fn each_event_is_seen_once_over_the_deaths_of_leaders() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 4})).await;
    client.route(STREAM).await.unwrap();
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.ports.http).collect();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut last: Option<String> = None;
    let mut published = 0;
    within(LIMIT, "three rounds", async {
        for round in 0..3 {
            let victim = round % 3;
            let (reader, writer) = ((victim + 1) % 3, (victim + 2) % 3);
            let body = batch(published..published + 20);
            published += 20;
            // A request may meet the election; the same request again doubles nothing.
            loop {
                let answer = post(ports[writer], EVENTS, BATCH, &body).await;
                if answer.status == 202 {
                    break;
                }
                assert!([404, 503, 504].contains(&answer.status), "{answer:?}");
                sleep(Duration::from_millis(100)).await;
            }
            while seen.len() < published {
                let headers: Vec<_> =
                    last.iter().map(|id| ("last-event-id", id.as_str())).collect();
                let target = format!("{EVENTS}?from=earliest");
                let mut open = begin(ports[reader], "GET", &target, &headers, b"").await;
                if open.head.status != 200 {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                while seen.len() < published
                    && let Some(sent) = open.next().await.filter(|sent| sent.event != "weft-error")
                {
                    let id = sent.json()["id"].as_str().unwrap().to_owned();
                    *seen.entry(id).or_default() += 1;
                    last = Some(sent.id);
                }
            }
            cluster.nodes[victim].kill();
            let body = batch(published..published + 10);
            published += 10;
            while post(ports[writer], EVENTS, BATCH, &body).await.status != 202 {
                sleep(Duration::from_millis(100)).await;
            }
            cluster.nodes[victim].start();
            cluster.nodes[victim].ready().await;
        }
    })
    .await;
    let mut open = follow(ports[0], "to=latest", last.as_deref()).await;
    while let Some(sent) = open.next().await {
        *seen.entry(sent.json()["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(seen.len(), published);
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test]
async fn a_cursor_of_another_filter_is_refused() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let port = port(&cluster);
    assert_eq!(post(port, EVENTS, BATCH, &batch(0..2)).await.status, 202);
    let first = follow(port, "from=earliest", None).await.next().await.unwrap();

    let target = format!("{EVENTS}?filter=TRUE&lastEventId={}", first.id);
    let refused = ask(port, "GET", &target, &[], b"").await;
    assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("lastEventId")));
    let query = format!("filter=TRUE&rebind=true&to=latest&lastEventId={}", first.id);
    let next = follow(port, &query, None).await.next().await.unwrap();
    assert_eq!(next.json()["id"], "1");
}
