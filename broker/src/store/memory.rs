//! The engine in memory, with faults on request: for tests and simulation.
//!
//! It is unkind where a disk may be: unsynced writes are lost in a crash, a failed sync is
//! final, and dropping files leaves some entries behind.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Change, Changes, Family, LogEngine, StoreError, Visit};
use weft_proto::GroupId;

/// Entries per "file": dropping files frees only whole ones.
const FILE_ENTRIES: u64 = 16;

type Data = BTreeMap<Family, BTreeMap<Vec<u8>, Bytes>>;
/// One atomic write: `None` deletes.
type Batch = Vec<(Family, Vec<u8>, Option<Bytes>)>;

/// Stores everything in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    resumed: Condvar,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent faults, each armed on its own")]
struct State {
    /// What readers see.
    current: Data,
    /// What a crash leaves.
    synced: Data,
    /// Written, in order, but not synced.
    pending: Vec<Batch>,
    failed: Option<StoreError>,
    fail_write: bool,
    fail_sync: bool,
    paused: bool,
    syncs: u64,
}

impl MemoryEngine {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the store as it is after a crash: everything unsynced is gone.
    #[must_use]
    pub fn crash(&self) -> Self {
        self.crash_keeping(0)
    }

    /// Returns the store after a crash that let the first `kept` unsynced writes reach the disk.
    #[must_use]
    pub fn crash_keeping(&self, kept: usize) -> Self {
        let mut state = self.lock();
        let mut left = state.synced.clone();
        for batch in state.pending.iter().take(kept) {
            apply(&mut left, batch);
        }
        // Whoever still holds the old one must not write to it any more.
        state.failed = Some(StoreError::Closed);
        let survivor = State { current: left.clone(), synced: left, ..State::default() };
        Self { shared: Arc::new(Shared { state: Mutex::new(survivor), resumed: Condvar::new() }) }
    }

    /// Returns how many writes are not synced.
    pub fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Returns how many syncs succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Makes the next write fail before anything reaches the disk.
    pub fn fail_next_write(&self) {
        self.lock().fail_write = true;
    }

    /// Makes the next sync fail; what it should have synced may or may not be on disk.
    pub fn fail_next_sync(&self) {
        self.lock().fail_sync = true;
    }

    /// Makes writers wait before they sync, until `resume_syncs`.
    pub fn pause_syncs(&self) {
        self.lock().paused = true;
    }

    /// Lets waiting syncs go on.
    pub fn resume_syncs(&self) {
        self.lock().paused = false;
        self.shared.resumed.notify_all();
    }

    /// Flips one bit of a stored value, on disk too. Returns whether the value has that bit.
    pub fn flip_bit(&self, family: Family, key: &[u8], bit: usize) -> bool {
        let mut state = self.lock();
        let State { current, synced, .. } = &mut *state;
        let mut flipped = false;
        for data in [current, synced] {
            if let Some(value) = data.get_mut(&family).and_then(|keys| keys.get_mut(key)) {
                let mut bytes = value.to_vec();
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                    flipped = true;
                }
                *value = bytes.into();
            }
        }
        flipped
    }

    /// Removes a key behind everybody's back, as damage would.
    pub fn lose(&self, family: Family, key: &[u8]) {
        let mut state = self.lock();
        let State { current, synced, .. } = &mut *state;
        for data in [current, synced] {
            if let Some(keys) = data.get_mut(&family) {
                keys.remove(key);
            }
        }
    }

    /// Syncs all that was written.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.finish(self.lock())
    }

    /// Takes all that was written for synced without syncing it, as a kernel does that dropped the
    /// pages of a failed sync: readers see it until the next crash.
    pub fn forget_pending(&self) {
        self.lock().pending.clear();
    }

    /// Returns the value of a key as a crash would leave it.
    pub fn synced(&self, family: Family, key: &[u8]) -> Option<Bytes> {
        self.lock().synced.get(&family).and_then(|keys| keys.get(key)).cloned()
    }

    /// Puts a value on disk behind everybody's back, or takes it away, as damage would.
    pub fn damage(&self, family: Family, key: &[u8], value: Option<Bytes>) {
        apply(&mut self.lock().synced, &vec![(family, key.to_vec(), value)]);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, changes: &[Changes], sync: bool) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.refuse_if_failed()?;
        if std::mem::take(&mut state.fail_write) {
            return Err(state.fail("write"));
        }
        let mut batch = Batch::new();
        for change in changes.iter().flat_map(Changes::iter) {
            batch.push(own(change));
        }
        for (family, ..) in &batch {
            if let Family::Log(group) = family
                && !state.current.contains_key(family)
            {
                return Err(StoreError::UnknownGroup { group: *group });
            }
        }
        apply(&mut state.current, &batch);
        state.pending.push(batch);
        if sync { self.finish(state) } else { Ok(()) }
    }

    fn finish(&self, mut state: MutexGuard<'_, State>) -> Result<(), StoreError> {
        while state.paused {
            state = self.shared.resumed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.refuse_if_failed()?;
        if std::mem::take(&mut state.fail_sync) {
            return Err(state.fail("sync"));
        }
        let State { synced, pending, syncs, .. } = &mut *state;
        for batch in pending.drain(..) {
            apply(synced, &batch);
        }
        *syncs += 1;
        Ok(())
    }
}

