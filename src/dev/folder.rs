//! The folder of a local cluster: which cluster it is, and who uses it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::cluster::Ports;

const RECORD: &str = "cluster.json";
const LOCK: &str = "dev.lock";

/// A folder that this process alone uses.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    ports: Vec<Ports>,
    /// Locked for as long as it is open.
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    nodes: usize,
    /// Of the brokers that run.
    pids: Vec<u32>,
    ports: Vec<Ports>,
}

impl Folder {
    /// Takes the folder; makes it when it is missing. Fails when it holds another cluster, or when
    /// someone uses it.
    pub(super) fn open(path: &Path, ports: &[Ports]) -> anyhow::Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {shown}"))?;
        let path = fs::canonicalize(path).with_context(|| format!("cannot find {shown}"))?;
        let lock = File::options().create(true).write(true).truncate(false).open(path.join(LOCK));
        let lock = lock.with_context(|| format!("cannot write into {shown}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another weft dev uses {shown}: stop it, or choose another --dir")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {shown}"));
            }
        }
        let folder = Self { path, ports: ports.to_owned(), _lock: lock };
        folder.check()?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down what this cluster is and which processes it has.
    pub(super) fn record(&self, pids: &[u32]) -> anyhow::Result<()> {
        let ports = self.ports.clone();
        let record = Record { nodes: ports.len(), pids: pids.to_owned(), ports };
        let path = self.path.join(RECORD);
        let text = serde_json::to_string_pretty(&record)?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// A cluster keeps its size and addresses for life: they are written into its data.
    fn check(&self) -> anyhow::Result<()> {
        let shown = self.path.display();
        let there = self.nodes_there()?;
        let wanted = self.ports.len();
        if there != 0 && there != wanted {
            bail!(
                "{shown} holds a cluster of {there}, not of {wanted}: \
                 use --nodes {there}, choose another --dir, or delete the folder"
            );
        }
        let path = self.path.join(RECORD);
        if there == 0 || !path.exists() {
            return Ok(());
        }
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let record: Record = serde_json::from_str(&text)
            .with_context(|| format!("{} is not readable: delete it", path.display()))?;
        if let Some(first) = record.ports.first()
            && record.ports != self.ports
        {
            bail!(
                "the cluster in {shown} has other ports: use --grpc-port {} --http-port {}, \
                 choose another --dir, or delete the folder",
                first.grpc,
                first.http
            );
        }
        Ok(())
    }

    /// Number of nodes that have data here.
    fn nodes_there(&self) -> anyhow::Result<usize> {
        let mut there = 0;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let is_node = entry.file_name().to_string_lossy().starts_with("node-");
            there += usize::from(is_node && entry.path().join("data").exists());
        }
        Ok(there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &Path, grpc: u16, nodes: u16) -> Option<String> {
        let ports = Ports::consecutive(grpc, 7_500, nodes).unwrap();
        Folder::open(path, &ports).err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn a_folder_keeps_its_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::consecutive(7_400, 7_500, 3).unwrap();
        let folder = Folder::open(dir.path(), &ports).unwrap();
        folder.record(&[]).unwrap();
        for number in 1..=3 {
            fs::create_dir_all(dir.path().join(format!("node-{number}/data"))).unwrap();
        }

        assert!(error(dir.path(), 7_400, 3).unwrap().contains("another weft dev"));
        drop(folder);
        assert_eq!(error(dir.path(), 7_400, 3), None);
        assert!(error(dir.path(), 7_400, 1).unwrap().contains("--nodes 3"));
        assert!(error(dir.path(), 8_400, 3).unwrap().contains("--grpc-port 7400"));
    }

    #[test]
    fn a_folder_whose_first_start_failed_takes_other_ports() {
        let dir = tempfile::tempdir().unwrap();

        assert_eq!(error(dir.path(), 7_400, 3), None);
        assert_eq!(error(dir.path(), 8_400, 1), None);
    }
}
