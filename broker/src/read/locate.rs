//! From an instant to an offset.

use std::sync::Arc;

use weft_proto::{Error, Offset, PartitionUid, Result, Timestamp, v1};

use super::{History, Tape};
use crate::data::DataGroup;
use crate::store::keys::index;
use crate::store::{Family, StoreError};

/// Read at once while looking for the exact event.
const STEP_BYTES: usize = 256 << 10;

/// The offset that a position names in a partition; nothing if there is no position. It may be outside
/// of what is stored.
///
/// # Errors
///
/// `Invalid` for an instant that is none.
pub async fn resolve(
    group: &DataGroup,
    partition: PartitionUid,
    history: &History,
    position: Option<&v1::Position>,
) -> Result<Option<Offset>> {
    use v1::position::At;
    let Some(position) = position else { return Ok(None) };
    let bounds = group.bounds(partition);
    let offset = match &position.at {
        None | Some(At::Earliest(_)) => bounds.floor,
        Some(At::Latest(_)) => bounds.end,
        Some(At::Offset(offset)) => Offset(*offset),
        Some(At::Time(time)) => {
            let time = Timestamp::try_from(*time)
                .map_err(|error| Error::invalid(error.to_string()).with_field("time"))?;
            locate(group, partition, history, time).await?
        }
    };
    Ok(Some(offset))
}

/// The offset of the first event that was appended at or after an instant; the end if there is
/// none yet.
pub async fn locate(
    group: &DataGroup,
    partition: PartitionUid,
    history: &History,
    time: Timestamp,
) -> Result<Offset> {
    let bounds = group.bounds(partition);
    let (engine, id) = (Arc::clone(&group.engine), group.id);
    // Append times never go back, so the sparse index can be searched by halves.
    let search = move || -> Result<Offset, StoreError> {
        let (mut low, mut high) = (bounds.floor.0, bounds.end.0);
        let mut before = bounds.floor;
        while low < high {
            let middle = low + (high - low) / 2;
            let from = index::key(id, partition, Offset(0));
            let to = index::key(id, partition, Offset(middle));
            let Some((key, value)) = engine.last_in(Family::Meta, &from, &to)? else {
                low = middle + 1;
                continue;
            };
            let (_, _, base) = index::decode_key(&key)?;
            if index::decode(&value)?.time < time.as_micros() {
                before = before.max(base);
                low = middle + 1;
            } else {
                high = base.0.min(middle);
            }
        }
        Ok(before)
    };
    let found = history.run(search).await?;
    let before =
        found.map_err(|error| Error::internal("the index cannot be read").with_source(error))?;
    let mut tape = Tape::new(group.clone(), partition, history.clone(), before);
    loop {
        let runs = tape.read(bounds.end, STEP_BYTES).await?;
        if runs.is_empty() {
            return Ok(tape.next());
        }
        if let Some(run) = runs.iter().find(|run| run.time >= time) {
            return Ok(run.first);
        }
    }
}
