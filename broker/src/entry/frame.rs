//! Events one after another, framed as field 2 of a protobuf message.
//!
//! A body is exactly the wire form of `repeated CloudEvent events = 2`, so that an answer to a
//! reader carries it as it lies in the log.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec::DecodeError;

/// Field 2, length-delimited.
const TAG: u8 = 0x12;
/// Longest varint of a 32-bit length.
const VARINT_LEN_MAX: usize = 5;
/// Shortest frame: the tag and a length of zero.
pub(crate) const FRAME_BYTES_MIN: u64 = 2;

/// Bytes of an event of this length once framed.
pub fn framed_len(event_len: usize) -> usize {
    let mut varint_len = 1;
    let mut rest = event_len >> 7;
    while rest > 0 {
        varint_len += 1;
        rest >>= 7;
    }
    event_len.saturating_add(1 + varint_len)
}

/// Appends one framed event.
pub(crate) fn put(out: &mut BytesMut, event: &[u8]) {
    out.put_u8(TAG);
    let mut rest = event.len();
    while rest >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits and a mark are kept")]
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
    out.put_u8(rest as u8);
    out.put_slice(event);
}

/// Length of the head of the first frame, and length of its event.
fn head(bytes: &[u8]) -> Result<(usize, usize), DecodeError> {
    let (&tag, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
    if tag != TAG {
        return Err(DecodeError::Malformed("an event does not start with its tag"));
    }
    let mut len: u64 = 0;
    for (i, &byte) in rest.iter().take(VARINT_LEN_MAX).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let len = usize::try_from(len).ok().ok_or(DecodeError::Truncated)?;
            return Ok((i + 2, len));
        }
    }
    match rest.len() {
        0..VARINT_LEN_MAX => Err(DecodeError::Truncated),
        _ => Err(DecodeError::Malformed("the length of an event has too many digits")),
    }
}

/// Bytes of the first frame.
fn first_len(bytes: &[u8]) -> Result<usize, DecodeError> {
    let (head_len, event_len) = head(bytes)?;
    match head_len.checked_add(event_len) {
        Some(len) if len <= bytes.len() => Ok(len),
        _ => Err(DecodeError::Truncated),
    }
}

/// Number of events in a body.
pub(crate) fn count(mut body: &[u8]) -> Result<usize, DecodeError> {
    let mut count = 0;
    while !body.is_empty() {
        body = body.split_at_checked(first_len(body)?).ok_or(DecodeError::Truncated)?.1;
        count += 1;
    }
    Ok(count)
}

/// The events of a body, each a slice of it. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Events {
    rest: Bytes,
}

impl Events {
    /// The events of this body.
    pub fn new(body: Bytes) -> Self {
        Self { rest: body }
    }

    fn split_first(&mut self) -> Result<Bytes, DecodeError> {
        let len = first_len(&self.rest)?;
        let (head_len, _) = head(&self.rest)?;
        let mut event = self.rest.split_to(len);
        event.advance(head_len);
        Ok(event)
    }
}

impl Iterator for Events {
    type Item = Result<Bytes, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let event = self.split_first();
        if event.is_err() {
            self.rest.clear();
        }
        Some(event)
    }
}
