//! Scratch folders of processes: one for each instance, in one that belongs to this launcher.
//!
//! The launcher's folder is locked as long as the launcher lives. One that can be locked belonged
//! to a dispatcher that died, and is removed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use tempfile::TempDir;
use tracing::{info, warn};

const PREFIX: &str = "weft-scratch-";
/// A folder has this name until it is locked, so that nobody takes it for one that was left behind.
const NEW_PREFIX: &str = ".weft-scratch-";

/// The folder of a launcher.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    /// Released by the kernel when this process ends.
    _lock: File,
}

impl Scratch {
    /// Makes one in `base`, and removes those that were left behind.
    pub(super) fn new(base: &Path) -> io::Result<Self> {
        remove_dead(base);
        let new = tempfile::Builder::new().prefix(NEW_PREFIX).tempdir_in(base)?;
        let lock = lock(new.path())?;
        let name = new.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let folder = base.join(name.trim_start_matches('.'));
        std::fs::rename(new.path(), &folder)?;
        // There is nothing at its old name any more.
        drop(new.keep());
        Ok(Self { folder, _lock: lock })
    }

    /// A folder for one instance, which goes when it is dropped.
    pub(super) fn folder(&self) -> io::Result<TempDir> {
        tempfile::tempdir_in(&self.folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn lock(folder: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let file = File::from(open(folder, flags, Mode::empty())?);
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn remove_dead(base: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let is_scratch = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !is_scratch {
            continue;
        }
        // Others may write to the base: only what is ours, and is no link, counts.
        let Ok(lock) = lock(&entry.path()) else { continue };
        if lock.metadata().is_ok_and(|meta| meta.uid() == own) {
            let folder = entry.path();
            match std::fs::remove_dir_all(&folder) {
                Ok(()) => info!(folder = %folder.display(), "removed what a dead dispatcher left"),
                Err(error) => warn!(folder = %folder.display(), %error, "cannot remove a folder"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_dead_go_and_those_of_the_living_stay() {
        let base = tempfile::tempdir().unwrap();
        let living = Scratch::new(base.path()).unwrap();
        let instance = living.folder().unwrap();
        let dead = base.path().join("weft-scratch-dead");
        std::fs::create_dir_all(dead.join("instance")).unwrap();
        let linked = base.path().join("weft-scratch-link");
        std::os::unix::fs::symlink(instance.path(), &linked).unwrap();

        let other = Scratch::new(base.path()).unwrap();

        assert!(!dead.exists() && linked.exists());
        assert!(instance.path().exists() && other.folder().is_ok());
        let gone = (instance.path().to_owned(), living.folder.clone());
        drop((instance, living));
        assert!(!gone.0.exists() && !gone.1.exists());
    }
}
