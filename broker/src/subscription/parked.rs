//! What is remembered of an event that was given back, until it is settled.

use std::fmt;

use bytes::{BufMut, BytesMut};
use weft_proto::{Epoch, Timestamp};

use super::desk::{LeaseId, Token};
use crate::entry::codec::{DecodeError, Reader};

/// Longest text about a failure, in bytes; what is longer is cut.
pub const FAILURE_LEN_MAX: usize = 256;

/// Bytes of a parked event without its text.
pub(crate) const PARKED_BYTES_MIN: usize = 38;

/// An event that was delivered and is not settled: how often it failed, and when it comes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// Deliveries that failed and count.
    pub attempts: u32,
    /// When it failed first, or was put off; 0 for what was only handed on.
    pub first_failure: Timestamp,
    /// When it may be delivered again.
    pub due: Timestamp,
    /// The newest lease under which it was given back: that one and older ones are void.
    pub void: Token,
    /// Why it was given back last.
    pub failure: Failure,
}

/// Why an event was given back, as the member put it; at most 256 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// The text, cut after 256 bytes at the end of a character.
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(FAILURE_LEN_MAX));
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Parked {
    /// When its age begins to count; nothing for what did not fail and was not put off.
    pub(crate) fn ages_from(&self) -> Option<Timestamp> {
        (self.first_failure != Timestamp::default()).then_some(self.first_failure)
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.attempts);
        out.put_u64_le(self.first_failure.as_micros());
        out.put_u64_le(self.due.as_micros());
        out.put_u64_le(self.void.epoch.get());
        out.put_u64_le(self.void.lease.0);
        // At most 256, see `Failure::new`.
        out.put_u16_le(u16::try_from(self.failure.0.len()).unwrap_or(u16::MAX));
        out.put_slice(self.failure.0.as_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let attempts = reader.u32()?;
        let first_failure = Timestamp::from_micros(reader.u64()?);
        let due = Timestamp::from_micros(reader.u64()?);
        let void = Token { epoch: Epoch(reader.u64()?), lease: LeaseId(reader.u64()?) };
        let len = usize::from(reader.u16()?);
        if len > FAILURE_LEN_MAX {
            return Err(DecodeError::Malformed("a failure's text is too long"));
        }
        let text = str::from_utf8(reader.take(len)?);
        let text = text.ok().ok_or(DecodeError::Malformed("a failure's text is not UTF-8"))?;
        Ok(Self { attempts, first_failure, due, void, failure: Failure(text.to_owned()) })
    }
}
