//! What becomes of published events: futures that share the answer to their batch.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use weft_proto::{Error, Offset, PartitionId, Reason, Result, Timestamp, v1};

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Receipt {
    /// Its partition.
    pub partition: PartitionId,
    /// Its place in the partition.
    pub offset: Offset,
    /// When the partition's leader took it.
    pub append_time: Timestamp,
    /// It was there already, this is the original place: a retry was recognised, or an event with
    /// the same source and id and the same content.
    pub duplicate: bool,
    /// It has the attribute `deliverat` and waits for that time: its offset is its place among those
    /// that wait.
    pub delayed: bool,
}

/// The answer to one batch, shared by all who wait for a part of it.
#[derive(Debug)]
pub(super) struct Landed {
    ranges: Vec<v1::OffsetRange>,
    /// By index.
    refusals: Vec<v1::IndexedRefusal>,
}

impl Landed {
    pub(super) fn new(ack: v1::PublishAck) -> Self {
        let mut refusals = ack.refusals;
        refusals.sort_unstable_by_key(|refusal| refusal.index);
        Self { ranges: ack.ranges, refusals }
    }

    /// Whether the answer accounts for each event of the batch exactly once.
    pub(super) fn is_complete(&self, events: usize) -> bool {
        let stored = self.ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.count));
        let distinct = self.refusals.windows(2).all(|pair| pair[0].index < pair[1].index);
        let inside = self.refusals.last().is_none_or(|last| (last.index as usize) < events);
        distinct && inside && stored.saturating_add(self.refusals.len() as u64) == events as u64
    }

    /// Nothing of the batch is in its partition: the next one follows on the one before.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.iter().all(|range| range.count == 0 || range.delayed)
    }

    fn receipt(&self, index: u32) -> Result<Receipt> {
        let before = match self.refusals.binary_search_by_key(&index, |refusal| refusal.index) {
            Ok(at) => return Err(self.refusal(at)),
            Err(before) => before,
        };
        let mut rank = u64::from(index).saturating_sub(before as u64);
        for range in &self.ranges {
            if rank < range.count {
                return Ok(Receipt {
                    partition: PartitionId(range.partition),
                    offset: Offset(range.first.saturating_add(rank)),
                    append_time: Timestamp::from_micros(range.append_time_us),
                    duplicate: range.duplicate,
                    delayed: range.delayed,
                });
            }
            rank -= range.count;
        }
        Err(Error::internal("the answer to a batch does not cover this event"))
    }

    fn refusal(&self, at: usize) -> Error {
        let refusal = self.refusals.get(at).and_then(|refusal| refusal.refusal.clone());
        Error::from_refusal(refusal.unwrap_or_default())
    }
}

/// Some consecutive events of an answered batch.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) batch: Arc<Landed>,
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Part {
    fn refused(&self) -> impl Iterator<Item = (u32, Error)> {
        let (start, end) = (self.first, self.first.saturating_add(self.count));
        let from = self.batch.refusals.partition_point(|refusal| refusal.index < start);
        let refusals = self.batch.refusals.iter().enumerate().skip(from);
        refusals
            .take_while(move |(_, refusal)| refusal.index < end)
            .map(move |(at, refusal)| (refusal.index - start, self.batch.refusal(at)))
    }
}

pub(super) type PartResult = Result<Part>;
pub(super) type PartReceiver = oneshot::Receiver<PartResult>;

fn received(result: Result<PartResult, oneshot::error::RecvError>) -> PartResult {
    let lost = |_closed| Error::unavailable("the publisher was stopped; the fate is unknown");
    result.unwrap_or_else(|error| Err(lost(error)))
}

/// One published event that is on its way. Resolves when its fate is known, or when the deadline
/// of [`Timeouts::publish`](crate::Timeouts::publish) passes.
///
/// # Errors
///
/// The refusal of this event; or `Unavailable`, then its fate is unknown unless
/// [`Error::not_applied`] says otherwise.
///
/// # Cancel safety
///
/// Dropping it does not take the event back.
#[derive(Debug)]
#[must_use = "only the receipt tells that the event is stored"]
pub struct Pending(pub(super) PartReceiver);

impl Future for Pending {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let part = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(received(part).and_then(|part| part.batch.receipt(part.first)))
    }
}

/// Some published events that are on their way.
#[derive(Debug)]
#[must_use = "only the outcome tells that the events are stored"]
pub struct PendingBatch {
    pub(super) events: usize,
    pub(super) jobs: Vec<(Indexes, PartReceiver)>,
    /// Events that were refused before they were sent.
    pub(super) refused: Vec<(usize, Error)>,
}

