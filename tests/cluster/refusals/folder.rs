//! Data folders that belong to somebody else.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use weft_proto::resource::Kind;

use super::{refused_start, snapshot, stored};
use crate::harness::node::{Node, broker, quoted};
use crate::harness::process::{Ended, finished, run, weft};
use crate::harness::{Cluster, put};

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

/// Starts a node with the data folder of another one; it is not supposed to start.
async fn refused_with(node: &Node, data: &Path, scratch: &Path) -> Ended {
    let file = scratch.join("misplaced.toml");
    let own = quoted(&node.data());
    fs::write(&file, node.config().replace(&own, &quoted(data))).unwrap();
    let ended = finished(broker(weft(), &file), "").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended
}

async fn with_one_event(cluster: &Cluster) {
    put(&cluster.client(), Kind::Stream, "orders", &json!({})).await;
    let endpoint = cluster.nodes[0].endpoint();
    let ended = run(&["--endpoint", &endpoint, "publish", "orders"], EVENT).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn a_folder_in_use_is_refused_and_its_owner_goes_on() {
    let cluster = Cluster::start(1).await;
    with_one_event(&cluster).await;
    let owner = &cluster.nodes[0];

    let ended = refused_with(&cluster.stranger(), &owner.data(), cluster.place.dir.path()).await;

    let folder = owner.data().display().to_string();
    assert!(ended.stderr.contains(&folder), "{}", ended.stderr);
    assert!(ended.stderr.contains("in use by another process"), "{}", ended.stderr);
    assert_eq!(stored(&cluster.client(), "orders").await, 1);
}

#[tokio::test]
async fn a_folder_of_another_format_is_refused_and_left_as_it_is() {
    let mut cluster = Cluster::start(1).await;
    with_one_event(&cluster).await;
    let node = &mut cluster.nodes[0];
    node.stop().await;
    let file = node.data().join("node.json");
    let ours = fs::read(&file).unwrap();
    let mut theirs: Value = serde_json::from_slice(&ours).unwrap();
    theirs["format"] = json!(7);
    fs::write(&file, theirs.to_string()).unwrap();
    let before = snapshot(&node.data());

    let ended = refused_start(node).await;

    let folder = node.data().display().to_string();
    for told in [folder.as_str(), "format 7", "format 0", "use the version of weft that wrote it"] {
        assert!(ended.stderr.contains(told), "{told}: {}", ended.stderr);
    }
    assert_eq!(snapshot(&node.data()), before);
    fs::write(&file, ours).unwrap();
    node.start();
    node.ready().await;
    assert_eq!(stored(&cluster.client(), "orders").await, 1);
}

#[tokio::test]
async fn a_folder_without_its_identity_is_refused_and_left_as_it_is() {
    let mut cluster = Cluster::start(1).await;
    let node = &mut cluster.nodes[0];
    node.stop().await;
    let file = node.data().join("node.json");
    let identity = fs::read(&file).unwrap();

    for damaged in [None, Some(&b"{"[..])] {
        match damaged {
            None => fs::remove_file(&file).unwrap(),
            Some(bytes) => fs::write(&file, bytes).unwrap(),
        }
        let before = snapshot(&node.data());
        let ended = refused_start(node).await;
        let folder = node.data().display().to_string();
        assert!(ended.stderr.contains(&folder), "{}", ended.stderr);
        assert!(ended.stderr.contains("restore"), "{}", ended.stderr);
        assert_eq!(snapshot(&node.data()), before);
    }
    fs::write(&file, identity).unwrap();
    node.start();
    node.ready().await;
}

#[tokio::test]
async fn folders_of_other_nodes_and_clusters_are_refused() {
    let mut cluster = Cluster::start(3).await;
    with_one_event(&cluster).await;
    let scratch = cluster.place.dir.path().to_owned();
    let [_, second, third] = &mut cluster.nodes[..] else { panic!("three nodes") };
    second.stop().await;
    let others = second.data();
    third.stop().await;

    // That of another node.
    let before = snapshot(&others);
    let ended = refused_with(third, &others, &scratch).await;
    assert!(ended.stderr.contains("the data folder is that of node"), "{}", ended.stderr);
    assert!(ended.stderr.contains("give this node its own folder"), "{}", ended.stderr);
    assert_eq!(snapshot(&others), before);
    second.start();
    second.ready().await;

    // An empty one, for a node that the cluster knows.
    let ended = refused_with(third, &scratch.join("empty"), &scratch).await;
    assert!(ended.stderr.contains("another data folder"), "{}", ended.stderr);

    // One that was made elsewhere, for the same address.
    let foreign = scratch.join("foreign");
    fs::create_dir_all(&foreign).unwrap();
    let own = fs::read_to_string(third.data().join("node.json")).unwrap();
    let mut identity: Value = serde_json::from_str(&own).unwrap();
    let cluster_uid = identity["cluster"]["cluster_uid"].clone();
    identity["cluster"]["cluster_uid"] = json!("0".repeat(32));
    fs::write(foreign.join("node.json"), identity.to_string()).unwrap();
    fs::copy(third.data().join("pledge"), foreign.join("pledge")).unwrap();
    let ended = refused_with(third, &foreign, &scratch).await;
    let told = [cluster_uid.as_str().unwrap(), &"0".repeat(32), "belongs to cluster"];
    assert!(told.iter().all(|told| ended.stderr.contains(told)), "{}", ended.stderr);

    third.start();
    third.ready().await;
    assert_eq!(stored(&third.client(), "orders").await, 1);
}
