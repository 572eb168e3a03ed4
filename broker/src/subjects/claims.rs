//! What will be the last offset of each subject once all that is in flight is appended.

use std::collections::BTreeMap;

use weft_proto::{Offset, PartitionUid};

use super::{SubjectHash, places};

/// The subjects of batches in flight. One lives for one leadership.
#[derive(Debug, Default)]
pub struct Claims {
    last: BTreeMap<(PartitionUid, SubjectHash), Offset>,
}

impl Claims {
    /// Whether nothing is in flight that has a subject.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Where the last event of a subject will be, if one is in flight.
    pub fn find(&self, partition: PartitionUid, subject: SubjectHash) -> Option<Offset> {
        self.last.get(&(partition, subject)).copied()
    }

    /// A batch that begins at `base` is in flight.
    pub fn insert(&mut self, partition: PartitionUid, subjects: &[SubjectHash], base: Offset) {
        for (subject, offset) in places(subjects.iter().copied(), base) {
            self.last.insert((partition, subject), offset);
        }
    }

    /// A batch is applied, void, or was never proposed. What a later batch claims stays claimed.
    ///
    /// After a batch that failed, the partition must admit nothing before all of it has landed: the
    /// claim of a batch in front of it may be gone with its own.
    pub fn release(&mut self, partition: PartitionUid, subjects: &[SubjectHash], base: Offset) {
        for (subject, offset) in places(subjects.iter().copied(), base) {
            let key = (partition, subject);
            if self.last.get(&key) == Some(&offset) {
                self.last.remove(&key);
            }
        }
    }
}
