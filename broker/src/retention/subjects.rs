//! Removes what the index of subjects says of events that are gone.
//!
//! Nobody is misled by such a record: an offset below the floor counts as none. It only takes room.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;
use weft_proto::{Error, GroupId, Offset, PartitionUid, Result};

use crate::data::DataGroup;
use crate::read::History;
use crate::store::keys::subject;
use crate::store::{Family, LogEngine, StoreError, Writer};

/// Between two sweeps of a group: each looks at all subjects of the partitions that lost events.
const PAUSE: Duration = Duration::from_mins(2);
/// Records looked at in one read.
const STEP_LEN: usize = 1_024;

type Key = [u8; subject::LEN];
type Floors = BTreeMap<PartitionUid, Offset>;

/// Sweeps the index of one group.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The floors that were swept up to.
    swept: Floors,
    /// The last entry of the log when this node started. Before it is applied again, a partition may
    /// have records and be unknown.
    begins_at: Option<u64>,
    /// When the next one may begin.
    rests_until: Option<Instant>,
}

impl Sweep {
    /// The sweep of a group that was just started.
    pub(super) fn new(group: &DataGroup) -> Self {
        Self { begins_at: group.raft.status().last, ..Self::default() }
    }

    /// When there is something to do that cannot be done now.
    pub(super) fn due(&self, group: &DataGroup) -> Option<Instant> {
        self.rests_until.filter(|_| floors_of(group) != self.swept)
    }

    /// Removes the records of events that are gone, if some went since the last time, and if that
    /// is long enough ago.
    pub(super) async fn run(&mut self, group: &DataGroup, history: &History) -> Result<()> {
        let floors = floors_of(group);
        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
        let behind = self.begins_at.is_some_and(|last| group.applied().borrow().index < last);
        if rests || floors == self.swept {
            return Ok(());
        }
        self.rests_until = Some(Instant::now() + PAUSE);
        if behind {
            return Ok(());
        }
        let mut from = Some(subject::key(group.id, PartitionUid(0), [0; 16]));
        while let Some(key) = from {
            let (group, swept) = (group.clone(), self.swept.clone());
            let look = move || {
                let index = (&*group.engine, &group.writer, group.id);
                step(index, || floors_of(&group), &swept, key)
            };
            let next = history.run(look).await?;
            from = next.map_err(|error| {
                Error::internal("the index of subjects cannot be swept").with_source(error)
            })?;
        }
        self.swept = floors;
        Ok(())
    }
}

fn floors_of(group: &DataGroup) -> Floors {
    group.with_state(|state| {
        state.partitions().iter().map(|(uid, partition)| (uid, partition.floor())).collect()
    })
}

