//! What is recorded: every act, every refusal, in one chain that no node breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Code;
use weft_broker::audit::chain::{FIRST, Link, PREVIOUS};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, cloud_event_attribute_value};
use weft_proto::event::EventView;
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::wire::call;
use super::{SOON, Secured, client_of, event};

/// All records, after the chain was checked: type and data of each.
async fn records(secured: &Secured, endpoint: &str) -> Vec<(String, Value)> {
    let latest = v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) };
    let read = v1::ReadRequest {
        stream: "_weft.audit".to_owned(),
        to: Some(latest),
        linearizable: true,
        ..v1::ReadRequest::default()
    };
    let message = vec![read.encode_to_vec().into()];
    let answer = call(endpoint, Some(&secured.root), "/weft.v1.Read/Read", message).await;
    assert_eq!(answer.code, Code::Ok, "{answer:?}");
    let mut last = FIRST;
    let mut records = Vec::new();
    for frame in answer.messages {
        let Some(v1::read_response::Frame::Batch(batch)) =
            v1::ReadResponse::decode(frame).unwrap().frame
        else {
            continue;
        };
        for bytes in batch.events {
            let view = EventView::parse(&bytes).unwrap();
            assert_eq!(view.attribute(PREVIOUS).unwrap(), last.to_string(), "{}", records.len());
            last = Link::of(&bytes);
            let data = serde_json::from_slice(view.data_bytes().unwrap()).unwrap();
            records.push((view.ty.to_owned(), data));
        }
    }
    records
}

