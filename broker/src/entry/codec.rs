//! Little-endian numbers in bytes that may be damaged or hostile.
//!
//! Never: allocates by a length that the bytes only claim.

use bytes::{BufMut, BytesMut};

/// Why bytes are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("bytes end too early")]
    Truncated,
    /// They cannot have been written by us.
    #[error("bytes are malformed: {0}")]
    Malformed(&'static str),
}

/// A 32-bit length in memory; where memory is smaller, more than it has.
pub(crate) fn to_len(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Reads numbers from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A 32-bit length.
    pub(crate) fn len(&mut self) -> Result<usize, DecodeError> {
        self.u32().map(to_len)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Malformed("a truth value is neither 0 nor 1")),
        }
    }

    /// A number of things that follow, each of at least `item_bytes`: more than fit is an error,
    /// so that the number may be allocated for.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.len()?;
        match count.checked_mul(item_bytes) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(DecodeError::Truncated),
        }
    }

    /// A list: its count, then its items.
    pub(crate) fn list<T>(
        &mut self,
        item_bytes: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(item_bytes)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("bytes follow the end"))
        }
    }
}

/// Writes the count of a list, then its items.
pub(crate) fn put_list<T>(
    out: &mut BytesMut,
    items: impl ExactSizeIterator<Item = T>,
    mut put: impl FnMut(&mut BytesMut, T),
) {
    // Longer lists do not fit into memory; if one did, its end would be missing, not garbled.
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
    out.put_u32_le(count);
    for item in items.take(usize::try_from(count).unwrap_or(usize::MAX)) {
        put(out, item);
    }
}
