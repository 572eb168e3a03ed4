//! Going through stored events, as far as time and bytes allow.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::yield_now;
use tokio::time::Instant;
use weft_proto::{Offset, PartitionUid, Result, Timestamp, v1};

use super::{Finder, Found};
use crate::read::{Tape, resolve};
use crate::resources::{Placement, StreamView};

/// Bytes of events read at once.
const READ_BYTES: usize = 256 << 10;
/// Of all that one question looks through.
const BYTES_MAX: usize = 256 << 20;
const TIME_MAX: Duration = Duration::from_secs(10);
/// The same where a client waits for the answer to something else: it gives one attempt 5 s.
const ASIDE_MAX: Duration = Duration::from_secs(4);

/// What a question may still look through.
pub(in crate::rpc) struct Budget {
    bytes: usize,
    until: Instant,
}

impl Budget {
    /// For what is asked alone.
    pub(in crate::rpc) fn new() -> Self {
        Self { bytes: BYTES_MAX, until: Instant::now() + TIME_MAX }
    }

    /// For what is looked for on the way to something else.
    pub(in crate::rpc) fn aside() -> Self {
        Self { bytes: BYTES_MAX, until: Instant::now() + ASIDE_MAX }
    }

    fn is_spent(&self) -> bool {
        self.bytes == 0 || Instant::now() >= self.until
    }
}

/// Which events of each partition: those of the stream, its dead letters, or those for later.
#[derive(Clone, Copy)]
pub(in crate::rpc) enum Which {
    Events,
    DeadLetters,
    Delayed,
}

impl Which {
    const fn of(self, placement: &Placement) -> PartitionUid {
        match self {
            Self::Events => placement.uid,
            Self::DeadLetters => placement.dead,
            Self::Delayed => placement.delayed,
        }
    }
}

impl Finder<'_> {
    /// Shows the events of a stream from a position on, partition by partition, until `look` has seen
    /// enough; it says of each whether the caller may know of it.
    pub(in crate::rpc) async fn scan(
        &self,
        (stream, which): (&StreamView, Which),
        from: &v1::Position,
        budget: &mut Budget,
        mut look: impl FnMut(Found) -> ControlFlow<(), bool> + Send,
    ) -> Result<v1::Searched> {
        let asked = match from.at {
            Some(v1::position::At::Time(time)) => Timestamp::try_from(time).ok(),
            _ => None,
        };
        let mut searched =
            v1::Searched { stream: stream.name.to_string(), ..v1::Searched::default() };
        let mut oldest = asked;
        for placement in stream.placements.iter() {
            let partition = which.of(placement);
            let group = self.ingest.group(placement.group)?;
            let bounds = group.bounds(partition);
            let first = resolve(group, partition, self.history, Some(from)).await?;
            let first = first.unwrap_or(bounds.floor).max(bounds.floor);
            let mut tape = Tape::new(group.clone(), partition, self.history.clone(), first);
            while tape.next() < bounds.end {
                if budget.is_spent() {
                    searched.cut = true;
                    break;
                }
                let runs = tape.read(bounds.end, READ_BYTES).await?;
                if runs.is_empty() {
                    break;
                }
                for run in runs {
                    if asked.is_none() {
                        oldest = Some(oldest.map_or(run.time, |oldest| oldest.min(run.time)));
                    }
                    for (number, event) in (0_u64..).zip(&run.events) {
                        budget.bytes = budget.bytes.saturating_sub(event.len());
                        let found = Found {
                            placement: *placement,
                            offset: Offset(run.first.get().saturating_add(number)),
                            time: run.time,
                            schema: run.schema,
                            ingest: run.ingest,
                            event: Bytes::clone(event),
                        };
                        match look(found) {
                            ControlFlow::Continue(counts) => searched.events += u64::from(counts),
                            ControlFlow::Break(()) => {
                                searched.events += 1;
                                searched.from_us = oldest.map_or(0, Timestamp::as_micros);
                                return Ok(searched);
                            }
                        }
                    }
                    yield_now().await;
                }
            }
        }
        searched.from_us = oldest.map_or(0, Timestamp::as_micros);
        Ok(searched)
    }
}
