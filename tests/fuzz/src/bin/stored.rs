//! What a node finds on its disk, or in a snapshot of another node: votes, log ids, memberships,
//! records of entries, checkpoints, the slots of the pledge.
//!
//! Where a checksum protects the bytes, the target computes it, so that the decoder behind it is
//! reached; without that the fuzzer would only ever test the checksum.

#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use prost::Message as _;
use weft_broker::fuzzing::{checkpoint, pledge, record, stored_value};
use weft_broker::store::keys;
use weft_fuzz::{Input, chosen};
use weft_proto::internal as wire;

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    match input.u8() % 8 {
        kind @ 0..=3 => {
            let Some(written) = stored_value(kind, input.rest()) else { return false };
            assert_eq!(stored_value(kind, &written).as_ref(), Some(&written));
            true
        }
        4 => {
            let (kind, index) = (input.u8(), input.number());
            let [term, pos, time, chain] = [0; 4].map(|_| input.number());
            let body = input.rest();
            let mut value = vec![0, kind, 0, 0];
            value.extend(crc32c::crc32c(body).to_le_bytes());
            for number in [term, index, pos, time, chain] {
                value.extend(number.to_le_bytes());
            }
            value.extend(crc32c::crc32c(&value).to_le_bytes());
            value.extend(body);
            let Some(written) = record(index, &value) else { return false };
            assert_eq!(record(index, &written).as_ref(), Some(&written));
            assert_eq!(record(index.wrapping_add(1), &written), None, "it has one place");
            true
        }
        5 => {
            let mut bytes = b"WFC0".to_vec();
            bytes.extend(input.rest());
            bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
            let Some(written) = checkpoint(&bytes.into()) else { return false };
            assert_eq!(checkpoint(&written).as_ref(), Some(&written));
            assert_eq!(checkpoint(&written.slice(1..)), None);
            true
        }
        6 => {
            let number = input.number();
            let body = input.rest();
            let mut slot = b"WFP0".to_vec();
            slot.extend((body.len() as u32).to_le_bytes());
            slot.extend(number.to_le_bytes());
            slot.extend(body);
            slot.extend(crc32c::crc32c(&slot).to_le_bytes());
            let Some(written) = pledge(&slot) else { return false };
            assert_eq!(pledge(&written).as_ref(), Some(&written));
            true
        }
        _ => plain(input.rest()),
    }
}

/// Whatever comes, as it is, to everything that reads the store.
fn plain(bytes: &[u8]) -> bool {
    let shared = Bytes::copy_from_slice(bytes);
    assert!(record(7, bytes).is_none() && checkpoint(&shared).is_none() && pledge(bytes).is_none());
    let mut accepted = false;
    if let Ok((group, partition, hash)) = keys::subject::decode_key(bytes) {
        assert_eq!(keys::subject::key(group, partition, hash), bytes);
        accepted = true;
    }
    if let Ok((group, partition, base)) = keys::index::decode_key(bytes) {
        assert_eq!(keys::index::key(group, partition, base), bytes);
        accepted = true;
    }
    if let Ok((group, index)) = keys::checkpoint::decode_key(bytes) {
        assert_eq!(keys::checkpoint::key(group, index), bytes);
        accepted = true;
    }
    if let Ok(value) = keys::index::decode(bytes) {
        assert_eq!(keys::index::encode(&value), bytes);
        accepted = true;
    }
    if let Ok(value) = keys::subject::decode(bytes) {
        assert_eq!(keys::subject::encode(value), bytes);
        accepted = true;
    }
    if let Ok((point, state)) = keys::checkpoint::decode(bytes) {
        assert_eq!(keys::checkpoint::encode(&point, state), bytes);
        accepted = true;
    }
    accepted
}

pub fn seeds() -> Vec<Vec<u8>> {
    let number = |number: u64| number.to_le_bytes();
    let membership = {
        let mut out = vec![];
        out.extend(1_u32.to_le_bytes());
        out.extend(2_u32.to_le_bytes());
        out.extend(number(1));
        out.extend(number(2));
        out.extend(2_u32.to_le_bytes());
        for id in [1, 2] {
            out.extend(number(id));
            out.extend(3_u32.to_le_bytes());
            out.extend(b"h:1");
        }
        out
    };
    let id = [&[1][..], &number(3), &number(9)].concat();
    let head = wire::CheckpointHead {
        last: Some(wire::LogId { term: 3, index: 9 }),
        membership_log_id: Some(wire::LogId { term: 1, index: 1 }),
        membership: Some(wire::Membership {
            configs: vec![wire::Voters { node_ids: vec![1] }],
            members: vec![wire::Member { node_id: 1, address: "h:1".to_owned() }],
        }),
        time_micros: 7,
        position: 100,
        chain: 5,
        cut_time_micros: 3,
        cut_position: 50,
    }
    .encode_to_vec();
    let head_len = u32::try_from(head.len()).unwrap_or(0).to_le_bytes();
    let claim = |group: u32, flags: u8| {
        let mut out = group.to_le_bytes().to_vec();
        out.push(flags);
        [3, 2, 9, 3, 77].iter().for_each(|part| out.extend(number(*part)));
        out
    };
    let body = [
        &number(4)[..],
        &number(5),
        &number(2),
        &claim(0, 7),
        &claim(1, 2),
        &number(1),
        &number(2),
        &number(6),
        &number(8),
    ]
    .concat();
    vec![
        chosen(0, [&[0][..], &number(3), &number(2), &[1]].concat()),
        chosen(1, [&[0][..], &id].concat()),
        chosen(1, [0, 0]),
        chosen(2, [&[0][..], &membership].concat()),
        chosen(3, [&[0][..], &id, &membership].concat()),
        chosen(4, [&[1, 9, 3, 100, 7, 5][..], b"payload"].concat()),
        chosen(4, [&[2, 9, 3, 100, 7, 5, 0][..], &membership].concat()),
        chosen(5, [&head_len[..], &head, b"state"].concat()),
        chosen(6, [&[6][..], &body].concat()),
        chosen(
            7,
            keys::index::key(
                weft_proto::GroupId(1),
                weft_proto::PartitionUid(2),
                weft_proto::Offset(3),
            ),
        ),
        chosen(7, [7; 32]),
        chosen(7, [7; 29]),
        chosen(7, []),
    ]
}
