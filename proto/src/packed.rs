//! Batches of events compressed as one.
//!
//! What is compressed is the encoded message `weft.v1.EventList`, so that any client can make and
//! read it. LZ4 is the block format without a length in front
//! (github.com/lz4/lz4, `doc/lz4_Block_format.md`); zstd is one frame (RFC 8878).

use bytes::Bytes;
use prost::Message as _;

use crate::{Error, Result, v1};

/// Most bytes of a batch once decompressed: 1 MiB of events, and what an `EventList` adds.
pub const PACKED_BYTES_MAX: usize = (1 << 20) + (32 << 10);
/// How fast rather than how small: what is published shall not wait for it.
const ZSTD_LEVEL: i32 = 1;

/// Which compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// LZ4: costs little, saves about half of JSON.
    Lz4,
    /// zstd: costs more, saves more.
    Zstd,
}

impl Codec {
    /// From the wire; none for what this release does not know.
    pub fn from_wire(codec: i32) -> Option<Self> {
        match v1::Codec::try_from(codec) {
            Ok(v1::Codec::Lz4) => Some(Self::Lz4),
            Ok(v1::Codec::Zstd) => Some(Self::Zstd),
            Ok(v1::Codec::Unspecified) | Err(_) => None,
        }
    }

    /// To the wire.
    pub const fn to_wire(self) -> v1::Codec {
        match self {
            Self::Lz4 => v1::Codec::Lz4,
            Self::Zstd => v1::Codec::Zstd,
        }
    }

    /// Compresses bytes.
    ///
    /// # Errors
    ///
    /// `Internal` when the library fails, for lack of memory for one.
    pub fn compress(self, raw: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Lz4 => Ok(lz4_flex::block::compress(raw)),
            Self::Zstd => zstd::bulk::compress(raw, ZSTD_LEVEL)
                .map_err(|error| Error::internal("zstd cannot compress").with_source(error)),
        }
    }

    /// Decompresses bytes that must be `raw_bytes` long then. No more memory than that is taken,
    /// whatever the bytes claim: check `raw_bytes` against a limit first.
    ///
    /// # Errors
    ///
    /// `Invalid` when they are damaged or of another length.
    pub fn decompress(self, packed: &[u8], raw_bytes: usize) -> Result<Vec<u8>> {
        let damaged = || Error::invalid("the compressed events cannot be decompressed");
        let raw = match self {
            Self::Lz4 => lz4_flex::block::decompress(packed, raw_bytes)
                .map_err(|error| damaged().with_source(error))?,
            Self::Zstd => zstd::bulk::decompress(packed, raw_bytes)
                .map_err(|error| damaged().with_source(error))?,
        };
        if raw.len() == raw_bytes {
            Ok(raw)
        } else {
            let message = format!(
                "the compressed events have {} bytes, but are said to have {raw_bytes}",
                raw.len()
            );
            Err(Error::invalid(message))
        }
    }
}

/// Compresses encoded events.
///
/// # Errors
///
/// As [`Codec::compress`].
pub fn pack(codec: Codec, events: Vec<Bytes>) -> Result<v1::PackedEvents> {
    let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
    let raw = v1::EventList { events }.encode_to_vec();
    Ok(v1::PackedEvents {
        codec: codec.to_wire().into(),
        count,
        raw_bytes: u32::try_from(raw.len()).unwrap_or(u32::MAX),
        body: codec.compress(&raw)?.into(),
    })
}

/// Gives the events back, each a slice of one buffer of at most `raw_bytes_max`.
///
/// # Errors
///
/// `Invalid` when they are too large, damaged, of another number, or compressed in a way that this
/// release does not know.
pub fn unpack(packed: &v1::PackedEvents, raw_bytes_max: usize) -> Result<Vec<Bytes>> {
    let Some(codec) = Codec::from_wire(packed.codec) else {
        let message = format!("compression {} is not known; known are LZ4 and ZSTD", packed.codec);
        return Err(Error::invalid(message).with_field("packed.codec"));
    };
    let raw_bytes = usize::try_from(packed.raw_bytes).unwrap_or(usize::MAX);
    if raw_bytes > raw_bytes_max {
        let message = format!("the events have {raw_bytes} bytes, more than {raw_bytes_max}");
        return Err(Error::new(crate::Reason::TooLarge, message).with_field("packed.raw_bytes"));
    }
    let raw = codec.decompress(&packed.body, raw_bytes)?;
    let list = v1::EventList::decode(Bytes::from(raw)).map_err(|error| {
        Error::invalid("the compressed bytes are no EventList").with_source(error)
    })?;
    if list.events.len() as u64 != u64::from(packed.count) {
        let message = format!("there are {} events, not {}", list.events.len(), packed.count);
        return Err(Error::invalid(message).with_field("packed.count"));
    }
    Ok(list.events)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn events_survive(
            events in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20),
        ) {
            let events: Vec<Bytes> = events.into_iter().map(Bytes::from).collect();
            for codec in CODECS {
                let packed = pack(codec, events.clone()).unwrap();
                prop_assert_eq!(unpack(&packed, 1 << 20).unwrap(), events.clone());
            }
        }

        #[test]
        fn hostile_bytes_are_errors_at_most(
            body in proptest::collection::vec(any::<u8>(), 0..300), raw_bytes in 0_u32..2_000, count in 0_u32..9,
        ) {
            for codec in [0, 1, 2, 3] {
                let body = body.clone().into();
                _ = unpack(&v1::PackedEvents { codec, count, raw_bytes, body }, 1_000);
            }
        }
    }

    #[test]
    fn a_bomb_takes_no_more_than_it_may() {
        let zeros = vec![Bytes::from(vec![0; 1 << 24])];
        for codec in CODECS {
            let packed = pack(codec, zeros.clone()).unwrap();
            assert!(packed.body.len() < 1 << 17);
            assert_eq!(unpack(&packed, 1 << 20).unwrap_err().reason(), crate::Reason::TooLarge);
            let liar = v1::PackedEvents { raw_bytes: 1 << 10, ..packed };
            assert!(unpack(&liar, 1 << 20).is_err());
        }
    }

    #[test]
    fn lies_are_noticed() {
        for codec in CODECS {
            let packed = pack(codec, vec![Bytes::from_static(b"event"); 3]).unwrap();
            let lies = [
                v1::PackedEvents { count: 2, ..packed.clone() },
                v1::PackedEvents { raw_bytes: packed.raw_bytes + 1, ..packed.clone() },
                v1::PackedEvents { raw_bytes: packed.raw_bytes - 1, ..packed.clone() },
                v1::PackedEvents { codec: 0, ..packed.clone() },
                v1::PackedEvents { codec: 99, ..packed.clone() },
                v1::PackedEvents { body: packed.body.slice(1..), ..packed.clone() },
            ];
            for lie in lies {
                assert!(unpack(&lie, 1 << 20).is_err(), "{lie:?}");
            }
        }
    }
}
