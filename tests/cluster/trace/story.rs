//! `weft event trace`: what became of an event, in every state that there is.

use std::time::Duration;

use serde_json::{Value, json};
use weft_client::{
    Acker, Client, Delivery, Nack, Subscription, SubscriptionItem, SubscriptionOptions,
};
use weft_proto::resource::Kind;

use super::{PARENT, STREAM, TRACE, confirming, dispatcher, order, publish, traced};
use crate::delayed::now;
use crate::harness::http::ask;
use crate::harness::process::{SOON, run};
use crate::harness::{Cluster, eventually, put, within};

/// What an event's story says of a subscription.
fn at<'a>(story: &'a Value, subscription: &str) -> &'a Value {
    let all = story["events"][0]["subscriptions"].as_array().unwrap();
    let name = format!("default/{subscription}");
    all.iter().find(|one| one["subscription"] == name).unwrap_or_else(|| panic!("{story}"))
}

fn member(client: &Client, subscription: &str) -> (Subscription, Acker) {
    let member = format!("{subscription}-1");
    let options = SubscriptionOptions { member, ..SubscriptionOptions::default() };
    let member = client.subscribe(subscription, options);
    let acker = member.acker();
    (member, acker)
}

async fn next(member: &mut Subscription) -> Delivery {
    within(SOON, "a delivery", async {
        loop {
            if let SubscriptionItem::Delivery(delivery) = member.next().await.unwrap() {
                return delivery;
            }
        }
    })
    .await
}

