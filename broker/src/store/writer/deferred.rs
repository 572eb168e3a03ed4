//! Values that change with every entry and go to disk a few times a second.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::store::{Changes, Family, StoreError};

/// When so much waits it is written at once. What waits is bounded beyond that: nothing is applied
/// before its entry was queued for this writer, but for what is applied again after a start, which is
/// no more than the log above the newest checkpoint.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// What a value costs beside its bytes.
const VALUE_COST: usize = 64;

/// A value that is not in the engine yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queued {
    /// It is set.
    Put(Vec<u8>),
    /// It is removed.
    Remove,
}

/// The newest value of each key that waits to be written or is being written. A few for each group,
/// and one for each subject that is appended in a tenth of a second.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    values: Mutex<Values>,
    changed: Notify,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Values {
    waiting: BTreeMap<Vec<u8>, Queued>,
    waiting_bytes: usize,
    /// Taken by the writer, and not readable in the engine before it says so.
    writing: BTreeMap<Vec<u8>, Queued>,
}

impl Values {
    fn get(&self, key: &[u8]) -> Option<&Queued> {
        self.waiting.get(key).or_else(|| self.writing.get(key))
    }

    /// Returns whether the key is the first that waits.
    fn insert(&mut self, key: &[u8], value: Queued) -> bool {
        let was_empty = self.waiting.is_empty();
        if let Some(known) = self.waiting.get_mut(key) {
            *known = value;
        } else {
            let len = if let Queued::Put(value) = &value { value.len() } else { 0 };
            self.waiting_bytes += key.len() + len + VALUE_COST;
            self.waiting.insert(key.to_vec(), value);
        }
        was_empty
    }
}

impl Deferred {
    pub(super) fn put(&self, key: &[u8], value: Vec<u8>) {
        let mut values = self.lock();
        let was_empty = values.insert(key, Queued::Put(value));
        self.notify(values, was_empty);
    }

    /// Removes a value if nothing newer waits and, asked under the lock, `is_stale` says so of what
    /// the engine has: nobody can put a value in between.
    pub(super) fn remove_if(
        &self,
        key: &[u8],
        is_stale: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut values = self.lock();
        if values.get(key).is_some() || !is_stale()? {
            return Ok(false);
        }
        let was_empty = values.insert(key, Queued::Remove);
        self.notify(values, was_empty);
        Ok(true)
    }

    fn notify(&self, values: MutexGuard<'_, Values>, was_empty: bool) {
        let is_full = values.waiting_bytes >= WAITING_BYTES_MAX;
        drop(values);
        if was_empty {
            self.changed.notify_one();
        }
        if is_full {
            self.filled.notify_one();
        }
    }

    /// What was put last, until the engine has it.
    pub(super) fn get(&self, key: &[u8]) -> Option<Queued> {
        self.lock().get(key).cloned()
    }

    /// Waits until there is something, after there was nothing.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until more waits than should.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Whether more waits than should.
    pub(super) fn is_full(&self) -> bool {
        self.lock().waiting_bytes >= WAITING_BYTES_MAX
    }

    /// Takes what waits, to write it; [`Deferred::written`] ends that.
    pub(super) fn take(&self) -> Changes {
        let mut values = self.lock();
        values.writing = std::mem::take(&mut values.waiting);
        values.waiting_bytes = 0;
        let mut changes = Changes::new();
        for (key, value) in &values.writing {
            match value {
                Queued::Put(value) => changes.put(Family::Meta, key, value),
                Queued::Remove => changes.delete(Family::Meta, key),
            }
        }
        changes
    }

    /// The engine has what was taken.
    pub(super) fn written(&self) {
        // Freed without the lock.
        drop(std::mem::take(&mut self.lock().writing));
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
