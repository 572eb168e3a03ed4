//! What only shows inside: credit that is given back.

use std::sync::Arc;

use serde_json::json;
use weft_proto::v1::Resource;
use weft_proto::{Epoch, Offset, PartitionId};

use super::*;
use crate::feed::Leased;
use crate::launch::Disabled;
use crate::port::memory::MemoryMesh;

fn runner() -> Runner {
    let spec = json!({
        "command": ["f"],
        "triggers": [{ "name": "t", "stream": "s" }],
    });
    let resource =
        Resource { name: "f".to_owned(), spec: spec.to_string().into(), ..Resource::default() };
    let parts = Parts {
        mesh: Arc::new(MemoryMesh::default()),
        launcher: Arc::new(Disabled),
        tasks: TaskTracker::new(),
        member: "m".to_owned(),
        seed: 1,
        tracer: Tracer::default(),
    };
    let mut runner = Runner::new(Plan::of(&resource).unwrap(), parts);
    runner.update_feeds();
    runner
}

fn lease(runner: &mut Runner, epoch: u64) {
    let events = vec![(Offset(0), Bytes::from_static(b"event"))];
    let partition = PartitionId(0);
    let appended = Timestamp::default();
    let told = Told::Leased(Leased { partition, epoch: Epoch(epoch), appended, events });
    runner.handle(Event::Told(FeedId(0), told));
    runner.act();
}

#[tokio::test]
async fn an_event_that_is_here_already_gives_its_credit_back_once() {
    let mut runner = runner();
    let outbox = runner.feeds[&FeedId(0)].outbox.clone();
    lease(&mut runner, 1);
    assert_eq!(outbox.released(), (0, 0));

    lease(&mut runner, 2);

    assert_eq!(outbox.released(), (1, 5));
    let partition = PartitionId(0);
    runner.handle(Event::Told(FeedId(0), Told::Revoked { partition }));
    runner.act();
    assert_eq!(outbox.released(), (2, 10));
}
