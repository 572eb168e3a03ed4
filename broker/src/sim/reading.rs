//! A reader of a replica whose state is ahead of what its log may show, as after a restart that no
//! leader has spoken to yet.

use bytes::Bytes;
use futures::FutureExt as _;
use weft_proto::Offset;

use super::clients::plain;
use super::node::Running;
use super::scripted::{
    GROUP, PARTITION, calm_cluster, check, data, end, in_simulation, until, within,
};
use crate::data::DataGroup;
use crate::read::{History, Tape};
use crate::tasks::Tasks;

#[test]
fn a_reader_waits_for_the_commit_to_be_known_and_does_not_spin() {
    in_simulation(async {
        let (cluster, leader) = calm_cluster(None).await;
        let behind = if leader == 1 { 2 } else { 1 };
        cluster.site.network.block((leader, behind));
        let ahead = data(&cluster, leader);
        let sequencer = ahead.sequencer.clone();
        let Running { process, .. } = cluster.running(leader).unwrap().clone();
        let event = Bytes::from_static(b"k0");
        let append = plain(PARTITION, vec![event.clone()], None);
        let queued = process.run(async move { sequencer.append(append).await });
        within(queued.await.unwrap()).await.unwrap();
        assert_eq!(end(&ahead), Some(1));

        // The state of the one, the log of the other.
        let group = DataGroup { log: data(&cluster, behind).log, ..ahead };
        let tasks = Tasks::new();
        let mut tape = Tape::new(group, PARTITION, History::in_task(&tasks), Offset(0));
        assert_eq!(tape.read(Offset(1), 1 << 20).await.unwrap(), []);
        assert!(tape.wait().now_or_never().is_none(), "it would read again at once");

        cluster.site.network.heal();
        let mut found = Vec::new();
        while found.is_empty() {
            tape.wait().await.unwrap();
            found = tape.read(Offset(1), 1 << 20).await.unwrap();
        }
        assert_eq!(found[0].events, [event]);
        until(|| super::checks::has_converged(&cluster)).await;
        let events = cluster.site.observer.facts().groups[&GROUP].partitions[&PARTITION].clone();
        assert_eq!(events, ["k0"]);
        check(&cluster);
    });
}
