//! Flushed means synced; a failed sync is final.

use openraft::storage::{RaftLogReader, RaftLogStorage};
use openraft::type_config::alias::VoteOf;

use super::support::{Node, append, append_ff, entries, sized};
use crate::raft::types::{TypeConfig, log_id};
use crate::store::MemoryEngine;

type Vote = VoteOf<TypeConfig>;

#[tokio::test]
async fn entries_are_readable_before_they_are_synced_and_flushed_only_after() {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    engine.pause_syncs();

    let mut flushed = append_ff(&mut log, vec![sized(1, 0, 10)]).await;
    let readable = entries(&log).await.len();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let early = flushed.try_recv().is_ok();
    let lost = Node::memory(&engine.crash()).open().reader().last();
    engine.resume_syncs();

    assert_eq!(readable, 1);
    assert!(!early, "reported as flushed before the sync");
    assert_eq!(lost, None);
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_flushed() {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    for index in 0..20 {
        append(&mut log, vec![sized(1, index, 100)]).await;
    }
    let before = entries(&log).await;
    let last = log.reader().last();

    let survivor = Node::memory(&engine.crash());
    let log = survivor.open();

    assert_eq!(entries(&log).await, before);
    assert_eq!(log.reader().last(), last);
}

#[tokio::test]
async fn a_torn_tail_is_a_shorter_log() {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    append(&mut log, vec![sized(1, 0, 10)]).await;
    engine.pause_syncs();
    // The writer takes these one by one, or together: a tear falls between two writes.
    drop(append_ff(&mut log, vec![sized(1, 1, 10)]).await);
    while engine.pending() == 0 {
        tokio::task::yield_now().await;
    }

    let torn = Node::memory(&engine.crash_keeping(1));
    let cut = torn.open();

    assert_eq!(cut.reader().last().map(|last| last.index), Some(1));
    assert_eq!(entries(&cut).await.len(), 2);
}

#[tokio::test]
async fn a_vote_is_durable_when_it_returns() {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    let vote = Vote::new_committed(7, 2);

    log.save_vote(&vote).await.unwrap();

    let survivor = Node::memory(&engine.crash());
    assert_eq!(survivor.open().reader().read_vote().await.unwrap(), Some(vote));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_stored_or_promised() {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    append(&mut log, vec![sized(1, 0, 10)]).await;
    let mut failure = node.logs().writer().failure();
    engine.fail_next_sync();

    let failed = append_ff(&mut log, vec![sized(1, 1, 10)]).await.await.unwrap();
    failure.wait_for(Option::is_some).await.unwrap();
    let after = append_ff(&mut log, vec![sized(1, 2, 10)]).await.await.unwrap();
    let vote = log.save_vote(&Vote::new(9, 1)).await;
    let purge = log.purge(log_id(1, 0)).await;
    let truncate = log.truncate_after(None).await;

    assert!(failed.is_err() && after.is_err());
    assert!(vote.is_err() && purge.is_err() && truncate.is_err());
    assert_eq!(log.reader().read_vote().await.unwrap(), None);
    drop(log);
    assert!(node.stop().is_err());
}

#[tokio::test]
async fn the_commit_is_kept_soon_and_never_passes_the_log() {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    append(&mut log, (0..5).map(|index| sized(1, index, 10)).collect()).await;

    log.save_committed(Some(log_id(1, 3))).await.unwrap();
    while engine.pending() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let kept = Node::memory(&engine.crash_keeping(1)).open().read_committed().await.unwrap();

    assert_eq!(kept, Some(log_id(1, 3)));
    assert_eq!(engine.syncs(), 1);
}

#[tokio::test]
async fn a_commit_beyond_a_lost_end_is_cut_to_the_log() {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    append(&mut log, vec![sized(1, 0, 10)]).await;
    let mut changes = crate::store::Changes::new();
    let key = crate::store::keys::committed::key(super::support::GROUP);
    changes.put(crate::store::Family::Meta, &key, &crate::store::keys::committed::encode(1, 9));
    node.logs().writer().put_synced(changes).await.unwrap();

    let mut reopened = Node::memory(&engine.crash()).open();

    assert_eq!(reopened.read_committed().await.unwrap(), Some(log_id(1, 0)));
}
