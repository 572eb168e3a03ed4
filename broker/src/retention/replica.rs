//! What each replica does: frees its disk up to the floor of the log.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_proto::{Error, GroupId, Offset, PartitionUid, Result};

use super::subjects::Sweep;
use crate::clock;
use crate::data::{Base, DataGroup, lock};
use crate::raft::snapshot::StoredState;
use crate::read::History;
use crate::state::GroupState;
use crate::store::keys::index;
use crate::store::{Changes, Family, LogEngine, StoreError, Writer};

/// Before a trim that did not succeed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Index records removed with one write.
const REMOVED_LEN: usize = 4_096;

/// The task of one group.
#[derive(Debug)]
pub struct Replica {
    group: DataGroup,
    history: History,
    writer: Writer,
    sweep: Sweep,
}

/// Where the log of a group begins, if something was trimmed from it. Reads the disk.
///
/// # Errors
///
/// When the log begins after an entry of which there is no checkpoint: nobody knows then which
/// offset is the first.
pub fn base_of(engine: &dyn LogEngine, group: GroupId, index: u64) -> Result<Base, StoreError> {
    let suspect = |detail: String| StoreError::Suspect { group, index, detail };
    let stored = StoredState::oldest(engine, group, index, index)
        .map_err(|error| suspect(error.to_string()))?
        .ok_or_else(|| {
            suspect("the log begins after it, but has no checkpoint of it".to_owned())
        })?;
    let state = GroupState::decode(&stored.state).map_err(|error| suspect(error.to_string()))?;
    Ok(Base::after(index, &state))
}

/// The same for the newest checkpoint at or below the floor: usually the one at the floor itself.
fn newest_base(engine: &dyn LogEngine, group: GroupId, floor: u64) -> Result<Base, StoreError> {
    let suspect = |detail: String| StoreError::Suspect { group, index: floor, detail };
    let stored =
        StoredState::newest(engine, group, floor).map_err(|error| suspect(error.to_string()))?;
    let Some(stored) = stored else { return Ok(Base::default()) };
    let state = GroupState::decode(&stored.state).map_err(|error| suspect(error.to_string()))?;
    Ok(Base::after(stored.at.index, &state))
}

impl Replica {
    /// The task for a group.
    pub fn new(group: DataGroup, history: History, writer: Writer) -> Self {
        let sweep = Sweep::new(&group);
        Self { group, history, writer, sweep }
    }

    /// Runs until the node stops.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut floor = lock(&self.group.machine).floor();
        loop {
            let wanted = *floor.borrow_and_update();
            let trimmed = async {
                while let Err(error) = self.trim(wanted).await {
                    warn!(
                        group = self.group.id.get(),
                        floor = wanted,
                        error = &error as &dyn std::error::Error,
                        "not trimmed yet"
                    );
                    drop(error);
                    tokio::time::sleep(RETRY).await;
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = trimmed => {}
            }
            let swept = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                swept = self.sweep.run(&self.group, &self.history) => swept,
            };
            if let Err(error) = swept {
                let error = &error as &dyn std::error::Error;
                warn!(group = self.group.id.get(), error, "the index of subjects was not swept");
            }
            let due = self.sweep.due(&self.group);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = floor.changed() => if changed.is_err() { return Ok(()) },
                () = clock::sleep_until(due) => {}
            }
        }
    }

    /// Frees everything up to and with the entry `floor`.
    async fn trim(&self, floor: u64) -> Result<()> {
        let (id, engine) = (self.group.id, Arc::clone(&self.group.engine));
        if floor > 0 && self.group.log.first_index() <= floor {
            let base = self.history.run(move || newest_base(&*engine, id, floor)).await?;
            let base = base.map_err(|error| {
                Error::internal("the checkpoint at the floor cannot be read").with_source(error)
            })?;
            let Some(floor) = base.index() else {
                return Err(Error::unavailable("the checkpoint at the floor is not stored yet"));
            };
            // Readers first: from now on they look for nothing below.
            lock(&self.group.machine).raise_base(base);
            self.group.raft.raise_floor(floor);
            self.group.raft.trim_log(floor).await.map_err(|error| {
                Error::unavailable("the log was not trimmed").with_source(error)
            })?;
            info!(group = id.get(), floor, "the log was trimmed");
        }
        if floor > 0 { self.clean_index().await } else { Ok(()) }
    }

    /// Removes the index records that nobody looks for any more.
    async fn clean_index(&self) -> Result<()> {
        let floors: BTreeMap<PartitionUid, Offset> = self.group.with_state(|state| {
            state.partitions().iter().map(|(uid, partition)| (uid, partition.floor())).collect()
        });
        let (id, engine) = (self.group.id, Arc::clone(&self.group.engine));
        let useless = self.history.run(move || useless(&*engine, id, &floors)).await?;
        let failed = |error| Error::internal("the index cannot be cleaned").with_source(error);
        for keys in useless.map_err(failed)?.chunks(REMOVED_LEN) {
            let mut changes = Changes::new();
            for key in keys {
                changes.delete(Family::Meta, key);
            }
            self.writer.put_unsynced(changes).await.map_err(failed)?;
        }
        Ok(())
    }
}

/// Keys of records from which no reader starts: all of partitions that are gone, and those below
/// the last one at or below a floor.
fn useless(
    engine: &dyn LogEngine,
    group: GroupId,
    floors: &BTreeMap<PartitionUid, Offset>,
) -> Result<Vec<[u8; 21]>, StoreError> {
    let mut found = Vec::new();
    let mut outcome = Ok(());
    // From partition to partition: what is above a floor is not looked at.
    let mut next = Some(PartitionUid(0));
    while let Some(partition) = next.take() {
        let from = index::key(group, partition, Offset(0));
        let end = index::key(group, PartitionUid(u64::MAX), Offset(u64::MAX));
        let mut last_below = None;
        engine.scan(Family::Meta, &from, &end, &mut |key, _| {
            let (uid, base) = match index::decode_key(key) {
                Ok((_, uid, base)) => (uid, base),
                Err(error) => {
                    outcome = Err(error);
                    return ControlFlow::Break(());
                }
            };
            let own = index::key(group, uid, base);
            match floors.get(&uid) {
                None => found.push(own),
                Some(floor) if base <= *floor => {
                    if let Some((known, older)) = last_below.replace((uid, own))
                        && known == uid
                    {
                        found.push(older);
                    }
                }
                Some(_) => {
                    next = uid.0.checked_add(1).map(PartitionUid);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
    }
    outcome.map(|()| found)
}
