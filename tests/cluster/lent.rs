//! Subscriptions that several members share: events on loan, given back, given up, taken up again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use weft_client::{
    Acker, Client, Delivery, Nack, Position, PublisherOptions, Reason, Redrive, Subscription,
    SubscriptionItem, SubscriptionOptions,
};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::Data;
use weft_proto::event::EventView;
use weft_proto::resource::Kind;

use super::harness::{Cluster, eventually, put, within};

pub(super) const STREAM: &str = "orders";
pub(super) const SUBSCRIPTION: &str = "billing";
pub(super) const LIMIT: Duration = Duration::from_mins(1);

pub(super) fn event(number: usize, key: usize) -> Bytes {
    let subject = weft_proto::cloudevents::cloud_event::CloudEventAttributeValue {
        attr: Some(
            weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr::CeString(
                format!("cart/{key}"),
            ),
        ),
    };
    let event = CloudEvent {
        id: number.to_string(),
        source: "/shop".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "order.placed".to_owned(),
        attributes: [("subject".to_owned(), subject)].into(),
        data: Some(Data::TextData("x".repeat(100))),
    };
    event.encode_to_vec().into()
}

pub(super) async fn create(client: &Client, partitions: usize, subscription: &Value) {
    put(client, Kind::Stream, STREAM, &json!({"partitions": partitions})).await;
    put(client, Kind::Subscription, SUBSCRIPTION, subscription).await;
}

