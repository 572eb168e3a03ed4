//! What can go wrong in storage, by what the caller does about it.

use std::io;
use std::sync::Arc;

use weft_proto::GroupId;

/// An error of the store. After one from a write or a sync the process must end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process has the folder open: stop it or choose another folder.
    #[error("the store in {path} is in use by another process: {detail}")]
    InUse { path: String, detail: String },

    /// What is on disk is not what was written: this node must not vote.
    #[error("the store in {path} is damaged: {detail}")]
    Damaged { path: String, detail: String },

    /// The disk is full: free space, then start again.
    #[error("no space left on the disk of {path} to {action}: {detail}")]
    Full { path: String, action: &'static str, detail: String },

    /// The disk does not take writes: check the mount and the permissions.
    #[error("the disk of {path} is read-only or may not be written, cannot {action}: {detail}")]
    ReadOnly { path: String, action: &'static str, detail: String },

    /// The disk or the engine failed otherwise.
    #[error("cannot {action} in {path}: {detail}")]
    Io { path: String, action: &'static str, detail: String },

    /// A group was used before it was opened.
    #[error("group {group} is not open")]
    UnknownGroup { group: GroupId },

    /// An entry cannot be read back as it was written; a peer may still have it.
    #[error("entry {index} of group {group} is damaged: {detail}")]
    DataLoss { group: GroupId, index: u64, detail: String },

    /// The entry was purged: what it held is below the floor.
    #[error("entry {index} of group {group} is purged, the log begins at {first}")]
    Purged { group: GroupId, index: u64, first: u64 },

    /// The log does not hang together, so this node may have forgotten something: it must
    /// neither vote nor lead.
    #[error("the log of group {group} is suspect at entry {index}: {detail}")]
    Suspect { group: GroupId, index: u64, detail: String },

    /// A stored record is not understood, perhaps from a newer version.
    #[error("cannot read a stored record ({what}): {detail}")]
    Record { what: &'static str, detail: String },

    /// The caller broke a promise, such as leaving a hole; a bug, and nothing was stored.
    #[error("refused for group {group}: {detail}")]
    Misuse { group: GroupId, detail: String },

    /// An earlier write failed; nothing is stored until the process starts again.
    #[error("the store stopped after an earlier failure: {cause}")]
    Stopped { cause: Arc<Self> },

    /// The writer has ended because the node is stopping.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Says whether the log may have forgotten something, so that this node must not vote.
    pub fn is_suspect(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::DataLoss { .. } | Self::Suspect { .. } => true,
            Self::Stopped { cause } => cause.is_suspect(),
            _ => false,
        }
    }

    /// Describes a failure of the operating system.
    pub(crate) fn from_io(path: &str, action: &'static str, error: &io::Error) -> Self {
        let (path, detail) = (path.to_owned(), error.to_string());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path, action, detail }
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { path, action, detail }
            }
            _ => Self::Io { path, action, detail },
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}
