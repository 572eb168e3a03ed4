//! Disks that are small or read-only, seen by one process alone.
//!
//! Each is mounted in a mount namespace of its own: it goes with the process, whatever happens to
//! the test. Without the permission for it (root, or user namespaces), the test says so.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

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