impl State {
    fn refuse_if_failed(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(cause) => Err(StoreError::Stopped { cause: Arc::new(cause.clone()) }),
            None => Ok(()),
        }
    }

    fn fail(&mut self, action: &'static str) -> StoreError {
        let detail = "injected fault".to_owned();
        let error = StoreError::Io { path: "memory".to_owned(), action, detail };
        self.failed = Some(error.clone());
        error
    }
}

fn own(change: Change<'_>) -> (Family, Vec<u8>, Option<Bytes>) {
    match change {
        Change::Put { family, key, head, body } => {
            (family, key.to_vec(), Some([head, body].concat().into()))
        }
        Change::Delete { family, key } => (family, key.to_vec(), None),
    }
}

fn apply(data: &mut Data, batch: &Batch) {
    for (family, key, value) in batch {
        let keys = data.entry(*family).or_default();
        match value {
            Some(value) => {
                keys.insert(key.clone(), value.clone());
            }
            None => {
                keys.remove(key);
            }
        }
    }
}

impl LogEngine for MemoryEngine {
    fn open_group(&self, group: GroupId) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.refuse_if_failed()?;
        // Like a column family, a new log is durable at once.
        state.current.entry(Family::Log(group)).or_default();
        state.synced.entry(Family::Log(group)).or_default();
        Ok(())
    }

    fn drop_group(&self, group: GroupId) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.refuse_if_failed()?;
        state.current.remove(&Family::Log(group));
        state.synced.remove(&Family::Log(group));
        for batch in &mut state.pending {
            batch.retain(|(family, ..)| *family != Family::Log(group));
        }
        Ok(())
    }

    fn groups(&self) -> Vec<GroupId> {
        let is_log = |family: &Family| match family {
            Family::Log(group) => Some(*group),
            Family::Meta => None,
        };
        self.lock().current.keys().filter_map(is_log).collect()
    }

    fn write_synced(&self, changes: &[Changes]) -> Result<(), StoreError> {
        self.write(changes, true)
    }

    fn write_unsynced(&self, changes: &[Changes]) -> Result<(), StoreError> {
        self.write(changes, false)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().current.get(&family).and_then(|keys| keys.get(key)).cloned())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        // A copy, so that a visitor may use the store, and sees one moment of it.
        let found: Vec<_> = self
            .lock()
            .current
            .get(&family)
            .into_iter()
            .flat_map(|keys| keys.range(from.to_vec()..to.to_vec()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in found {
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn last_in(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if from > to {
            return Ok(None);
        }
        let state = self.lock();
        let last = state
            .current
            .get(&family)
            .and_then(|keys| keys.range(from.to_vec()..=to.to_vec()).next_back());
        Ok(last.map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())))
    }

    fn drop_files(&self, group: GroupId, index: u64) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.refuse_if_failed()?;
        let end = (index.saturating_add(1) / FILE_ENTRIES * FILE_ENTRIES).to_be_bytes();
        let State { current, synced, .. } = &mut *state;
        for data in [current, synced] {
            if let Some(keys) = data.get_mut(&Family::Log(group)) {
                *keys = keys.split_off(end.as_slice());
            }
        }
        Ok(())
    }

    fn is_blocking(&self) -> bool {
        false
    }
}
