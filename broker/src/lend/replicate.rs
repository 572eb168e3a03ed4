//! A change of a desk on its way into the log.

use bytes::Bytes;
use weft_proto::{AckLevel, Error, Offset, PartitionUid, Reason, Result, SchemaId};

use super::elsewhere;
use crate::data::{DataGroup, NewAppend, SchemaIds};
use crate::entry::{Command, OffsetRange, Settlement, Settles};
use crate::planted::{self, Bug};
use crate::state::Reply;
use crate::subjects::Expectations;
use crate::subscription::{Parked, SettleReply};

/// Bytes of dead letters that go into one batch.
const BATCH_BYTES: usize = 512 << 10;
/// Dead letters that go into one batch.
const BATCH_EVENTS: usize = 256;

/// A dead letter that is ready.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) offset: Offset,
    pub(super) event: Bytes,
    pub(super) schema: SchemaId,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) group: DataGroup,
    /// Whose cursor, where, and under which epoch; without ranges.
    pub(super) settlement: Settlement,
    pub(super) settled: Vec<OffsetRange>,
    pub(super) parked: Vec<(Offset, Parked)>,
    pub(super) letters: Vec<Letter>,
    /// Where dead letters go.
    pub(super) dead: PartitionUid,
}

impl Writing {
    /// Writes it; what comes back without an error is committed and applied.
    ///
    /// # Errors
    ///
    /// After any of them the desk is to be closed: what it knows may differ from what is stored.
    pub(super) async fn write(self) -> Result<()> {
        let Self { group, settlement, mut settled, mut parked, letters, dead } = self;
        if planted::is(Bug::GivenBackForgotten) {
            let given_back = std::mem::take(&mut parked).into_iter();
            settled.extend(given_back.filter_map(|(offset, _)| OffsetRange::new(offset, offset)));
        }
        for batch in split(letters) {
            let settles = Settles {
                subscription: settlement.subscription,
                partition: settlement.partition,
                epoch: settlement.epoch,
                offsets: batch.iter().map(|letter| letter.offset).collect(),
            };
            let append = NewAppend {
                partition: dead,
                schemas: SchemaIds::Each(batch.iter().map(|letter| letter.schema).collect()),
                events: batch.into_iter().map(|letter| letter.event).collect(),
                packed: None,
                ids: Vec::new(),
                subjects: Vec::new(),
                producer: None,
                expected: Expectations::default(),
                atomic: false,
                ack: AckLevel::Durable,
                settles: Some(settles),
                ingest: None,
            };
            let answer = group.sequencer.append(append).await?;
            answer.await.map_err(|_closed| elsewhere())??;
        }
        if settled.is_empty() && parked.is_empty() && !settlement.lends {
            return Ok(());
        }
        let settlement = Settlement { ranges: settled, parked, ..settlement };
        match group.sequencer.command(Command::Settle(vec![settlement])).await? {
            Reply::Settlements(replies) => match replies.first() {
                Some(SettleReply::Settled { .. }) => Ok(()),
                Some(SettleReply::Fenced { .. } | SettleReply::UnknownCursor) => Err(elsewhere()),
                Some(SettleReply::TooFragmented) => {
                    let message = "too many events in between are not settled";
                    Err(Error::new(Reason::Overloaded, message))
                }
                Some(SettleReply::BeyondEnd { .. }) | None => Err(unexpected()),
            },
            _ => Err(unexpected()),
        }
    }
}

fn split(letters: Vec<Letter>) -> Vec<Vec<Letter>> {
    let mut batches: Vec<Vec<Letter>> = Vec::new();
    let mut bytes = 0;
    for letter in letters {
        let len = letter.event.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_EVENTS && bytes + len <= BATCH_BYTES => {
                bytes += len;
                batch.push(letter);
            }
            _ => {
                bytes = len;
                batches.push(vec![letter]);
            }
        }
    }
    batches
}

fn unexpected() -> Error {
    Error::internal("the state machine answered something else")
}
