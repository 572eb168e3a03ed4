//! Why a payload of the replicated log cannot be read.

use super::codec::DecodeError;

/// Why an entry cannot be read. The node that meets one stops: to skip it would be to differ from
/// the replicas that can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A newer release wrote it.
    #[error("entry has format {0}, this release reads format 0")]
    UnknownFormat(u8),
    /// A newer release wrote it.
    #[error("entry has unknown kind {0}")]
    UnknownKind(u8),
    /// A newer release wrote it.
    #[error("entry has unknown flags {0:#06x}")]
    UnknownFlags(u16),
    /// A newer release wrote it.
    #[error("batch has unknown flags {0:#06x}")]
    UnknownBatchFlags(u16),
    /// A newer release wrote it.
    #[error("batch has unknown codec {0}")]
    UnknownCodec(u8),
    /// The format has room for it, this release does not do it.
    #[error("entry has {0}, which this release does not support")]
    Unsupported(&'static str),
    /// It was damaged, or never was an entry.
    #[error("cannot read entry")]
    Damaged(#[from] DecodeError),
    /// The body of a batch is not the one that was written.
    #[error("body of a batch has checksum {actual:#010x}, its header says {expected:#010x}")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        actual: u32,
    },
}

/// Why a batch cannot become part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A batch has at least one event.
    #[error("batch has no events")]
    Empty,
    /// Lengths are 32 bits wide.
    #[error("entry would exceed 4 GiB")]
    TooLarge,
    /// A list has not one element per event, or framed events are not as many as said.
    #[error("batch of {events} events has {found} {what}")]
    CountMismatch {
        /// Events in the batch.
        events: u32,
        /// Elements found.
        found: usize,
        /// Name of the list.
        what: &'static str,
    },
    /// A framed body is not a sequence of events.
    #[error("framed events are malformed")]
    Malformed(#[from] DecodeError),
}
