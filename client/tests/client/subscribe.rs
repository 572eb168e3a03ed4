//! A member settles every event, over broken connections and within its credit.

use bytes::Bytes;
use weft_client::{Reason, SubscriptionItem, SubscriptionOptions};

use crate::fake::Fake;

#[tokio::test]
async fn every_event_is_settled_over_broken_connections() {
    let (fake, client) = Fake::start(1).await;
    fake.state().partitions[0].log = (0..40_u64).map(|n| Bytes::from(n.to_string())).collect();
    let options = SubscriptionOptions { events_max: 8, ..SubscriptionOptions::default() };

    let mut member = client.subscribe("audit", options);
    let acker = member.acker();
    let (mut assigned, mut revoked, mut fenced) = (0, 0, 0);
    while fake.state().settled.len() < 40 {
        match member.next().await.unwrap() {
            SubscriptionItem::Assigned { .. } => assigned += 1,
            SubscriptionItem::Revoked { .. } => revoked += 1,
            SubscriptionItem::Idle { .. }
            | SubscriptionItem::Seam { .. }
            | SubscriptionItem::Turn { .. } => {}
            SubscriptionItem::Delivery(delivery) => {
                for (offset, event) in &delivery.batch.events {
                    assert_eq!(event, &Bytes::from(offset.to_string()));
                }
                let settling = acker.ack(delivery.all()).await.unwrap();
                if let Err(error) = settling.await {
                    assert_eq!(error.reason(), Reason::Fenced);
                    fenced += 1;
                }
            }
        }
    }
    drop(acker);
    member.close().await;

    assert_eq!((assigned, revoked), (5, 4));
    // At each break, the acknowledgement that went unanswered, and what was handed over before.
    assert!((4..=4 * 4).contains(&fenced), "{fenced}");
    assert_eq!(fake.state().credit_violations, 0);
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_left_for_another() {
    let (fake, client) = Fake::start(1).await;
    fake.state().isolated = Some(0);

    let mut member = client.subscribe("audit", SubscriptionOptions::default());

    assert!(matches!(member.next().await.unwrap(), SubscriptionItem::Assigned { .. }));
}
