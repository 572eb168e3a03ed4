//! What a receiver is sent, in each mode, and that it can tell who sent it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};

use super::{Bed, ORIGIN, SHARED, Seen};

const PUBLIC: &str = "1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

/// Checks both signatures as a receiver does, from what came over the wire alone.
fn assert_signed(seen: &Seen) {
    let (id, timestamp) = (seen.header("webhook-id"), seen.header("webhook-timestamp"));
    let content = format!("{id}.{timestamp}.{}", seen.body);
    let signatures: Vec<_> = seen.header("webhook-signature").split(' ').collect();
    let [shared, private] = signatures.as_slice() else { panic!("{signatures:?}") };
    let decode = |text: &str| BASE64_STANDARD.decode(text).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &decode(SHARED.strip_prefix("whsec_").unwrap()));
    let signature = decode(shared.strip_prefix("v1,").unwrap());
    hmac::verify(&key, content.as_bytes(), &signature).unwrap();
    let signature = decode(private.strip_prefix("v1a,").unwrap());
    let key = UnparsedPublicKey::new(&ED25519, decode(PUBLIC));
    key.verify(content.as_bytes(), &signature).unwrap();
}

/// Checks what every request carries.
fn assert_accompanied(seen: &Seen, name: &str) {
    assert_signed(seen);
    assert_eq!(seen.header("webhook-request-origin"), ORIGIN);
    assert_eq!(seen.header("authorization"), "Bearer t0ken");
    assert_eq!(seen.header("weft-attempt"), "1");
    assert_eq!(seen.header("weft-deadline-ms"), "30000");
    assert_eq!(seen.header("weft-delivery"), seen.header("webhook-id"));
    assert!(seen.header("webhook-id").starts_with(&format!("default/wh-{name}/0/")));
    assert_eq!(seen.header("prefer"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_requests_have_the_form_that_was_asked_for_and_are_signed() {
    let bed = Bed::start().await;
    for (name, mode) in [
        ("binary", json!("binary")),
        ("structured", json!("structured")),
        ("batch", json!({"batch": 10})),
    ] {
        let spec = json!({
            "mode": mode,
            "authorization": {"file": "token"},
            "secrets": [{"file": "shared"}, {"file": "private"}],
        });
        bed.stream(name, 0..5).await;
        bed.webhook(name, &spec).await;
        bed.until(name, |status| status.delivered == 5).await;
        let seen = bed.receiver.posts(&format!("/{name}"));
        for seen in &seen {
            assert_accompanied(seen, name);
        }
        let mut ids: Vec<_> = seen.iter().flat_map(Seen::ids).collect();
        ids.sort();
        assert_eq!(ids, ["0", "1", "2", "3", "4"], "{name}");
        // The question for consent shows no secret.
        let asked = &bed.receiver.requests(&format!("/{name}"))[0];
        assert_eq!((asked.header("authorization"), asked.header("webhook-signature")), ("", ""));
    }

    let binary = &bed.receiver.posts("/binary")[0];
    assert_eq!(binary.header("ce-type"), "order.placed");
    assert_eq!(binary.header("content-type"), "application/json");
    assert_eq!(binary.body, format!("{{\"n\": {}}}", binary.header("ce-id")));
    let structured = &bed.receiver.posts("/structured")[0];
    assert_eq!(structured.header("content-type"), "application/cloudevents+json; charset=utf-8");
    let event: Value = serde_json::from_str(&structured.body).unwrap();
    assert_eq!(event["source"], "/shop");
    let batches = bed.receiver.posts("/batch");
    assert!(batches.len() < 5, "five events share requests");
    for seen in bed.receiver.posts("/structured").iter().chain(&batches) {
        assert!(!seen.headers.keys().any(|name| name.starts_with("ce-")), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_is_sent_a_range_again_and_not_as_a_repeat() {
    let bed = Bed::start().await;
    bed.stream("again", 0..5).await;
    bed.webhook("again", &json!({})).await;
    bed.posts("again", 5).await;

    let start = ["replay-job", "start", "missed", "--webhook", "again", "--from", "2"];
    let started = bed.weft(&start).await;
    assert_eq!(started.stdout, "replay job missed: goes through 3 events\n", "{started:?}");
    let seen = bed.posts("again", 8).await;

    let ids: BTreeSet<_> = seen.iter().map(|seen| seen.header("webhook-id")).collect();
    assert_eq!(ids.len(), 8, "{ids:?}");
    let again = seen.iter().filter(|seen| seen.header("ce-weftreplayjob") == "default/missed");
    let offsets: BTreeSet<_> = again.map(|seen| seen.header("ce-weftoffset")).collect();
    assert_eq!(offsets.into_iter().collect::<Vec<_>>(), ["2", "3", "4"]);
    let nowhere = bed.weft(&["replay-job", "start", "other", "--webhook", "nowhere"]).await;
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("there is no Webhook default/nowhere"), "{nowhere:?}");
}