pub(super) fn shared(more: &Value) -> Value {
    let mut spec = json!({"stream": STREAM, "mode": "shared", "start": "earliest"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

pub(super) async fn publish(client: &Client, numbers: std::ops::Range<usize>, keys: usize) {
    let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
    let mut receipts = Vec::new();
    for number in numbers {
        receipts.push(publisher.send(event(number, number % keys)).await.unwrap());
    }
    for receipt in receipts {
        within(LIMIT, "publishing", receipt).await.unwrap();
    }
}

pub(super) fn join(client: &Client, member: &str, events_max: u32) -> Subscription {
    let member = member.to_owned();
    let options =
        SubscriptionOptions { member, events_max, leases: true, ..SubscriptionOptions::default() };
    client.subscribe(SUBSCRIPTION, options)
}

/// Numbers of the events of a delivery.
pub(super) fn numbers(delivery: &Delivery) -> Vec<usize> {
    let number = |event: &Bytes| EventView::parse(event).unwrap().id.parse().unwrap();
    delivery.batch.events.iter().map(|(_, event)| number(event)).collect()
}

/// The next delivery, unless nothing comes for a while.
pub(super) async fn next(member: &mut Subscription, patience: Duration) -> Option<Delivery> {
    let until = Instant::now() + patience;
    loop {
        let item = timeout(until.saturating_duration_since(Instant::now()), member.next()).await;
        if let SubscriptionItem::Delivery(delivery) = item.ok()?.unwrap() {
            return Some(delivery);
        }
    }
}

/// Takes and acknowledges until so many different events came.
pub(super) async fn drain(
    member: &mut Subscription,
    acker: &Acker,
    seen: &mut BTreeSet<usize>,
    all: usize,
) {
    while seen.len() < all {
        let delivery = next(member, LIMIT).await.expect("more events");
        seen.extend(numbers(&delivery));
        acker.ack(delivery.all()).await.unwrap().await.unwrap();
    }
}

/// Unsettled events of all partitions, as the cluster says.
async fn lag(client: &Client) -> Option<u64> {
    let status = client.status().await.ok()?;
    let own = status.subscriptions.iter().find(|one| one.subscription.ends_with(SUBSCRIPTION))?;
    Some(own.cursors.iter().map(|cursor| cursor.end - cursor.watermark).sum())
}

pub(super) async fn all_settled(client: &Client) {
    let settled = async || lag(client).await.filter(|lag| *lag == 0);
    eventually(LIMIT, "settling", settled).await;
}

/// All dead letters: their numbers, and what they say of themselves.
pub(super) async fn dead_letters(client: &Client) -> BTreeMap<usize, BTreeMap<String, String>> {
    let (mut letters, mut page) = (BTreeMap::new(), String::new());
    loop {
        let answer = client.dead_letters(SUBSCRIPTION, 3, &page).await.unwrap();
        for letter in answer.letters {
            let view = EventView::parse(&letter.event).unwrap();
            let said = view.attributes().filter(|one| one.name.starts_with("weft"));
            let said = said.map(|one| (one.name.to_owned(), one.value.to_text().into_owned()));
            assert!(letters.insert(view.id.parse().unwrap(), said.collect()).is_none());
        }
        if answer.next_page.is_empty() {
            return letters;
        }
        page = answer.next_page;
    }
}

#[tokio::test]
async fn members_share_events_and_each_is_settled_once() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 3, &shared(&json!({}))).await;
    publish(&client, 0..600, 50).await;

    let (mut one, mut two) = (join(&client, "one", 10), join(&client, "two", 10));
    let (acks_one, acks_two) = (one.acker(), two.acker());
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    within(LIMIT, "sharing", async {
        while of_one.len() + of_two.len() < 600 {
            let (delivery, acker, seen) = tokio::select! {
                Some(delivery) = next(&mut one, LIMIT) => (delivery, &acks_one, &mut of_one),
                Some(delivery) = next(&mut two, LIMIT) => (delivery, &acks_two, &mut of_two),
            };
            assert_eq!(delivery.attempt(0), 1);
            seen.extend(numbers(&delivery));
            acker.ack(delivery.all()).await.unwrap().await.unwrap();
        }
    })
    .await;

    assert!(of_one.len() > 60 && of_two.len() > 60, "{} and {}", of_one.len(), of_two.len());
    let all: BTreeSet<usize> = of_one.iter().chain(&of_two).copied().collect();
    assert_eq!(all.len(), 600);
    all_settled(&client).await;
}

#[tokio::test]
async fn what_is_given_back_comes_again_and_what_is_rejected_does_not() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let retry = json!({"retry": {"base": "10ms", "cap": "50ms"}});
    create(&client, 1, &shared(&retry)).await;
    publish(&client, 0..4, 1).await;
    let mut member = join(&client, "one", 100);
    let acker = member.acker();

    let first = next(&mut member, LIMIT).await.unwrap();
    assert_eq!(numbers(&first), [0, 1, 2, 3]);
    let nack = |reason: &str| Nack { reason: reason.to_owned(), ..Nack::default() };
    acker.ack(first.one(0)).await.unwrap().await.unwrap();
    acker.nack(first.one(1), nack("not now")).await.unwrap().await.unwrap();
    acker.reject(first.one(2), "no such customer").await.unwrap().await.unwrap();
    let uncounted = Nack { is_uncounted: true, ..Nack::default() };
    acker.nack(first.one(3), uncounted).await.unwrap().await.unwrap();

    let mut again = BTreeMap::new();
    while again.len() < 2 {
        let delivery = next(&mut member, LIMIT).await.unwrap();
        for (place, number) in numbers(&delivery).into_iter().enumerate() {
            again.insert(number, delivery.attempt(place));
            acker.ack(delivery.one(place)).await.unwrap().await.unwrap();
        }
    }
    assert_eq!(again, [(1, 2), (3, 1)].into());
    // Repeated, it is done; otherwise, it is too late.
    acker.ack(first.one(0)).await.unwrap().await.unwrap();
    let late = acker.ack(first.one(1)).await.unwrap().await.unwrap_err();
    assert_eq!(late.reason(), Reason::Fenced);
    all_settled(&client).await;
    let letters = dead_letters(&client).await;
    let said = &letters[&2];
    assert_eq!(letters.len(), 1);
    assert_eq!(said["weftreason"], "rejected");
    assert_eq!(said["weftlasterror"], "no such customer");
    assert_eq!(said["weftoffset"], "2");
    assert_eq!(said["weftsubscription"], "default/billing");
}

