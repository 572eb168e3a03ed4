//! Damage is found: when opening, and on every read from disk.

use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::support::{GROUP, Node, append, sized};
use crate::raft::types::log_id;
use crate::store::keys::{checkpoint, entry};
use crate::store::{Changes, Family, LogEngine, MemoryEngine, StoreError};

const LOG: Family = Family::Log(GROUP);

/// A store with ten entries, closed.
async fn ten() -> MemoryEngine {
    let engine = MemoryEngine::new();
    let node = Node::memory(&engine);
    let mut log = node.open();
    append(&mut log, (0..10).map(|index| sized(1 + index / 5, index, 50)).collect()).await;
    engine.crash()
}

fn open_error(engine: &MemoryEngine) -> StoreError {
    Node::memory(engine).logs().open(GROUP).unwrap_err()
}

#[tokio::test]
async fn any_flipped_bit_makes_the_log_suspect() {
    for (index, bit) in [(0, 0), (4, 8 * 60), (5, 8 * 20 + 3), (9, 8 * 45), (9, 8 * 70)] {
        let engine = ten().await;
        assert!(engine.flip_bit(LOG, &entry::key(index), bit));

        let error = open_error(&engine);

        assert!(error.is_suspect(), "{error}");
        assert!(matches!(error, StoreError::Suspect { index: at, .. } if at == index), "{error}");
    }
}

#[tokio::test]
async fn a_hole_makes_the_log_suspect() {
    for index in [0, 4, 8] {
        let engine = ten().await;
        engine.lose(LOG, &entry::key(index));

        assert!(open_error(&engine).is_suspect());
    }
}

#[tokio::test]
async fn an_entry_of_another_history_makes_the_log_suspect() {
    let engine = ten().await;
    let foreign = MemoryEngine::new();
    let node = Node::memory(&foreign);
    let mut log = node.open();
    append(&mut log, (0..10).map(|index| sized(1, index, 51)).collect()).await;
    let value = foreign.get(LOG, &entry::key(5)).unwrap().unwrap();
    let mut changes = Changes::new();
    changes.put(LOG, &entry::key(5), &value);
    engine.write_synced(&[changes]).unwrap();

    assert!(open_error(&engine).is_suspect());
}

#[tokio::test]
async fn verification_begins_at_the_newest_checkpoint() {
    let engine = ten().await;
    let point = Node::memory(&engine).open().reader().point(6).unwrap().unwrap();
    let mut changes = Changes::new();
    let value = checkpoint::encode(&point, b"state");
    changes.put(Family::Meta, &checkpoint::key(GROUP, 6), &value);
    // One beyond the end does not count: a snapshot that was not installed to the end.
    let ahead = crate::raft::point::LogPoint { index: 99, ..point };
    let value = checkpoint::encode(&ahead, b"state");
    changes.put(Family::Meta, &checkpoint::key(GROUP, 99), &value);
    engine.write_synced(&[changes]).unwrap();

    engine.flip_bit(LOG, &entry::key(2), 500);
    let before = Node::memory(&engine).logs().open(GROUP).map(drop);
    engine.flip_bit(LOG, &entry::key(6), 500);
    let at = open_error(&engine);

    assert!(before.is_ok(), "{before:?}");
    assert!(at.is_suspect());
}

#[tokio::test]
async fn a_checkpoint_of_another_history_makes_the_log_suspect() {
    let engine = ten().await;
    let point = Node::memory(&engine).open().reader().point(6).unwrap().unwrap();
    let other = crate::raft::point::LogPoint { chain: !point.chain, ..point };
    let mut changes = Changes::new();
    changes.put(Family::Meta, &checkpoint::key(GROUP, 6), &checkpoint::encode(&other, b""));
    engine.write_synced(&[changes]).unwrap();

    assert!(open_error(&engine).is_suspect());
}

#[tokio::test]
async fn a_cold_read_of_a_damaged_entry_is_data_loss() {
    let engine = MemoryEngine::new();
    // No room in memory: every written entry leaves at once.
    let node = Node::start(Arc::new(engine.clone()), 0);
    let mut log = node.open();
    append(&mut log, (0..10).map(|index| sized(1, index, 50)).collect()).await;
    log.save_committed(Some(log_id(1, 9))).await.unwrap();
    engine.flip_bit(LOG, &entry::key(5), 500);

    let raft = log.reader().try_get_log_entries(3..8).await;
    let mut seen = Vec::new();
    let scan = log.reader().scan(0, 9, usize::MAX, &mut |entry| {
        seen.push(entry.index);
        std::ops::ControlFlow::Continue(())
    });

    assert!(raft.is_err());
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    assert!(matches!(scan, Err(StoreError::DataLoss { index: 5, .. })), "{scan:?}");
}

#[tokio::test]
async fn a_cold_read_over_a_hole_is_data_loss() {
    let engine = MemoryEngine::new();
    let node = Node::start(Arc::new(engine.clone()), 0);
    let mut log = node.open();
    append(&mut log, (0..10).map(|index| sized(1, index, 50)).collect()).await;
    for lost in [9, 5] {
        engine.lose(LOG, &entry::key(lost));

        assert!(log.reader().try_get_log_entries(3..).await.is_err());
        assert!(log.reader().limited_get_log_entries(lost, lost + 1).await.is_err());
    }
}
