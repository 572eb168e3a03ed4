//! One filter language: the same filters in a read, a subscription and a test of filters, over one
//! node; and `weft filter test` without any.

use serde_json::json;
use weft_client::{
    Client, Delivery, ErrorKind, ReadItem, ReadOptions, SubscriptionItem, SubscriptionOptions,
};
use weft_proto::event::EventView;
use weft_proto::filter::{Filter, to_wire};
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::harness::process::{Ended, finished, weft};
use super::harness::{Cluster, put};

const EVENTS: &str = concat!(
    r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.placed","hop":2,"data":{"total":50}}"#,
    "\n",
    r#"{"specversion":"1.0","id":"2","source":"/shop","type":"order.placed","hop":2,"data":{"total":500}}"#,
    "\n",
    r#"{"specversion":"1.0","id":"3","source":"/shop","type":"order.placed","data":{"total":500}}"#,
    "\n",
    r#"{"specversion":"1.0","id":"4","source":"/shop","type":"cart.filled","hop":1}"#,
    "\n",
);

async fn run(endpoint: &str, args: &[&str], input: &str) -> Ended {
    let mut command = weft();
    command.args(["--endpoint", endpoint]).args(args);
    finished(command, input).await
}

fn filters() -> Vec<Filter> {
    vec![Filter::Sql("hop < 3".to_owned()), Filter::Cel("data.total > 100".to_owned())]
}

async fn ids(client: &Client, filters: Vec<Filter>) -> Vec<String> {
    let options = ReadOptions { filters, ..ReadOptions::all("orders") };
    let mut reader = client.read(options).await.unwrap();
    let mut ids = Vec::new();
    while let Some(item) = reader.next().await.unwrap() {
        let ReadItem::Batch(batch) = item else { continue };
        ids.extend(
            batch
                .into_records()
                .map(|record| EventView::parse(&record.event).unwrap().id.to_owned()),
        );
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_means_the_same_wherever_it_stands() {
    let cluster = Cluster::start(1).await;
    let (client, endpoint) = (cluster.client(), cluster.nodes[0].endpoint());
    put(&client, Kind::Stream, "orders", &json!({"partitions": 1})).await;
    let spec = json!({"stream": "orders", "start": "earliest", "filters": filters()});
    put(&client, Kind::Subscription, "large", &spec).await;
    let published = run(&endpoint, &["publish", "orders"], EVENTS).await;
    assert_eq!(published.code, Some(0), "{}", published.stderr);

    assert_eq!(ids(&client, filters()).await, ["2"]);
    assert_eq!(ids(&client, vec![Filter::Not(Box::new(filters().remove(0)))]).await, ["3"]);
    let mut member = client.subscribe("large", SubscriptionOptions::default());
    let first = loop {
        if let SubscriptionItem::Delivery(Delivery { batch, .. }) = member.next().await.unwrap() {
            break batch.events.first().unwrap().0;
        }
    };
    assert_eq!(first.get(), 1, "the second event is the first that passes");

    let request = v1::TestFilterRequest { stream: "orders".into(), ..Default::default() };
    let of_subscription = v1::TestFilterRequest { subscription: "large".into(), ..request.clone() };
    let of_filters = v1::TestFilterRequest { filters: to_wire(&filters()), ..request.clone() };
    let answer = client.test_filter(of_subscription).await.unwrap();
    assert_eq!(answer, client.test_filter(of_filters.clone()).await.unwrap());
    assert_eq!((answer.tested, answer.passed, answer.failed, answer.cut), (4, 1, 2, false));
    let reasons = |number: usize| -> Vec<&str> {
        answer.refused[number].reasons.iter().map(|one| one.message.as_str()).collect()
    };
    assert_eq!(reasons(0), ["the value is false"]);
    assert_eq!(reasons(1), ["the event has no attribute hop"]);
    assert_eq!(reasons(2), ["the event has no data"]);
    let cut = v1::TestFilterRequest { events_max: 2, ..of_filters };
    let cut = client.test_filter(cut).await.unwrap();
    assert_eq!((cut.tested, cut.cut), (2, true));

    let bad = v1::Filter { dialect: Some(v1::filter::Dialect::Sql("hop <".into())) };
    let refused = client.test_filter(v1::TestFilterRequest { filters: vec![bad], ..request }).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(refused.field(), Some("filters[0].sql"));
    assert!(refused.message().contains("line 1, column 6 (byte 5): expected"), "{refused}");

    let test = ["filter", "test", "--stream", "orders", "--cel", "data.total > 100"];
    let shown = run(&endpoint, &test, "").await;
    assert_eq!(shown.code, Some(1), "{}", shown.stderr);
    assert!(shown.stdout.ends_with("2 of 4 events pass; an expression failed on 1\n"), "{shown:?}");
    // A sample by the filters of a subscription.
    let sample = ["filter", "test", "--subscription", "large", "--event", "-"];
    let shown = run(&endpoint, &sample, EVENTS).await;
    assert_eq!(shown.code, Some(1), "{}", shown.stderr);
    assert!(shown.stdout.contains("2  passes  order.placed /shop 2\n"), "{shown:?}");
    let bad = ["filter", "test", "--stream", "orders", "--sql", "hop <"];
    assert_eq!(run(&endpoint, &bad, "").await.code, Some(2));
    let all = ["filter", "test", "--stream", "orders", "--sql", "EXISTS source"];
    assert_eq!(run(&endpoint, &all, "").await.code, Some(0));
}

#[tokio::test]
async fn filters_are_tried_without_a_cluster() {
    let test = async |args: &[&str], input: &str| {
        let mut command = weft();
        command.args(["filter", "test", "--event", "-"]).args(args);
        finished(command, input).await
    };

    let some = test(&["--sql", "hop < 3 OR TRUE AND TRUE", "--cel", "data.total > 100"], EVENTS);
    let some = some.await;
    assert_eq!(some.code, Some(1), "{}", some.stderr);
    assert!(some.stderr.starts_with("warning: filters[0].sql: line 1, column 17"), "{some:?}");
    let verdicts: Vec<&str> = some.stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(
        verdicts,
        [
            "1  does not pass  order.placed /shop 1",
            "2  passes  order.placed /shop 2",
            "3  does not pass  order.placed /shop 3",
            "4  does not pass  cart.filled /shop 4",
        ]
    );
    assert!(some.stdout.contains("     filters[0].sql: the event has no attribute hop\n"));

    let list = format!("[{}]", EVENTS.trim().replace('\n', ","));
    let json = test(&["--filter", r#"{"exact":{"source":"/shop"}}"#, "-o", "json"], &list).await;
    assert_eq!(json.code, Some(0), "{}", json.stderr);
    assert_eq!(json.stdout.matches(r#""passes":true"#).count(), 4);

    for bad in [
        ["--sql", "type ="],
        ["--cel", "nope"],
        ["--filter", r#"{"regex":{}}"#],
        ["--filter", r#"{"exact":{"type":""}}"#],
    ] {
        assert_eq!(test(&bad, EVENTS).await.code, Some(2), "{bad:?}");
    }
    assert_eq!(test(&["--sql", "TRUE"], "{}").await.code, Some(1));
}
