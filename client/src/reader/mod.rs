//! Reading stored events: a range, or a stream as it grows.

mod leg;
mod sums;

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt as _};
use weft_proto::filter::Filter;
use weft_proto::{Error, Offset, PartitionId, Result, v1};

use self::leg::{Leg, LegItem};
use self::sums::Sums;
use crate::batch::{Batch, Record};
use crate::client::Client;
use crate::position::Position;

/// What to read.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent wishes of the caller")]
pub struct ReadOptions {
    /// `name` or `namespace/name`.
    pub stream: String,
    /// Partitions; empty = all.
    pub partitions: Vec<u32>,
    /// Where to start, inclusive.
    pub from: Position,
    /// Where to stop, exclusive; `None` follows the stream for ever.
    pub to: Option<Position>,
    /// Conditions that an event must all pass.
    pub filters: Vec<Filter>,
    /// Stop after this many events.
    pub events_max: Option<u64>,
    /// Ask the leaders first: everything that was acknowledged before the call is read, or comes
    /// before [`ReadItem::CaughtUp`]. Costs a round trip to a majority.
    pub linearizable: bool,
    /// Follow all partitions as one sequence, by (append time, partition, offset). A range is
    /// merged in any case. See [`Reader`] for what is promised.
    pub merged: bool,
    /// Compute the SHA-256 of the range, and compare it with that of the node.
    pub checksum: bool,
}

impl ReadOptions {
    /// All that is stored now, from the first event to the last.
    pub fn all(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            partitions: Vec::new(),
            from: Position::Earliest,
            to: Some(Position::Latest),
            filters: Vec::new(),
            events_max: None,
            linearizable: false,
            merged: false,
            checksum: false,
        }
    }

    /// Whatever is published from now on.
    pub fn follow(stream: impl Into<String>) -> Self {
        Self { from: Position::Latest, to: None, ..Self::all(stream) }
    }
}

/// What a reader yields.
#[derive(Clone, Debug)]
pub enum ReadItem {
    /// Events.
    Batch(Batch),
    /// Everything that was stored when the read began has been yielded; comes once, and only
    /// while following.
    CaughtUp,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Number of events.
    pub events: u64,
    /// Bytes of encoded events.
    pub bytes: u64,
}

/// What was read of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSummary {
    /// The partition.
    pub partition: PartitionId,
    /// Number of events.
    pub events: u64,
    /// Bytes of encoded events.
    pub bytes: u64,
    /// Offsets of the first and the last event.
    pub offsets: Option<(Offset, Offset)>,
    /// Offsets in the range that hold no event; unknown before the end of a range, and when it was
    /// read in pieces.
    pub holes: Option<u64>,
    /// See [`weft_proto::checksum`]; only if it was asked for.
    pub sha256: Option<[u8; 32]>,
}

/// A read that is under way. A broken connection is taken up again where it broke, without gap and
/// without repetition.
///
/// Events of one partition come by offset. A range is merged by (append time, partition, offset).
/// A followed stream yields each partition as it comes, unless it is asked to be merged: then
/// events of partitions that share a group come in that order, and an event waits up to 100 ms for
/// partitions of other groups; what such a group delivers later than that comes late, but comes.
pub struct Reader {
    legs: Legs,
    /// Legs that have not caught up; 0 = the signal was given, or never comes.
    behind: usize,
    events_max: Option<u64>,
    summary: ReadSummary,
    sums: Sums,
}