/// NATS #7817, Pulsar #10377: also where the stream has a strict schema.
#[tokio::test]
async fn every_tenth_event_never_settled_is_a_dead_letter_and_none_is_lost() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let schema = json!({"document": {"type": "string"}});
    put(&client, Kind::Schema, "text", &schema).await;
    let retry = json!({"lease": "3s", "retry": {"attempts": 2, "base": "10ms", "cap": "20ms"}});
    create(&client, 3, &shared(&retry)).await;
    publish(&client, 0..200, 20).await;
    let mut member = join(&client, "one", 1_000);
    let acker = member.acker();
    let mut seen: BTreeMap<usize, u32> = BTreeMap::new();

    within(LIMIT, "giving up", async {
        loop {
            if let Some(delivery) = next(&mut member, Duration::from_millis(500)).await {
                for (place, number) in numbers(&delivery).into_iter().enumerate() {
                    *seen.entry(number).or_default() += 1;
                    if number % 10 != 0 {
                        // All at once: a slow machine must not outlast the lease.
                        drop(acker.ack(delivery.one(place)).await.unwrap());
                    }
                }
            } else if lag(&client).await == Some(0) {
                return;
            }
        }
    })
    .await;

    let letters = dead_letters(&client).await;
    assert!(letters.keys().copied().eq((0..200).step_by(10)), "{:?}", letters.keys());
    assert!(letters.values().all(|said| said["weftreason"] == "attempts"));
    assert!(letters.values().all(|said| said["weftattempts"] == "2"));
    assert_eq!(seen.len(), 200);
    assert!((0..200).step_by(10).all(|number| seen[&number] == 2), "{seen:?}");
}

#[tokio::test]
async fn keys_keep_their_order_through_trouble_and_others_flow() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let spec =
        json!({"mode": "key-shared", "retry": {"base": "50ms", "cap": "300ms", "attempts": 0}});
    create(&client, 1, &shared(&spec)).await;
    publish(&client, 0..300, 10).await;
    let mut members = [join(&client, "one", 20), join(&client, "two", 20)];
    let ackers = [members[0].acker(), members[1].acker()];
    let mut order: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut failed = BTreeSet::new();

    within(LIMIT, "all keys", async {
        while order.values().map(Vec::len).sum::<usize>() < 300 {
            let [one, two] = &mut members;
            let (delivery, acker) = tokio::select! {
                Some(delivery) = next(one, LIMIT) => (delivery, &ackers[0]),
                Some(delivery) = next(two, LIMIT) => (delivery, &ackers[1]),
            };
            for (place, number) in numbers(&delivery).into_iter().enumerate() {
                let held = delivery.one(place);
                // Each fifth event fails once.
                if number % 5 == 0 && failed.insert(number) {
                    acker.nack(held, Nack::default()).await.unwrap().await.unwrap();
                } else {
                    order.entry(number % 10).or_default().push(number);
                    acker.ack(held).await.unwrap().await.unwrap();
                }
            }
        }
    })
    .await;

    assert_eq!(failed.len(), 60);
    for (key, settled) in &order {
        let wanted: Vec<usize> = (0..300).filter(|number| number % 10 == *key).collect();
        assert_eq!(settled, &wanted, "key {key}");
    }
}

/// Pulsar #21199.
#[tokio::test]
async fn a_stuck_member_holds_its_keys_and_no_others() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    create(&client, 1, &shared(&json!({"mode": "key-shared", "lease": "10m"}))).await;
    publish(&client, 0..100, 10).await;
    let mut stuck = join(&client, "stuck", 1);
    let held = next(&mut stuck, LIMIT).await.unwrap();
    assert_eq!(numbers(&held), [0]);

    let mut seen = BTreeSet::new();
    for round in 0..3 {
        let mut member = join(&client, &format!("m{round}"), 8);
        let acker = member.acker();
        drain(&mut member, &acker, &mut seen, 30 * (round + 1)).await;
        drop(acker);
        member.close().await;
    }

    assert_eq!(seen.len(), 90);
    assert!(seen.iter().all(|number| number % 10 != 0), "the stuck member's key went to others");
}

/// `KurrentDB` #2748 and `EventMesh` #5384: a member that is gone has failed, and nothing is settled for it.
#[tokio::test]
async fn an_event_that_brings_its_consumers_down_is_given_up() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let spec = json!({"grace": "100ms", "retry": {"attempts": 3, "base": "10ms", "cap": "20ms"}});
    create(&client, 1, &shared(&spec)).await;
    publish(&client, 0..1, 1).await;

    for attempt in 1..=3 {
        let mut member = join(&client, &format!("m{attempt}"), 10);
        let delivery = next(&mut member, LIMIT).await.unwrap();
        assert_eq!(delivery.attempt(0), attempt);
        drop(member);
    }

    let given_up = async || Some(dead_letters(&client).await).filter(|letters| letters.len() == 1);
    let letters = eventually(LIMIT, "giving up", given_up).await;
    assert_eq!(letters[&0]["weftattempts"], "3");
    all_settled(&client).await;
}

