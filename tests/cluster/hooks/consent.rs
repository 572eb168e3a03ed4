//! Nothing is sent without consent, to an address inside, or to whoever is gone.

use serde_json::json;
use weft_proto::resource::Kind;

use super::receiver::{Receiver, status};
use super::{Bed, LIMIT, ORIGIN, dispatcher, ready};
use crate::harness::{eventually, put};

fn granted(origin: &str) -> super::receiver::Reply {
    let headers = vec![
        ("webhook-allowed-origin", origin.to_owned()),
        ("webhook-allowed-rate", "6000".to_owned()),
    ];
    (200, headers, String::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_without_consent_gets_nothing() {
    let bed = Bed::start().await;
    // The friendliest status is no consent, nor is that of somebody else.
    bed.receiver.consent("/silent", status(200));
    bed.receiver.consent("/other", granted("other.example"));
    bed.receiver.consent("/ours", granted(ORIGIN));
    for name in ["silent", "other", "ours"] {
        bed.webhook(name, &json!({"rate_per_minute": 12000})).await;
        bed.publish(name, 0..3).await;
    }

    for name in ["silent", "other"] {
        let told = bed.until(name, |status| ready(status) == (false, "ConsentRefused")).await;
        assert_eq!(told.consent.state, "refused");
        assert!(told.consent.reason.contains("WebHook-Allowed-Origin"), "{told:?}");
    }
    let told = bed.until("ours", |status| status.delivered == 3).await;
    assert_eq!(
        (told.consent.state.as_str(), told.consent.rate_per_minute),
        ("granted", Some(6000))
    );
    for name in ["silent", "other"] {
        assert_eq!(bed.receiver.posts(&format!("/{name}")).len(), 0);
    }
    let asked = bed.receiver.requests("/ours");
    assert_eq!((asked[0].method.as_str(), asked[0].body.as_str()), ("OPTIONS", ""));
    assert_eq!(asked[0].header("webhook-request-origin"), ORIGIN);
    assert_eq!(asked[0].header("webhook-request-rate"), "12000");
    assert!(asked.iter().all(|seen| seen.header("webhook-request-origin") == ORIGIN));

    // What is published while consent is waited for belongs to the webhook as well.
    bed.receiver.consent("/late", status(200));
    bed.webhook("late", &json!({"start": "latest"})).await;
    eventually(LIMIT, "the cursor is there", async || {
        bed.client.catalog().find(Kind::Subscription, "wh-late").await.unwrap()
    })
    .await;
    bed.until("late", |status| ready(status).1 == "ConsentRefused").await;
    bed.publish("late", 0..2).await;
    bed.receiver.consent("/late", granted(ORIGIN));
    bed.until("late", |status| status.delivered == 2).await;

    // Consent is given later, and somebody says so.
    bed.receiver.consent("/silent", granted("*"));
    bed.enable("silent").await;
    bed.until("silent", |status| status.delivered == 3 && ready(status).0).await;

    // Consent is withdrawn: found out by asking again, and what is published stays.
    bed.receiver.consent("/ours", status(200));
    bed.until("ours", |status| status.consent.state == "refused").await;
    bed.publish("ours", 3..4).await;
    bed.publish("silent", 3..4).await;
    bed.until("silent", |status| status.delivered == 4).await;
    assert_eq!(bed.receiver.posts("/ours").len(), 3);
    bed.receiver.consent("/ours", granted(ORIGIN));
    bed.until("ours", |status| status.delivered == 4).await;

    let list = bed.weft(&["webhook", "list"]).await;
    assert!(list.stdout.contains("ConsentRefused") && list.stdout.contains("Ready"), "{list:?}");
    let shown = bed.weft(&["webhook", "describe", "other"]).await;
    assert!(shown.stdout.contains("consent: refused"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_to_an_address_inside_is_never_dialled() {
    let bed = Bed::start().await;
    // Listens where the operator has allowed nothing, with a good certificate.
    let inside = Receiver::start("127.0.0.2", &bed.authority).await;
    let urls = [
        ("inside", format!("https://127.0.0.2:{}/x", inside.port)),
        ("six", format!("https://[::1]:{}/x", inside.port)),
    ];
    for (name, url) in &urls {
        bed.webhook(name, &json!({"url": url})).await;
        bed.publish(name, 0..1).await;
        let nowhere = "no address that may be dialled";
        let told = bed.until(name, |status| status.consent.reason.contains(nowhere)).await;
        assert_eq!(ready(&told), (false, "ConsentPending"), "{told:?}");
    }
    // Of plain text it is certain, and said at once.
    bed.webhook("plain", &json!({"url": format!("http://127.0.0.2:{}/x", inside.port)})).await;
    bed.publish("plain", 0..1).await;
    let told = bed.until("plain", |status| ready(status) == (false, "Invalid")).await;
    assert!(told.conditions[0].message.contains("spec.url is http"), "{told:?}");
    assert_eq!(inside.connections(), 0);

    // What cannot be meant well is refused before it is stored.
    for url in ["http://h.example/", "https://u@h.example/", "https://2130706433/", "https://h/#a"]
    {
        let text = format!(
            "apiVersion: weft/v1\nkind: Webhook\nmetadata: {{name: bad}}\nspec: {{stream: inside, url: {url:?}}}\n"
        );
        let file = bed.cluster.place.dir.path().join("bad.yaml");
        std::fs::write(&file, text).unwrap();
        let ended = bed.weft(&["apply", "-f", file.to_str().unwrap()]).await;
        assert!(
            ended.code != Some(0) && ended.stderr.contains("address of a webhook"),
            "{ended:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_that_is_gone_is_disabled_and_its_cursor_kept() {
    let mut bed = Bed::start().await;
    bed.receiver.rule("/gone", |_, _| status(410));
    bed.webhook("gone", &json!({})).await;
    bed.publish("gone", 0..3).await;

    let told = bed.until("gone", |status| status.disabled.is_some()).await;
    assert_eq!(ready(&told), (false, "Gone"), "{told:?}");

    // It stays so when the dispatcher is another one.
    bed.dispatcher.terminate().await;
    let posts = bed.receiver.posts("/gone").len();
    let requests = bed.receiver.requests("/gone").len();
    bed.receiver.rule("/gone", |_, _| status(204));
    bed.dispatcher = dispatcher(&bed.cluster);
    bed.webhook("beside", &json!({})).await;
    bed.publish("beside", 0..1).await;
    bed.until("beside", |status| status.delivered == 1).await;
    assert_eq!(bed.receiver.requests("/gone").len(), requests);

    bed.enable("gone").await;
    bed.until("gone", |status| status.delivered == 3 && status.disabled.is_none()).await;
    let seen = &bed.receiver.posts("/gone")[posts..];
    let mut ids: Vec<_> = seen.iter().flat_map(super::Seen::ids).collect();
    ids.sort();
    assert_eq!(ids, ["0", "1", "2"]);
    // What was told to somebody who is gone was no failed delivery.
    assert!(seen.iter().all(|seen| seen.header("weft-attempt") == "1"));

    // With the webhook goes its cursor.
    let ended = bed.weft(&["webhook", "delete", "gone"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    eventually(LIMIT, "the subscription goes", async || {
        let found = bed.client.catalog().find(Kind::Subscription, "wh-gone").await.unwrap();
        found.is_none().then_some(())
    })
    .await;
    put(&bed.client, Kind::Stream, "gone", &json!({})).await;
}
