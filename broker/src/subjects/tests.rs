//! What claims and expectations promise.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weft_proto::{Offset, PartitionId, PartitionUid, Reason};

use super::*;

const UID: PartitionUid = PartitionUid(1);

fn hash(number: u8) -> SubjectHash {
    match number {
        0 => SubjectHash::NONE,
        number => SubjectHash([number; 16]),
    }
}

/// Stored with the events: other bytes would be another format.
#[test]
fn the_hash_of_a_subject_never_changes() {
    let number = u128::from_be_bytes(SubjectHash::of(7, "cart/1").0);
    assert_eq!(format!("{number:032x}"), "8609357338aa4b7369a495dc3c4d7f2c");
    assert_ne!(SubjectHash::of(7, "cart/2"), SubjectHash::of(7, "cart/1"));
    assert_ne!(SubjectHash::of(8, "cart/1"), SubjectHash::of(7, "cart/1"));
    assert!(SubjectHash::of(7, "").is_some() && !SubjectHash::NONE.is_some());
}

#[test]
fn a_claim_lasts_until_its_own_batch_has_landed() {
    let mut claims = Claims::default();
    claims.insert(UID, &[hash(1), hash(0), hash(2), hash(1)], Offset(10));
    claims.insert(UID, &[hash(1)], Offset(14));
    assert_eq!(claims.find(UID, hash(1)), Some(Offset(14)));
    assert_eq!(claims.find(UID, hash(2)), Some(Offset(12)));
    assert_eq!((claims.find(PartitionUid(2), hash(1)), claims.find(UID, hash(0))), (None, None));

    claims.release(UID, &[hash(1), hash(0), hash(2), hash(1)], Offset(10));
    assert_eq!(claims.find(UID, hash(1)), Some(Offset(14)), "the later batch has it");
    assert_eq!(claims.find(UID, hash(2)), None);
    claims.release(UID, &[hash(1)], Offset(14));
    assert!(claims.is_empty());
}

fn expecting(end: Option<u64>, subjects: &[(&str, Option<u64>)]) -> Expectations {
    let subject = |&(subject, offset): &(&str, Option<u64>)| ExpectedSubject {
        subject: subject.to_owned(),
        hash: SubjectHash::of(0, subject),
        offset: offset.map(Offset),
    };
    let subjects = subjects.iter().map(subject).collect();
    Expectations { partition: PartitionId(3), end: end.map(Offset), subjects }
}

#[test]
fn everything_that_fails_is_told_at_once_with_what_is() {
    let last = [Some(Offset(5)), None, Some(Offset(7)), None];
    let right = [("a", Some(5)), ("b", None), ("c", Some(7)), ("d", None)];
    assert!(expecting(Some(9), &right).check(Offset(9), &last).is_ok());
    assert!(expecting(None, &right).check(Offset(9), &last).is_ok());

    let wrong = [("a", Some(4)), ("b", Some(1)), ("c", None), ("d", None)];
    let error = expecting(Some(8), &wrong).check(Offset(9), &last).unwrap_err();

    assert_eq!((error.reason(), error.offset()), (Reason::WrongOffset, Some(9)));
    let told: Vec<_> = error
        .unmet()
        .iter()
        .map(|one| (one.partition, one.subject.as_deref(), one.expected, one.actual))
        .collect();
    let expected = [
        (3, None, Some(8), Some(9)),
        (3, Some("a"), Some(4), Some(5)),
        (3, Some("b"), Some(1), None),
        (3, Some("c"), None, Some(7)),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        error.message(),
        "the partition ends at offset 9, not at 8; partition 3 has the last event with subject \
         \"a\" at offset 5, not at 4; partition 3 has no event with subject \"b\", where the last \
         one was expected at 1; and 1 more expectations failed"
    );
    let none_there = expecting(None, &[("c", None)]).check(Offset(9), &last[2..3]).unwrap_err();
    assert!(none_there.message().ends_with("at offset 7, where none was expected"));
    assert_eq!(none_there.field(), Some("expected_subjects"));
}

#[test]
fn a_sentence_shows_no_more_than_the_beginning_of_a_long_subject() {
    let long = "ä".repeat(500);
    let error = expecting(None, &[(&long, None)]).check(Offset(1), &[Some(Offset(0))]).unwrap_err();

    assert!(error.message().len() < 300, "{error}");
    assert_eq!(error.unmet()[0].subject.as_deref(), Some(long.as_str()));
}

/// What a leader does with a partition: it launches batches, and they land in order.
#[derive(Clone, Debug)]
enum Step {
    Launch(Vec<u8>),
    Land,
    /// The oldest one is void, and with it all behind it.
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => proptest::collection::vec(0_u8..5, 1..6).prop_map(Step::Launch),
        1 => Just(Step::Land),
        1 => Just(Step::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Claims on top of what is applied give what a scan of all events would give, whether they are
    /// applied or in flight.
    #[test]
    fn claims_over_the_index_are_what_a_scan_finds(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut claims = Claims::default();
        let mut index = BTreeMap::new();
        let mut applied: Vec<SubjectHash> = Vec::new();
        let mut flying: Vec<Vec<SubjectHash>> = Vec::new();
        for step in steps {
            let base = Offset(applied.len() as u64);
            match step {
                Step::Launch(subjects) => {
                    let ahead: usize = flying.iter().map(Vec::len).sum();
                    let batch: Vec<_> = subjects.into_iter().map(hash).collect();
                    claims.insert(UID, &batch, Offset(base.0 + ahead as u64));
                    flying.push(batch);
                }
                Step::Land if !flying.is_empty() => {
                    let batch = flying.remove(0);
                    // Applied first, then the sequencer hears of it.
                    index.extend(places(batch.iter().copied(), base));
                    claims.release(UID, &batch, base);
                    applied.extend(batch);
                }
                Step::Land => {}
                Step::Fail => {
                    let mut at = base;
                    for batch in flying.drain(..) {
                        claims.release(UID, &batch, at);
                        at = Offset(at.0 + batch.len() as u64);
                    }
                    prop_assert!(claims.is_empty());
                }
            }
            let all: Vec<_> = applied.iter().chain(flying.iter().flatten()).copied().collect();
            for subject in (1..5).map(hash) {
                let found = claims.find(UID, subject).or_else(|| index.get(&subject).copied());
                let scanned = all.iter().rposition(|one| *one == subject);
                prop_assert_eq!(found, scanned.map(|at| Offset(at as u64)));
            }
        }
    }
}
