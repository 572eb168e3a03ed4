//! A store that forgot what was promised is suspect; one that forgot on purpose is not.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftLogStorage;
use tempfile::TempDir;

use super::support::{GROUP, Node, append, sized};
use crate::pledge::Pledge;
use crate::raft::log::GroupLog;
use crate::raft::types::{LeaderId, Vote, log_id};
use crate::store::keys::{entry, vote};
use crate::store::{Family, MemoryEngine, StoreError};

const LOG: Family = Family::Log(GROUP);

fn vote_of(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: 1 }, committed: false }
}

fn open(engine: &MemoryEngine, folder: &Path) -> (Node, Arc<Pledge>, Result<GroupLog, StoreError>) {
    let path = folder.join("pledge");
    let pledge = Arc::new(Pledge::open(&path, !path.exists()).unwrap());
    let node = Node::memory(engine);
    let log = node.logs().clone().pledged(Arc::clone(&pledge)).open(GROUP);
    (node, pledge, log)
}

/// Ten entries and a vote, promised; what is left after a power cut.
async fn promised() -> (TempDir, MemoryEngine) {
    let (folder, engine) = (tempfile::tempdir().unwrap(), MemoryEngine::new());
    let (_node, pledge, log) = open(&engine, folder.path());
    let mut log = log.unwrap();
    append(&mut log, (0..10).map(|index| sized(1, index, 50)).collect()).await;
    log.save_vote(&vote_of(3)).await.unwrap();
    pledge.write().unwrap();
    (folder, engine.crash())
}

#[tokio::test]
async fn a_store_that_has_everything_is_not_suspect() {
    let (folder, engine) = promised().await;

    for _ in 0..3 {
        open(&engine, folder.path()).2.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_lost_its_end_is_suspect_however_often_it_starts() {
    let (folder, engine) = promised().await;
    engine.lose(LOG, &entry::key(9));

    for _ in 0..3 {
        let error = open(&engine, folder.path()).2.unwrap_err();
        assert!(error.is_suspect(), "{error}");
        assert!(error.to_string().contains("entry 9 was on disk"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_store_is_suspect() {
    let (folder, _engine) = promised().await;

    let error = open(&MemoryEngine::new(), folder.path()).2.unwrap_err();

    assert!(error.is_suspect(), "{error}");
}

#[tokio::test]
async fn a_forgotten_vote_is_suspect() {
    let (folder, engine) = promised().await;
    engine.lose(Family::Meta, &vote::key(GROUP));

    let error = open(&engine, folder.path()).2.unwrap_err();

    assert!(error.is_suspect() && error.to_string().contains("vote of term 3"), "{error}");
}

#[tokio::test]
async fn another_history_of_the_same_length_is_suspect() {
    let (folder, _engine) = promised().await;
    let other = MemoryEngine::new();
    {
        let node = Node::memory(&other);
        let mut log = node.open();
        append(&mut log, (0..11).map(|index| sized(1, index, 51)).collect()).await;
        log.save_vote(&vote_of(3)).await.unwrap();
    }

    let error = open(&other.crash(), folder.path()).2.unwrap_err();

    assert!(error.is_suspect(), "{error}");
}

#[tokio::test]
async fn a_truncation_is_no_loss_wherever_the_power_is_cut() {
    let (folder, engine) = promised().await;
    let (_node, _pledge, log) = open(&engine, folder.path());
    let mut log = log.unwrap();

    log.truncate_after(Some(log_id(1, 5))).await.unwrap();
    let after = engine.crash();

    let (_node, pledge, log) = open(&after, folder.path());
    let mut log = log.unwrap();
    assert_eq!(pledge.claim(GROUP).last.map(|last| last.index), Some(5));
    // Other entries take their place.
    append(&mut log, (6..9).map(|index| sized(2, index, 20)).collect()).await;
    pledge.write().unwrap();
    open(&after.crash(), folder.path()).2.unwrap();
}

#[tokio::test]
async fn what_is_not_synced_is_not_promised() {
    let (folder, engine) = promised().await;
    let (_node, pledge, log) = open(&engine, folder.path());
    let mut log = log.unwrap();
    engine.pause_syncs();
    let _answer = super::support::append_ff(&mut log, vec![sized(1, 10, 50)]).await;

    pledge.write().unwrap();

    assert_eq!(pledge.claim(GROUP).last.map(|last| last.index), Some(9));
    engine.resume_syncs();
}