/// Subscriptions in one state each, on one event.
#[expect(clippy::too_many_lines, reason = "one story")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_subscription_tells_where_the_event_is() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({})).await;
    let spec = |mode: &str, more: &Value| {
        let mut spec = json!({"stream": STREAM, "mode": mode, "start": "earliest"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let large = json!({"filters": [{"sql": "total > 10"}]});
    let once = json!({"retry": {"attempts": 1}});
    for (name, mode, more) in [
        ("done", "shared", &json!({})),
        ("dead", "shared", &once),
        ("refused", "shared", &json!({})),
        ("back", "shared", &json!({})),
        ("lent", "key-shared", &json!({})),
        ("large", "shared", &large),
        ("alone", "exclusive", &json!({})),
        ("idle", "shared", &json!({})),
    ] {
        put(&client, Kind::Subscription, name, &spec(mode, more)).await;
    }
    publish(&cluster, &[order("1", &json!({"total": 5}))], &[("traceparent", PARENT)]).await;
    put(&client, Kind::Subscription, "late", &json!({"stream": STREAM, "start": "latest"})).await;
    let mut members = Vec::new();
    for name in ["done", "dead", "refused", "back", "lent"] {
        let (mut member, acker) = member(&client, name);
        let delivery = next(&mut member).await;
        let held = delivery.one(0);
        let why = |reason: &str, delay| Nack { reason: reason.into(), delay, ..Nack::default() };
        let an_hour = Some(Duration::from_hours(1));
        let settling = match name {
            "done" => Some(acker.ack(held).await),
            "dead" => Some(acker.nack(held, why("no stock", None)).await),
            "refused" => Some(acker.reject(held, "no such customer").await),
            "back" => Some(acker.nack(held, why("not now", an_hour)).await),
            _ => None,
        };
        if let Some(settling) = settling {
            within(SOON, "settling", settling.unwrap()).await.unwrap();
        }
        members.push((member, acker));
    }
    let (mut alone, _acker) = member(&client, "alone");
    next(&mut alone).await;

    let story = eventually(SOON, "both dead letters", async || {
        let story = traced(&cluster, &["1", "--stream", STREAM, "--source", "/shop"]).await;
        let is_dead = |name: &str| at(&story, name)["state"] == "dead-letter";
        (is_dead("dead") && is_dead("refused")).then_some(story)
    })
    .await;

    let event = &story["events"][0];
    assert_eq!((&event["partition"], &event["offset"]), (&json!(0), &json!(0)));
    assert_eq!((&event["leader"], &event["schema"]), (&json!(1), &Value::Null));
    assert_eq!(event["event"]["traceparent"], PARENT);
    assert_eq!(at(&story, "done")["state"], "settled");
    let dead = at(&story, "dead");
    assert_eq!(
        (&dead["deadLetter"]["reason"], &dead["failedAttempts"]),
        (&json!("attempts"), &json!(1))
    );
    assert_eq!(
        (&dead["lastFailure"], &dead["deadLetter"]["settled"]),
        (&json!("no stock"), &json!(false))
    );
    let refused = at(&story, "refused");
    assert_eq!(refused["deadLetter"]["reason"], "rejected");
    assert_eq!(refused["lastFailure"], "no such customer");
    let back = at(&story, "back");
    assert_eq!((&back["state"], &back["failedAttempts"]), (&json!("given-back"), &json!(1)));
    assert_eq!(back["lastFailure"], "not now");
    assert!(back["due"].as_str().unwrap() > event["time"].as_str().unwrap());
    let lent = at(&story, "lent");
    assert_eq!((&lent["state"], &lent["member"]), (&json!("lent"), &json!("lent-1")));
    assert_eq!(lent["attempt"], 1);
    let large = at(&story, "large");
    assert_eq!(large["state"], "filtered-out");
    assert_eq!(large["reasons"][0]["path"], "filters[0].sql");
    assert_eq!(
        (&at(&story, "alone")["state"], &at(&story, "alone")["member"]),
        (&json!("lent"), &json!("alone-1"))
    );
    assert_eq!(
        (&at(&story, "idle")["state"], &at(&story, "idle")["watermark"]),
        (&json!("not-reached"), &Value::Null)
    );
    assert_eq!(at(&story, "late")["state"], "before-start");

    // People get the same in sentences.
    let endpoint = cluster.nodes[0].endpoint();
    let shown =
        run(&["event", "trace", "1", "--stream", STREAM, "--endpoint", &endpoint], "").await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for part in [
        "event      1  /shop  shop.order.placed",
        "stored     default/orders, partition 0, offset 0, at ",
        &format!("trace      {TRACE}, sampled where it began"),
        "default/done: settled",
        "default/dead: dead letter (attempts) since ",
        "again with weft subscription redrive default/dead --letter 0/0",
        "default/lent: lent to lent-1, delivery 1, until ",
        "default/late: not for it: it begins later",
        "node       came in at node 1; node 1 leads the partition now",
    ] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_at_which_the_publisher_asked_is_told_whoever_leads() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 1})).await;
    let soon = now().saturating_add(Duration::from_millis(500)).to_string();
    let (soon, none) = (json!({"deliverat": soon}), json!({}));
    let all = [("a", 1, &none), ("b", 2, &none), ("c", 3, &none), ("later", 2, &soon)];
    for (id, node, more) in all {
        let body = order(id, more).to_string();
        let headers = [("content-type", "application/cloudevents+json")];
        let port = cluster.nodes[node - 1].ports.http;
        let path = "/v1/streams/orders/events";
        let answer = ask(port, "POST", path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    let mut ids = Vec::new();
    for node in &cluster.nodes {
        ids.push(node.client().status().await.unwrap().node_id);
    }
    // The partition has one leader, so most of them were passed on.
    for (id, node, _) in all {
        let ingest = ids[node - 1];
        let line = ["event", "trace", id, "--stream", STREAM, "--json", "--endpoint"];
        for node in &cluster.nodes {
            let endpoint = node.endpoint();
            let line: Vec<_> = line.into_iter().chain([endpoint.as_str()]).collect();
            let story = eventually(SOON, "the event", async || {
                let story: Value = serde_json::from_str(&run(&line, "").await.stdout).ok()?;
                story["events"][0].is_object().then_some(story)
            })
            .await;
            assert_eq!(story["events"][0]["ingest"], ingest, "{id}: {story}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_of_an_event_is_told_by_every_node() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 3})).await;
    let billing = json!({"stream": STREAM, "mode": "shared", "start": "earliest"});
    put(&client, Kind::Subscription, "billing", &billing).await;
    let _dispatcher = dispatcher(&cluster, "");
    confirming(&client).await;
    let flow = json!({"correlationid": "flow-7"});
    publish(&cluster, &[order("1", &flow), order("2", &flow), order("3", &json!({}))], &[]).await;
    let (mut held, _acker) = member(&client, "billing");
    let mut events = 0;
    while events < 3 {
        events += next(&mut held).await.batch.events.len();
    }

    for node in &cluster.nodes {
        let endpoint = node.endpoint();
        let line = ["event", "trace", "1", "--stream", STREAM, "--json", "--endpoint", &endpoint];
        let story = eventually(SOON, "the whole story", async || {
            let ended = run(&line, "").await;
            let story: Value = serde_json::from_str(&ended.stdout).ok()?;
            let is_settled = at(&story, "fn-confirm-placed")["state"] == "settled";
            let related = story["events"][0]["related"].as_array()?.len();
            (is_settled && related >= 3).then_some(story)
        })
        .await;
        // The desk is on the leader of the partition, wherever that is.
        assert_eq!(at(&story, "billing")["state"], "lent");
        assert_eq!(at(&story, "billing")["member"], "billing-1");
        assert_eq!(at(&story, "fn-confirm-placed")["function"], "default/confirm");
        let related = story["events"][0]["related"].as_array().unwrap();
        let kind = |word: &'static str| related.iter().filter(move |one| one["relation"] == word);
        let derived: Vec<_> = kind("derived").collect();
        assert_eq!(derived.len(), 1, "{story}");
        assert_eq!(derived[0]["stream"], "default/confirmations");
        assert_eq!(derived[0]["type"], "shop.order.confirmed");
        assert!(kind("same flow").any(|one| one["id"] == "2"), "{story}");
        assert!(kind("same flow").all(|one| one["id"] != "3"), "{story}");
    }
}

#[tokio::test]
async fn a_schema_is_told_and_what_is_not_there_is_said_to_be_not_there() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let document = json!({"type": "object", "required": ["total"]});
    put(&client, Kind::Schema, "order", &json!({"document": document})).await;
    let bindings = json!([{"type": "*", "schema": "order", "mode": "enforce"}]);
    put(&client, Kind::Stream, STREAM, &json!({"schemas": bindings})).await;
    publish(&cluster, &[order("1", &json!({}))], &[]).await;
    let mut other = order("1", &json!({}));
    other["source"] = json!("/other");
    publish(&cluster, &[other], &[]).await;

    let story = traced(&cluster, &["1", "--stream", STREAM]).await;
    assert_eq!(story["events"].as_array().unwrap().len(), 2);
    let schema = &story["events"][0]["schema"];
    assert_eq!((&schema["schema"], &schema["version"]), (&json!("default/order"), &json!(1)));
    let one = traced(&cluster, &["1", "--stream", STREAM, "--source", "/other"]).await;
    assert_eq!(one["events"].as_array().unwrap().len(), 1);
    assert_eq!(one["events"][0]["event"]["source"], "/other");
    // Found again without what recognises repeats.
    let far = ["1", "--stream", STREAM, "--since", "earliest"];
    assert_eq!(traced(&cluster, &far).await["events"].as_array().unwrap().len(), 2);

    let endpoint = cluster.nodes[0].endpoint();
    let line = |args: &[&'static str]| {
        let mut line = vec!["event", "trace"];
        line.extend(args);
        line.extend(["--endpoint", &endpoint]);
        line.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let told = async |args: &[&'static str]| {
        let line = line(args);
        run(&line.iter().map(String::as_str).collect::<Vec<_>>(), "").await
    };
    let none = told(&["7", "--stream", "orders"]).await;
    assert_eq!(none.code, Some(1));
    assert!(
        none.stdout.contains("no event 7 in orders\n  looked through default/orders from "),
        "{none:?}"
    );
    assert!(none.stdout.contains(" on: 2 events\n"), "{none:?}");
    assert!(none.stdout.contains("--since earliest"), "{none:?}");
    let later = told(&["1", "--stream", "orders", "--since", "2"]).await;
    assert_eq!(later.code, Some(1), "{later:?}");
    let missing = told(&["1", "--stream", "nowhere"]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("weft stream create nowhere"), "{missing:?}");
    let usage = told(&["1"]).await;
    assert_eq!(usage.code, Some(2));
    assert!(usage.stderr.contains("--stream"), "{usage:?}");
}
