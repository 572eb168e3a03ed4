//! Values that change with every entry and go to disk a few times a second.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::store::{Changes, Family};

/// The newest value of each key that waits to be written. At most one per group and kind.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    values: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    changed: Notify,
}

impl Deferred {
    pub(super) fn put(&self, key: &[u8], value: Vec<u8>) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = values.is_empty();
        if let Some(known) = values.get_mut(key) {
            *known = value;
        } else {
            values.insert(key.to_vec(), value);
        }
        drop(values);
        if was_empty {
            self.changed.notify_one();
        }
    }

    /// Waits until there is something, after there was nothing.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn take(&self) -> Changes {
        let values =
            std::mem::take(&mut *self.values.lock().unwrap_or_else(PoisonError::into_inner));
        let mut changes = Changes::new();
        for (key, value) in values {
            changes.put(Family::Meta, &key, &value);
        }
        changes
    }
}
