//! Entries of the catalog's log, and the answers to them.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use weft_proto::{Error, Timestamp, internal, v1};

/// The kind of all entries of the catalog; data groups use lower numbers.
pub const KIND: u8 = 32;

const FORMAT: u8 = 0;
const PREFIX_LEN: usize = 12;

/// Why an entry cannot be applied. The node stops: skipping it would part it from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Shorter than every entry.
    #[error("the entry ends early")]
    Truncated,
    /// Another format.
    #[error("the entry has format {0}, this release reads format 0")]
    UnknownFormat(u8),
    /// Another kind.
    #[error("the entry has kind {0}, which this release does not know")]
    UnknownKind(u8),
    /// A flag that this release does not know.
    #[error("the entry has flags {0:#x}, which this release does not know")]
    UnknownFlags(u16),
    /// The command is one of a newer release.
    #[error("the entry has a command that this release does not know")]
    UnknownCommand,
    /// Damaged.
    #[error("the entry is no command: {0}")]
    Malformed(String),
}

/// Writes an entry.
pub fn encode(command: &internal::CatalogCommand, time: Timestamp) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_LEN + command.encoded_len());
    out.put_u8(FORMAT);
    out.put_u8(KIND);
    out.put_u16_le(0);
    out.put_u64_le(time.as_micros());
    out.put_slice(&command.encode_to_vec());
    out.freeze()
}

/// Reads an entry.
pub fn decode(payload: &[u8]) -> Result<internal::CatalogCommand, EntryError> {
    let (prefix, body) = payload.split_at_checked(PREFIX_LEN).ok_or(EntryError::Truncated)?;
    match prefix {
        [FORMAT, KIND, low, high, ..] => {
            let flags = u16::from_le_bytes([*low, *high]);
            if flags != 0 {
                return Err(EntryError::UnknownFlags(flags));
            }
        }
        [FORMAT, kind, ..] => return Err(EntryError::UnknownKind(*kind)),
        [format, ..] => return Err(EntryError::UnknownFormat(*format)),
        [] => return Err(EntryError::Truncated),
    }
    internal::CatalogCommand::decode(body).map_err(|error| EntryError::Malformed(error.to_string()))
}

/// The answer to an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Generation of the catalog after the entry.
    pub generation: u64,
    /// The resource as it is stored now, or why nothing changed.
    pub outcome: Result<Option<std::sync::Arc<v1::Resource>>, v1::Refusal>,
    /// What happened.
    pub change: v1::Change,
    /// Things that are allowed but probably not meant.
    pub warnings: Vec<String>,
}

impl Reply {
    /// The bytes of the reply.
    pub fn encode(&self) -> Bytes {
        use internal::catalog_reply::Outcome;
        let outcome = match &self.outcome {
            Ok(resource) => {
                resource.as_ref().map(|resource| Outcome::Resource(v1::Resource::clone(resource)))
            }
            Err(refusal) => Some(Outcome::Refusal(refusal.clone())),
        };
        let reply = internal::CatalogReply {
            generation: self.generation,
            outcome,
            change: self.change.into(),
            warnings: self.warnings.clone(),
        };
        reply.encode_to_vec().into()
    }

    /// Reads them.
    ///
    /// # Errors
    ///
    /// `Internal` when they are no reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        use internal::catalog_reply::Outcome;
        let reply = internal::CatalogReply::decode(bytes).map_err(|error| {
            Error::internal("the catalog's reply cannot be read").with_source(error)
        })?;
        let change = reply.change();
        let outcome = match reply.outcome {
            Some(Outcome::Resource(resource)) => Ok(Some(std::sync::Arc::new(resource))),
            Some(Outcome::Refusal(refusal)) => Err(refusal),
            None => Ok(None),
        };
        Ok(Self { generation: reply.generation, outcome, change, warnings: reply.warnings })
    }
}
