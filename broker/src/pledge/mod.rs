//! The pledge: what this node has promised, kept apart from the store that must remember it.
//!
//! A store that was damaged, cut off or replaced by an older copy often opens without a word. The
//! file `pledge` says what it must still have: the newest vote of each group and an entry that was
//! on disk. A node whose store has less may have forgotten what others count on: it is *suspect*
//! and takes no part. *Never* says more than the store has: it is written after the store, and
//! before the store forgets something on purpose.

mod slot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;
use weft_proto::{GroupId, NodeId};

use slot::SLOT_BYTES;
pub use slot::{Boot, Claim, ClaimedEntry, ClaimedVote, Content};

/// Between two looks at what is on disk by now.
const PERIOD: Duration = Duration::from_secs(1);

/// Why a pledge cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is none, though this node has taken part in a cluster.
    #[error("{0} is missing, so nobody knows what this node has promised")]
    Missing(PathBuf),
    /// Neither slot is whole.
    #[error("{0} is damaged, so nobody knows what this node has promised")]
    Damaged(PathBuf),
}

/// Something that can say what it has on disk.
pub trait Claims: Send + Sync {
    /// The group it speaks for.
    fn group(&self) -> GroupId;

    /// What it has on disk for certain, and will have after a crash at any moment from now on.
    fn claim(&self) -> Claim;
}

/// The pledge of one data folder.
pub struct Pledge {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    /// Of the last write.
    number: u64,
    content: Content,
    logs: BTreeMap<GroupId, Weak<dyn Claims>>,
}

impl std::fmt::Debug for Pledge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pledge").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Pledge {
    /// Opens the pledge and begins a new run. A node that `is_new` has promised nothing yet: it may
    /// have none, and gets an empty one.
    pub fn open(path: &Path, is_new: bool) -> Result<Self, Error> {
        let error = |action| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        let exists = path.try_exists().map_err(error("look for"))?;
        if !exists && !is_new {
            return Err(Error::Missing(path.to_owned()));
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(error("open"))?;
        let found = read(&file).map_err(error("read"))?;
        let (number, mut content) = match found {
            Some(found) => found,
            None if is_new => {
                create(&file, path).map_err(error("create"))?;
                (0, Content::default())
            }
            None => return Err(Error::Damaged(path.to_owned())),
        };
        content.boot =
            Boot { number: content.boot.number.saturating_add(1), nonce: rand::random() };
        let inner = Inner { file, number, content, logs: BTreeMap::new() };
        let pledge = Self { path: path.to_owned(), inner: Mutex::new(inner) };
        // On disk before anybody hears of this run.
        pledge.lock().store().map_err(error("write"))?;
        Ok(pledge)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panic leaves half changed is put right by the next write.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present run.
    pub fn boot(&self) -> Boot {
        self.lock().content.boot
    }

    /// What was promised in a group when the pledge was last written.
    pub fn claim(&self, group: GroupId) -> Claim {
        self.lock().content.claims.get(&group).copied().unwrap_or_default()
    }

    /// Speaks for a log from now on.
    pub fn watch(&self, log: &Arc<impl Claims + 'static>) {
        let weak = Arc::downgrade(log);
        self.lock().logs.insert(log.group(), weak);
    }

    /// Writes what all logs have on disk now; returns when that is on disk too. Blocks.
    pub fn write(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.collect() { inner.store() } else { Ok(()) }
    }

    /// Takes note of another node's run. False if that node is a copy of a folder that went on
    /// elsewhere: a greater run of it is known, or another one of the same number. Blocks.
    pub fn note(&self, node: NodeId, boot: Boot) -> io::Result<bool> {
        let mut inner = self.lock();
        match inner.content.seen.get(&node) {
            Some(seen) if *seen == boot => return Ok(true),
            Some(seen) if seen.number >= boot.number => return Ok(false),
            _ => {}
        }
        inner.content.seen.insert(node, boot);
        inner.collect();
        inner.store()?;
        Ok(true)
    }

    /// Writes once a second until the node stops.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), io::Error> {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let pledge = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || pledge.write()).await {
                // Less is promised than could be; nothing wrong is.
                Ok(Err(error)) if error.kind() == io::ErrorKind::StorageFull => {
                    warn!(%error, "the pledge is not written: the disk is full");
                }
                Ok(written) => written?,
                // The runtime is stopping.
                Err(_ended) => return Ok(()),
            }
        }
    }
}

impl Inner {
    /// Asks all logs; true if anything changed.
    fn collect(&mut self) -> bool {
        let mut changed = false;
        for (group, log) in &self.logs {
            let Some(log) = log.upgrade() else { continue };
            let claim = log.claim();
            changed |= self.content.claims.insert(*group, claim) != Some(claim);
        }
        changed
    }

    fn store(&mut self) -> io::Result<()> {
        let number = self.number + 1;
        let slot = self.content.encode(number).ok_or_else(|| {
            io::Error::other("there are more groups than the pledge has room for")
        })?;
        // The other slot stays whole, whatever happens to this one.
        let at = (number % 2) * SLOT_BYTES as u64;
        self.file.write_all_at(&slot, at)?;
        self.file.sync_data()?;
        self.number = number;
        Ok(())
    }
}

/// The newest whole slot.
fn read(file: &File) -> io::Result<Option<(u64, Content)>> {
    let mut newest = None;
    for at in [0, SLOT_BYTES as u64] {
        let mut slot = vec![0; SLOT_BYTES];
        let mut len = 0;
        loop {
            match file.read_at(&mut slot[len..], at + len as u64)? {
                0 => break,
                more => len += more,
            }
        }
        let found = Content::decode(&slot[..len]);
        newest = newest.max_by_number(found);
    }
    Ok(newest)
}

/// The bytes of a slot, read and written again; none if it is not whole. For `tests/fuzz`.
#[cfg(feature = "fuzzing")]
pub fn reread(slot: &[u8]) -> Option<Vec<u8>> {
    let (number, content) = Content::decode(slot)?;
    content.encode(number)
}

trait ByNumber {
    fn max_by_number(self, other: Self) -> Self;
}

impl ByNumber for Option<(u64, Content)> {
    fn max_by_number(self, other: Self) -> Self {
        match (self, other) {
            (Some(one), Some(two)) => Some(if two.0 > one.0 { two } else { one }),
            (one, two) => one.or(two),
        }
    }
}

/// Takes the room at once: later writes need none, even on a full disk.
fn create(file: &File, path: &Path) -> io::Result<()> {
    file.write_all_at(&vec![0; 2 * SLOT_BYTES], 0)?;
    file.sync_all()?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
