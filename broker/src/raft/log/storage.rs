//! `RaftLogStorage`: append, vote, truncate and purge, all through one queue.

use std::io;
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};

use crate::raft::codec;
use crate::raft::point::LogPoint;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote, log_id};
use crate::store::keys::{checkpoint, committed, purged, vote};
use crate::store::{Changes, Done, Family, StoreError};

use super::state::Shared;
use super::{GroupLog, LogReader};

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let id = |point: LogPoint| log_id(point.term, point.index);
        let state = self.shared.state();
        Ok(LogState { last_purged_log_id: state.base.map(id), last_log_id: state.last.map(id) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut changes = Changes::new();
        let key = vote::key(self.shared.group);
        changes.put(Family::Meta, &key, &codec::encode_vote(vote));
        self.shared.writer.put_synced(changes).await?;
        self.shared.state().vote = Some(*vote);
        // Before anybody hears of it: a store that forgets it is then found out.
        Ok(self.write_pledge().await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.state().committed = committed;
        self.shared.shown.send_replace(());
        if let Some(id) = committed {
            // A stale value only means that more is applied again after a crash.
            let value = committed::encode(id.leader_id.term, id.index);
            self.shared.writer.put_deferred(&committed::key(self.shared.group), value);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.state().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let shared = &self.shared;
        let accepted = shared.state().accept(shared.group, entries, &shared.receipts)?;
        let shared = Arc::clone(&self.shared);
        let done = Done::new(move |result| {
            if result.is_ok() {
                shared.mark_written(accepted.next, accepted.truncations);
            }
            drop(shared);
            callback.io_completed(result.map_err(io::Error::from));
        });
        Ok(self.shared.writer.submit(accepted.changes, done).await?)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let (base, end) = {
            let state = self.shared.state();
            (state.base, state.last)
        };
        let kept = match last {
            Some(id) if end.is_none_or(|end| end.index <= id.index) => return Ok(()),
            Some(id) if base.is_none_or(|base| base.index < id.index) => {
                self.reader().point_of(id.index).await?
            }
            _ => base,
        };
        let (changes, next, truncations) = {
            let mut state = self.shared.state();
            let changes = state.truncate(self.shared.group, kept);
            (changes, state.next(), state.truncations)
        };
        // First, or a legal truncation would look like a loss.
        self.write_pledge().await?;
        // Synced, or a power cut could bring the entries back below newer ones.
        self.shared.writer.put_synced(changes).await?;
        self.shared.mark_written(next, truncations);
        Ok(())
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        if self.shared.state().base.is_some_and(|base| base.index >= id.index) {
            return Ok(());
        }
        let base = self.point_to_purge(&id).await?;
        let group = self.shared.group;
        let read = move |shared: &Shared| shared.useless_checkpoints(base.index);
        let useless = self.reader().off_worker(read).await?;
        let mut changes = self.shared.state().purge(group, base);
        for index in useless {
            changes.delete(Family::Meta, &checkpoint::key(group, index));
        }
        changes.put(Family::Meta, &purged::key(group), &purged::encode(&base));
        changes.drop_files(group, id.index);
        self.shared.writer.put_synced(changes).await?;
        let mut state = self.shared.state();
        if state.synced.is_none_or(|synced| synced.index < base.index) {
            state.synced = Some(base);
        }
        Ok(())
    }
}

impl GroupLog {
    async fn write_pledge(&self) -> Result<(), StoreError> {
        if self.shared.pledge.is_none() {
            return Ok(());
        }
        let write = |shared: &Shared| {
            let Some(pledge) = &shared.pledge else { return Ok(()) };
            let failed = |error| StoreError::from_io("the pledge", "write", &error);
            pledge.write().map_err(failed)
        };
        self.reader().off_worker(write).await
    }

    /// Returns the point up to which to purge: that of the entry, or, after a snapshot was
    /// installed, that of its checkpoint.
    async fn point_to_purge(&self, id: &LogId) -> Result<LogPoint, StoreError> {
        let (term, index) = (id.leader_id.term, id.index);
        let known = self.reader().point_of(index).await?;
        if let Some(point) = known
            && point.term == term
        {
            return Ok(point);
        }
        let key = checkpoint::key(self.shared.group, index);
        let read = move |shared: &Shared| shared.engine.get(Family::Meta, &key);
        if let Some(value) = self.reader().off_worker(read).await? {
            let (point, _) = checkpoint::decode(&value)?;
            if (point.term, point.index) == (term, index) {
                return Ok(point);
            }
        }
        // Neither: the log begins afresh after it, counting on from where it was.
        let state = self.shared.state();
        let before = if state.next() > index { state.base } else { state.last };
        Ok(LogPoint { index, term, ..before.unwrap_or_default() })
    }
}
