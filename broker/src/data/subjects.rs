//! Where a replica keeps the last offset of each subject: beside its log.

use weft_proto::{Offset, PartitionUid};

use super::DataGroup;
use crate::store::keys::subject;
use crate::store::{Family, Queued, StoreError};
use crate::subjects::SubjectHash;

/// What memory says of the last event of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recent {
    /// It is there, or, with none, there is no such event.
    Known(Option<Offset>),
    /// The store must be asked.
    Stored,
}

impl DataGroup {
    /// Looks among what was applied a moment ago and is not in the store yet.
    pub fn recent_of_subject(&self, partition: PartitionUid, hash: SubjectHash) -> Recent {
        match self.writer.deferred(&subject::key(self.id, partition, hash.0)) {
            // What cannot be read was not written here.
            Some(Queued::Put(value)) => {
                subject::decode(&value).map_or(Recent::Stored, |offset| Recent::Known(Some(offset)))
            }
            Some(Queued::Remove) => Recent::Known(None),
            None => Recent::Stored,
        }
    }

    /// Offset of the last applied event with a subject. It may lie below the floor. Reads the disk.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn last_of_subject(
        &self,
        partition: PartitionUid,
        hash: SubjectHash,
    ) -> Result<Option<Offset>, StoreError> {
        // In this order: a value is here until it is there.
        match self.recent_of_subject(partition, hash) {
            Recent::Known(offset) => Ok(offset),
            Recent::Stored => {
                let key = subject::key(self.id, partition, hash.0);
                let value = self.engine.get(Family::Meta, &key)?;
                value.map(|value| subject::decode(&value)).transpose()
            }
        }
    }
}
