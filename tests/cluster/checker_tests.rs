//! Each fault that the checker knows is planted once, alone, and found.

use super::checker::{Attempt, EventId, Fate, Fault, Partition, Replica, Stored, faults};

const P0: Partition = Partition { stream: 0, partition: 0 };
const P1: Partition = Partition { stream: 0, partition: 1 };

fn id(publisher: u32, number: u64) -> EventId {
    EventId { publisher, number }
}

fn digest(id: EventId) -> u64 {
    u64::from(id.publisher) * 1_000 + id.number
}

fn attempt(id: EventId, fate: Fate) -> Attempt {
    Attempt { id, digest: digest(id), fate }
}

fn stored(offset: u64, id: EventId) -> Stored {
    Stored { offset, id, digest: digest(id), append_time: 7 }
}

/// Two publishers, two partitions, one event of unknown fate that is stored, one that is not, and
/// one that was refused.
fn attempts() -> Vec<Attempt> {
    vec![
        attempt(id(1, 0), Fate::Acked(P0, 0)),
        attempt(id(1, 1), Fate::Unknown),
        attempt(id(1, 2), Fate::Acked(P0, 3)),
        attempt(id(1, 3), Fate::Unknown),
        attempt(id(2, 0), Fate::Acked(P0, 1)),
        attempt(id(2, 1), Fate::Acked(P1, 0)),
        attempt(id(2, 2), Fate::Refused),
    ]
}

fn replica() -> Replica {
    let first =
        vec![stored(0, id(1, 0)), stored(1, id(2, 0)), stored(2, id(1, 1)), stored(3, id(1, 2))];
    Replica::from([(P0, first), (P1, vec![stored(0, id(2, 1))])])
}

/// What is found when all replicas have the same change.
fn found_after(change: impl FnOnce(&mut Replica)) -> Vec<Fault> {
    let mut replica = replica();
    change(&mut replica);
    faults(&attempts(), &[replica])
}

fn first(replica: &mut Replica) -> &mut Vec<Stored> {
    replica.get_mut(&P0).unwrap()
}

#[test]
fn what_was_told_is_no_fault() {
    assert_eq!(faults(&attempts(), &[replica(), replica(), replica()]), []);
}

#[test]
fn a_lost_event_is_found() {
    let found = found_after(|replica| replica.get_mut(&P1).unwrap().clear());

    assert_eq!(found, [Fault::Lost { id: id(2, 1), told: (P1, 0) }]);
}

#[test]
fn an_event_of_unknown_fate_may_be_missing_but_not_its_offset() {
    let found = found_after(|replica| {
        first(replica).remove(2);
        first(replica)[2].offset = 2;
    });
    assert_eq!(found, [Fault::Misplaced { id: id(1, 2), told: (P0, 3), found: (P0, 2) }]);

    let found = found_after(|replica| _ = first(replica).remove(2));
    assert_eq!(found, [Fault::Gap { partition: P0, expected: 2, found: 3 }]);
}

#[test]
fn a_duplicate_is_found_also_in_another_partition() {
    let found = found_after(|replica| first(replica).push(stored(4, id(1, 1))));
    let again = (P0, 4);
    assert_eq!(found, [Fault::Duplicated { id: id(1, 1), first: (P0, 2), again }]);

    let found = found_after(|replica| replica.get_mut(&P1).unwrap().push(stored(1, id(1, 1))));
    let again = (P1, 1);
    assert_eq!(found, [Fault::Duplicated { id: id(1, 1), first: (P0, 2), again }]);
}

#[test]
fn the_wrong_partition_is_found() {
    let found = found_after(|replica| {
        replica.get_mut(&P1).unwrap().clear();
        first(replica).push(stored(4, id(2, 1)));
    });

    assert_eq!(found, [Fault::Misplaced { id: id(2, 1), told: (P1, 0), found: (P0, 4) }]);
}

#[test]
fn wrong_order_is_found() {
    let found = found_after(|replica| {
        first(replica).push(stored(4, id(1, 3)));
        let events = first(replica);
        (events[2].id, events[4].id) = (events[4].id, events[2].id);
        (events[2].digest, events[4].digest) = (events[4].digest, events[2].digest);
    });

    let disorder = |earlier, later| Fault::Disorder { partition: P0, earlier, later };
    assert_eq!(found, [disorder(id(1, 2), id(1, 3)), disorder(id(1, 1), id(1, 2))]);
}

#[test]
fn what_was_refused_or_never_published_is_found() {
    let found = found_after(|replica| first(replica).push(stored(4, id(2, 2))));
    assert_eq!(found, [Fault::Undead { id: id(2, 2), found: (P0, 4) }]);

    let found = found_after(|replica| first(replica).push(stored(4, id(9, 0))));
    assert_eq!(found, [Fault::Foreign { id: id(9, 0), found: (P0, 4) }]);
}

#[test]
fn other_bytes_are_found() {
    let found = found_after(|replica| first(replica)[1].digest = 0);

    assert_eq!(found, [Fault::Altered { id: id(2, 0), found: (P0, 1) }]);
}

#[test]
fn replicas_that_differ_are_found() {
    let mut shorter = replica();
    first(&mut shorter).pop();
    let told = Fault::Lost { id: id(1, 2), told: (P0, 3) };
    let diverged = |nodes, place| Fault::Diverged { nodes, partition: P0, place };
    assert_eq!(faults(&attempts(), &[replica(), replica(), shorter]), [diverged((0, 2), 3), told]);

    let mut other_time = replica();
    first(&mut other_time)[1].append_time = 8;
    assert_eq!(faults(&attempts(), &[replica(), other_time]), [diverged((0, 1), 1)]);
}

#[test]
fn an_id_is_read_as_it_is_written() {
    assert_eq!(EventId::parse(&id(3, 17).to_string()), Some(id(3, 17)));
    assert_eq!(EventId::parse("3-x"), None);
}
