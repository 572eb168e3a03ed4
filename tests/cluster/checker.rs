//! What publishers were told against what is stored. Pure.
//!
//! *Knows* nothing of the cluster: attempts in, replicas in, faults out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Who published an event, and as which of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventId {
    pub(crate) publisher: u32,
    pub(crate) number: u64,
}

/// A partition of one of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Partition {
    pub(crate) stream: u32,
    pub(crate) partition: u32,
}

/// What a publisher was told about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is stored there.
    Acked(Partition, u64),
    /// It is certainly not stored.
    Refused,
    /// It is stored once, or not.
    Unknown,
}

/// An event as it was published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) id: EventId,
    /// Of its bytes.
    pub(crate) digest: u64,
    pub(crate) fate: Fate,
}

/// An event as a replica has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) offset: u64,
    pub(crate) id: EventId,
    pub(crate) digest: u64,
    pub(crate) append_time: u64,
}

/// What one node has: all its partitions, each in the order in which it reads.
pub(crate) type Replica = BTreeMap<Partition, Vec<Stored>>;

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Acknowledged, and not there at all.
    Lost { id: EventId, told: (Partition, u64) },
    /// Acknowledged for one place, stored at another.
    Misplaced { id: EventId, told: (Partition, u64), found: (Partition, u64) },
    /// Stored more than once.
    Duplicated { id: EventId, first: (Partition, u64), again: (Partition, u64) },
    /// Stored although it was refused.
    Undead { id: EventId, found: (Partition, u64) },
    /// Stored, and never published.
    Foreign { id: EventId, found: (Partition, u64) },
    /// Stored with other bytes than were published.
    Altered { id: EventId, found: (Partition, u64) },
    /// The offset after the one before it is missing, or comes again.
    Gap { partition: Partition, expected: u64, found: u64 },
    /// Two events of one publisher in the wrong order.
    Disorder { partition: Partition, earlier: EventId, later: EventId },
    /// Two nodes do not have the same, from this place on.
    Diverged { nodes: (usize, usize), partition: Partition, place: usize },
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.publisher, self.number)
    }
}

impl EventId {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (publisher, number) = text.split_once('-')?;
        Some(Self { publisher: publisher.parse().ok()?, number: number.parse().ok()? })
    }
}

/// Every way in which the replicas are not what the publishers were told.
pub(crate) fn faults(attempts: &[Attempt], replicas: &[Replica]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let Some(first) = replicas.first() else { return faults };
    for (node, replica) in replicas.iter().enumerate().skip(1) {
        compare(first, replica, (0, node), &mut faults);
    }
    // Each on its own: with a divergence, nobody can say which of them is right.
    for replica in replicas {
        check_replica(attempts, replica, &mut faults);
    }
    faults
}

fn compare(one: &Replica, other: &Replica, nodes: (usize, usize), faults: &mut Vec<Fault>) {
    let partitions: BTreeSet<_> = one.keys().chain(other.keys()).copied().collect();
    for partition in partitions {
        let of = |replica: &Replica| replica.get(&partition).cloned().unwrap_or_default();
        let (one, other) = (of(one), of(other));
        let place = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        if place < one.len().max(other.len()) {
            faults.push(Fault::Diverged { nodes, partition, place });
        }
    }
}

fn check_replica(attempts: &[Attempt], replica: &Replica, faults: &mut Vec<Fault>) {
    let published: BTreeMap<_, _> = attempts.iter().map(|attempt| (attempt.id, attempt)).collect();
    let mut found = BTreeMap::new();
    for (&partition, events) in replica {
        let mut newest: BTreeMap<u32, EventId> = BTreeMap::new();
        for (expected, event) in (0..).zip(events) {
            let place = (partition, event.offset);
            let id = event.id;
            if event.offset != expected {
                faults.push(Fault::Gap { partition, expected, found: event.offset });
            }
            if let Some(&first) = found.get(&id) {
                faults.push(Fault::Duplicated { id, first, again: place });
                continue;
            }
            found.insert(id, place);
            match published.get(&id) {
                None => faults.push(Fault::Foreign { id, found: place }),
                Some(attempt) if attempt.digest != event.digest => {
                    faults.push(Fault::Altered { id, found: place });
                }
                Some(_) => {}
            }
            if let Some(later) = newest.insert(id.publisher, id).filter(|before| *before > id) {
                faults.push(Fault::Disorder { partition, earlier: id, later });
            }
        }
    }
    for attempt in attempts {
        let (id, found) = (attempt.id, found.get(&attempt.id).copied());
        match (attempt.fate, found) {
            (Fate::Acked(partition, offset), None) => {
                faults.push(Fault::Lost { id, told: (partition, offset) });
            }
            (Fate::Acked(partition, offset), Some(found)) if found != (partition, offset) => {
                faults.push(Fault::Misplaced { id, told: (partition, offset), found });
            }
            (Fate::Refused, Some(found)) => faults.push(Fault::Undead { id, found }),
            _ => {}
        }
    }
}
