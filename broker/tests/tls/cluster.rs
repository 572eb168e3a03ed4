//! Three nodes that know each other by certificate.

use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use tokio::time::timeout;
use weft_client::{Client, PutOptions, ReadOptions, resource_of};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::resource::{Kind, StreamSpec};
use weft_proto::v1::{PublishRequest, publish_result};

use crate::node::{Files, HANGS, Running, client, configs};
use crate::pki::Authority;

const PARTITIONS: u32 = 6;

fn event(node: usize, partition: u32) -> CloudEvent {
    CloudEvent {
        id: format!("{node}-{partition}"),
        source: "/test".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "t".to_owned(),
        ..CloudEvent::default()
    }
}

/// Publishes one event to each partition through this node alone; answers how many of them
/// another node leads.
async fn publish_all(client: &Client, node: usize, own_address: &str) -> usize {
    let routes = client.route("orders").await.unwrap();
    assert_eq!(routes.len(), PARTITIONS as usize);
    for partition in 0..PARTITIONS {
        let request = PublishRequest {
            stream: "orders".to_owned(),
            events: vec![event(node, partition).encode_to_vec().into()],
            partition: Some(partition),
            ..PublishRequest::default()
        };
        let results = client.publish_once(request).await.unwrap();
        assert!(
            matches!(results[0].outcome, Some(publish_result::Outcome::Receipt(_))),
            "{results:?}"
        );
    }
    routes.iter().filter(|route| route.leader_address.as_deref() != Some(own_address)).count()
}

async fn knows_orders(client: &Client) {
    while client.route("orders").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_certificates_found_a_cluster_and_forward_to_each_other() {
    let (clients, peers) = (Authority::new("clients"), Authority::new("peers"));
    let shared = Files::new();
    let mut configs = configs(3, &shared);
    // Each node has its own certificate, as it should be.
    let folders: Vec<_> = configs.iter().map(|_| Files::new()).collect();
    for (config, files) in configs.iter_mut().zip(&folders) {
        config.security = files.security(&clients.node(), &peers.pem, &peers.node());
        config.access.enforced = true;
    }
    let nodes: Vec<_> = configs.iter().cloned().map(Running::start).collect();
    let key = Running::first_key(&nodes).await;

    let through: Vec<_> =
        configs.iter().map(|config| client(config, &clients, Some(&key))).collect();
    let spec = StreamSpec { partitions: PARTITIONS, ..StreamSpec::default() };
    let orders = resource_of(Kind::Stream, "orders", &spec).unwrap();
    through[0].catalog().put(orders, PutOptions::default()).await.unwrap();
    let mut forwarded = 0;
    for (node, (client, config)) in through.iter().zip(&configs).enumerate() {
        // Another client changed the catalog: this node may not know it yet.
        timeout(HANGS, knows_orders(client)).await.unwrap();
        forwarded += publish_all(client, node, &config.listen.grpc).await;
    }

    // Each partition has one leader and was written through all three nodes: usually 12.
    assert!(forwarded > 0, "nothing had to be forwarded");
    let mut expected: Vec<_> = (0..3)
        .flat_map(|node| (0..PARTITIONS).map(move |partition| event(node, partition).id))
        .collect();
    expected.sort();
    for client in &through {
        let read = client.read(ReadOptions::all("orders")).await.unwrap();
        let records: Vec<_> = read.into_records().collect().await;
        let id = |record: weft_client::Result<weft_client::Record>| {
            CloudEvent::decode(record.unwrap().event).unwrap().id
        };
        let mut ids: Vec<_> = records.into_iter().map(id).collect();
        ids.sort();
        assert_eq!(ids, expected);
    }
    futures::future::join_all(nodes.into_iter().map(Running::stop)).await;
}
