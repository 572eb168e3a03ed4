//! Opening a log: what is on disk must hang together, or the node may have forgotten something.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::pledge::Claim;
use crate::raft::codec;
use crate::raft::point::LogPoint;
use crate::raft::record::Record;
use crate::raft::tail::{Budget, Tail};
use crate::raft::types::{LogId, log_id};
use crate::store::keys::{checkpoint, committed, entry, purged, term, vote};
use crate::store::{Family, LogEngine, StoreError};
use weft_proto::GroupId;

use super::LogReader;
use super::state::{Shared, State};

/// Reads a log's state and verifies its entries from the newest checkpoint to the end: no gap,
/// every checksum, the whole chain.
pub(super) fn recover(
    engine: &dyn LogEngine,
    group: GroupId,
    budget: &Arc<Budget>,
) -> Result<State, StoreError> {
    engine.open_group(group)?;
    let meta = |key: &[u8]| engine.get(Family::Meta, key);
    let base = meta(&purged::key(group))?.map(|value| purged::decode(&value)).transpose()?;
    let vote = meta(&vote::key(group))?.map(|value| codec::decode_vote(&value)).transpose()?;

    let last = match last_record(engine, group, base.as_ref())? {
        None => base,
        Some(found) => {
            let start = verified_start(engine, group, base, found.point.index)?;
            Some(verify(engine, group, start, found.point)?)
        }
    };
    let committed = meta(&committed::key(group))?
        .map(|value| committed::decode(&value))
        .transpose()?
        .map(|(term, index)| log_id(term, index));
    let mut state = State {
        base,
        last,
        // Opening the store put it on disk again, whatever came from its write-ahead log.
        synced: last,
        terms: terms(engine, group)?,
        tail: Tail::new(0, Arc::clone(budget)),
        vote,
        committed: within(committed, last.as_ref()),
        removals: 0,
        truncations: 0,
    };
    state.tail = Tail::new(state.next(), Arc::clone(budget));
    check_terms(group, &state)?;
    Ok(state)
}

/// Checks that the log has all that this node promised in its group.
pub(super) fn check_pledge(claim: &Claim, shared: &Arc<Shared>) -> Result<(), StoreError> {
    let group = shared.group;
    let suspect = |index, detail| Err(StoreError::Suspect { group, index, detail });
    let (vote, last, base) = {
        let state = shared.state();
        (state.vote, state.last, state.base)
    };
    if let Some(claimed) = claim.vote {
        let stored = vote.map(|vote| (vote.leader_id.term, vote.committed));
        if stored < Some((claimed.term, claimed.committed)) {
            let detail = format!("the vote of term {} is no longer there", claimed.term);
            return suspect(last.map_or(0, |last| last.index), detail);
        }
    }
    let Some(claimed) = claim.last else { return Ok(()) };
    let end = last.map(|last| last.index);
    if end < Some(claimed.index) {
        let has = end.map_or_else(|| "nothing".to_owned(), |end| format!("entries up to {end}"));
        let detail = format!("entry {} was on disk, the log has {has}", claimed.index);
        return suspect(end.unwrap_or(0), detail);
    }
    if base.is_some_and(|base| base.index > claimed.index) {
        return Ok(());
    }
    let reader = LogReader { shared: Arc::clone(shared) };
    let point = reader.point(claimed.index).map_err(|error| as_suspect(group, error))?;
    match point {
        Some(point) if (point.term, point.chain) == (claimed.term, claimed.chain) => Ok(()),
        _ => suspect(claimed.index, "it is not the entry that was on disk".to_owned()),
    }
}

/// Returns the last entry above what was purged.
fn last_record(
    engine: &dyn LogEngine,
    group: GroupId,
    base: Option<&LogPoint>,
) -> Result<Option<Record>, StoreError> {
    let first = base.map_or(0, |base| base.index.saturating_add(1));
    engine
        .last_in(Family::Log(group), &entry::key(first), &entry::key(u64::MAX))?
        .map(|(key, value)| Record::decode(group, &key, &value))
        .transpose()
        .map_err(|error| as_suspect(group, error))
}