/// Members of one node at desks of another share one stream: more of them than a connection may have
/// streams.
#[tokio::test]
async fn hundreds_of_subscriptions_are_served_at_once() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"partitions": 4})).await;
    let names: Vec<String> = (0..120).map(|number| format!("s{number}")).collect();
    for name in &names {
        put(&client, Kind::Subscription, name, &shared(&json!({}))).await;
    }
    publish(&client, 0..20, 20).await;

    let mut members = Vec::new();
    for names in names.chunks(40) {
        let client = cluster.client();
        members.extend(
            names.iter().map(|name| client.subscribe(name, SubscriptionOptions::default())),
        );
    }
    let taken = members.iter_mut().map(async |member| {
        let acker = member.acker();
        let mut seen = BTreeSet::new();
        drain(member, &acker, &mut seen, 20).await;
        seen.len()
    });
    let taken = futures::future::join_all(taken).await;

    assert_eq!(taken, vec![20; 120]);
}

/// Credit for a single event goes round among all desks that have events, and is used wherever it is.
#[tokio::test]
async fn the_least_credit_serves_all_partitions() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 8, &shared(&json!({}))).await;
    publish(&client, 0..400, 400).await;
    let mut member = join(&client, "one", 1);
    let acker = member.acker();

    let mut seen = BTreeSet::new();
    drain(&mut member, &acker, &mut seen, 400).await;

    all_settled(&client).await;
}

#[tokio::test]
async fn dead_letters_are_delivered_again_or_discarded() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let retry = json!({"retry": {"attempts": 1}});
    create(&client, 2, &shared(&retry)).await;
    publish(&client, 0..20, 20).await;
    let mut member = join(&client, "one", 100);
    let acker = member.acker();
    let mut left = 20;
    while left > 0 {
        let delivery = next(&mut member, LIMIT).await.unwrap();
        left -= delivery.batch.events.len();
        acker.reject(delivery.all(), "later").await.unwrap().await.unwrap();
    }
    assert_eq!(dead_letters(&client).await.len(), 20);

    let dry = Redrive { is_dry_run: true, ..Redrive::default() };
    assert_eq!(client.redrive(SUBSCRIPTION, dry).await.unwrap().events, 20);
    assert_eq!(dead_letters(&client).await.len(), 20);
    let first = client.dead_letters(SUBSCRIPTION, 1, "").await.unwrap().letters.remove(0);
    let range = weft_proto::v1::DeadLetterRange {
        partition: first.partition,
        first: first.offset,
        last: first.offset,
    };
    let discard = Redrive { letters: vec![range], discards: true, ..Redrive::default() };
    assert_eq!(client.redrive(SUBSCRIPTION, discard).await.unwrap().events, 1);
    assert_eq!(dead_letters(&client).await.len(), 19);

    assert_eq!(client.redrive(SUBSCRIPTION, Redrive::default()).await.unwrap().events, 19);
    let mut seen = BTreeMap::new();
    let mut again = false;
    while seen.len() < 19 || !again {
        let delivery = next(&mut member, LIMIT).await.unwrap();
        assert!(delivery.is_redriven);
        for (place, (_, event)) in delivery.batch.events.iter().enumerate() {
            let number: usize = EventView::parse(event).unwrap().id.parse().unwrap();
            assert_eq!(event, &self::event(number, number % 20), "as it was published");
            // One of them fails again, and is a dead letter again.
            if seen.insert(number, delivery.attempt(place)).is_none() && seen.len() == 5 {
                acker.reject(delivery.one(place), "still not").await.unwrap().await.unwrap();
                again = true;
            } else {
                acker.ack(delivery.one(place)).await.unwrap().await.unwrap();
            }
        }
    }

    let letters = dead_letters(&client).await;
    assert_eq!(letters.len(), 1);
    let said = letters.values().next().unwrap();
    assert_eq!(said["weftlasterror"], "still not");
    assert_eq!(said["weftstream"], "default/orders");

    // And once more, while the desk lends what was asked for before.
    assert_eq!(client.redrive(SUBSCRIPTION, Redrive::default()).await.unwrap().events, 1);
    let delivery = next(&mut member, LIMIT).await.unwrap();
    assert!(delivery.is_redriven);
    acker.ack(delivery.all()).await.unwrap().await.unwrap();
    assert_eq!(dead_letters(&client).await.len(), 0);
}

