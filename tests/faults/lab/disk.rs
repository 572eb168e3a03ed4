//! Where a node keeps its data: a folder, a small disk, or a disk whose power can be cut.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde::{Deserialize, Serialize};

use super::kernel;
use super::tools::run;

/// Enough for a small store with its reserve, and soon full.
const SMALL_MIB: u64 = 400;
const IMAGE_BYTES: u64 = 2 << 30;
/// What filling up leaves.
const LEFT_BYTES: u64 = 24 << 20;
const FILLER: &str = "filler";

/// Which kind of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A folder of the machine.
    Plain,
    /// A small file system in memory.
    Small,
    /// An ext4 file system in a file, which can lose all that was not synced.
    Image,
}

/// The disk of one node, mounted as long as this lives.
#[derive(Debug)]
pub(crate) struct Disk {
    kind: Kind,
    mount: PathBuf,
    image: PathBuf,
    mounted: bool,
}

impl Disk {
    pub(crate) fn new(kind: Kind, folder: &Path) -> anyhow::Result<Self> {
        let (mount, image) = (folder.join("disk"), folder.join("disk.img"));
        fs::create_dir_all(&mount)?;
        if kind == Kind::Image {
            File::create(&image)?.set_len(IMAGE_BYTES)?;
            run(&["mkfs.ext4", "-q", "-F", &image.display().to_string()])?;
        }
        let mut disk = Self { kind, mount, image, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// The data folder on it.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let mount = self.mount.display().to_string();
        match self.kind {
            Kind::Plain => return Ok(()),
            Kind::Small => {
                let size = format!("size={SMALL_MIB}m");
                run(&["mount", "-t", "tmpfs", "-o", &size, "weft-faults", &mount])?;
            }
            Kind::Image => {
                let image = self.image.display().to_string();
                run(&["mount", "-t", "ext4", "-o", "loop", &image, &mount])?;
            }
        }
        self.mounted = true;
        Ok(())
    }

    /// Loses all that was not synced. Whoever uses the disk must have been stopped before, and must
    /// be killed before [`Self::power_on`].
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        kernel::shut_down(&self.mount).context("cannot shut a file system down")
    }

    /// Mounts it anew after a cut.
    pub(crate) fn power_on(&mut self) -> anyhow::Result<()> {
        run(&["umount", &self.mount.display().to_string()])?;
        self.mounted = false;
        self.mount()
    }

    /// Keeps a copy of the data folder, while nobody uses it.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        copy(&self.data(), &self.copy_folder())
    }

    /// Puts the copy in the place of the data folder.
    pub(crate) fn restore(&self) -> anyhow::Result<()> {
        copy(&self.copy_folder(), &self.data())
    }

    fn copy_folder(&self) -> PathBuf {
        self.mount.join("copy")
    }

    /// Takes nearly all that is free; how many bytes.
    pub(crate) fn fill(&self) -> anyhow::Result<u64> {
        let stat = statvfs(&self.mount)?;
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(LEFT_BYTES);
        let mut file = File::create(self.mount.join(FILLER))?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        file.flush()?;
        Ok(bytes)
    }

    /// Gives back what filling took.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.mount.join(FILLER)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && run(&["umount", &self.mount.display().to_string()]).is_err() {
            // Somebody still looks into it; it goes when they do.
            _ = run(&["umount", "-l", &self.mount.display().to_string()]);
        }
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    run(&["cp", "-a", &from.display().to_string(), &to.display().to_string()]).map(drop)
}
