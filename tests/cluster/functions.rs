//! Functions on a real cluster: revisions, replay, and several dispatchers of which one dies.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use weft_client::{Client, PublisherOptions, ReadItem, ReadOptions, spec_of};
use weft_proto::event::{EventView, from_json};
use weft_proto::resource::{FunctionSpec, Kind};

use super::harness::node::quoted;
use super::harness::ports::address;
use super::harness::process::{Daemon, Ended, run, weft};
use super::harness::{Cluster, eventually, put, within};

const LIMIT: Duration = Duration::from_mins(1);
const STREAM: &str = "orders";

/// A dispatcher that may start the sample function.
fn dispatcher(cluster: &Cluster, name: &str) -> Daemon {
    let folder = cluster.place.dir.path();
    let binary = Path::new(env!("CARGO_BIN_EXE_weft"));
    let endpoints: Vec<String> =
        cluster.nodes.iter().map(|node| format!("{:?}", address(node.ports.grpc))).collect();
    let config = format!(
        "endpoints = [{}]\n[process]\nenabled = true\ndirectories = [{}]\n",
        endpoints.join(", "),
        quoted(binary.parent().unwrap()),
    );
    let file = folder.join(format!("{name}.toml"));
    fs::write(&file, config).unwrap();
    let mut command = weft();
    command.arg("dispatcher").arg("--config").arg(file);
    Daemon::start(name, command, &folder.join(format!("{name}.log")))
}

async fn streams(client: &Client) {
    put(client, Kind::Stream, STREAM, &json!({"partitions": 3})).await;
    put(client, Kind::Stream, "confirmations", &json!({})).await;
}

/// Deploys the sample function with more arguments.
async fn deploy(client: &Client, args: &[&str]) {
    let command: Vec<&str> =
        [env!("CARGO_BIN_EXE_weft"), "sample-function"].iter().chain(args).copied().collect();
    let function = json!({
        "command": command,
        "triggers": [{
            "name": "placed", "stream": STREAM, "start": "earliest",
            "retry": {"attempts": 2, "base": "10ms", "cap": "20ms"},
        }],
        "reply": {"stream": "confirmations"},
        "scaling": {"max": 2},
    });
    put(client, Kind::Function, "confirm", &function).await;
}

async fn publish(client: &Client, ids: std::ops::Range<usize>) {
    let event = |id: usize| -> Bytes {
        let event = json!({
            "specversion": "1.0", "id": format!("order-{id}"), "source": "/shop",
            "type": "shop.order.placed", "subject": format!("customer-{}", id % 7),
            "data": {"total": id},
        });
        prost::Message::encode_to_vec(&from_json(event.to_string().as_bytes()).unwrap()).into()
    };
    let publisher = client.publisher(STREAM, PublisherOptions::default()).await.unwrap();
    let pending = publisher.publish_batch(ids.map(event).collect()).await.unwrap();
    let outcome = within(LIMIT, "publishing", pending.outcome()).await;
    assert!(outcome.receipts().iter().all(Result::is_ok));
}

/// The orders that were confirmed.
async fn confirmed(client: &Client) -> BTreeSet<String> {
    let mut reader = client.read(ReadOptions::all("confirmations")).await.unwrap();
    let mut orders = BTreeSet::new();
    while let Some(item) = reader.next().await.unwrap() {
        let ReadItem::Batch(batch) = item else { continue };
        for (_, event) in &batch.events {
            let view = EventView::parse(event).unwrap();
            let cause = view.attribute("causationid").unwrap().into_owned();
            assert!(orders.insert(cause.clone()), "{cause} was confirmed twice");
        }
    }
    orders
}

async fn until_confirmed(client: &Client, count: usize) {
    let what = format!("{count} confirmations");
    let all = async || (confirmed(client).await.len() >= count).then_some(());
    eventually(LIMIT, &what, all).await;
    assert_eq!(confirmed(client).await.len(), count);
}

async fn ask(cluster: &Cluster, args: &[&str]) -> Ended {
    let endpoint = cluster.nodes[0].endpoint();
    let args: Vec<&str> = args.iter().copied().chain(["--endpoint", &endpoint]).collect();
    run(&args, "").await
}

