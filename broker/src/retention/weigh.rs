//! From bytes to an offset.

use std::ops::ControlFlow;
use std::sync::Arc;

use weft_proto::{Error, GroupId, Offset, PartitionUid, Result};

use crate::data::DataGroup;
use crate::entry::{Content, Entry};
use crate::partition::place;
use crate::raft::log::StoredEntry;
use crate::read::History;
use crate::store::keys::index;
use crate::store::{Family, LogEngine, StoreError};

/// Log read at most behind a mark: whatever lies further on has a mark of its own.
const SCAN_BYTES: usize = 1 << 20;

/// Where the search in the log begins.
#[derive(Clone, Copy, Debug)]
struct Mark {
    base: Offset,
    index: u64,
    /// Bytes of the partition before `base`.
    bytes: u64,
}

/// The offset of the oldest batch to keep, if what is older than it shall have at least `gone`
/// bytes, counted from the first event ever; none if even the newest batch would go.
pub(super) async fn offset_at(
    group: &DataGroup,
    partition: PartitionUid,
    history: &History,
    gone: u64,
) -> Result<Option<Offset>> {
    let (engine, id, log) = (Arc::clone(&group.engine), group.id, group.log.clone());
    let bounds = group.bounds(partition);
    let search = move || -> Result<Option<Offset>, StoreError> {
        let (low, high) = (bounds.floor, bounds.end);
        let Some(mark) = last_below(&*engine, (id, partition), (low, high), gone)? else {
            return Ok(None);
        };
        let mut walk = Walk { partition, gone, end: mark.base, bytes: mark.bytes, found: None };
        let first = mark.index.max(log.first_index());
        log.scan(first, u64::MAX - 1, SCAN_BYTES, &mut |entry| {
            if walk.step(&entry) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(walk.found)
    };
    let found = history.run(search).await?;
    found.map_err(|error| Error::internal("the index cannot be read").with_source(error))
}

/// Bytes of a partition's events from its floor on, up to 64 KiB too many.
pub async fn stored_bytes(group: &DataGroup, partition: PartitionUid, history: &History) -> u64 {
    let floor = group.bounds(partition).floor;
    let all = group.with_state(|state| {
        state.partitions().get(partition).map_or(0, crate::partition::Partition::bytes)
    });
    let (engine, id) = (Arc::clone(&group.engine), group.id);
    let before = history.run(move || mark_at(&*engine, (id, partition), floor)).await;
    // Only told to people: what cannot be read is told elsewhere.
    let before = before.ok().and_then(Result::ok).flatten().map_or(0, |mark| mark.bytes);
    all.saturating_sub(before)
}

fn mark_at(
    engine: &dyn LogEngine,
    (group, partition): (GroupId, PartitionUid),
    offset: Offset,
) -> Result<Option<Mark>, StoreError> {
    let from = index::key(group, partition, Offset(0));
    let to = index::key(group, partition, offset);
    let Some((key, value)) = engine.last_in(Family::Meta, &from, &to)? else { return Ok(None) };
    let (_, _, base) = index::decode_key(&key)?;
    let record = index::decode(&value)?;
    Ok(Some(Mark { base, index: record.index, bytes: record.bytes }))
}

/// The last mark with no more than `gone` bytes before it: bytes only grow with offsets.
fn last_below(
    engine: &dyn LogEngine,
    place: (GroupId, PartitionUid),
    (floor, end): (Offset, Offset),
    gone: u64,
) -> Result<Option<Mark>, StoreError> {
    let (mut low, mut high) = (floor.0, end.0);
    let mut best = mark_at(engine, place, floor)?;
    while low < high {
        let middle = low + (high - low) / 2;
        match mark_at(engine, place, Offset(middle))? {
            Some(mark) if mark.bytes > gone => high = mark.base.0.min(middle),
            Some(mark) => {
                best = Some(mark);
                low = middle + 1;
            }
            None => low = middle + 1,
        }
    }
    Ok(best)
}

/// Goes over the batches of a partition and adds up their bytes.
struct Walk {
    partition: PartitionUid,
    gone: u64,
    end: Offset,
    bytes: u64,
    found: Option<Offset>,
}

impl Walk {
    /// True while the search goes on.
    fn step(&mut self, stored: &StoredEntry) -> bool {
        let Some(payload) = &stored.payload else { return true };
        // What cannot be read stops the node elsewhere; nothing is trimmed by it.
        let Ok(Entry { content: Content::Batches(batches), .. }) = Entry::decode(payload) else {
            return true;
        };
        for batch in batches.iter().filter(|batch| batch.header.partition == self.partition) {
            let base = self.end;
            let Some(end) = place(base, batch.header.expected, batch.header.count) else {
                continue;
            };
            // The newest batch seen so far stays if nothing newer is found.
            self.found = Some(base);
            if self.bytes >= self.gone {
                return false;
            }
            self.end = end;
            self.bytes = self.bytes.saturating_add(batch.header.body_len.into());
        }
        true
    }
}