enum Legs {
    Merged(Vec<Merging>),
    Followed(SelectAll<BoxStream<'static, Result<LegItem>>>),
    Ended,
}

struct Merging {
    leg: BoxStream<'static, Result<LegItem>>,
    head: Option<Batch>,
    ended: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl Client {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown stream or partition; `Unavailable` when no node answers in time.
    pub async fn read(&self, options: ReadOptions) -> Result<Reader> {
        let routes = self.route(&options.stream).await?;
        let known = |wanted: &u32| routes.iter().any(|route| route.partition == *wanted);
        if let Some(wrong) = options.partitions.iter().find(|wanted| !known(wanted)) {
            let message = format!("stream {} has no partition {wrong}", options.stream);
            return Err(Error::invalid(message).with_field("partitions"));
        }
        let chosen =
            |partition| options.partitions.is_empty() || options.partitions.contains(&partition);
        let chosen: Vec<u32> =
            routes.iter().map(|route| route.partition).filter(|&p| chosen(p)).collect();
        let follows = options.to.is_none();
        if follows && options.checksum {
            let message = "a read that follows has no end, and no checksum";
            return Err(Error::invalid(message).with_field("checksum"));
        }
        let sums = Sums::new(&chosen, options.checksum);
        let shares: Vec<Vec<u32>> = if follows && options.merged {
            vec![chosen]
        } else {
            chosen.into_iter().map(|partition| vec![partition]).collect()
        };
        let leg = |share| Leg::new(self.clone(), &options, share).into_stream();
        let legs: Vec<_> = shares.into_iter().map(leg).collect();
        let behind = if follows { legs.len() } else { 0 };
        let legs = if follows {
            Legs::Followed(legs.into_iter().collect())
        } else {
            let merging = |leg| Merging { leg, head: None, ended: false };
            Legs::Merged(legs.into_iter().map(merging).collect())
        };
        let summary = ReadSummary::default();
        Ok(Reader { legs, behind, events_max: options.events_max, summary, sums })
    }

    /// Resolves a position to an offset in each partition, as the node that answers knows it.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown stream; `Unavailable` when no node answers in time.
    pub async fn locate(
        &self,
        stream: &str,
        position: Position,
    ) -> Result<Vec<v1::PartitionOffset>> {
        self.offsets(stream, position, false).await
    }

    /// The same, with everything in sight that was acknowledged before the call.
    ///
    /// # Errors
    ///
    /// As [`Client::locate`]; `Unavailable` also when a partition's leader has no majority.
    pub async fn locate_linearizable(
        &self,
        stream: &str,
        position: Position,
    ) -> Result<Vec<v1::PartitionOffset>> {
        self.offsets(stream, position, true).await
    }

    /// Says which events filters let pass, and why the others do not: a sample, or what is stored.
    /// Set `stream` and what else is wanted; the generation is set here.
    ///
    /// # Errors
    ///
    /// `Invalid` for a filter that is wrong, with its path as the field; `NotFound` for an unknown
    /// stream or subscription; `Unavailable` when no node answers in time.
    pub async fn test_filter(
        &self,
        request: v1::TestFilterRequest,
    ) -> Result<v1::TestFilterResponse> {
        let request = v1::TestFilterRequest { min_generation: self.generation(), ..request };
        let test = |transport| {
            let request = request.clone();
            async move { v1::read_client::ReadClient::new(transport).test_filter(request).await }
        };
        self.call(crate::client::Repeat::Always, test).await
    }

    /// Tells the story of an event: where it is stored, what it fitted, what became of it at each
    /// subscription that the caller may see, and which events came of it. Set `stream`, `id` and what
    /// else is wanted; the generation is set here. No events in the answer: there is none with that id
    /// among those that `searched` names.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown stream; `Denied` where the caller may not read it; `Unavailable` when no
    /// node answers in time, or a partition of the stream has no majority.
    pub async fn trace_event(
        &self,
        request: v1::TraceEventRequest,
    ) -> Result<v1::TraceEventResponse> {
        let request = v1::TraceEventRequest { min_generation: self.generation(), ..request };
        let trace = |transport| {
            let request = request.clone();
            async move { v1::read_client::ReadClient::new(transport).trace_event(request).await }
        };
        self.call(crate::client::Repeat::Always, trace).await
    }

    async fn offsets(
        &self,
        stream: &str,
        position: Position,
        linearizable: bool,
    ) -> Result<Vec<v1::PartitionOffset>> {
        let request = v1::LocateRequest {
            stream: stream.to_owned(),
            position: Some(position.into()),
            min_generation: self.generation(),
            linearizable,
        };
        let locate = |transport| {
            let request = request.clone();
            async move { v1::read_client::ReadClient::new(transport).locate(request).await }
        };
        Ok(self.call(crate::client::Repeat::Always, locate).await?.offsets)
    }
}

impl Reader {
    /// What comes next; `None` at the end of the range. Waits while following.
    ///
    /// # Errors
    ///
    /// `NotFound` when the stream is gone or the start lies outside of what is stored; `Denied`;
    /// `Unavailable` when a range cannot be read on in time. The read is then over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<ReadItem>> {
        if self.events_max.is_some_and(|max| self.summary.events >= max) {
            self.legs = Legs::Ended;
        }
        loop {
            let item = match &mut self.legs {
                Legs::Ended => None,
                Legs::Merged(legs) => merged(legs, &mut self.sums).await.transpose(),
                Legs::Followed(legs) => legs.next().await,
            };
            match item {
                None => return Ok(None),
                Some(Err(error)) => {
                    self.legs = Legs::Ended;
                    return Err(error);
                }
                Some(Ok(LegItem::CaughtUp)) if self.behind == 1 => {
                    self.behind = 0;
                    return Ok(Some(ReadItem::CaughtUp));
                }
                Some(Ok(LegItem::End { .. })) => {}
                Some(Ok(LegItem::CaughtUp)) => self.behind = self.behind.saturating_sub(1),
                Some(Ok(LegItem::Batch(batch))) => {
                    return Ok(Some(ReadItem::Batch(self.count(batch))));
                }
            }
        }
    }