async fn dead_letters(cluster: &Cluster) -> Vec<Value> {
    let args = ["subscription", "dead-letters", "fn-confirm-placed", "-o", "json"];
    let ended = ask(cluster, &args).await;
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_revision_is_rolled_back_and_what_it_failed_goes_to_the_one_before() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    streams(&client).await;
    let _dispatcher = dispatcher(&cluster, "dispatcher");
    deploy(&client, &[]).await;
    publish(&client, 0..10).await;
    until_confirmed(&client, 10).await;

    deploy(&client, &["--fail-rate", "1"]).await;
    publish(&client, 10..15).await;
    let dead = async || Some(dead_letters(&cluster).await).filter(|dead| dead.len() == 5);
    let dead = eventually(LIMIT, "five dead letters", dead).await;
    for letter in &dead {
        let error = letter["event"]["weftlasterror"].as_str().unwrap();
        assert!(error.starts_with("confirm-00002: answered 500"), "{error}");
        assert_eq!(letter["event"]["weftattempts"], "2");
    }

    let ended = ask(&cluster, &["function", "rollback", "confirm"]).await;
    assert_eq!(ended.stdout.trim(), "function confirm: confirm-00001 100%");
    publish(&client, 15..20).await;
    until_confirmed(&client, 15).await;
    let listed = ask(&cluster, &["function", "revisions", "confirm"]).await.stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[1].trim().starts_with("confirm-00002") && !lines[1].contains("100%"), "{listed}");
    assert!(lines[2].trim().starts_with("confirm-00001  100%"), "{listed}");

    let other = ["function", "redrive", "confirm", "--trigger", "placed", "--failed-by"];
    let none = ask(&cluster, &[&other[..], &["confirm-00001"]].concat()).await;
    assert!(none.stdout.starts_with("0 dead letters"), "{none:?}");
    let some = ask(&cluster, &[&other[..], &["confirm-00002"]].concat()).await;
    assert!(some.stdout.starts_with("5 dead letters"), "{some:?}");
    until_confirmed(&client, 20).await;

    // What is shown can be applied, here and in another cluster.
    let shown = ask(&cluster, &["get", "function", "confirm", "-o", "yaml"]).await.stdout;
    assert!(shown.contains("confirm-00001") && !shown.contains("revisions:"), "{shown}");
    let endpoint = cluster.nodes[0].endpoint();
    let applied = run(&["apply", "-f", "-", "--endpoint", &endpoint], &shown).await;
    assert!(applied.stdout.contains("unchanged"), "{applied:?}");

    // A split of a hundred, by revisions that there are.
    let wrong = ask(&cluster, &["function", "split", "confirm", "confirm-00007=100"]).await;
    assert!(wrong.stderr.contains("there are confirm-00001, confirm-00002"), "{}", wrong.stderr);
    let wrong = ask(&cluster, &["function", "split", "confirm", "latest=50"]).await;
    assert!(wrong.stderr.contains("50 percent, not 100"), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_range_is_replayed_to_the_revision_that_the_job_names() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    streams(&client).await;
    let _dispatcher = dispatcher(&cluster, "dispatcher");
    deploy(&client, &[]).await;
    publish(&client, 0..12).await;
    until_confirmed(&client, 12).await;
    deploy(&client, &["--fail-rate", "1"]).await;

    // The first revision gets no events any more, but for those of the job.
    let start = |job, revision| {
        let args = ["replay-job", "start", job, "--function", "confirm", "--trigger", "placed"];
        let args: Vec<&str> = args.into_iter().chain(["--revision", revision]).collect();
        let endpoint = cluster.nodes[0].endpoint();
        async move {
            let args: Vec<&str> = args.into_iter().chain(["--endpoint", &endpoint]).collect();
            run(&args, "").await
        }
    };
    let ended = start("good", "confirm-00001").await;
    assert_eq!(ended.stdout.trim(), "replay job good: goes through 12 events", "{ended:?}");
    let done = async |job: &str| {
        let progress = client.replay_progress(job).await.unwrap();
        progress.iter().all(|one| one.watermark >= one.end).then_some(())
    };
    eventually(LIMIT, "the end of the replay", async || done("good").await).await;
    // The confirmation of a replayed order is the one that is stored.
    assert_eq!(confirmed(&client).await.len(), 12);
    assert!(dead_letters(&cluster).await.is_empty());

    start("bad", "confirm-00002").await;
    eventually(LIMIT, "the end of the other", async || done("bad").await).await;
    assert_eq!(dead_letters(&cluster).await.len(), 12);

    let missing = start("missing", "confirm-00003").await;
    assert!(missing.stderr.contains("confirm-00001, confirm-00002"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_dispatchers_dies_and_nothing_is_lost() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    streams(&client).await;
    let mut first = dispatcher(&cluster, "first");
    let mut second = dispatcher(&cluster, "second");
    deploy(&client, &["--delay-ms", "5"]).await;
    publish(&client, 0..200).await;
    let some = async || (confirmed(&client).await.len() >= 30).then_some(());
    eventually(LIMIT, "the first confirmations", some).await;
    first.kill();
    publish(&client, 200..400).await;
    until_confirmed(&client, 400).await;

    // Whichever of them ran the function: now the other one dies.
    let _third = dispatcher(&cluster, "third");
    publish(&client, 400..500).await;
    second.kill();
    publish(&client, 500..600).await;
    until_confirmed(&client, 600).await;
    let settled = async || {
        let progress = client.subscription_progress("fn-confirm-placed").await.unwrap();
        progress.iter().all(|one| one.watermark == one.end).then_some(())
    };
    eventually(LIMIT, "everything to be settled", settled).await;
    assert!(dead_letters(&cluster).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_is_sent_by_hand_and_its_outcome_told() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    streams(&client).await;
    let _dispatcher = dispatcher(&cluster, "dispatcher");
    deploy(&client, &[]).await;

    let invoke = ["function", "invoke", "confirm", "--trigger", "placed"];
    let order = ["--type", "shop.order.placed", "--data", r#"{"total":5}"#];
    let good = ask(&cluster, &[&invoke[..], &order[..]].concat()).await;
    assert!(good.code == Some(0) && good.stdout.contains(": done"), "{good:?}");

    let unknown = ask(&cluster, &["function", "invoke", "confirm"]).await;
    assert!(unknown.stderr.contains("no trigger default; there are placed"), "{unknown:?}");
    deploy(&client, &["--fail-rate", "1"]).await;
    let bad = ask(&cluster, &[&invoke[..], &order[..]].concat()).await;
    assert!(bad.code == Some(1) && bad.stdout.contains("dead letter"), "{bad:?}");
    assert!(bad.stdout.contains("confirm-00002: answered 500"), "{bad:?}");
    let stored = client.catalog().get(Kind::Function, "confirm").await.unwrap();
    assert_eq!(spec_of::<FunctionSpec>(&stored).unwrap().revisions.len(), 2);
}
