//! What becomes of events by what the receiver answers.

use std::time::Duration;

use serde_json::{Value, json};

use super::receiver::status;
use super::{Bed, Seen, ready};

fn attempts(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.header("weft-attempt")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_failures_are_tried_again_or_become_dead_letters() {
    let bed = Bed::start().await;
    bed.receiver.rule("/flaky", |_, before| status(if before < 2 { 500 } else { 200 }));
    bed.receiver.rule("/bad", |_, _| (400, Vec::new(), "what only the receiver knows".to_owned()));
    let target = bed.receiver.url("/target");
    bed.receiver
        .rule("/moved", move |_, _| (307, vec![("location", target.clone())], String::new()));
    bed.receiver.rule("/never", |_, _| status(503));
    bed.receiver.rule("/busy", |_, before| match before {
        0 => (503, vec![("retry-after", "2".to_owned())], String::new()),
        1 => {
            (429, vec![("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT".to_owned())], String::new())
        }
        _ => status(200),
    });
    for name in ["flaky", "bad", "moved", "never", "busy"] {
        bed.webhook(name, &json!({})).await;
        bed.publish(name, 0..1).await;
    }

    let seen = bed.posts("flaky", 3).await;
    assert_eq!(attempts(&seen), ["1", "2", "3"]);
    let ids: Vec<_> = seen.iter().map(|seen| seen.header("webhook-id")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    bed.until("flaky", |status| status.delivered == 1 && status.failed == 2).await;

    assert_eq!(bed.dead("bad", 1).await, [("0".to_owned(), "answered 400".to_owned())]);
    let told = bed.until("bad", |status| status.rejected == 1).await;
    assert!(told.last_errors[0].ends_with("answered 400"), "{told:?}");
    assert_eq!(bed.receiver.posts("/bad").len(), 1);

    let [(_, why)] = &bed.dead("moved", 1).await[..] else { panic!("more than one dead letter") };
    assert!(why.contains("redirects are not followed"), "{why}");
    assert_eq!(bed.receiver.requests("/target").len(), 0);

    // All attempts are used up, one after the other.
    assert_eq!(bed.dead("never", 1).await[0].1, "answered 503");
    assert_eq!(attempts(&bed.receiver.posts("/never")), ["1", "2", "3", "4", "5"]);

    // Whoever asks for patience gets it, and it is no failed attempt.
    let seen = bed.posts("busy", 3).await;
    assert_eq!(attempts(&seen), ["1", "1", "1"]);
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(2));
    bed.until("busy", |status| status.delivered == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_batches_are_split_and_taken_in_part() {
    let bed = Bed::start().await;
    bed.receiver.rule("/large", |seen, _| status(if seen.ids().len() > 2 { 413 } else { 200 }));
    bed.receiver.rule("/poison", |seen, _| {
        status(if seen.ids().contains(&"3".to_owned()) { 422 } else { 200 })
    });
    bed.receiver.rule("/part", |seen, before| {
        let failed: Vec<Value> = match before {
            0 => seen.ids().iter().take(1).map(|id| json!({"id": id, "source": "/shop"})).collect(),
            _ => Vec::new(),
        };
        (200, Vec::new(), json!({"failed": failed}).to_string())
    });
    for name in ["large", "poison", "part"] {
        // They are there before the webhook is: the first request finds all of them.
        bed.stream(name, 0..8).await;
        bed.webhook(name, &json!({"mode": {"batch": 8}, "concurrency": 1})).await;
    }

    bed.until("large", |status| status.delivered == 8).await;
    bed.until("part", |status| status.delivered == 8).await;
    bed.until("poison", |status| status.delivered == 7 && status.rejected == 1).await;

    assert_eq!(bed.dead("poison", 1).await, [("3".to_owned(), "answered 422".to_owned())]);
    assert_eq!(bed.status("large").await.rejected, 0);
    assert_eq!(bed.receiver.posts("/large")[0].ids().len(), 8);
    let seen = bed.receiver.posts("/part");
    let again = &seen[0].ids()[0];
    let repeats = seen.iter().flat_map(Seen::ids).filter(|id| id == again).count();
    assert_eq!(repeats, 2, "what was not taken comes again, and only that");
    assert_eq!(seen.iter().map(|seen| seen.ids().len()).sum::<usize>(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_circuit_opens_and_closes_and_nothing_is_lost() {
    let bed = Bed::start().await;
    bed.receiver.rule("/down", |_, _| status(500));
    bed.webhook("down", &json!({"retry": {"base": "10ms", "cap": "20ms", "attempts": 0}})).await;
    bed.publish("down", 0..30).await;

    let told = bed.until("down", |status| status.circuit == "open").await;
    assert_eq!(ready(&told), (false, "CircuitOpen"), "{told:?}");
    assert!(told.failed >= 20, "{told:?}");

    bed.receiver.rule("/down", |_, _| status(200));
    bed.until("down", |status| status.delivered == 30 && status.circuit == "closed").await;
    assert_eq!(bed.status("down").await.rejected, 0);
}