/// Vanus #221: no retry of an old epoch fires after a seek.
#[tokio::test]
async fn a_seek_fences_what_was_lent_and_what_waits() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 1, &shared(&json!({"retry": {"base": "1s", "cap": "1s"}}))).await;
    publish(&client, 0..10, 1).await;
    let mut member = join(&client, "one", 100);
    let acker = member.acker();
    let first = next(&mut member, LIMIT).await.unwrap();
    assert_eq!(numbers(&first).len(), 10);
    let later = Nack { delay: Some(Duration::from_millis(300)), ..Nack::default() };
    acker.nack(first.one(2), later).await.unwrap().await.unwrap();

    let moved = client.seek(SUBSCRIPTION, None, Position::Offset(weft_proto::Offset(7))).await;
    let moved = moved.unwrap();
    assert_eq!((moved[0].offset, moved.len()), (7, 1));

    let fenced = acker.ack(first.one(8)).await.unwrap().await.unwrap_err();
    assert_eq!(fenced.reason(), Reason::Fenced);
    let second = next(&mut member, LIMIT).await.unwrap();
    assert_eq!(numbers(&second), [7, 8, 9]);
    assert!((0..3).all(|place| second.attempt(place) == 1));
    acker.ack(second.all()).await.unwrap().await.unwrap();
    all_settled(&client).await;
    assert!(next(&mut member, Duration::from_secs(1)).await.is_none(), "an old retry fired");

    client.seek(SUBSCRIPTION, None, Position::Earliest).await.unwrap();
    let mut seen = BTreeSet::new();
    drain(&mut member, &acker, &mut seen, 10).await;
}

#[tokio::test]
async fn a_killed_leader_takes_no_lease_away() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 1, &shared(&json!({"lease": "5m"}))).await;
    publish(&client, 0..50, 5).await;
    let route = client.route(STREAM).await.unwrap();
    let leader = usize::try_from(route[0].leader.unwrap()).unwrap() - 1;
    // A member at another node: its session goes on when the leader does not.
    let other = (leader + 1) % 3;
    let options = weft_client::Options::new([cluster.nodes[other].endpoint()]);
    let near = Client::connect(&options).unwrap();
    let mut member = join(&near, "one", 20);
    let acker = member.acker();
    let mut held = Vec::new();
    let mut seen: BTreeMap<usize, u32> = BTreeMap::new();
    while seen.len() < 20 {
        let delivery = next(&mut member, LIMIT).await.unwrap();
        for number in numbers(&delivery) {
            *seen.entry(number).or_default() += 1;
        }
        held.push(delivery);
    }

    cluster.nodes[leader].kill();
    for delivery in &held {
        let settling = acker.ack(delivery.all()).await.unwrap();
        within(LIMIT, "an acknowledgement over a leader's death", settling).await.unwrap();
    }
    within(LIMIT, "the rest", async {
        while seen.len() < 50 {
            let delivery = next(&mut member, LIMIT).await.unwrap();
            for number in numbers(&delivery) {
                *seen.entry(number).or_default() += 1;
            }
            acker.ack(delivery.all()).await.unwrap().await.unwrap();
        }
    })
    .await;

    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test]
async fn a_namesake_takes_over_what_is_held_and_the_older_one_is_told() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    create(&client, 1, &shared(&json!({}))).await;
    publish(&client, 0..3, 1).await;
    let mut old = join(&client, "one", 10);
    let held = next(&mut old, LIMIT).await.unwrap();

    let new = join(&client, "one", 10);
    new.acker().ack(held.all()).await.unwrap().await.unwrap();

    let told = within(LIMIT, "being told", async {
        loop {
            if let Err(error) = old.next().await {
                return error;
            }
        }
    });
    let error = told.await;
    assert_eq!(error.reason(), Reason::Fenced);
    assert!(error.to_string().contains("a name of its own"), "{error}");
    all_settled(&client).await;
}

#[tokio::test]
async fn what_filters_leave_out_is_settled_unseen() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let filters = json!({"filters": [{"sql": "subject = 'cart/1'"}]});
    create(&client, 2, &shared(&filters)).await;
    publish(&client, 0..100, 10).await;
    let mut member = join(&client, "one", 100);
    let acker = member.acker();

    let mut seen = BTreeSet::new();
    drain(&mut member, &acker, &mut seen, 10).await;

    assert!(seen.iter().all(|number| number % 10 == 1));
    all_settled(&client).await;
}