/// Waits until the records have something.
async fn until(
    secured: &Secured,
    what: &str,
    has: impl Fn(&[(String, Value)]) -> bool,
) -> Vec<(String, Value)> {
    let until = Instant::now() + SOON;
    loop {
        let records = records(secured, &secured.endpoint()).await;
        if has(&records) {
            return records;
        }
        assert!(Instant::now() < until, "{what}: {records:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_refusals_and_wrong_credentials_are_recorded_and_nothing_secret() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    let key = secured.with_role("reader").await;
    let publish = v1::PublishRequest {
        stream: "shop/orders".to_owned(),
        events: vec![event("a-very-private-id", "t")],
        ..v1::PublishRequest::default()
    };
    for _ in 0..5 {
        let answer = secured.ask(&key, "/weft.v1.Publish/Publish", &publish).await;
        assert_eq!(answer.code, Code::PermissionDenied);
    }
    let last = if key.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &key[..81]);
    secured.ask(&wrong, "/weft.v1.Publish/Publish", &publish).await;

    let all = until(&secured, "a wrong credential", |records| {
        records.iter().any(|(ty, _)| ty == "io.weft.audit.unauthenticated")
            && records.iter().any(|(ty, _)| ty == "io.weft.audit.denied")
    })
    .await;

    let find = |act: &str, resource: &str| {
        let found = all.iter().find(|(ty, data)| {
            ty == &format!("io.weft.audit.{act}")
                && data["resource"].as_str().is_some_and(|text| text.contains(resource))
        });
        found.unwrap_or_else(|| panic!("no {act} of {resource} in {all:?}")).1.clone()
    };
    assert_eq!(find("put", "Stream shop/orders")["principal"], "key:weft-system/bootstrap");
    assert_eq!(find("put", "Grant shop/reader")["outcome"], "allowed");
    find("create-key", "key:shop/reader");
    let denied = find("denied", "shop/orders");
    assert_eq!(
        (&denied["principal"], &denied["verb"]),
        (&json!("key:shop/reader"), &json!("publish"))
    );
    assert_eq!(denied["outcome"], "denied");
    assert!(find("unauthenticated", "")["remote"].as_str().unwrap().starts_with("127."));
    let text = format!("{all:?}");
    for secret in [&secured.root, &key, &wrong] {
        assert!(!text.contains(&secret[18..]));
    }
    assert!(!text.contains("a-very-private-id"));
    // Nor is any of them in the log, but for the first key, which is shown once.
    let mut secured = secured;
    let log = secured.cluster.nodes[0].running().log();
    assert!(!log.contains(&key[18..]) && !log.contains(&wrong[18..]));
    assert_eq!(log.matches(&secured.root[18..]).count(), 1);

    // Only those read it who may, nobody writes to it, and it stays.
    let read = v1::ReadRequest { stream: "_weft.audit".to_owned(), ..v1::ReadRequest::default() };
    assert_eq!(secured.ask(&key, "/weft.v1.Read/Read", &read).await.code, Code::PermissionDenied);
    let forge = v1::PublishRequest { stream: "_weft.audit".to_owned(), ..publish };
    let forged = secured.ask(&secured.root, "/weft.v1.Publish/Publish", &forge).await;
    assert_eq!(forged.code, Code::PermissionDenied, "{forged:?}");
    let delete = v1::DeleteRequest {
        kind: "Stream".to_owned(),
        name: "_weft.audit".to_owned(),
        expected_generation: None,
    };
    let deleted = secured.ask(&secured.root, "/weft.v1.Catalog/Delete", &delete).await;
    assert_eq!(deleted.code, Code::FailedPrecondition, "{deleted:?}");
    let keep = json!({"retention": {"max_age": "30d"}});
    secured.put(Kind::Stream, "weft-system/_weft.audit", keep).await;
    let spread = json!({"partitions": 1, "event_bytes_max": 1000});
    let changed =
        secured.try_put(&secured.root, Kind::Stream, "weft-system/_weft.audit", spread).await;
    assert_eq!(changed.unwrap_err().reason(), weft_client::Reason::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_goes_to_an_event_and_a_delayed_event_that_is_taken_back_are_recorded() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    secured.put(Kind::Subscription, "shop/sub", json!({"stream": "shop/orders"})).await;
    let client = secured.client(&secured.root);
    let mut delayed = CloudEvent::decode(event("later", "t")).unwrap();
    let due = crate::delayed::now().saturating_add(Duration::from_hours(1)).to_string();
    let due = cloud_event_attribute_value::Attr::CeString(due);
    delayed.attributes.insert("deliverat".to_owned(), CloudEventAttributeValue { attr: Some(due) });
    let publish = v1::PublishRequest {
        stream: "shop/orders".to_owned(),
        events: vec![event("now", "t"), delayed.encode_to_vec().into()],
        ..v1::PublishRequest::default()
    };
    let _: v1::PublishResponse =
        secured.ask(&secured.root, "/weft.v1.Publish/Publish", &publish).await.one();

    let place = |id: &str| weft_client::EventPlace { id: id.to_owned(), ..Default::default() };
    client.seek_to_event("shop/sub", None, place("none")).await.unwrap_err();
    client.seek_to_event("shop/sub", None, place("now")).await.unwrap();
    client.cancel_delayed("shop/orders", "none", None).await.unwrap_err();
    client.cancel_delayed("shop/orders", "later", None).await.unwrap();

    let of = |records: &[(String, Value)], act: &str| -> Vec<Value> {
        let own = records.iter().filter(|(ty, _)| *ty == format!("io.weft.audit.{act}"));
        own.map(|(_, data)| data["resource"].clone()).collect()
    };
    let all = until(&secured, "both acts", |records| {
        !of(records, "seek").is_empty() && !of(records, "cancel-delayed").is_empty()
    })
    .await;
    // What was not done is not there.
    assert_eq!(of(&all, "seek"), ["Subscription shop/sub"]);
    assert_eq!(of(&all, "cancel-delayed"), ["Stream shop/orders"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refusals_becomes_a_few_records() {
    let secured = Secured::start(1).await;
    let key = secured.key("shop/nobody").await;
    let client = client_of(&secured.endpoint(), &key);
    let mut refused = 0_u64;
    for _ in 0..40 {
        let asked = futures::future::join_all((0..50).map(|_| client.route("shop/orders"))).await;
        refused += asked.iter().filter(|answer| answer.is_err()).count() as u64;
    }
    assert_eq!(refused, 2_000);

    let counted = |records: &[(String, Value)]| -> (u64, u64) {
        let denied = records.iter().filter(|(ty, data)| {
            ty == "io.weft.audit.missed"
                || (ty == "io.weft.audit.denied" && data["principal"] == "key:shop/nobody")
        });
        denied.fold((0, 0), |(events, sum), (_, data)| {
            (events + 1, sum + data["count"].as_u64().unwrap())
        })
    };
    let all = until(&secured, "all refusals", |records| counted(records).1 >= 2_000).await;
    let (events, sum) = counted(&all);
    assert_eq!(sum, 2_000);
    assert!(events < 1_000, "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_holds_while_all_nodes_write_and_a_leader_dies() {
    let mut secured = Secured::start(3).await;
    let mut expected = Vec::new();
    for round in 0..6 {
        let nodes = &secured.cluster.nodes;
        let puts = nodes.iter().enumerate().filter(|(place, _)| round < 3 || *place != 0);
        let puts = puts.map(|(place, node)| {
            let name = format!("s{round}-{place}");
            let client = client_of(&node.endpoint(), &secured.root);
            async move {
                let resource = weft_client::resource_of(Kind::Stream, &name, &json!({})).unwrap();
                let until = Instant::now() + SOON;
                loop {
                    let options = weft_client::PutOptions::default();
                    match client.catalog().put(resource.clone(), options).await {
                        Ok(_) => return name,
                        // It may not know the key yet, or a leader.
                        Err(error) => assert!(Instant::now() < until, "{name}: {error}"),
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        });
        expected.extend(futures::future::join_all(puts).await);
        if round == 2 {
            secured.cluster.nodes[0].kill();
        }
    }
    secured.cluster.nodes[0].start();
    secured.cluster.nodes[0].ready().await;

    for node in &secured.cluster.nodes {
        let all = records(&secured, &node.endpoint()).await;
        let mut puts: BTreeMap<&str, u64> = BTreeMap::new();
        for (ty, data) in &all {
            if ty == "io.weft.audit.put" {
                *puts.entry(data["resource"].as_str().unwrap()).or_default() += 1;
            }
        }
        for name in &expected {
            let resource = format!("Stream default/{name}");
            assert!(puts.contains_key(resource.as_str()), "{resource}: {puts:?}");
        }
    }
}
