//! Where a reader of a stream goes on: the next offset of each partition, as one opaque word. Pure.
//!
//! It says nothing of who led what, so it outlives any leader and any restart.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Buf as _;
use prost::encoding::{decode_varint, encode_varint};
use weft_proto::{Error, ResourceUid, Result};

/// Of the form of cursors; another one is refused.
const VERSION: u8 = 1;
const CHECK_LEN: usize = 4;

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Cursor {
    /// Which stream: one that is made anew under the same name is another one.
    pub(super) stream: ResourceUid,
    /// A hash of the filters under which it was given.
    pub(super) filters: u32,
    /// By partition, the next offset.
    pub(super) next: BTreeMap<u32, u64>,
}

impl Cursor {
    /// An event was given.
    pub(super) fn pass(&mut self, partition: u32, offset: u64) {
        self.next.insert(partition, offset.saturating_add(1));
    }

    /// Writes it.
    pub(super) fn encode(&self, text: &mut String) {
        let mut bytes = vec![VERSION];
        encode_varint(self.stream.get(), &mut bytes);
        encode_varint(self.filters.into(), &mut bytes);
        for (&partition, &next) in &self.next {
            encode_varint(partition.into(), &mut bytes);
            encode_varint(next, &mut bytes);
        }
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode_string(bytes, text);
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// `Invalid` for what was never written here.
    pub(in crate::http) fn decode(text: &str) -> Result<Self> {
        let none =
            || Error::invalid("this is no cursor of an event stream").with_field("lastEventId");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok().ok_or_else(none)?;
        let place = bytes.len().checked_sub(CHECK_LEN).ok_or_else(none)?;
        let (body, check) = bytes.split_at_checked(place).ok_or_else(none)?;
        if crc32c::crc32c(body).to_be_bytes() != check {
            return Err(none());
        }
        let mut rest = body.strip_prefix(&[VERSION]).ok_or_else(none)?;
        let mut number = || -> Result<u64> { decode_varint(&mut rest).ok().ok_or_else(none) };
        let stream = ResourceUid(number()?);
        let filters = u32::try_from(number()?).ok().ok_or_else(none)?;
        let mut next = BTreeMap::new();
        while rest.has_remaining() {
            let mut number = || -> Result<u64> { decode_varint(&mut rest).ok().ok_or_else(none) };
            let partition = u32::try_from(number()?).ok().ok_or_else(none)?;
            next.insert(partition, number()?);
        }
        Ok(Self { stream, filters, next })
    }
}

/// A cursor, read and written again, for `tests/fuzz`.
#[cfg(feature = "fuzzing")]
pub fn cursor_again(text: &str) -> Option<String> {
    let mut again = String::new();
    Cursor::decode(text).ok()?.encode(&mut again);
    Some(again)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn a_cursor_survives_and_a_damaged_one_is_refused(
            stream in any::<u64>(),
            filters in any::<u32>(),
            next in proptest::collection::btree_map(any::<u32>(), any::<u64>(), 0..20),
            at in any::<prop::sample::Index>(),
        ) {
            let cursor = Cursor { stream: ResourceUid(stream), filters, next };
            let mut text = String::new();
            cursor.encode(&mut text);
            prop_assert_eq!(Cursor::decode(&text).unwrap(), cursor);

            let place = at.index(text.len());
            let other = if text.as_bytes()[place] == b'A' { "B" } else { "A" };
            text.replace_range(place..=place, other);
            prop_assert!(Cursor::decode(&text).is_err());
        }

        #[test]
        fn anything_else_is_refused(text in "[A-Za-z0-9_-]{0,40}") {
            prop_assert!(Cursor::decode(&text).is_err());
        }
    }
}
