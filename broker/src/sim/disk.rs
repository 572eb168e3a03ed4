//! A disk that takes its time, fails on request, and loses what was not synced.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::Instant;
use weft_proto::GroupId;

use super::plant::Plant;
use super::random::Random;
use crate::store::keys::vote;
use crate::store::{Change, Changes, Family, LogEngine, MemoryEngine, StoreError, Visit};

/// Some syncs take this long instead.
const SLOW_MILLIS: Range<u64> = 20..120;
/// How long a lying disk keeps writes in its cache.
const CACHE: Duration = Duration::from_millis(40);

/// The disk of one node, as long as its process runs. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    memory: MemoryEngine,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    random: Random,
    sync_millis: Range<u64>,
    stalled_until: Instant,
    fails_next: bool,
    failures: u64,
    plant: Option<Plant>,
    /// When the cache of a lying disk is written back.
    written_back: Instant,
    /// Votes that the next sync must not reach, with what was there before.
    votes: Vec<(Vec<u8>, Option<Bytes>)>,
}

impl Disk {
    pub(crate) fn new(random: Random, sync_millis: Range<u64>, plant: Option<Plant>) -> Self {
        let shared = Shared {
            random,
            sync_millis,
            stalled_until: Instant::now(),
            fails_next: false,
            failures: 0,
            plant,
            written_back: Instant::now(),
            votes: Vec::new(),
        };
        Self { memory: MemoryEngine::new(), shared: Arc::new(Mutex::new(shared)) }
    }

    /// Returns the disk as a power cut leaves it: of what was not synced, a random beginning.
    pub(crate) fn cut(&self) -> Self {
        let pending = self.memory.pending();
        let shared = {
            let mut old = self.shared();
            let kept = old.random.index(pending + 1);
            let fresh = Shared {
                random: old.random.fork(),
                sync_millis: old.sync_millis.clone(),
                stalled_until: Instant::now(),
                fails_next: false,
                failures: old.failures,
                plant: old.plant,
                written_back: Instant::now(),
                votes: Vec::new(),
            };
            (fresh, kept)
        };
        let (shared, kept) = shared;
        Self { memory: self.memory.crash_keeping(kept), shared: Arc::new(Mutex::new(shared)) }
    }

    /// Makes the next sync fail.
    pub(crate) fn fail_next_sync(&self) {
        self.shared().fails_next = true;
    }

    /// How many syncs failed.
    pub(crate) fn failures(&self) -> u64 {
        self.shared().failures
    }

    /// Makes all syncs wait for a while.
    pub(crate) fn stall(&self, duration: Duration) {
        self.shared().stalled_until = Instant::now() + duration;
    }

    /// From now on the disk is quick and good.
    pub(crate) fn heal(&self) {
        let mut shared = self.shared();
        shared.stalled_until = Instant::now();
        shared.fails_next = false;
    }

    /// Returns what a crash would leave of a key.
    pub(crate) fn synced(&self, family: Family, key: &[u8]) -> Option<Bytes> {
        self.memory.synced(family, key)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync_time(&self) -> Duration {
        let mut shared = self.shared();
        let range =
            if shared.random.once_in(40) { SLOW_MILLIS } else { shared.sync_millis.clone() };
        let own = shared.random.millis(range);
        own.max(shared.stalled_until.saturating_duration_since(Instant::now()))
    }

    fn finish(&self) -> Result<(), StoreError> {
        let mut shared = self.shared();
        let votes = std::mem::take(&mut shared.votes);
        if std::mem::take(&mut shared.fails_next) {
            shared.failures += 1;
            if shared.plant == Some(Plant::SyncErrorIgnored) {
                self.memory.forget_pending();
                return Ok(());
            }
            self.memory.fail_next_sync();
        }
        self.memory.sync()?;
        for (key, before) in votes {
            self.memory.damage(Family::Meta, &key, before);
        }
        Ok(())
    }

    fn notice_votes(&self, changes: &[Changes]) {
        for change in changes.iter().flat_map(Changes::iter) {
            if let Change::Put { family: Family::Meta, key, .. } = change
                && vote::decode_key(key).is_ok()
            {
                let before = self.memory.synced(Family::Meta, key);
                self.shared().votes.push((key.to_vec(), before));
            }
        }
    }
}

impl LogEngine for Disk {
    fn open_group(&self, group: GroupId) -> Result<(), StoreError> {
        self.memory.open_group(group)
    }

    fn drop_group(&self, group: GroupId) -> Result<(), StoreError> {
        self.memory.drop_group(group)
    }

    fn groups(&self) -> Vec<GroupId> {
        self.memory.groups()
    }

    fn write_synced(&self, changes: &[Changes]) -> Result<(), StoreError> {
        let plant = self.shared().plant;
        if plant == Some(Plant::VoteNotSynced) {
            self.notice_votes(changes);
        }
        if plant == Some(Plant::AckBeforeSync) {
            let now = Instant::now();
            let due = {
                let mut shared = self.shared();
                let due = now.duration_since(shared.written_back) >= CACHE;
                if due {
                    shared.written_back = now;
                }
                due
            };
            if due {
                self.memory.sync()?;
            }
        }
        self.memory.write_unsynced(changes)
    }

    fn syncing(&self) -> Option<BoxFuture<'static, Result<(), StoreError>>> {
        if self.shared().plant == Some(Plant::AckBeforeSync) {
            return None;
        }
        let (disk, time) = (self.clone(), self.sync_time());
        Some(Box::pin(async move {
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            disk.finish()
        }))
    }

    fn write_unsynced(&self, changes: &[Changes]) -> Result<(), StoreError> {
        self.memory.write_unsynced(changes)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.memory.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.memory.scan(family, from, to, visit)
    }

    fn last_in(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.memory.last_in(family, from, to)
    }

    fn drop_files(&self, group: GroupId, index: u64) -> Result<(), StoreError> {
        self.memory.drop_files(group, index)
    }

    fn is_blocking(&self) -> bool {
        false
    }
}