#[tokio::test]
async fn without_leases_an_exclusive_subscription_refuses_what_it_cannot_do() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let spec = json!({"stream": STREAM, "start": "earliest"});
    create(&client, 1, &spec).await;
    publish(&client, 0..1, 1).await;
    let mut member = client.subscribe(SUBSCRIPTION, SubscriptionOptions::default());
    let delivery = next(&mut member, LIMIT).await.unwrap();

    let acker = member.acker();
    let refused = acker.reject(delivery.all(), "no").await.unwrap();
    let error = within(LIMIT, "a refusal", refused).await.unwrap_err();

    assert!(error.to_string().contains("need leases"), "{error}");
}

#[tokio::test]
async fn an_exclusive_subscription_with_leases_keeps_order_retries_and_gives_up() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let retry = json!({"attempts": 2, "base": "10ms", "cap": "10ms"});
    create(&client, 1, &json!({"stream": STREAM, "start": "earliest", "retry": retry})).await;
    publish(&client, 0..30, 5).await;
    let mut member = join(&client, "one", 5);
    let acker = member.acker();

    let mut seen = Vec::new();
    while seen.len() < 32 {
        let delivery = next(&mut member, LIMIT).await.unwrap();
        for (place, number) in numbers(&delivery).into_iter().enumerate() {
            seen.push((number, delivery.attempt(place)));
            let one = delivery.one(place);
            let settling = match number {
                7 => acker.reject(one, "broken").await,
                // The second time it is given up.
                9 => acker.nack(one, Nack::default()).await,
                11 if delivery.attempt(place) == 1 => acker.nack(one, Nack::default()).await,
                _ => acker.ack(one).await,
            };
            settling.unwrap().await.unwrap();
        }
    }

    let first = seen.iter().filter(|(_, attempt)| *attempt == 1).map(|(number, _)| *number);
    assert_eq!(first.collect::<Vec<_>>(), (0..30).collect::<Vec<_>>(), "in order");
    let again: BTreeSet<_> = seen.iter().filter(|(_, attempt)| *attempt == 2).collect();
    assert_eq!(again, [&(9, 2), &(11, 2)].into());
    all_settled(&client).await;
    let letters = dead_letters(&client).await;
    let reasons = letters.iter().map(|(number, said)| (*number, &*said["weftreason"]));
    assert_eq!(reasons.collect::<Vec<_>>(), [(7, "rejected"), (9, "attempts")]);
}

#[tokio::test]
async fn of_exclusive_members_with_leases_the_newest_is_served_also_by_the_next_leader() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    create(&client, 1, &json!({"stream": STREAM, "start": "earliest", "lease": "5m"})).await;
    publish(&client, 0..60, 5).await;
    let route = client.route(STREAM).await.unwrap();
    let leader = usize::try_from(route[0].leader.unwrap()).unwrap() - 1;
    let near = |number: usize| {
        let endpoint = cluster.nodes[(leader + number) % 3].endpoint();
        Client::connect(&weft_client::Options::new([endpoint])).unwrap()
    };
    let (first, second) = (near(1), near(2));
    let mut old = join(&first, "old", 10);
    let held = next(&mut old, LIMIT).await.unwrap();
    let mut new = join(&second, "new", 10);
    let took = next(&mut new, LIMIT).await.unwrap();
    assert_eq!(numbers(&took)[0], 0, "it goes on where nothing is settled");
    let refused = old.acker().ack(held.all()).await.unwrap();
    let error = within(LIMIT, "a refusal", refused).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Fenced);

    cluster.nodes[leader].kill();
    let acker = new.acker();
    let settling = acker.ack(took.all()).await.unwrap();
    within(LIMIT, "an acknowledgement over a leader's death", settling).await.unwrap();
    let mut seen: BTreeSet<usize> = numbers(&took).into_iter().collect();
    within(LIMIT, "the rest", drain(&mut new, &acker, &mut seen, 60)).await;
    assert!(next(&mut old, Duration::from_millis(300)).await.is_none(), "it stands by");

    // It takes over when the newer one is gone.
    drop((new, acker));
    publish(&first, 60..65, 5).await;
    let acker = old.acker();
    within(LIMIT, "the older one", drain(&mut old, &acker, &mut seen, 65)).await;
}