/// Sweeps some records from a key on; returns where to go on. Reads the disk. `floors` gives those in
/// force; a partition that it does not name is gone.
fn step(
    (engine, writer, group): (&dyn LogEngine, &Writer, GroupId),
    floors: impl Fn() -> Floors,
    swept: &Floors,
    from: Key,
) -> Result<Option<Key>, StoreError> {
    let known = floors();
    // Below the first offset there is nothing.
    let was = |uid| swept.get(&uid).copied().unwrap_or_default();
    let is_clean = |uid| known.get(&uid).is_some_and(|floor| was(uid) == *floor);
    let end = subject::key(group, PartitionUid(u64::MAX), [0xff; 16]);
    let (mut seen, mut next, mut outcome) = (Vec::new(), None, Ok(()));
    engine.scan(Family::Meta, &from, &end, &mut |key, value| match (
        subject::decode_key(key),
        subject::decode(value),
    ) {
        (Ok((_, uid, _)), _) if is_clean(uid) => {
            let after = uid.0.checked_add(1).map(PartitionUid);
            next = after.map(|uid| subject::key(group, uid, [0; 16]));
            ControlFlow::Break(())
        }
        (Ok((_, uid, hash)), Ok(offset)) => {
            let own = subject::key(group, uid, hash);
            if seen.len() >= STEP_LEN {
                next = Some(own);
                return ControlFlow::Break(());
            }
            seen.push((own, uid, offset));
            ControlFlow::Continue(())
        }
        (Err(error), _) | (_, Err(error)) => {
            outcome = Err(error);
            ControlFlow::Break(())
        }
    })?;
    outcome?;
    // Asked after the records were seen: a partition that has some and is unknown now is gone.
    let floors = floors();
    for (key, uid, offset) in seen {
        let is_gone = |offset: Offset| floors.get(&uid).is_none_or(|floor| offset < *floor);
        if is_gone(offset) {
            // A newer event may have taken the record over meanwhile.
            writer.remove_deferred(&key, || {
                let value = engine.get(Family::Meta, &key)?;
                let now = value.map(|value| subject::decode(&value)).transpose()?;
                Ok(now.is_some_and(is_gone))
            })?;
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Changes, MemoryEngine, Queued, WriterOptions};

    const GROUP: GroupId = GroupId(1);

    fn key(partition: u64, subject: u64) -> Key {
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&subject.to_be_bytes());
        subject::key(GROUP, PartitionUid(partition), hash)
    }

    fn floors(floors: &[(u64, u64)]) -> Floors {
        floors.iter().map(|&(uid, floor)| (PartitionUid(uid), Offset(floor))).collect()
    }

    /// Sweeps to the end; how many steps that took.
    fn sweep(engine: &MemoryEngine, writer: &Writer, now: &Floors, swept: &Floors) -> usize {
        let mut from = Some(key(0, 0));
        let mut steps = 0;
        while let Some(at) = from {
            from = step((engine, writer, GROUP), || now.clone(), swept, at).unwrap();
            steps += 1;
        }
        steps
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_below_a_floor_goes_and_what_was_appended_since_stays() {
        let engine = MemoryEngine::new();
        let options = WriterOptions::default();
        let (writer, writer_loop) = Writer::new(Arc::new(engine.clone()), &options);
        let (stopped, ()) = tokio::join!(writer_loop.run(), check(engine, writer));
        stopped.unwrap();
    }

    async fn check(engine: MemoryEngine, writer: Writer) {
        let many = STEP_LEN as u64 * 2;
        // Partition 1 keeps all, 2 has lost the first half, 3 is gone.
        for (partition, offset) in (1..=3).flat_map(|uid| (0..many).map(move |at| (uid, at))) {
            writer.put_deferred(&key(partition, offset), subject::encode(Offset(offset)));
        }
        writer.put_behind_deferred(Changes::new()).await.unwrap();
        writer.put_synced(Changes::new()).await.unwrap();
        // Subject 5 has a new event that is not in the engine yet.
        writer.put_deferred(&key(2, 5), subject::encode(Offset(many)));

        let now = floors(&[(1, 0), (2, many / 2)]);
        let steps = sweep(&engine, &writer, &now, &Floors::new());
        writer.put_behind_deferred(Changes::new()).await.unwrap();
        writer.put_synced(Changes::new()).await.unwrap();

        let left = |partition| {
            let mut found = Vec::new();
            let (from, to) = (key(partition, 0), key(partition + 1, 0));
            let visit = &mut |_: &[u8], value: &[u8]| {
                found.push(subject::decode(value).unwrap().get());
                ControlFlow::Continue(())
            };
            engine.scan(Family::Meta, &from, &to, visit).unwrap();
            found
        };
        assert_eq!(left(1), (0..many).collect::<Vec<_>>());
        let kept: Vec<_> = [many].into_iter().chain(many / 2..many).collect();
        assert_eq!(left(2), kept);
        assert_eq!(left(3), Vec::<u64>::new());
        assert_eq!(writer.deferred(&key(3, 0)), None::<Queued>);
        assert!(steps >= 4, "{steps} steps for {} records", 2 * many);
        // Nothing to do is found out without a look at the records.
        let nothing = sweep(&engine, &writer, &now, &now);
        assert_eq!(nothing, 3, "one look for each partition, and one behind the last");
    }
}