/// Which of the caller's events a job carries.
#[derive(Debug)]
pub(super) enum Indexes {
    Range(Range<usize>),
    List(Vec<usize>),
}

impl Indexes {
    fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::List(list) => list.len(),
        }
    }

    fn get(&self, place: usize) -> usize {
        match self {
            Self::Range(range) => range.start + place,
            Self::List(list) => list.get(place).copied().unwrap_or(usize::MAX),
        }
    }
}

impl PendingBatch {
    /// Waits until the fate of all events is known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the events back.
    pub async fn outcome(self) -> BatchOutcome {
        let mut outcome = BatchOutcome { events: self.events, parts: Vec::new() };
        for (indexes, receiver) in self.jobs {
            outcome.parts.push((indexes, received(receiver.await)));
        }
        for (index, error) in self.refused {
            outcome.parts.push((Indexes::Range(index..index + 1), Err(error)));
        }
        outcome
    }
}

/// What became of some events.
#[derive(Debug)]
pub struct BatchOutcome {
    events: usize,
    parts: Vec<(Indexes, PartResult)>,
}

impl BatchOutcome {
    /// Number of events that are stored. Costs nothing per event.
    pub fn stored(&self) -> usize {
        let stored = |part: &Part| part.count as usize - part.refused().count();
        self.parts.iter().filter_map(|(_, part)| part.as_ref().ok()).map(stored).sum()
    }

    /// The first error, if an event is not known to be stored.
    pub fn first_error(&self) -> Option<Error> {
        self.parts.iter().find_map(|(_, part)| match part {
            Ok(part) => part.refused().next().map(|(_, error)| error),
            Err(error) => Some(copy_of(error)),
        })
    }

    /// One result per event, in the order in which they were published.
    pub fn receipts(&self) -> Vec<Result<Receipt>> {
        let missing = || Err(Error::new(Reason::Internal, "no result for this event"));
        let mut results: Vec<_> = (0..self.events).map(|_| missing()).collect();
        for (indexes, part) in &self.parts {
            for place in 0..indexes.len() {
                if let Some(result) = results.get_mut(indexes.get(place)) {
                    *result = match part {
                        Ok(part) => part.batch.receipt(
                            part.first.saturating_add(u32::try_from(place).unwrap_or(u32::MAX)),
                        ),
                        Err(error) => Err(copy_of(error)),
                    };
                }
            }
        }
        results
    }
}

/// The same error for someone else; only the source stays behind.
pub(super) fn copy_of(error: &Error) -> Error {
    let mut copy = Error::from_refusal(error.to_refusal());
    if let Some(after) = error.retry_after() {
        copy = copy.with_retry_after(after);
    }
    if error.not_applied() {
        copy = copy.with_not_applied();
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, duplicate: bool) -> v1::OffsetRange {
        let append_time_us = first;
        v1::OffsetRange { partition: 1, first, count: 2, append_time_us, duplicate, delayed: false }
    }

    fn landed() -> Landed {
        let refusal = |index| v1::IndexedRefusal {
            index,
            refusal: Some(Error::new(Reason::SchemaViolation, format!("no {index}")).to_refusal()),
        };
        Landed::new(v1::PublishAck {
            ranges: vec![range(10, false), range(20, true)],
            refusals: vec![refusal(4), refusal(1)],
            ..v1::PublishAck::default()
        })
    }

    #[test]
    fn each_event_gets_its_own_offset_or_refusal() {
        let landed = landed();

        let offsets: Vec<_> = (0..6)
            .map(|index| landed.receipt(index).map(|receipt| receipt.offset.get()).ok())
            .collect();

        assert_eq!(offsets, [Some(10), None, Some(11), Some(20), None, Some(21)]);
        let repeats: Vec<_> = [2, 3].map(|index| landed.receipt(index).unwrap().duplicate).into();
        assert_eq!(repeats, [false, true]);
        assert_eq!(landed.receipt(4).unwrap_err().message(), "no 4");
        assert!(landed.receipt(6).is_err());
        assert!(landed.is_complete(6) && !landed.is_complete(5) && !landed.is_complete(7));
    }

    #[test]
    fn a_part_tells_refusals_by_its_own_indexes() {
        let part = Part { batch: Arc::new(landed()), first: 3, count: 3 };

        let refused: Vec<_> = part.refused().map(|(index, _)| index).collect();

        assert_eq!(refused, [1]);
    }
}
