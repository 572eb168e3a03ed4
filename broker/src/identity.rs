//! The data folder: who this node is, and that nobody else uses the folder.
//!
//! *Owns* `node.json`, `LOCK` and `ballast`. `store/` belongs to the store; `pledge` is the name
//! of the store's separately synced watermark.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation};
use serde::{Deserialize, Serialize};
use weft_proto::NodeId;

use crate::raft::machine::CHECKPOINT_BYTES;

/// The only format of a data folder that this binary reads.
pub const FORMAT: u32 = 0;

const NODE_FILE: &str = "node.json";
const LOCK_FILE: &str = "LOCK";
const STORE_FOLDER: &str = "store";
const PLEDGE_FILE: &str = "pledge";
const BALLAST_FILE: &str = "ballast";

/// Size of the ballast: room that is given back when the disk is full.
pub const BALLAST_BYTES: u64 = 256 << 20;
/// The same for a small store, as in `weft dev`: about what its memtables hold.
pub const BALLAST_BYTES_SMALL: u64 = 48 << 20;

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error(
        "the data folder {0} is in use by another process; stop that one, or give this node its own folder"
    )]
    Locked(PathBuf),
    /// Written by another version.
    #[error(
        "the data folder {path} has format {found}, this binary reads format {FORMAT}: use the version of weft that wrote it, or start with an empty folder"
    )]
    OtherFormat {
        /// The folder.
        path: PathBuf,
        /// The format it says.
        found: u64,
    },
    /// `node.json` is damaged.
    #[error(
        "{path} cannot be read: {reason}; restore it from a backup, or let this node join again under a new identity with an empty folder"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There are data of a node, but not its identity.
    #[error(
        "{0} has a store but no node.json: restore the file from a backup, or start with an empty folder"
    )]
    Nameless(PathBuf),
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
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// A founder of a cluster, as the birth record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founder {
    /// Its id; never used again for another node.
    pub node_id: NodeId,
    /// The identity of its data folder.
    pub node_uid: String,
    /// Host and port of its peer listener.
    pub address: String,
}

/// The cluster a node belongs to, as agreed at its birth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The identity of the cluster.
    pub cluster_uid: String,
    /// The id of this node.
    pub node_id: NodeId,
    /// Number of groups for data, besides the catalog.
    pub data_groups: u32,
    /// Bytes of a group's log between two checkpoints: all replicas must cut at the same entries.
    #[serde(default = "checkpoint_bytes")]
    pub checkpoint_bytes: u64,
    /// Those who founded the cluster, by id.
    pub founders: Vec<Founder>,
}

fn checkpoint_bytes() -> u64 {
    CHECKPOINT_BYTES
}

/// What a data folder says about its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The format of the folder.
    pub format: u32,
    /// The identity of the folder: random, made once.
    pub node_uid: String,
    /// Absent until the node has taken part in a birth, or joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Membership>,
}