    /// What was read until now; at the end, all of it.
    pub fn summary(&self) -> ReadSummary {
        self.summary
    }

    /// What was read of each partition until now; at the end, all of it.
    pub fn partitions(&self) -> Vec<PartitionSummary> {
        self.sums.partitions()
    }

    /// The SHA-256 of what was read until now, if it was asked for. Whoever reads the same range
    /// gets the same, from any replica.
    pub fn checksum(&self) -> Option<[u8; 32]> {
        self.sums.checksum()
    }

    /// The events one by one.
    pub fn into_records(self) -> impl Stream<Item = Result<Record>> + Send {
        let batches = futures::stream::try_unfold(self, |mut reader| async move {
            loop {
                match reader.next().await? {
                    None => return Ok::<_, Error>(None),
                    Some(ReadItem::CaughtUp) => {}
                    Some(ReadItem::Batch(batch)) => return Ok(Some((batch, reader))),
                }
            }
        });
        batches.flat_map(|batch| {
            let (records, error) = match batch {
                Ok(batch) => (batch.into_records().map(Ok).collect(), None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            futures::stream::iter(records.into_iter().chain(error))
        })
    }

    fn count(&mut self, mut batch: Batch) -> Batch {
        if let Some(max) = self.events_max {
            let left = max.saturating_sub(self.summary.events);
            batch.events.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.summary.events += batch.events.len() as u64;
        self.summary.bytes += batch.bytes() as u64;
        self.sums.add(&batch);
        batch
    }
}

/// The oldest of the next batches of all partitions.
async fn merged(legs: &mut [Merging], sums: &mut Sums) -> Result<Option<LegItem>> {
    for merging in legs.iter_mut() {
        while merging.head.is_none() && !merging.ended {
            match merging.leg.next().await {
                Some(Ok(LegItem::Batch(batch))) => merging.head = Some(batch),
                Some(Ok(LegItem::CaughtUp)) => {}
                Some(Ok(LegItem::End { sums: ends, whole })) => sums.end(&ends, whole)?,
                Some(Err(error)) => return Err(error),
                None => merging.ended = true,
            }
        }
    }
    let key = |batch: &Batch| (batch.append_time, batch.partition);
    let oldest = legs
        .iter_mut()
        .filter(|merging| merging.head.is_some())
        .min_by_key(|merging| merging.head.as_ref().map(key));
    Ok(oldest.and_then(|merging| merging.head.take()).map(LegItem::Batch))
}
