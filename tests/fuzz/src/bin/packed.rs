//! A compressed batch: `weft_proto::packed::unpack`, which a leader calls with a publisher's bytes.
//!
//! The first bytes choose codec, count and claimed size, so that they need not be guessed.

#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use weft_fuzz::{Input, sample};
use weft_proto::packed::{Codec, pack, unpack};
use weft_proto::v1;

weft_fuzz::target!();

pub const MAX_LEN: usize = 8_192;

/// Small, so that a claim beyond it is found by chance.
const RAW_BYTES_MAX: usize = 64 << 10;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let codec = i32::from(input.u8() % 4);
    let count = input.u16().into();
    let raw_bytes = u32::from(input.u16()) | u32::from(input.u8()) << 16;
    let body = Bytes::copy_from_slice(input.rest());
    let packed = v1::PackedEvents { codec, count, raw_bytes, body };
    let Ok(events) = unpack(&packed, RAW_BYTES_MAX) else { return false };
    assert_eq!(events.len() as u64, u64::from(count));
    let bytes: usize = events.iter().map(Bytes::len).sum();
    assert!(bytes <= RAW_BYTES_MAX && bytes <= raw_bytes as usize);
    for codec in [Codec::Lz4, Codec::Zstd] {
        let again = pack(codec, events.clone()).expect("what was unpacked can be packed");
        let unpacked = unpack(&again, 2 * RAW_BYTES_MAX + 16).expect("what we pack we unpack");
        assert_eq!(unpacked, events);
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let events: Vec<Bytes> = sample::encoded().into_iter().map(Bytes::from).collect();
    let zeros = vec![Bytes::from(vec![0; 30_000])];
    let mut seeds = vec![b"no batch".to_vec()];
    for codec in [Codec::Lz4, Codec::Zstd] {
        for events in [events.clone(), zeros.clone(), vec![Bytes::new(); 3]] {
            let packed = pack(codec, events).expect("packs");
            let mut seed = vec![packed.codec as u8];
            seed.extend(&(packed.count as u16).to_le_bytes());
            seed.extend(&packed.raw_bytes.to_le_bytes()[..3]);
            seed.extend(&packed.body);
            seeds.push(seed);
        }
    }
    seeds
}
