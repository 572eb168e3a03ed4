//! Disks that are small or read-only, seen by one process alone.
//!
//! Each is mounted in a mount namespace of its own: it goes with the process, whatever happens to
//! the test. Without the permission for it (root, or user namespaces), the test says so.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::process::{cleaned, finished};

/// Gives a process a disk of its own at a folder.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disk {
    /// Empty and in memory, of this size.
    Small { mib: u32 },
    /// The folder as it is, but read-only.
    ReadOnly,
}

impl Disk {
    /// The shell command that mounts it at `$1`.
    fn mount(self) -> String {
        match self {
            Self::Small { mib } => format!("mount -t tmpfs -o size={mib}m weft-test \"$1\""),
            Self::ReadOnly => {
                "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"".to_owned()
            }
        }
    }

    /// The command that becomes `program`, with this disk at `folder`.
    pub(super) fn give(self, folder: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c"]);
        command.arg(format!("{} && shift && exec \"$@\"", self.mount()));
        command.arg("sh").arg(folder).arg(program);
        cleaned(command)
    }

    /// Whether this can be done here; says why not.
    pub(super) async fn is_possible(self, folder: &Path) -> bool {
        let ended = finished(self.give(folder, "true"), "").await;
        if ended.code != Some(0) {
            eprintln!("SKIPPED: {self:?} cannot be mounted here: {}", ended.stderr.trim_end());
        }
        ended.code == Some(0)
    }
}

/// A small disk that outlives the processes that use it.
#[derive(Debug)]
pub(super) struct Held {
    holder: Child,
    folder: PathBuf,
}

impl Held {
    /// Mounts a small disk at a folder; for processes that are started through it.
    pub(super) fn small(folder: &Path, mib: u32) -> Self {
        let disk = Disk::Small { mib };
        let mut command = disk.give(folder, "sh");
        // It waits until this test closes its input, however that comes.
        command.args(["-c", "echo mounted && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Self { holder, folder: folder.to_owned() }
    }

    /// The command that becomes `program` and sees the disk.
    pub(super) fn give(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--mount").arg("--target").arg(self.holder.id().to_string()).arg("--");
        command.arg(program);
        cleaned(command)
    }

    /// The disk, for this test.
    pub(super) fn seen(&self) -> PathBuf {
        format!("/proc/{}/root{}", self.holder.id(), self.folder.display()).into()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        _ = self.holder.wait();
    }
}
