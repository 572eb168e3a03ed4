//! Random histories against a plain vector, on both engines.

use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage};
use proptest::prelude::*;

use super::support::{Node, append, append_ff, entries, sized};
use crate::raft::log::GroupLog;
use crate::raft::types::{Entry, log_id};
use crate::store::{LogEngine, MemoryEngine, Profile, RocksEngine};

/// A step of a history.
#[derive(Debug, Clone)]
enum Step {
    Append { count: u64, bytes: usize, wait: bool, new_term: bool },
    Truncate { back: u64 },
    Purge { ahead: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..6_u64, 0..3000_usize, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(count, bytes, wait, new_term)| Step::Append { count, bytes, wait, new_term }
        ),
        2 => (0..8_u64).prop_map(|back| Step::Truncate { back }),
        1 => (0..5_u64).prop_map(|ahead| Step::Purge { ahead }),
        1 => Just(Step::Reopen),
    ]
}

/// What the log should be.
#[derive(Debug, Default)]
struct Model {
    purged: Option<(u64, u64)>,
    entries: Vec<Entry>,
    term: u64,
}

impl Model {
    fn last(&self) -> Option<(u64, u64)> {
        let id = self.entries.last().map(|entry| entry.log_id);
        id.map(|id| (id.leader_id.term, id.index)).or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |(_, index)| index + 1)
    }

    fn key_log_ids(&self) -> Vec<(u64, u64)> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        for entry in &self.entries {
            let (term, index) = (entry.log_id.leader_id.term, entry.log_id.index);
            match found.last_mut() {
                Some(last) if last.0 == term => last.1 = index,
                _ => found.push((term, index)),
            }
        }
        found
    }
}

async fn check(log: &mut GroupLog, model: &Model) {
    let id = |(term, index)| log_id(term, index);
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, model.last().map(id));
    assert_eq!(state.last_purged_log_id, model.purged.map(id));
    assert_eq!(entries(log).await, model.entries);
    if let (Some(first), Some(last)) = (model.entries.first(), model.entries.last()) {
        let keys = log.reader().get_key_log_ids(first.log_id..=last.log_id).await.unwrap();
        assert_eq!(keys, model.key_log_ids().into_iter().map(id).collect::<Vec<_>>());
    }
}

async fn run(steps: Vec<Step>, tail_bytes: usize, mut reopen: impl FnMut() -> Arc<dyn LogEngine>) {
    let mut model = Model { term: 1, ..Model::default() };
    let mut node = Node::start(reopen(), tail_bytes);
    let mut log = node.open();
    for step in steps {
        match step {
            Step::Append { count, bytes, wait, new_term } => {
                model.term += u64::from(new_term);
                let next = model.next();
                let new: Vec<_> =
                    (next..next + count).map(|index| sized(model.term, index, bytes)).collect();
                model.entries.extend(new.iter().cloned());
                if wait {
                    append(&mut log, new).await;
                } else {
                    drop(append_ff(&mut log, new).await);
                }
            }
            Step::Truncate { back } => {
                let kept = model.entries.len().saturating_sub(usize::try_from(back).unwrap());
                model.entries.truncate(kept);
                // A conflict is found by a newer leader.
                model.term += 1;
                let last = model.last().map(|(term, index)| log_id(term, index));
                log.truncate_after(last).await.unwrap();
            }
            Step::Purge { ahead } => {
                let count = usize::try_from(ahead).unwrap().min(model.entries.len());
                if let Some(last) = model.entries.drain(..count).next_back() {
                    model.purged = Some((last.log_id.leader_id.term, last.log_id.index));
                    log.purge(last.log_id).await.unwrap();
                }
            }
            Step::Reopen => {
                drop(log);
                node.stop().unwrap();
                node = Node::start(reopen(), tail_bytes);
                log = node.open();
            }
        }
        check(&mut log, &model).await;
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn memory_histories(
        steps in prop::collection::vec(step(), 1..40),
        tail_bytes in prop::sample::select(vec![0, 5000, 1 << 20]),
    ) {
        let engine = MemoryEngine::new();
        block_on(run(steps, tail_bytes, || Arc::new(engine.clone())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn rocksdb_histories(
        steps in prop::collection::vec(step(), 1..30),
        tail_bytes in prop::sample::select(vec![0, 5000, 1 << 20]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let reopen = || {
            let engine = RocksEngine::open(dir.path(), Profile::Small).unwrap();
            Arc::new(engine) as Arc<dyn LogEngine>
        };
        block_on(run(steps, tail_bytes, reopen));
    }
}
