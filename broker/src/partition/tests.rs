//! One test for each rule about events in a partition.

use std::time::Duration;

use bytes::Bytes;
use weft_proto::{Epoch, ProducerId, Sequence};

use super::*;
use crate::entry::{Content, Entry, EntryBuilder, NewBatch, Payload, ProducerBatch};

const UID: PartitionUid = PartitionUid(1);
const NOW: Timestamp = Timestamp::from_micros(1_000_000);

fn n(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn at(pos: u64) -> Place {
    Place { index: 5, pos, time: NOW, checkpoint_pos: 0 }
}

fn later(hours: u64) -> Place {
    Place { time: NOW.saturating_add(Duration::from_hours(hours)), ..at(0) }
}

fn batch(id: u128, epoch: u64, sequence: u64, previous: u64) -> ProducerBatch {
    ProducerBatch {
        id: ProducerId(id),
        epoch: Epoch(epoch),
        sequence: Sequence(sequence),
        previous: Sequence(previous),
    }
}

fn header(expected: u64, count: u32, producer: Option<ProducerBatch>) -> Header {
    let events = vec![Bytes::from_static(b"ev"); count.try_into().unwrap()];
    let mut builder = EntryBuilder::new();
    let new = NewBatch::new(UID, Offset(expected), Payload::Events(&events));
    builder.push(NewBatch { producer, ..new }).unwrap();
    match Entry::decode(&builder.finish(NOW)).unwrap().content {
        Content::Batches(mut batches) => batches.remove(0).header,
        Content::Command(_) => panic!("no batch"),
    }
}

fn open(start: u64) -> Partitions {
    let mut partitions = Partitions::default();
    partitions.open(Opening { partition: UID, start: Offset(start) });
    partitions
}

fn append(partitions: &mut Partitions, producer: ProducerBatch, count: u32) -> BatchReply {
    let end = partitions.get(UID).unwrap().end();
    partitions.append(&header(end.get(), count, Some(producer)), at(0)).0
}

#[test]
fn batch_is_appended_only_where_it_was_expected() {
    let mut partitions = open(10);

    let wrong = partitions.append(&header(9, 1, None), at(0));
    assert_eq!(wrong, (BatchReply::Void { end: Offset(10) }, None));
    let ahead = partitions.append(&header(11, 1, None), at(0));
    assert_eq!(ahead, (BatchReply::Void { end: Offset(10) }, None));
    let right = partitions.append(&header(10, 3, None), at(0)).0;
    assert_eq!(right, BatchReply::Appended { base: Offset(10) });
    let again = partitions.append(&header(10, 3, None), at(0)).0;
    assert_eq!(again, BatchReply::Void { end: Offset(13) });
    assert_eq!(partitions.get(UID).unwrap().bytes(), 3 * 4);
}

#[test]
fn void_batch_changes_nothing() {
    let mut partitions = open(0);
    append(&mut partitions, batch(1, 1, 1, 0), 1);
    let before = partitions.clone();

    partitions.append(&header(0, 1, Some(batch(1, 2, 1, 0))), later(48));

    assert_eq!(partitions, before);
}

#[test]
fn last_offset_is_never_passed() {
    let mut partitions = open(u64::MAX - 1);

    let beyond = partitions.append(&header(u64::MAX - 1, 2, None), at(0)).0;
    assert_eq!(beyond, BatchReply::Void { end: Offset(u64::MAX - 1) });
    let last = partitions.append(&header(u64::MAX - 1, 1, None), at(0)).0;
    assert_eq!(last, BatchReply::Appended { base: Offset(u64::MAX - 1) });
    let full = Admission::new().admit(&partitions, UID, n(1), None);
    assert_eq!(full, Decision::Full);
}

#[test]
fn sealed_and_unknown_partitions_take_nothing() {
    let mut partitions = open(0);

    assert_eq!(partitions.seal(UID), PartitionReply::Sealed { end: Offset(0) });

    assert_eq!(partitions.append(&header(0, 1, None), at(0)), (BatchReply::Closed, None));
    let opening = Opening { partition: UID, start: Offset(7) };
    assert_eq!(partitions.open(opening), PartitionReply::Sealed { end: Offset(0) });
    assert_eq!(Admission::new().admit(&partitions, UID, n(1), None), Decision::Closed);
    assert!(partitions.remove(UID));
    assert_eq!(partitions.append(&header(0, 1, None), at(0)), (BatchReply::Closed, None));
    assert_eq!(partitions.seal(UID), PartitionReply::Unknown);
    assert_eq!(Admission::new().admit(&partitions, UID, n(1), None), Decision::NotOpen);
}

#[test]
fn floor_only_rises_and_stays_within_the_partition() {
    let mut partitions = open(5);
    partitions.append(&header(5, 4, None), at(0));

    assert_eq!(partitions.trim(UID, Offset(7)), Some(Offset(7)));
    assert_eq!(partitions.trim(UID, Offset(6)), None);
    assert_eq!(partitions.trim(UID, Offset(u64::MAX)), Some(Offset(9)));
    assert_eq!(partitions.trim(PartitionUid(99), Offset(1)), None);
    assert_eq!(partitions.get(UID).unwrap().floor(), Offset(9));
}

#[test]
fn index_records_are_sparse_in_busy_partitions_and_dense_in_rare_ones() {
    let mut partitions = open(0);
    let mut record = |pos: u64, checkpoint_pos: u64| {
        let end = partitions.get(UID).unwrap().end();
        let place = Place { checkpoint_pos, ..at(pos) };
        partitions.append(&header(end.get(), 2, None), place).1
    };

    let first =
        IndexRecord { partition: UID, base: Offset(0), index: 5, pos: 100, time: NOW, bytes: 0 };
    assert_eq!(record(100, 0), Some(first));
    assert_eq!(record(100 + INDEX_BYTES - 1, 0), None);
    let bytes = 2 * u64::from(header(0, 2, None).body_len);
    let second = IndexRecord { base: Offset(4), pos: 100 + INDEX_BYTES, bytes, ..first };
    assert_eq!(record(100 + INDEX_BYTES, 0), Some(second));
    assert_eq!(record(200 + INDEX_BYTES, 150 + INDEX_BYTES).unwrap().base, Offset(6));
    assert_eq!(record(201 + INDEX_BYTES, 150 + INDEX_BYTES), None);
}

#[test]
fn retries_find_their_offset_among_recent_batches() {
    let mut partitions = open(0);
    for sequence in 1..=66 {
        append(&mut partitions, batch(1, 1, sequence, sequence - 1), 2);
    }
    let producer = partitions.get(UID).unwrap().producers().get(ProducerId(1)).unwrap();

    assert_eq!(producer.find(Sequence(2)), None);
    assert_eq!(producer.find(Sequence(3)).unwrap().first, Offset(4));
    assert_eq!(producer.find(Sequence(66)).unwrap().first, Offset(130));
    assert_eq!(producer.find(Sequence(67)), None);
}

#[test]
fn newer_epoch_forgets_the_batches_of_the_older() {
    let mut partitions = open(0);
    append(&mut partitions, batch(1, 1, 1, 0), 1);
    append(&mut partitions, batch(1, 1, 2, 1), 1);

    append(&mut partitions, batch(1, 2, 3, 0), 1);

    let producer = partitions.get(UID).unwrap().producers().get(ProducerId(1)).unwrap();
    assert_eq!((producer.epoch, producer.last), (Epoch(2), Sequence(3)));
    assert_eq!(producer.find(Sequence(3)).unwrap().first, Offset(2));
    assert_eq!(producer.find(Sequence(2)), None);
}

#[test]
fn idle_producers_are_forgotten_by_log_time() {
    let mut partitions = open(0);
    append(&mut partitions, batch(1, 1, 1, 0), 1);

    partitions.append(&header(1, 1, Some(batch(2, 1, 1, 0))), later(24));
    assert!(partitions.get(UID).unwrap().producers().get(ProducerId(1)).is_some());

    partitions.append(&header(2, 1, Some(batch(2, 1, 2, 1))), later(25));
    assert!(partitions.get(UID).unwrap().producers().get(ProducerId(1)).is_none());
    assert_eq!(partitions.get(UID).unwrap().producers().len(), 1);
}

#[test]
fn longest_idle_producer_makes_room() {
    let mut producers = Producers::default();
    let many = u128::try_from(PRODUCERS_LEN).unwrap();
    let mut record = |id: u128, seconds: u64| {
        let time = NOW.saturating_add(Duration::from_secs(seconds));
        producers.record(&batch(id, 1, 1, 0), Offset(0), 1, time);
    };
    // All idle for equally long; producer 10 is used again later.
    for id in 10..many + 10 {
        record(id, 0);
    }
    record(10, 1);

    // The newcomer would be the first by id, but it is never the one to go.
    record(1, 1);

    assert_eq!(producers.len(), PRODUCERS_LEN);
    assert!(producers.get(ProducerId(1)).is_some());
    assert!(producers.get(ProducerId(10)).is_some(), "it was used last");
    assert!(producers.get(ProducerId(11)).is_none(), "the first of the equally idle goes");
    assert!(producers.get(ProducerId(12)).is_some());
}

/// A partition where producer 1 has appended batch 1 at 0 and batch 3 at 2, in epoch 5.
fn with_history() -> Partitions {
    let mut partitions = open(0);
    append(&mut partitions, batch(1, 5, 1, 0), 2);
    append(&mut partitions, batch(1, 5, 3, 1), 1);
    partitions
}

#[test]
fn applied_batch_is_a_duplicate_with_its_first_offset() {
    let state = with_history();

    let decision = Admission::new().admit(&state, UID, n(2), Some(batch(1, 5, 1, 0)));

    let expected = Decision::Duplicate { first: Offset(0), count: 2, time: NOW };
    assert_eq!(decision, expected);
}

#[test]
fn batch_in_flight_is_pending() {
    let state = with_history();
    let mut admission = Admission::new();

    let next = batch(1, 5, 4, 3);
    assert_eq!(
        admission.admit(&state, UID, n(7), Some(next)),
        Decision::Append { base: Offset(3) }
    );
    let pending = Decision::Pending { base: Offset(3), count: n(7) };
    assert_eq!(admission.admit(&state, UID, n(7), Some(next)), pending);
    let other = admission.admit(&state, UID, n(1), None);
    assert_eq!(other, Decision::Append { base: Offset(10) });
    assert_eq!(admission.in_flight(), 2);
}

#[test]
fn batch_that_does_not_follow_is_out_of_order() {
    let state = with_history();
    let mut admission = Admission::new();
    let out_of_order = Decision::OutOfOrder { last: Sequence(3) };

    assert_eq!(admission.admit(&state, UID, n(1), Some(batch(1, 5, 5, 4))), out_of_order);
    // Between two known batches, or before them.
    assert_eq!(admission.admit(&state, UID, n(1), Some(batch(1, 5, 2, 1))), out_of_order);
    assert_eq!(admission.admit(&state, UID, n(1), Some(batch(1, 5, 2, 3))), out_of_order);
    assert_eq!(admission.in_flight(), 0);
    admission.admit(&state, UID, n(1), Some(batch(1, 5, 9, 3)));
    let after = admission.admit(&state, UID, n(1), Some(batch(1, 5, 10, 3)));
    assert_eq!(after, Decision::OutOfOrder { last: Sequence(9) });
}

#[test]
fn older_epoch_is_fenced() {
    let state = with_history();
    let mut admission = Admission::new();

    let older = admission.admit(&state, UID, n(1), Some(batch(1, 4, 4, 3)));
    assert_eq!(older, Decision::Fenced { epoch: Epoch(5) });
    let newer = admission.admit(&state, UID, n(1), Some(batch(1, 6, 1, 0)));
    assert_eq!(newer, Decision::Append { base: Offset(3) });
    // In flight counts too.
    let older = admission.admit(&state, UID, n(1), Some(batch(1, 5, 4, 3)));
    assert_eq!(older, Decision::Fenced { epoch: Epoch(6) });
}

#[test]
fn runs_begin_with_a_first_batch() {
    let state = with_history();
    let mut admission = Admission::new();

    let unknown = admission.admit(&state, UID, n(1), Some(batch(2, 1, 4, 3)));
    assert_eq!(unknown, Decision::UnknownProducer);
    let zero = admission.admit(&state, UID, n(1), Some(batch(2, 1, 0, 0)));
    assert_eq!(zero, Decision::UnknownProducer);
    let newer = admission.admit(&state, UID, n(1), Some(batch(1, 6, 4, 3)));
    assert_eq!(newer, Decision::OutOfOrder { last: Sequence(0) });
    let first = admission.admit(&state, UID, n(1), Some(batch(2, 1, 4, 0)));
    assert_eq!(first, Decision::Append { base: Offset(3) });
}

#[test]
fn duplicate_is_recognised_in_a_sealed_partition() {
    let mut state = with_history();
    state.seal(UID);
    let mut admission = Admission::new();

    let duplicate = admission.admit(&state, UID, n(1), Some(batch(1, 5, 3, 1)));
    assert!(matches!(duplicate, Decision::Duplicate { first: Offset(2), .. }));
    let new = admission.admit(&state, UID, n(1), Some(batch(1, 5, 4, 3)));
    assert_eq!(new, Decision::Closed);
}

#[test]
fn nothing_is_admitted_after_a_failure_until_all_is_known() {
    let mut state = with_history();
    let other = PartitionUid(2);
    state.open(Opening { partition: other, start: Offset(0) });
    let mut admission = Admission::new();
    let (first, second) = (batch(1, 5, 4, 3), batch(1, 5, 5, 4));
    admission.admit(&state, UID, n(2), Some(first));
    admission.admit(&state, UID, n(1), Some(second));

    admission.fail(UID, Offset(3));
    assert_eq!(admission.admit(&state, UID, n(2), Some(first)), Decision::Draining);
    assert_eq!(admission.admit(&state, UID, n(2), None), Decision::Draining);
    let known = admission.admit(&state, UID, n(1), Some(batch(1, 5, 3, 1)));
    assert!(matches!(known, Decision::Duplicate { .. }));
    let elsewhere = admission.admit(&state, other, n(1), None);
    assert_eq!(elsewhere, Decision::Append { base: Offset(0) });
    admission.fail(UID, Offset(5));

    assert!(!admission.is_draining(UID));
    let again = admission.admit(&state, UID, n(2), Some(first));
    assert_eq!(again, Decision::Append { base: Offset(3) });
    let again = admission.admit(&state, UID, n(1), Some(second));
    assert_eq!(again, Decision::Append { base: Offset(5) });
}

/// Why a proposal names its leader: what an older leadership admitted could fall exactly where the
/// new one expects something else, and so make room for a second copy.
#[test]
fn late_entry_of_an_older_leadership_would_be_appended_twice() {
    let mut state = open(0);
    let retried = batch(1, 1, 1, 0);
    let mut older = Admission::new();
    older.admit(&state, UID, n(1), Some(retried));
    let late = header(0, 1, Some(retried));

    let mut newer = Admission::new();
    newer.admit(&state, UID, n(1), None);
    let base = newer.admit(&state, UID, n(1), Some(retried));
    assert_eq!(base, Decision::Append { base: Offset(1) });
    // The log would have to refuse this one.
    let first = state.append(&late, at(0)).0;
    let void = state.append(&header(0, 1, None), at(0)).0;
    let second = state.append(&header(1, 1, Some(retried)), at(0)).0;

    assert_eq!(first, BatchReply::Appended { base: Offset(0) });
    assert_eq!(void, BatchReply::Void { end: Offset(1) });
    assert_eq!(second, BatchReply::Appended { base: Offset(1) });
}
