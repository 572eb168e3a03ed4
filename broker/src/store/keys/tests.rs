//! Round trips and golden bytes of every key family.

use proptest::prelude::*;

use super::point::LogPoint;
use super::*;
use weft_proto::{GroupId, Offset, PartitionUid};

fn point() -> impl Strategy<Value = LogPoint> {
    any::<[u64; 5]>().prop_map(|[index, term, pos, time, chain]| LogPoint {
        index,
        term,
        pos,
        time,
        chain,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn keys_round_trip(group: u32, a: u64, b: u64) {
        let g = GroupId(group);
        prop_assert_eq!(entry::decode_key(&entry::key(a)).unwrap(), a);
        prop_assert_eq!(vote::decode_key(&vote::key(g)).unwrap(), g);
        prop_assert_eq!(committed::decode_key(&committed::key(g)).unwrap(), g);
        prop_assert_eq!(purged::decode_key(&purged::key(g)).unwrap(), g);
        prop_assert_eq!(term::decode_key(&term::key(g, a)).unwrap(), (g, a));
        prop_assert_eq!(checkpoint::decode_key(&checkpoint::key(g, a)).unwrap(), (g, a));
        let (p, o) = (PartitionUid(a), Offset(b));
        prop_assert_eq!(index::decode_key(&index::key(g, p, o)).unwrap(), (g, p, o));
        let hash = u128::from(b).to_be_bytes();
        prop_assert_eq!(subject::decode_key(&subject::key(g, p, hash)).unwrap(), (g, p, hash));
        prop_assert_eq!(subject::decode(&subject::encode(o)).unwrap(), o);
    }

    #[test]
    fn keys_sort_like_their_numbers(a: (u32, u64, u64), b: (u32, u64, u64)) {
        let key = |(g, p, o)| index::key(GroupId(g), PartitionUid(p), Offset(o));
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        prop_assert_eq!(entry::key(a.1).cmp(&entry::key(b.1)), a.1.cmp(&b.1));
    }

    #[test]
    fn values_round_trip(p in point(), state: Vec<u8>, term: u64, at: u64) {
        prop_assert_eq!(purged::decode(&purged::encode(&p)).unwrap(), p);
        let stored = checkpoint::encode(&p, &state);
        prop_assert_eq!(checkpoint::decode(&stored).unwrap(), (p, state.as_slice()));
        prop_assert_eq!(committed::decode(&committed::encode(term, at)).unwrap(), (term, at));
        prop_assert_eq!(term::decode(&term::encode(at)).unwrap(), at);
        let record =
            index::IndexRecord { index: p.index, pos: p.pos, time: p.time, bytes: p.chain };
        prop_assert_eq!(index::decode(&index::encode(&record)).unwrap(), record);
    }

    #[test]
    fn foreign_bytes_are_refused_without_panic(bytes: Vec<u8>) {
        _ = index::decode_key(&bytes);
        _ = (subject::decode_key(&bytes), subject::decode(&bytes));
        _ = term::decode_key(&bytes);
        _ = checkpoint::decode(&bytes);
        _ = index::decode(&bytes);
        prop_assert_eq!(vote::decode_key(&bytes).is_ok(), bytes.len() == 5 && bytes[0] == b'v');
    }
}

#[test]
fn keys_keep_their_bytes() {
    let group = GroupId(0x0102);

    assert_eq!(vote::key(group), *b"v\0\0\x01\x02");
    let index = index::key(group, PartitionUid(3), Offset(4));
    assert_eq!(index, *b"i\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04");
    let subject = subject::key(group, PartitionUid(3), *b"0123456789abcdef");
    assert_eq!(subject, *b"s\0\0\x01\x02\0\0\0\0\0\0\0\x030123456789abcdef");
    assert_eq!(subject::encode(Offset(4)), b"\x04\0\0\0\0\0\0\0");
    assert_eq!(committed::encode(1, 2), b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
}
