//! `weft status`: nodes, groups and streams as one node sees them.

use serde_json::json;
use weft_client::Client;
use weft_client::proto::v1;

use crate::output::{Format, Out};

/// Arguments of `weft status`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) async fn run(client: &Client, format: Format) -> anyhow::Result<()> {
    let status = client.status().await?;
    let mut out = Out::new();
    if matches!(format, Format::Json | Format::Yaml) {
        return out.json(&to_json(&status));
    }
    let (uid, version, node) = (&status.cluster_uid, &status.version, status.node_id);
    out.line(&format!("cluster {uid}, version {version}, seen from node {node}\n"))?;
    let nodes = status.nodes.iter().map(|node| {
        let reachable = match (node.reachable, node.draining) {
            (false, _) => "AWAY",
            (true, true) => "draining",
            (true, false) => "reachable",
        };
        let leads = status.groups.iter().filter(|group| group.leader == Some(node.id)).count();
        vec![
            node.id.to_string(),
            reachable.to_owned(),
            node.grpc_address.clone(),
            node.http_address.clone(),
            leads.to_string(),
        ]
    });
    out.table(&["NODE", "STATE", "GRPC", "HTTP", "LEADS"], nodes.collect())?;
    out.line("")?;
    let groups = status.groups.iter().map(|group| {
        let leader = group.leader.map_or_else(|| "ELECTING".to_owned(), |id| id.to_string());
        vec![
            if group.id == 0 { "0 (catalog)".to_owned() } else { group.id.to_string() },
            leader,
            group.term.to_string(),
            group.committed_index.to_string(),
            group.applied_index.to_string(),
            group.first_index.to_string(),
            group.log_bytes.to_string(),
            group.dedup_events.to_string(),
        ]
    });
    let columns =
        ["GROUP", "LEADER", "TERM", "COMMITTED", "APPLIED", "FIRST", "LOG BYTES", "DEDUP"];
    out.table(&columns, groups.collect())?;
    if !status.streams.is_empty() {
        out.line("")?;
        let streams = status.streams.iter().map(|stream| {
            let events = |at: &v1::PartitionStatus| at.end.saturating_sub(at.earliest);
            vec![
                stream.stream.clone(),
                stream.partitions.len().to_string(),
                stream.partitions.iter().map(events).sum::<u64>().to_string(),
                stream.partitions.iter().map(|at| at.bytes).sum::<u64>().to_string(),
            ]
        });
        out.table(&["STREAM", "PARTITIONS", "EVENTS", "BYTES"], streams.collect())?;
    }
    if !status.subscriptions.is_empty() {
        out.line("")?;
        let subscriptions = status.subscriptions.iter().map(|subscription| {
            let sum = |of: fn(&v1::CursorStatus) -> u64| {
                subscription.cursors.iter().map(of).sum::<u64>().to_string()
            };
            vec![
                subscription.subscription.clone(),
                sum(|at| at.end.saturating_sub(at.watermark)),
                sum(|at| at.overtaken),
            ]
        });
        // What retention took before it was settled is lost to the subscription.
        out.table(&["SUBSCRIPTION", "BEHIND", "OVERTAKEN"], subscriptions.collect())?;
    }
    Ok(())
}

fn to_json(status: &v1::StatusResponse) -> serde_json::Value {
    let node = |node: &v1::NodeStatus| {
        json!({
            "id": node.id, "reachable": node.reachable, "grpc": node.grpc_address,
            "http": node.http_address, "peer": node.peer_address, "draining": node.draining,
        })
    };
    let group = |group: &v1::GroupStatus| {
        json!({
            "id": group.id, "leader": group.leader, "term": group.term,
            "last_index": group.last_index, "committed_index": group.committed_index,
            "applied_index": group.applied_index, "voters": group.voters,
            "first_index": group.first_index, "log_bytes": group.log_bytes,
            "dedup_events": group.dedup_events, "dedup_since_us": group.dedup_since_us,
        })
    };
    let partition = |at: &v1::PartitionStatus| {
        json!({
            "partition": at.partition, "group": at.group, "leader": at.leader,
            "earliest": at.earliest, "end": at.end, "bytes": at.bytes,
        })
    };
    let cursor = |at: &v1::CursorStatus| {
        json!({
            "partition": at.partition, "watermark": at.watermark, "end": at.end,
            "overtaken": at.overtaken,
        })
    };
    let subscription = |subscription: &v1::SubscriptionStatus| {
        let cursors: Vec<_> = subscription.cursors.iter().map(cursor).collect();
        json!({ "subscription": subscription.subscription, "cursors": cursors })
    };
    let stream = |stream: &v1::StreamStatus| {
        let partitions: Vec<_> = stream.partitions.iter().map(partition).collect();
        json!({ "stream": stream.stream, "partitions": partitions })
    };
    json!({
        "cluster": status.cluster_uid,
        "version": status.version,
        "node": status.node_id,
        "catalog_generation": status.catalog_generation,
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
        "groups": status.groups.iter().map(group).collect::<Vec<_>>(),
        "streams": status.streams.iter().map(stream).collect::<Vec<_>>(),
        "subscriptions": status.subscriptions.iter().map(subscription).collect::<Vec<_>>(),
    })
}
