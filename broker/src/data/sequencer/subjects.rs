//! Looks up where the last events of subjects are, before a batch that expects them somewhere.
//!
//! What is in flight is in memory, and so is what was applied a moment ago. For the rest the batch
//! is held, and its partition with it, while the store is read.

use weft_proto::{Error, Offset, PartitionUid, Result};

use super::Append;
use super::proposer::Loop;
use crate::data::{DataGroup, Recent, lock};
use crate::read::History;
use crate::subjects::SubjectHash;

/// Where the last event of a subject is.
pub(super) type LastOf = (SubjectHash, Option<Offset>);

/// Whether the expectations of a batch hold.
pub(super) enum Verdict {
    Hold,
    Fail(Error),
    /// The store must be asked for these subjects.
    Unknown(Vec<SubjectHash>),
}

/// Subjects to be looked up in the store.
pub(super) struct Lookup {
    pub(super) partition: PartitionUid,
    pub(super) subjects: Vec<SubjectHash>,
}

impl Lookup {
    pub(super) async fn answer(self, group: DataGroup, history: History) -> Result<Vec<LastOf>> {
        let Self { partition, subjects } = self;
        let look = move || {
            let last_of = |hash| group.last_of_subject(partition, hash).map(|last| (hash, last));
            subjects.into_iter().map(last_of).collect::<Result<Vec<_>, _>>()
        };
        history.run(look).await?.map_err(|error| {
            Error::internal("the index of subjects cannot be read").with_source(error)
        })
    }
}

impl Loop {
    /// Compares what a batch expects with what is once all in flight is appended.
    pub(super) fn check_expected(&self, append: &Append, base: Offset) -> Verdict {
        let (partition, expected) = (append.batch.partition, &append.batch.expected);
        if expected.is_empty() {
            return Verdict::Hold;
        }
        let mut last = Vec::with_capacity(expected.subjects.len());
        let mut unknown = Vec::new();
        for one in &expected.subjects {
            let claimed = self.lead.subjects.find(partition, one.hash);
            // What the store said holds still: the partition waited for this batch since, so only
            // subjects that were claimed then have new events.
            let found = || append.found.get(&one.hash).copied().map(Recent::Known);
            let recent = claimed.map(|offset| Recent::Known(Some(offset))).or_else(found);
            match recent.unwrap_or_else(|| self.group.recent_of_subject(partition, one.hash)) {
                Recent::Known(offset) => last.push(offset),
                Recent::Stored => unknown.push(one.hash),
            }
        }
        if !unknown.is_empty() {
            return Verdict::Unknown(unknown);
        }
        let floor = {
            let machine = lock(&self.group.machine);
            let known = machine.state().partitions().get(partition);
            known.map_or(Offset(0), crate::partition::Partition::floor)
        };
        // What retention took is not there any more, whatever the index says.
        for offset in &mut last {
            *offset = offset.filter(|offset| *offset >= floor);
        }
        match expected.check(base, &last) {
            Ok(()) => Verdict::Hold,
            Err(error) => Verdict::Fail(error),
        }
    }
}
