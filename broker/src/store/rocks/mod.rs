//! The engine on disk: RocksDB, with one column family per group.
//!
//! Keys of a log only grow, so its files never overlap: they move down the levels without
//! being rewritten, and purging deletes whole files.

mod options;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use rocksdb::{BoundColumnFamily, DBWithThreadMode, MultiThreaded, ReadOptions, WriteBatch};
use rustix::fs::OFlags;

use super::{Change, Changes, Family, LogEngine, StoreError, Visit};
use weft_proto::GroupId;

pub use options::Profile;

type Db = DBWithThreadMode<MultiThreaded>;

const META: &str = "meta";
const LOG_PREFIX: &str = "log:";
/// Cold reads run through a log front to back; larger steps cost memory, smaller ones seeks.
const READAHEAD_BYTES: usize = 2 << 20;

/// Stores everything in one RocksDB.
pub struct RocksEngine {
    db: Db,
    path: String,
    options: options::Tuned,
    scratch: Mutex<Scratch>,
    /// The groups that have a column family; RocksDB does not list them.
    groups: Mutex<BTreeSet<GroupId>>,
}

/// What a write needs and the next one needs again.
#[derive(Default)]
struct Scratch {
    value: Vec<u8>,
    /// The first failed write; there is none after it.
    failed: Option<StoreError>,
}

impl RocksEngine {
    /// Opens the store in a folder, or creates it.
    pub fn open(path: &Path, profile: Profile) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        fs::create_dir_all(path)
            .map_err(|error| StoreError::from_io(&shown, "create the folder", &error))?;
        let options = options::Tuned::new(profile, takes_direct_io(path));
        let families = if path.join("CURRENT").exists() {
            Db::list_cf(&options.db, path)
                .map_err(|error| from_rocks(&shown, "list the logs", error))?
        } else {
            vec![META.to_owned()]
        };
        let groups = families.iter().filter_map(|name| log_group(name)).collect();
        let families = families.into_iter().map(|name| {
            let tuned = options.for_family(name.starts_with(LOG_PREFIX));
            rocksdb::ColumnFamilyDescriptor::new(name, tuned)
        });
        let db = Db::open_cf_descriptors(&options.db, path, families)
            .map_err(|error| from_rocks(&shown, "open the store", error))?;
        let groups = Mutex::new(groups);
        Ok(Self { db, path: shown, options, scratch: Mutex::default(), groups })
    }

    fn family(&self, family: Family) -> Result<Arc<BoundColumnFamily<'_>>, StoreError> {
        match family {
            Family::Meta => self.db.cf_handle(META).ok_or_else(|| StoreError::Damaged {
                path: self.path.clone(),
                detail: "the meta column family is missing".to_owned(),
            }),
            Family::Log(group) => {
                self.db.cf_handle(&log_name(group)).ok_or(StoreError::UnknownGroup { group })
            }
        }
    }

    fn error(&self, action: &'static str, error: rocksdb::Error) -> StoreError {
        from_rocks(&self.path, action, error)
    }

    fn write(&self, changes: &[Changes], sync: bool) -> Result<(), StoreError> {
        let mut scratch = lock(&self.scratch);
        if let Some(cause) = &scratch.failed {
            return Err(StoreError::Stopped { cause: Arc::new(cause.clone()) });
        }
        let batch = self.batch(changes, &mut scratch.value)?;
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(|error| {
            let error = self.error("write", error);
            // Nobody knows what is on disk now, and a second sync would lie about it.
            scratch.failed = Some(error.clone());
            error
        })
    }

    fn batch(&self, changes: &[Changes], value: &mut Vec<u8>) -> Result<WriteBatch, StoreError> {
        let bytes = changes.iter().map(|changes| changes.bytes() + 32 * changes.len()).sum();
        let mut batch = WriteBatch::with_capacity_bytes(bytes);
        // Neighbours mostly belong to one family; looking it up takes a lock and a string.
        let mut last: Option<(Family, Arc<BoundColumnFamily<'_>>)> = None;
        for change in changes.iter().flat_map(Changes::iter) {
            let (Change::Put { family, .. } | Change::Delete { family, .. }) = change;
            let handle = match &last {
                Some((known, handle)) if *known == family => Arc::clone(handle),
                _ => self.family(family)?,
            };
            match change {
                Change::Put { key, head, body, .. } if body.is_empty() => {
                    batch.put_cf(&handle, key, head);
                }
                Change::Put { key, head, body, .. } => {
                    value.clear();
                    value.extend_from_slice(head);
                    value.extend_from_slice(body);
                    batch.put_cf(&handle, key, value.as_slice());
                }
                Change::Delete { key, .. } => batch.delete_cf(&handle, key),
            }
            last = Some((family, handle));
        }
        Ok(batch)
    }
}

