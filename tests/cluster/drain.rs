//! A node that drains leads nothing, and gets its share back.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_client::Client;

use super::harness::process::run;
use super::harness::{Cluster, eventually};

const MOVE_MAX: Duration = Duration::from_mins(1);

/// How many groups each node leads; nothing while one has no leader.
async fn leads(client: &Client) -> Option<BTreeMap<u64, usize>> {
    let status = client.status().await.ok()?;
    let mut leads: BTreeMap<u64, usize> = status.nodes.iter().map(|node| (node.id, 0)).collect();
    for group in &status.groups {
        *leads.get_mut(&group.leader?)? += 1;
    }
    Some(leads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_leads_nothing_until_it_is_told_otherwise() {
    let mut cluster = Cluster::new(3).await;
    for node in &mut cluster.nodes {
        node.cluster_settings = "balance_ms = 500\n".to_owned();
    }
    cluster.start_all().await;
    let client = cluster.client();
    let endpoint = cluster.nodes[0].endpoint();
    let spread = async || leads(&client).await?.values().all(|groups| *groups == 1).then_some(());
    eventually(MOVE_MAX, "that each node leads one group", spread).await;

    let drained = run(&["--endpoint", &endpoint, "drain", "2"], "").await;
    let left = async || (leads(&client).await?[&2] == 0).then_some(());
    eventually(MOVE_MAX, "that node 2 leads nothing", left).await;
    let status = run(&["--endpoint", &endpoint, "status"], "").await;
    let back = run(&["--endpoint", &endpoint, "drain", "2", "--undo"], "").await;
    eventually(MOVE_MAX, "that each node leads one group again", spread).await;
    let unknown = run(&["--endpoint", &endpoint, "drain", "7"], "").await;

    assert_eq!((drained.code, back.code), (Some(0), Some(0)), "{drained:?} {back:?}");
    assert!(status.stdout.contains("draining"), "{}", status.stdout);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("no node 7"), "{}", unknown.stderr);
}
