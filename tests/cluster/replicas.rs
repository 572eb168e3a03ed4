//! What each node has by itself.

use std::time::Duration;

use weft_client::{Client, Position, ReadItem, ReadOptions};
use weft_proto::event::EventView;

use super::checker::{EventId, Partition, Replica, Stored};
use super::harness::node::Node;
use super::harness::{Cluster, eventually, within};
use super::load::digest;

/// For a replica to take over what it missed, and to be read.
const READ_MAX: Duration = Duration::from_mins(1);

/// Reads all partitions of these streams from each node.
pub(crate) async fn read_all(cluster: &Cluster, streams: &[&str]) -> Vec<Replica> {
    let clients: Vec<Client> = cluster.nodes.iter().map(Node::client).collect();
    let same = async || {
        let mut ends = Vec::new();
        for client in &clients {
            ends.push(ends_of(client, streams).await?);
        }
        ends.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    };
    eventually(READ_MAX, "that all replicas end at the same offsets", same).await;
    let mut replicas = Vec::new();
    for client in &clients {
        let mut replica = Replica::new();
        for (stream, name) in (0..).zip(streams) {
            let read = read(client, stream, name, &mut replica);
            within(READ_MAX, "reading a replica", read).await;
        }
        replicas.push(replica);
    }
    replicas
}

/// The end of each partition, as one node knows it.
async fn ends_of(client: &Client, streams: &[&str]) -> Option<Vec<u64>> {
    let mut ends = Vec::new();
    for stream in streams {
        let offsets = client.locate(stream, Position::Latest).await.ok()?;
        ends.extend(offsets.iter().map(|offset| offset.latest));
    }
    Some(ends)
}

/// Reads a stream as this node has it: who follows a stream reads from the node that it asks,
/// where a range would be read from the leader.
async fn read(client: &Client, stream: u32, name: &str, replica: &mut Replica) {
    let options = ReadOptions { from: Position::Earliest, ..ReadOptions::follow(name.to_owned()) };
    let mut reader = client.read(options).await.unwrap();
    loop {
        let batch = match reader.next().await.unwrap() {
            Some(ReadItem::Batch(batch)) => batch,
            Some(ReadItem::CaughtUp) => return,
            None => panic!("a read that follows {name} ended"),
        };
        let partition = Partition { stream, partition: batch.partition.get() };
        for record in batch.into_records() {
            let view = EventView::parse(&record.event).expect("an event");
            replica.entry(partition).or_default().push(Stored {
                offset: record.offset.get(),
                id: EventId::parse(view.id).expect("an id of the load"),
                digest: digest(&record.event),
                append_time: record.append_time.as_micros(),
            });
        }
    }
}
