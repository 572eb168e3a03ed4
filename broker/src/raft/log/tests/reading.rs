//! Where entries are read from, how much at once, and what a hole or a wrong order does.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures::TryStreamExt;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};

use super::support::{Node, append, append_ff, entries, normal, payload, sized};
use crate::raft::log::StoredEntry;
use crate::raft::types::{Entry, EntryPayload, log_id};
use crate::store::{MemoryEngine, StoreError};
use weft_proto::GroupId;

fn scan(log: &crate::raft::log::GroupLog, from: u64, to: u64) -> Vec<StoredEntry> {
    let mut found = Vec::new();
    log.reader()
        .scan(from, to, usize::MAX, &mut |entry| {
            found.push(entry);
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

#[tokio::test]
async fn all_tails_together_keep_the_budget_and_the_oldest_leave_first() {
    let engine = MemoryEngine::new();
    let node = Node::start(Arc::new(engine), 100_000);
    let mut logs: Vec<_> = (0..3).map(|id| node.logs().open(GroupId(id)).unwrap()).collect();
    append(&mut logs[0], vec![sized(1, 0, 1000)]).await;
    for index in 0..200 {
        append(&mut logs[1], vec![sized(1, index, 1000)]).await;
    }
    append(&mut logs[2], vec![sized(1, 0, 1000)]).await;
    for log in &mut logs {
        log.save_committed(Some(log_id(1, 500))).await.unwrap();
    }

    let in_memory = |log: usize, index| logs[log].reader().tail(index, usize::MAX).is_some();

    assert!(node.logs().tail_bytes() <= 101_500, "{}", node.logs().tail_bytes());
    assert!(!in_memory(0, 0) && !in_memory(1, 50), "an old entry stayed");
    assert!(in_memory(1, 199) && in_memory(2, 0), "a new entry left");
    assert_eq!(entries(&logs[1]).await.len(), 200);
}

#[tokio::test]
async fn an_entry_stays_in_memory_until_it_is_written() {
    let engine = MemoryEngine::new();
    let node = Node::start(Arc::new(engine.clone()), 0);
    let mut log = node.open();
    engine.pause_syncs();

    let flushed = append_ff(&mut log, (0..10).map(|index| sized(1, index, 100)).collect()).await;
    let waiting = node.logs().tail_bytes();
    let readable = entries(&log).await.len();
    engine.resume_syncs();
    flushed.await.unwrap().unwrap();

    assert_eq!(readable, 10);
    assert!(waiting > 1000);
    assert_eq!(node.logs().tail_bytes(), 0);
    assert_eq!(entries(&log).await.len(), 10);
}

#[tokio::test]
async fn a_tail_is_freed_with_its_log() {
    let node = Node::memory(&MemoryEngine::new());
    let mut log = node.open();
    append(&mut log, vec![sized(1, 0, 1000)]).await;
    let used = node.logs().tail_bytes();

    drop(log);

    assert!(used > 1000);
    assert_eq!(node.logs().tail_bytes(), 0);
}

#[tokio::test]
async fn reads_are_limited_but_never_empty() {
    for tail_bytes in [0, 64 << 20] {
        let node = Node::start(Arc::new(MemoryEngine::new()), tail_bytes);
        let mut log = node.open();
        append(&mut log, (0..8).map(|index| sized(1, index, 3 << 20)).collect()).await;
        append(&mut log, vec![sized(1, 8, 6 << 20)]).await;

        let mut reader = log.reader();
        let some = reader.limited_get_log_entries(0, 9).await.unwrap();
        let huge = reader.limited_get_log_entries(8, 9).await.unwrap();
        let all = reader.try_get_log_entries(0..9).await.unwrap();
        let streamed: Vec<_> = reader.entries_stream(2..9).await.try_collect().await.unwrap();

        assert!((1..=2).contains(&some.len()), "{}", some.len());
        assert_eq!(huge.len(), 1);
        assert_eq!(all.len(), 9);
        assert_eq!(streamed, all[2..]);
    }
}

#[tokio::test]
async fn readers_stop_at_the_commit() {
    for tail_bytes in [0, 1 << 20] {
        let node = Node::start(Arc::new(MemoryEngine::new()), tail_bytes);
        let mut log = node.open();
        append(&mut log, (0..10).map(|index| sized(1, index, 10)).collect()).await;
        let before = scan(&log, 0, 9).len();
        log.save_committed(Some(log_id(1, 4))).await.unwrap();

        let after: Vec<_> = scan(&log, 2, 9).iter().map(|entry| entry.index).collect();
        let tail = log.reader().tail(9, usize::MAX);

        assert_eq!(before, 0);
        assert_eq!(after, [2, 3, 4]);
        assert!(tail.is_none_or(|entries| entries.is_empty()));
        assert_eq!(log.reader().committed(), Some(4));
    }
}

#[tokio::test]
async fn the_tail_tells_whether_an_entry_is_in_memory() {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    append(&mut log, (0..4).map(|index| sized(1, index, 10)).collect()).await;
    log.save_committed(Some(log_id(1, 3))).await.unwrap();
    let bytes = log.reader().tail(1, 1).unwrap().len();
    let warm = log.reader().tail(1, usize::MAX).unwrap().len();

    let mut cold = Node::memory(&engine.crash()).open();
    cold.save_committed(Some(log_id(1, 3))).await.unwrap();

    assert_eq!((bytes, warm), (1, 3));
    assert_eq!(cold.reader().tail(1, usize::MAX), None);
    assert_eq!(cold.reader().tail(4, usize::MAX), Some(Vec::new()));
    assert_eq!(scan(&cold, 1, 3).len(), 3);
}

#[tokio::test]
async fn stored_entries_carry_time_and_position() {
    let node = Node::memory(&MemoryEngine::new());
    let mut log = node.open();
    let blank = Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank };
    let body = payload(500, b"late");
    let early = payload(400, b"early");
    append(&mut log, vec![normal(1, 0, body.clone()), blank, normal(1, 2, early.clone())]).await;
    log.save_committed(Some(log_id(1, 2))).await.unwrap();

    let found = scan(&log, 0, 2);

    assert_eq!(found.iter().map(|entry| entry.time).collect::<Vec<_>>(), [500, 500, 500]);
    assert_eq!(found[0].payload, Some(body.clone()));
    assert_eq!(found[1].payload, None);
    let grown = found[2].pos - found[0].pos;
    assert_eq!(grown, early.len() as u64);
    assert_eq!(log.reader().point(2).unwrap().unwrap().pos, found[2].pos);
    // The payload is the one that came, not a copy.
    assert_eq!(found[0].payload.as_ref().unwrap().as_ptr(), body.as_ptr());
}

#[tokio::test]
async fn a_hole_or_an_older_term_is_refused_and_changes_nothing() {
    let node = Node::memory(&MemoryEngine::new());
    let mut log = node.open();
    append(&mut log, vec![sized(2, 0, 10)]).await;

    for wrong in [
        vec![sized(2, 2, 10)],
        vec![sized(2, 0, 10)],
        vec![sized(2, 1, 10), sized(2, 3, 10)],
        vec![sized(2, 1, 10), sized(1, 2, 10)],
    ] {
        let result = log.append(wrong, IOFlushed::noop()).await;

        assert!(result.is_err());
        assert_eq!(entries(&log).await.len(), 1);
    }
    append(&mut log, vec![sized(2, 1, 10)]).await;
    assert_eq!(entries(&log).await.len(), 2);
}

#[tokio::test]
async fn purged_entries_are_reported_as_such() {
    let node = Node::memory(&MemoryEngine::new());
    let mut log = node.open();
    append(&mut log, (0..40).map(|index| sized(1, index, 10)).collect()).await;
    log.save_committed(Some(log_id(1, 39))).await.unwrap();

    log.purge(log_id(1, 20)).await.unwrap();
    let below = log.reader().scan(20, 30, usize::MAX, &mut |_| ControlFlow::Continue(()));

    assert!(matches!(below, Err(StoreError::Purged { index: 20, first: 21, .. })), "{below:?}");
    assert_eq!(log.reader().first_index(), 21);
    assert_eq!(scan(&log, 21, 39).len(), 19);
}

#[tokio::test]
async fn purging_keeps_the_newest_checkpoint_at_or_below() {
    let node = Node::memory(&MemoryEngine::new());
    let mut log = node.open();
    append(&mut log, (0..40).map(|index| sized(1, index, 10)).collect()).await;
    let checkpoints = log.checkpoints();
    for index in [5, 15, 25, 35] {
        let point = log.reader().point(index).unwrap().unwrap();
        checkpoints.put_synced(&point, &[u8::try_from(index).unwrap()]).await.unwrap();
    }

    log.purge(log_id(1, 27)).await.unwrap();

    let newest = |upto| checkpoints.newest(upto).unwrap().map(|(at, state)| (at.index, state));
    assert_eq!(newest(24), None);
    assert_eq!(newest(34), Some((25, vec![25].into())));
    assert_eq!(newest(u64::MAX), Some((35, vec![35].into())));
}

#[tokio::test]
async fn after_a_snapshot_the_chain_goes_on_from_its_checkpoint() {
    let leader = Node::memory(&MemoryEngine::new());
    let mut full = leader.open();
    let all: Vec<_> = (0..30).map(|index| sized(1 + index / 10, index, 20)).collect();
    append(&mut full, all.clone()).await;
    let point = full.reader().point(19).unwrap().unwrap();
    let engine = MemoryEngine::new();
    let follower = Node::memory(&engine);
    let mut log = follower.open();
    append(&mut log, all[..5].to_vec()).await;

    log.checkpoints().put_synced(&point, b"state").await.unwrap();
    log.purge(log_id(2, 19)).await.unwrap();
    append(&mut log, all[20..].to_vec()).await;

    assert_eq!(log.reader().last(), full.reader().last());
    let reopened = Node::memory(&engine.crash()).open();
    assert_eq!(reopened.reader().last(), full.reader().last());
    assert_eq!(entries(&reopened).await, all[20..]);
}