/// Returns the point from which on to verify: the newest checkpoint within the log, if the
/// entry there is the one it was taken after.
fn verified_start(
    engine: &dyn LogEngine,
    group: GroupId,
    base: Option<LogPoint>,
    last: u64,
) -> Result<Option<LogPoint>, StoreError> {
    let keys = (checkpoint::key(group, 0), checkpoint::key(group, last));
    let Some((_, value)) = engine.last_in(Family::Meta, &keys.0, &keys.1)? else {
        return Ok(base);
    };
    let (point, _) = checkpoint::decode(&value)?;
    if base.is_some_and(|base| base.index >= point.index) {
        return Ok(base);
    }
    let suspect =
        |detail: &str| StoreError::Suspect { group, index: point.index, detail: detail.to_owned() };
    let key = entry::key(point.index);
    let value = engine
        .get(Family::Log(group), &key)?
        .ok_or_else(|| suspect("there is a checkpoint after it, but the entry is missing"))?;
    let record = Record::decode(group, &key, &value).map_err(|error| as_suspect(group, error))?;
    if record.point == point {
        Ok(Some(point))
    } else {
        Err(suspect("it is not the entry its checkpoint was taken after"))
    }
}

/// Follows the chain from `start` to the end of the log and returns the last point.
fn verify(
    engine: &dyn LogEngine,
    group: GroupId,
    start: Option<LogPoint>,
    last: LogPoint,
) -> Result<LogPoint, StoreError> {
    let mut previous = start;
    let mut outcome = Ok(());
    let first = start.map_or(0, |point| point.index.saturating_add(1));
    let keys = (entry::key(first), entry::key(last.index));
    let mut check = |key: &[u8], value: &[u8]| {
        if outcome.is_ok() {
            match next_point(group, previous, key, value) {
                Ok(point) => previous = Some(point),
                Err(error) => outcome = Err(error),
            }
        }
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    engine.scan(Family::Log(group), &keys.0, &keys.1, &mut check)?;
    // The end of a scan is exclusive, and no index follows the greatest one.
    if start.is_none_or(|start| start.index < last.index)
        && let Some(value) = engine.get(Family::Log(group), &keys.1)?
    {
        _ = check(&keys.1, &value);
    }
    outcome?;
    match previous {
        Some(point) if point == last => Ok(point),
        _ => {
            let detail = "the log ends elsewhere on a second look".to_owned();
            Err(StoreError::Suspect { group, index: last.index, detail })
        }
    }
}

fn next_point(
    group: GroupId,
    previous: Option<LogPoint>,
    key: &[u8],
    value: &[u8],
) -> Result<LogPoint, StoreError> {
    let record = Record::decode(group, key, value).map_err(|error| as_suspect(group, error))?;
    let index = record.point.index;
    let suspect = |detail: String| StoreError::Suspect { group, index, detail };
    if let Some(previous) = previous
        && previous.index.checked_add(1) != Some(index)
    {
        return Err(suspect(format!("entries after {} are missing", previous.index)));
    }
    if !record.follows(previous.as_ref()) {
        return Err(suspect("it does not continue the entry before it".to_owned()));
    }
    Ok(record.point)
}

/// Damage found while opening means that the node may have forgotten something.
fn as_suspect(group: GroupId, error: StoreError) -> StoreError {
    match error {
        StoreError::DataLoss { index, detail, .. } => StoreError::Suspect { group, index, detail },
        other => other,
    }
}

fn terms(engine: &dyn LogEngine, group: GroupId) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut found = Vec::new();
    let mut outcome = Ok(());
    let keys = (term::key(group, 0), term::key(group, u64::MAX));
    engine.scan(Family::Meta, &keys.0, &keys.1, &mut |key, value| {
        let record = term::decode_key(key)
            .and_then(|(_, term)| term::decode(value).map(|first| (term, first)));
        match record {
            Ok(record) => {
                found.push(record);
                ControlFlow::Continue(())
            }
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        }
    })?;
    outcome.map(|()| found)
}

/// The term of the last entry is always recorded with its first entry.
fn check_terms(group: GroupId, state: &State) -> Result<(), StoreError> {
    let Some(last) = state.last.filter(|last| last.index >= state.first()) else {
        return Ok(());
    };
    if state.terms.last().is_some_and(|(term, first)| *term == last.term && *first <= last.index) {
        return Ok(());
    }
    let detail = format!("the records of terms do not end with term {}", last.term);
    Err(StoreError::Suspect { group, index: last.index, detail })
}

/// Limits a commit to the log: it is written without waiting for the entries it counts.
fn within(committed: Option<LogId>, last: Option<&LogPoint>) -> Option<LogId> {
    let (committed, last) = (committed?, last?);
    if committed.index > last.index { Some(log_id(last.term, last.index)) } else { Some(committed) }
}