/// Some file systems refuse to go without the page cache, and say so when a file is opened.
fn takes_direct_io(folder: &Path) -> bool {
    let path = folder.join("direct-io.probe");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::DIRECT;
    let opened = rustix::fs::open(&path, flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    // If it stays behind it does no harm.
    _ = fs::remove_file(&path);
    opened.is_ok()
}

impl fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksEngine").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LogEngine for RocksEngine {
    fn open_group(&self, group: GroupId) -> Result<(), StoreError> {
        let mut groups = lock(&self.groups);
        if groups.contains(&group) {
            return Ok(());
        }
        self.db
            .create_cf(log_name(group), &self.options.for_family(true))
            .map_err(|error| self.error("create a log", error))?;
        groups.insert(group);
        Ok(())
    }

    fn drop_group(&self, group: GroupId) -> Result<(), StoreError> {
        if !lock(&self.groups).remove(&group) {
            return Ok(());
        }
        self.db.drop_cf(&log_name(group)).map_err(|error| self.error("drop a log", error))
    }

    fn groups(&self) -> Vec<GroupId> {
        lock(&self.groups).iter().copied().collect()
    }

    fn write_synced(&self, changes: &[Changes]) -> Result<(), StoreError> {
        self.write(changes, true)
    }

    fn write_unsynced(&self, changes: &[Changes]) -> Result<(), StoreError> {
        self.write(changes, false)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let handle = self.family(family)?;
        let found =
            self.db.get_pinned_cf(&handle, key).map_err(|error| self.error("read", error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
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
        let handle = self.family(family)?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        options.fill_cache(false);
        options.set_readahead_size(READAHEAD_BYTES);
        let mut found = self.db.raw_iterator_cf_opt(&handle, options);
        found.seek(from);
        while let Some((key, value)) = found.item() {
            if visit(key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            found.next();
        }
        // Damage ends an iterator early without a word; only its status tells.
        found.status().map_err(|error| self.error("read", error))
    }

    fn last_in(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let handle = self.family(family)?;
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        let mut found = self.db.raw_iterator_cf_opt(&handle, options);
        found.seek_for_prev(to);
        let last = found
            .item()
            .map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        found.status().map_err(|error| self.error("read", error))?;
        Ok(last)
    }

    fn drop_files(&self, group: GroupId, index: u64) -> Result<(), StoreError> {
        let handle = self.family(Family::Log(group))?;
        self.db
            .delete_file_in_range_cf(&handle, 0_u64.to_be_bytes(), index.to_be_bytes())
            .map_err(|error| self.error("drop files", error))
    }

    fn is_blocking(&self) -> bool {
        true
    }
}

fn log_name(group: GroupId) -> String {
    format!("{LOG_PREFIX}{group}")
}

fn log_group(name: &str) -> Option<GroupId> {
    name.strip_prefix(LOG_PREFIX)?.parse().ok().map(GroupId)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing in here can be left half changed by a panic.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn from_rocks(path: &str, action: &'static str, error: rocksdb::Error) -> StoreError {
    let is_corruption = error.kind() == rocksdb::ErrorKind::Corruption;
    classify(path.to_owned(), action, is_corruption, error.into_string())
}

/// Names an error by what an operator can do about it. RocksDB only offers its text.
fn classify(path: String, action: &'static str, is_corruption: bool, detail: String) -> StoreError {
    let says = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    if says(&["No space left on device", "Disk quota exceeded"]) {
        StoreError::Full { path, action, detail }
    } else if says(&["Read-only file system", "Permission denied"]) {
        StoreError::ReadOnly { path, action, detail }
    } else if says(&["lock hold by current process", "While lock file"]) {
        StoreError::InUse { path, detail }
    } else if is_corruption {
        StoreError::Damaged { path, detail }
    } else {
        StoreError::Io { path, action, detail }
    }
}

#[cfg(test)]
mod tests;
