//! Looks at stored events to tell repeats from other events with the same source and id.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use weft_proto::event::{self, EventView};
use weft_proto::{Error, Offset, PartitionUid, Reason, Result, Timestamp};

use super::fate::Fate;
use crate::data::DataGroup;
use crate::dedup::Suspect;
use crate::read::{History, Tape};

/// Bytes of stored events that are read at a time.
const READ_BYTES: usize = 1 << 20;
/// How long it is waited for what was applied and is not shown yet.
const READ_MAX: Duration = Duration::from_secs(5);

/// What must be known of a batch to judge it.
pub(super) struct Question {
    pub(super) partition: PartitionUid,
    /// Where the batch would begin: from there on suspects are events of the batch itself.
    pub(super) base: Offset,
    pub(super) events: Vec<Bytes>,
    pub(super) suspects: Vec<Suspect>,
}

impl Question {
    /// The fate of each suspected event; those that are not named are new.
    pub(super) async fn answer(
        self,
        group: DataGroup,
        history: History,
    ) -> Result<Vec<(u32, Fate)>> {
        let stored: Vec<Offset> =
            self.suspects.iter().map(|suspect| suspect.1).filter(|at| *at < self.base).collect();
        let originals = read(group, history, self.partition, stored).await?;
        let mut fates = Vec::with_capacity(self.suspects.len());
        for &(index, offset) in &self.suspects {
            let Some(own) = self.event(index) else { continue };
            let fate = if offset < self.base {
                let at = originals.binary_search_by_key(&offset, |original| original.0);
                let Some((_, time, original)) = at.ok().and_then(|at| originals.get(at)) else {
                    // No longer stored: the promise is over.
                    continue;
                };
                let fate = Fate::Repeat { offset, time: *time };
                judge(own, original, fate, Fate::Conflict { offset })
            } else {
                let other = u32::try_from(offset.0 - self.base.0).unwrap_or(u32::MAX);
                let Some(first) = self.event(other) else { continue };
                judge(own, first, Fate::RepeatOf(other), Fate::ConflictWith(other))
            };
            fates.extend(fate.map(|fate| (index, fate)));
        }
        Ok(fates)
    }

    fn event(&self, index: u32) -> Option<&Bytes> {
        usize::try_from(index).ok().and_then(|at| self.events.get(at))
    }
}

/// None when the two only share a hash.
fn judge(own: &Bytes, other: &Bytes, repeat: Fate, conflict: Fate) -> Option<Fate> {
    let (own, other) = (EventView::parse(own)?, EventView::parse(other)?);
    if (own.source, own.id) != (other.source, other.id) {
        return None;
    }
    Some(if event::is_same(&own, &other) { repeat } else { conflict })
}

/// Reads these events, as far as they are still stored, in the order of their offsets.
async fn read(
    group: DataGroup,
    history: History,
    partition: PartitionUid,
    mut offsets: Vec<Offset>,
) -> Result<Vec<(Offset, Timestamp, Bytes)>> {
    offsets.sort_unstable();
    offsets.dedup();
    let floor = group.bounds(partition).floor;
    offsets.retain(|offset| *offset >= floor);
    let mut found = Vec::with_capacity(offsets.len());
    let Some(&first) = offsets.first() else { return Ok(found) };
    let mut tape = Tape::new(group.clone(), partition, history, first);
    for (place, &offset) in offsets.iter().enumerate() {
        if found.last().is_some_and(|(last, ..)| *last >= offset) {
            continue;
        }
        // Neighbours are read together.
        let mut to = offset;
        for &next in &offsets[place..] {
            if next != to {
                break;
            }
            to = Offset(to.0.saturating_add(1));
        }
        tape.seek(offset);
        let until = Instant::now() + READ_MAX;
        while tape.next() < to {
            let runs = match tape.read(to, READ_BYTES).await {
                Ok(runs) => runs,
                // Trimmed meanwhile.
                Err(error) if error.reason() == Reason::OffsetOutOfRange => {
                    tape.seek(group.bounds(partition).floor);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if runs.is_empty() {
                // Applied, but the log does not show it as committed yet: a moment.
                let late = |_elapsed| Error::unavailable("stored events cannot be read at present");
                timeout_at(until, tape.wait()).await.map_err(late)??;
            }
            for run in runs {
                for (number, event) in (0_u64..).zip(run.events) {
                    found.push((Offset(run.first.0.saturating_add(number)), run.time, event));
                }
            }
        }
    }
    Ok(found)
}
