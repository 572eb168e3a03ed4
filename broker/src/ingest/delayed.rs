//! Appending batches in which some events are to be delivered later.

use futures::future::BoxFuture;
use weft_proto::{AckLevel, Error, NodeId, PartitionUid, Reason, Result};

use super::later::Part;
use super::{Batch, Ingest, lost};
use crate::data::{Appended, DataGroup, NewAppend, SchemaIds};
use crate::delay;
use crate::entry::ProducerBatch;
use crate::resources::Placement;
use crate::subjects::Expectations;

/// What must hold for a batch, whatever its events.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Rules {
    identity: Option<ProducerBatch>,
    atomic: bool,
    /// It expects offsets.
    expects: bool,
    ack: AckLevel,
    /// Where it came in.
    ingest: NodeId,
}

impl Rules {
    pub(super) fn of(batch: &Batch, ingest: NodeId) -> Self {
        Self {
            identity: batch.identity,
            atomic: batch.atomic,
            expects: batch.expected_offset.is_some() || !batch.expected_subjects.is_empty(),
            ack: batch.ack,
            ingest,
        }
    }

    fn append(
        self,
        partition: PartitionUid,
        part: Part,
        producer: Option<ProducerBatch>,
    ) -> NewAppend {
        NewAppend {
            partition,
            events: part.events,
            packed: None,
            schemas: SchemaIds::Each(part.schemas),
            ids: part.ids,
            subjects: part.subjects,
            producer,
            expected: Expectations::default(),
            atomic: self.atomic,
            ack: self.ack,
            settles: None,
            ingest: Some(self.ingest),
        }
    }
}

impl Ingest {
    /// Appends what is for now and what is for later, each where it goes. What is for later is
    /// recognised by source and id when it comes again, never by its batch: it is in another
    /// partition than the rest.
    ///
    /// # Errors
    ///
    /// Before anything is queued: they say `not_applied`. What comes out of the future is an error of
    /// what is for now, of which nothing is stored then; or one without a certain fate.
    pub(super) async fn append_parts(
        &self,
        group: DataGroup,
        placement: Placement,
        rules: Rules,
        (now, later): (Part, Part),
    ) -> Result<BoxFuture<'static, Result<(Appended, Appended)>>> {
        if rules.expects {
            let message = format!(
                "an event with {} gets its offset when it is delivered: none can be expected of it",
                delay::ATTRIBUTE
            );
            return Err(Error::invalid(message).with_field(delay::ATTRIBUTE));
        }
        if rules.atomic && !now.events.is_empty() {
            let message =
                "events that are delivered later are no part of an atomic batch with others";
            return Err(Error::new(Reason::AtomicScope, message).with_field("atomic"));
        }
        self.delays.check_room(placement.delayed, later.events.len())?;
        let delays = self.delays.clone();
        let later = rules.append(placement.delayed, later, None);
        if now.events.is_empty() {
            let later = group.sequencer.append(later).await?;
            return Ok(Box::pin(async move {
                let later = later.await.map_err(lost)??;
                delays.published(group.id);
                Ok((Appended::default(), later))
            }));
        }
        let now = rules.append(placement.uid, now, rules.identity);
        let now = group.sequencer.append(now).await?;
        Ok(Box::pin(async move {
            // One after the other: were the first refused, the second must not be there either.
            let now = now.await.map_err(lost)??;
            let later = async { group.sequencer.append(later).await?.await.map_err(lost)? };
            let later = later.await.map_err(|error| stored_in_part(&error))?;
            delays.published(group.id);
            Ok((now, later))
        }))
    }
}

/// Some events are stored, so whatever the error says of the others is not true of the batch. Sent again
/// as a whole, what is there is recognised.
fn stored_in_part(error: &Error) -> Error {
    let message =
        format!("what is to be delivered later may not be stored, the other events are: {error}");
    let whole = Error::unavailable(message);
    match error.retry_after() {
        Some(after) => whole.with_retry_after(after),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_batch_of_which_a_part_is_stored_has_no_certain_fate() {
        let after = Duration::from_millis(70);
        let error = Error::new(Reason::Overloaded, "no room").with_not_applied();

        let told = stored_in_part(&error.with_retry_after(after));

        assert!(told.is_retryable() && !told.not_applied());
        assert_eq!((told.reason(), told.retry_after()), (Reason::Unavailable, Some(after)));
    }
}