/// A data folder that this process has for itself.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Holds the lock; the kernel releases it with the process, however that ends.
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be and locks it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(io_error("create", path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(path.to_owned())),
            Err(error) => Err(io_error("lock", &lock_path)(error.into())),
        }
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store keeps its files.
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE_FOLDER)
    }

    /// The file of the store's watermark.
    pub fn pledge(&self) -> PathBuf {
        self.path.join(PLEDGE_FILE)
    }

    /// The file that is deleted to get a full disk going again.
    pub fn ballast(&self) -> PathBuf {
        self.path.join(BALLAST_FILE)
    }

    /// Reads who this node is; an empty folder becomes a new node.
    pub fn identity(&self) -> Result<Identity, Error> {
        let path = self.path.join(NODE_FILE);
        match fs::read(&path) {
            Ok(bytes) => self.parse(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    fn parse(&self, path: &Path, bytes: &[u8]) -> Result<Identity, Error> {
        let damaged = |error: serde_json::Error| Error::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        // The format first: another one may look altogether different.
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(damaged)?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(FORMAT) => {
                Err(Error::OtherFormat { path: self.path.clone(), found })
            }
            _ => serde_json::from_value(value).map_err(damaged),
        }
    }

    fn create(&self) -> Result<Identity, Error> {
        let store = self.store();
        let has_store = fs::read_dir(&store).is_ok_and(|mut entries| entries.next().is_some());
        if has_store {
            return Err(Error::Nameless(self.path.clone()));
        }
        let identity = Identity { format: FORMAT, node_uid: random_uid(), cluster: None };
        self.save(&identity)?;
        Ok(identity)
    }

    /// Stores who this node is; on disk when it returns.
    pub fn save(&self, identity: &Identity) -> Result<(), Error> {
        let path = self.path.join(NODE_FILE);
        let new = self.path.join("node.json.new");
        let mut text = serde_json::to_vec_pretty(identity)
            .map_err(|error| Error::Damaged { path: path.clone(), reason: error.to_string() })?;
        text.push(b'\n');
        let written = (|| {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(io_error("write", &path))
    }

    /// Bytes that are free on its disk, if the system says.
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Reserves the ballast if it is not there yet; true if it was written now.
    pub fn reserve_ballast(&self, bytes: u64) -> Result<bool, Error> {
        reserve_ballast(&self.path, bytes)
    }

    /// Gives the ballast back; true if there was one.
    pub fn release_ballast(&self) -> bool {
        fs::remove_file(self.ballast()).is_ok()
    }
}

/// Reserves the ballast of a data folder if it is not there yet; true if it was written now.
pub fn reserve_ballast(folder: &Path, bytes: u64) -> Result<bool, Error> {
    let path = folder.join(BALLAST_FILE);
    if fs::metadata(&path).is_ok_and(|file| file.len() >= bytes) {
        return Ok(false);
    }
    let reserved = (|| {
        let file = File::create(&path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // Not every file system can: then the bytes are written.
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&file, bytes)?,
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    })();
    reserved.map_err(|error| {
        // Half a ballast would look like a whole one that somebody used up.
        _ = fs::remove_file(&path);
        io_error("reserve the ballast", &path)(error)
    })?;
    Ok(true)
}

fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let mut zeros = io::Read::take(io::repeat(0), bytes);
    io::copy(&mut zeros, &mut file).map(|_bytes| ())
}

/// Makes an identity that nobody else has: 128 random bits.
pub(crate) fn random_uid() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_json(folder: &tempfile::TempDir, text: &str) -> Result<Identity, Error> {
        fs::write(folder.path().join(NODE_FILE), text).unwrap();
        Folder::open(folder.path()).unwrap().identity()
    }

    #[test]
    fn new_folder_gets_an_identity_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();

        let first = Folder::open(folder.path()).unwrap().identity().unwrap();
        let second = Folder::open(folder.path()).unwrap().identity().unwrap();

        assert_eq!(first, second);
        assert_eq!(first.node_uid.len(), 32);
        assert_eq!(first.cluster, None);
    }

    #[test]
    fn locked_folder_is_refused_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::open(folder.path()).unwrap();

        let second = Folder::open(folder.path());

        assert!(matches!(second, Err(Error::Locked(_))));
        drop(first);
        Folder::open(folder.path()).unwrap();
    }

    #[test]
    fn other_format_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();

        let error = node_json(&folder, r#"{"format": 7, "something": "new"}"#).unwrap_err();

        let message = error.to_string();
        assert!(message.contains("format 7, this binary reads format 0: use"), "{message}");
    }

    #[test]
    fn damaged_identity_is_refused() {
        let cases = ["", "{", "[]", "{\"format\": 0}", "{\"format\": 0, \"node_uid\": 3}"];
        for text in cases {
            let folder = tempfile::tempdir().unwrap();

            let error = node_json(&folder, text).unwrap_err();

            assert!(matches!(error, Error::Damaged { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn store_without_identity_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(STORE_FOLDER)).unwrap();
        fs::write(folder.path().join(STORE_FOLDER).join("CURRENT"), "x").unwrap();

        let error = Folder::open(folder.path()).unwrap().identity().unwrap_err();

        assert!(matches!(error, Error::Nameless(_)));
    }

    #[test]
    fn membership_survives_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let open = Folder::open(folder.path()).unwrap();
        let mut identity = open.identity().unwrap();
        identity.cluster = Some(Membership {
            cluster_uid: random_uid(),
            node_id: NodeId(2),
            data_groups: 4,
            checkpoint_bytes: 1 << 20,
            founders: vec![Founder {
                node_id: NodeId(2),
                node_uid: identity.node_uid.clone(),
                address: "localhost:7".to_owned(),
            }],
        });

        open.save(&identity).unwrap();

        assert_eq!(open.identity().unwrap(), identity);
    }

    #[test]
    fn ballast_is_reserved_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = Folder::open(folder.path()).unwrap();

        assert!(open.reserve_ballast(1 << 20).unwrap());
        assert!(!open.reserve_ballast(1 << 20).unwrap());

        assert_eq!(fs::metadata(open.ballast()).unwrap().len(), 1 << 20);
        assert!(open.release_ballast());
        assert!(!open.release_ballast());
        assert!(open.reserve_ballast(1 << 20).unwrap());
    }
}
