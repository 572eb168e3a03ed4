//! The machine: brokers as processes, and all that can be done to them, their disks and their links.

pub(crate) mod cluster;
#[path = "../../harness/daemon.rs"]
pub(crate) mod daemon;
pub(crate) mod disk;
mod kernel;
pub(crate) mod net;
pub(crate) mod node;
#[path = "../../harness/ports.rs"]
mod ports;
#[path = "../../harness/probe.rs"]
mod probe;
mod shim;
mod switch;
mod tools;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::disk::{Disk, Kind};
use self::net::Net;

/// What faults need of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tool {
    /// Signals to processes of our own.
    Signals,
    /// Network namespaces and TUN interfaces.
    Switch,
    /// A C compiler and `LD_PRELOAD`.
    Shim,
    /// A tmpfs of our own.
    SmallDisk,
    /// Loop devices and ext4 that can be shut down.
    PowerCut,
}

/// The tools that work here, tried before anything relies on them.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) net: Option<Net>,
    pub(crate) shim: Option<PathBuf>,
    /// What does not work, and why.
    pub(crate) missing: Vec<(Tool, String)>,
}

impl Lab {
    /// Tries each tool; works in `folder`.
    pub(crate) fn new(folder: &Path, nodes: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut missing = Vec::new();
        let mut tried = |tool, result: anyhow::Result<()>| {
            if let Err(error) = result {
                missing.push((tool, format!("{error:#}")));
            }
        };
        let mut net = None;
        let joined = Net::new(nodes).and_then(|made| {
            made.probe()?;
            net = Some(made);
            Ok(())
        });
        tried(Tool::Switch, joined);
        let mut shim = None;
        tried(Tool::Shim, shim::compile(folder).map(|library| shim = Some(library)));
        tried(Tool::SmallDisk, try_disk(Kind::Small, folder));
        tried(Tool::PowerCut, try_disk(Kind::Image, folder));
        Ok(Self { net, shim, missing })
    }

    pub(crate) fn has(&self, tool: Tool) -> bool {
        self.missing.iter().all(|(absent, _)| *absent != tool)
    }
}

/// A disk that forgets what was synced, or keeps what was not, would prove nothing.
fn try_disk(kind: Kind, folder: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let place = tempfile::Builder::new().prefix("try-").tempdir_in(folder)?;
    let mut disk = Disk::new(kind, place.path())?;
    if kind == Kind::Small {
        disk.fill()?;
        return disk.empty();
    }
    std::fs::create_dir_all(disk.data())?;
    let (kept, lost) = (disk.data().join("kept"), disk.data().join("lost"));
    let mut file = std::fs::File::create(&kept)?;
    file.write_all(b"synced")?;
    file.sync_all()?;
    std::fs::File::open(disk.data())?.sync_all()?;
    std::fs::write(&lost, b"not synced")?;
    drop(file);
    disk.cut()?;
    disk.power_on()?;
    anyhow::ensure!(std::fs::read(&kept)? == b"synced", "a cut loses what was synced");
    let gone = std::fs::read(&lost).map_or(true, |found| found.is_empty());
    anyhow::ensure!(gone, "a cut keeps what was not synced");
    Ok(())
}
