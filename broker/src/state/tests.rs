//! Checkpoints, replies and what applies to the group as a whole.

use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;
use weft_proto::{Epoch, ProducerId, ResourceUid, Sequence};

use super::*;
use crate::entry::{
    EntryBuilder, Lease, Member, NewBatch, OffsetRange, Opening, Payload, ProducerBatch, Settlement,
};
use crate::partition::{Admission, Decision, PartitionReply};
use crate::subscription::desk::{LeaseId, Token};
use crate::subscription::{Failure, LeaseReply, OffsetSet, Parked, SettleReply};

const UID: PartitionUid = PartitionUid(3);

fn time(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn batch_entry(expected: u64, events: &[Bytes], micros: u64) -> Bytes {
    let producer = ProducerBatch {
        id: ProducerId(0x0f),
        epoch: Epoch(1),
        sequence: Sequence(expected + 1),
        previous: Sequence(expected),
    };
    let mut builder = EntryBuilder::new();
    let batch = NewBatch::new(UID, Offset(expected), Payload::Events(events));
    builder.push(NewBatch { producer: Some(producer), ..batch }).unwrap();
    builder.finish(time(micros))
}

fn parked() -> Vec<(Offset, Parked)> {
    let failure = Failure::new("no");
    let void = Token { epoch: Epoch(2), lease: LeaseId(6) };
    let (first_failure, due) = (time(5), time(9));
    vec![(Offset(2), Parked { attempts: 3, first_failure, due, void, failure })]
}

/// One of everything a checkpoint holds.
fn example() -> GroupState {
    let mut state = GroupState::new();
    let opening = Opening { partition: UID, start: Offset(0) };
    let member = Member::new("m").unwrap();
    let (subscription, partition) = (ResourceUid(4), UID);
    let lease = Lease { subscription, partition, start: Offset(0), member, lends: true };
    let ranges = vec![OffsetRange::new(Offset(1), Offset(1)).unwrap()];
    let (epoch, parked) = (Epoch(1), parked());
    let settlement = Settlement { subscription, partition, epoch, ranges, parked, lends: false };
    let trim = Trim { floor_index: 2, floors: vec![] };
    let events = [Bytes::from_static(b"a"), Bytes::from_static(b"b"), Bytes::from_static(b"c")];
    let payloads = [
        Command::Open(vec![opening]).encode(time(5)),
        batch_entry(0, &events, 6),
        Command::Lease(vec![lease]).encode(time(7)),
        Command::Settle(vec![settlement]).encode(time(8)),
        Command::Trim(trim).encode(time(9)),
    ];
    for (payload, index) in payloads.iter().zip(1..) {
        state.apply(payload, index).unwrap();
    }
    state
}

#[test]
fn checkpoint_has_golden_bytes() {
    let golden = "00 \
        0900000000000000 3901000000000000 0000000000000000 0200000000000000 \
        01000000 0300000000000000 01 0300000000000000 0000000000000000 0900000000000000 \
            0600000000000000 01 2000000000000000 \
            01000000 0000000000000000000000000000000f 0100000000000000 0100000000000000 \
                0600000000000000 \
                01000000 0100000000000000 0000000000000000 03000000 0600000000000000 \
        01000000 0400000000000000 0300000000000000 0100000000000000 0100000000000000 0000000000000000 \
            0000000000000000 0100 6d \
            01000000 0100000000000000 0100000000000000 \
            01000000 0200000000000000 03000000 0500000000000000 0900000000000000 \
                0200000000000000 0600000000000000 0200 6e6f";

    let state = example();

    let bytes = state.encode();
    assert_eq!(format!("{bytes:x}"), golden.replace(' ', ""));
    assert_eq!(GroupState::decode(&bytes), Ok(state.clone()));
    assert_eq!(state.state_hash(), xxhash_rust::xxh3::xxh3_64(&bytes));
}

#[test]
fn state_hash_is_xxh3_64() {
    // The value of the reference implementation for no input and seed 0.
    assert_eq!(xxhash_rust::xxh3::xxh3_64(b""), 0x2d06_8005_38d3_94c2);
}

#[test]
fn checkpoints_of_a_newer_release_are_refused() {
    let mut bytes = example().encode().to_vec();
    bytes[0] = 1;

    assert_eq!(GroupState::decode(&bytes), Err(CheckpointError::UnknownVersion(1)));
}

#[test]
fn log_time_never_goes_back() {
    let mut state = example();
    let event = [Bytes::from_static(b"d")];

    let outcome = state.apply(&batch_entry(3, &event, 1), 9).unwrap();

    let appended = vec![BatchReply::Appended { base: Offset(3) }];
    assert_eq!(outcome.reply, Reply::Batches { time: time(9), batches: appended });
    assert_eq!(outcome.effects.readable, [(UID, Offset(4))]);
    assert_eq!(state.partitions().get(UID).unwrap().last_time(), time(9));
}

#[test]
fn one_entry_appends_several_batches_in_order() {
    let mut state = example();
    let events = [Bytes::from_static(b"d")];
    let mut builder = EntryBuilder::new();
    for (uid, expected) in [(3, 3), (3, 4), (9, 0), (3, 9)] {
        let payload = Payload::Events(&events);
        builder.push(NewBatch::new(PartitionUid(uid), Offset(expected), payload)).unwrap();
    }

    let outcome = state.apply(&builder.finish(time(9)), 9).unwrap();

    let batches = vec![
        BatchReply::Appended { base: Offset(3) },
        BatchReply::Appended { base: Offset(4) },
        BatchReply::Closed,
        BatchReply::Void { end: Offset(5) },
    ];
    assert_eq!(outcome.reply, Reply::Batches { time: time(9), batches });
    assert_eq!(outcome.effects.readable, [(UID, Offset(4)), (UID, Offset(5))]);
}

#[test]
fn index_record_follows_each_checkpoint() {
    let mut state = example();
    let event = [Bytes::from_static(b"d")];
    let outcome = state.apply(&batch_entry(3, &event, 10), 6).unwrap();
    assert_eq!(outcome.effects.index, []);
    let pos = state.pos();
    state.apply(&batch_entry(4, &event, 11), 7).unwrap();
    state.checkpoint_was_at(state.pos());

    let outcome = state.apply(&batch_entry(5, &event, 12), 8).unwrap();

    let record = outcome.effects.index[0];
    assert_eq!((record.base, record.index), (Offset(5), 8));
    assert!(record.pos > pos && record.bytes > 0);
}

#[test]
fn trimming_and_dropping_have_effects_once() {
    let mut state = example();
    let trim =
        Trim { floor_index: 3, floors: vec![(UID, Offset(2)), (PartitionUid(99), Offset(1))] };
    let trim = Command::Trim(trim).encode(time(9));
    let drop = Command::Drop(vec![UID]).encode(time(9));

    let first = state.apply(&trim, 6).unwrap().effects;
    assert_eq!((first.floors, first.floor_index), (vec![(UID, Offset(2))], Some(3)));
    // Event 0 was not settled, event 1 was.
    assert_eq!(first.overtaken, [(ResourceUid(4), UID, 1)]);
    let cursor = state.cursors().get(ResourceUid(4), UID).unwrap();
    assert_eq!((cursor.watermark(), cursor.overtaken()), (Offset(2), 1));
    assert_eq!(state.apply(&trim, 7).unwrap().effects, Effects::default());
    assert_eq!(state.apply(&drop, 8).unwrap().effects.dropped, [UID]);
    assert_eq!(state.apply(&drop, 9).unwrap().effects, Effects::default());
    assert_eq!(state.partitions().iter().len(), 0);
}

#[test]
fn the_last_event_of_each_subject_of_an_appended_batch_is_told() {
    let mut state = example();
    let events = vec![Bytes::from_static(b"e"); 4];
    let [a, b] = [SubjectHash([2; 16]), SubjectHash([1; 16])];
    let subjects = [a, SubjectHash::NONE, b, a];
    let entry = |expected| {
        let batch = NewBatch::new(UID, Offset(expected), Payload::Events(&events));
        let mut builder = EntryBuilder::new();
        builder.push(NewBatch { subject_hashes: &subjects, ..batch }).unwrap();
        builder.finish(time(9))
    };

    let void = state.apply(&entry(9), 6).unwrap().effects;
    let appended = state.apply(&entry(3), 7).unwrap().effects;

    assert_eq!(void.subjects, []);
    let last = |subject, offset| LastOfSubject { partition: UID, subject, offset: Offset(offset) };
    assert_eq!(appended.subjects, [last(b, 5), last(a, 6)]);
    assert_eq!(appended.identities, []);
}

#[test]
fn opening_twice_keeps_the_partition() {
    let mut state = example();
    let opening = Opening { partition: UID, start: Offset(0) };
    let other = Opening { partition: PartitionUid(4), start: Offset(8) };

    let reply = state.apply(&Command::Open(vec![opening, other]).encode(time(9)), 6).unwrap().reply;

    let open = |end| PartitionReply::Open { end: Offset(end) };
    assert_eq!(reply, Reply::Partitions(vec![open(3), open(8)]));
}

#[test]
fn unreadable_entry_changes_nothing() {
    let mut state = example();
    let before = state.clone();

    assert_eq!(state.apply(&Bytes::from_static(&[0, 77]), 6), Err(EntryError::UnknownKind(77)));

    assert_eq!(state, before);
}

#[test]
fn admission_uses_a_restored_checkpoint() {
    let state = GroupState::decode(&example().encode()).unwrap();
    let batch = ProducerBatch {
        id: ProducerId(0x0f),
        epoch: Epoch(1),
        sequence: Sequence(1),
        previous: Sequence(0),
    };

    let count = NonZeroU32::new(3).unwrap();
    let decision = Admission::new().admit(state.partitions(), UID, count, Some(batch));

    assert_eq!(
        decision,
        Decision::Duplicate { first: Offset(0), count: count.get(), time: time(6) }
    );
}

#[test]
fn replies_survive_the_way_to_the_proposer() {
    let settled: OffsetSet =
        [OffsetRange::new(Offset(8), Offset(9)).unwrap()].into_iter().collect();
    let (end, epoch) = (Offset(u64::MAX), Epoch(7));
    let replies = [
        Reply::Batches {
            time: time(u64::MAX),
            batches: vec![
                BatchReply::Appended { base: end },
                BatchReply::Void { end: Offset(2) },
                BatchReply::Closed,
            ],
        },
        Reply::Partitions(vec![
            PartitionReply::Open { end },
            PartitionReply::Sealed { end: Offset(5) },
            PartitionReply::Unknown,
        ]),
        Reply::Leases(vec![
            LeaseReply::Leased {
                epoch,
                previous: Epoch(2),
                watermark: Offset(6),
                settled,
                parked: parked().into_iter().collect(),
            },
            LeaseReply::UnknownPartition,
        ]),
        Reply::Settlements(vec![
            SettleReply::Settled { watermark: Offset(6) },
            SettleReply::Fenced { epoch },
            SettleReply::BeyondEnd { end },
            SettleReply::TooFragmented,
            SettleReply::UnknownCursor,
        ]),
        Reply::Done,
    ];

    for reply in replies {
        let bytes = reply.encode();

        assert_eq!(Reply::decode(&bytes), Ok(reply));
        for cut in 0..bytes.len() {
            assert!(Reply::decode(&bytes[..cut]).is_err());
        }
    }
}

#[test]
fn a_floor_beyond_the_end_is_no_state() {
    /// Place of the floor of the first partition: after the head, its uid, its flag and its end.
    const FLOOR_AT: usize = 1 + 4 * 8 + 4 + 8 + 1 + 8;
    let mut state = GroupState::new();
    let opening = Opening { partition: PartitionUid(1), start: Offset(7) };
    let payload = Command::Open(vec![opening]).encode(Timestamp::from_micros(1));
    state.apply(&payload, 1).unwrap();
    let mut bytes = state.encode().to_vec();
    assert_eq!(bytes[FLOOR_AT], 7);

    bytes[FLOOR_AT] = 8;

    let damaged = DecodeError::Malformed("a floor lies beyond the end");
    assert_eq!(GroupState::decode(&bytes), Err(CheckpointError::Damaged(damaged)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn hostile_checkpoints_never_panic(
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        random in vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = example().encode().to_vec();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        // What can be read at all is read exactly as it was written.
        if let Ok(state) = GroupState::decode(&bytes) {
            prop_assert_eq!(&state.encode()[..], &bytes[..]);
        }
        prop_assert!(GroupState::decode(&bytes[..cut.index(bytes.len())]).is_err());
        _ = GroupState::decode(&random);
        _ = Reply::decode(&random);
    }
}
