//! The seam to a group's pure state machine, and its adapter to openraft.
//!
//! *Owns* how far the state has come. The apply loop is the only writer; readers share the state
//! under a short lock and wait for the applied index.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use openraft::EntryPayload;
use openraft::base::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::watch;

use super::snapshot::{Checkpoint, Checkpoints, Durability, Place, SnapshotPolicy};
use super::thin::{self, Mark};
use super::types::{Entry, LogId, Payload, Reply, StoredMembership, TypeConfig};
use super::wire::empty_reply;

/// Entries applied under one lock at most; readers wait no longer than that.
const CHUNK_LEN: usize = 64;

/// A checkpoint is due when this much of the log passed since the last one, unless the cluster was
/// born with another value. By what all replicas agree on, so that all cut at the same entries.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;
/// Or when this much log time passed.
const CHECKPOINT_MICROS: u64 = 10 * 60 * 1_000_000;

/// An agreed entry, with what every replica computes for it alike.
#[derive(Debug)]
pub struct Applied<'a> {
    /// Its place in the group's log.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// Log time: the leader's time, never less than that of an earlier entry.
    pub time_micros: u64,
    /// Bytes of the group up to and including this entry.
    pub position: u64,
    /// The position of the newest checkpoint that was due before this entry.
    pub checkpoint_position: u64,
    /// What was proposed.
    pub payload: &'a Bytes,
}

/// The pure state machine of one group.
///
/// INVARIANT: equal entries give equal states and replies on every replica. No clock, randomness,
/// I/O or hash-map order, and no failure: a refusal is a reply.
pub trait Machine: Send + 'static {
    /// Applies the next entry.
    fn apply(&mut self, entry: &Applied<'_>) -> Reply;

    /// Called when a chunk of entries was applied and its lock is about to be released.
    fn applied_upto(&mut self, _index: u64) {}

    /// Returns the whole state.
    fn checkpoint(&self) -> Bytes;

    /// The index up to which the state says that no replica needs the log.
    fn floor(&self) -> u64 {
        0
    }

    /// Replaces the state, or forgets everything when there is none.
    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Unreadable>;

    /// Told after `restore` when the state came from another replica: this one has no entry of the
    /// log up to it.
    fn installed(&mut self, _index: u64) {}
}

/// A state that this machine cannot read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the state of the group: {0}")]
pub struct Unreadable(pub String);

/// A machine shared with its readers.
pub trait SharedMachine: Send + Sync + 'static {
    /// Runs `f` on the machine under its lock; false if an earlier call panicked.
    fn with(&self, f: &mut dyn FnMut(&mut dyn Machine)) -> bool;
}

impl<M: Machine> SharedMachine for Mutex<M> {
    fn with(&self, f: &mut dyn FnMut(&mut dyn Machine)) -> bool {
        match self.lock() {
            Ok(mut machine) => {
                f(&mut *machine);
                true
            }
            Err(_poisoned) => false,
        }
    }
}

/// How far a group has applied its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct AppliedUpto {
    /// The term of the last applied entry.
    pub term: u64,
    /// The index of the last applied entry; 0 if there is none but the first membership.
    pub index: u64,
}

/// State and progress of one group; outlives the consensus core that drives it.
pub(super) struct State {
    machine: Arc<dyn SharedMachine>,
    checkpoints: Arc<dyn Checkpoints>,
    policy: SnapshotPolicy,
    checkpoint_bytes: u64,
    progress: Mutex<Progress>,
    applied: watch::Sender<AppliedUpto>,
    /// The index of the checkpoint that bounds the log from below; 0 if nothing was trimmed.
    floor: AtomicU64,
}

#[derive(Default)]
struct Progress {
    /// Raised when a new core takes over; what the old one still applies is refused.
    driver: u64,
    last: Option<LogId>,
    membership: StoredMembership,
    at: Place,
    cut: Place,
    /// For `AtApplied`: the snapshot that is published.
    published: Option<Checkpoint>,
    /// The checkpoints that are kept.
    marks: Vec<Mark>,
}

impl Progress {
    fn checkpoint(&self, state: Bytes) -> Option<Checkpoint> {
        let membership = self.membership.clone();
        let (at, cut) = (self.at, self.cut);
        // The chain is the log's to say; it is filled in before the checkpoint leaves.
        self.last.map(|last| Checkpoint { last, membership, at, cut, chain: 0, state })
    }

    /// Takes note of a checkpoint here; gives those that nobody needs beside it.
    fn mark(&mut self, floor: u64) -> Vec<u64> {
        let index = self.last.map_or(0, |last| last.index);
        // After a restart, checkpoints are cut again that are there already.
        self.marks.retain(|(known, _)| *known < index);
        self.marks.push((index, self.at.position));
        let useless = thin::useless(&self.marks, floor, self.at.position);
        self.marks.retain(|(known, _)| !useless.contains(known));
        useless
    }

    fn resume(&mut self, checkpoint: &Checkpoint) {
        self.last = Some(checkpoint.last);
        self.membership = checkpoint.membership.clone();
        self.at = checkpoint.at;
        self.cut = checkpoint.cut;
    }

    /// Moves to the next entry; true if a checkpoint is due after it.
    fn advance(&mut self, entry: &Entry, checkpoint_bytes: u64) -> bool {
        self.last = Some(entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(payload) => {
                self.at.time_micros = self.at.time_micros.max(payload.leader_time_micros());
                self.at.position += payload.0.len() as u64;
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        // Log time starts with the first entry that has one, not in 1970.
        if self.cut.time_micros == 0 {
            self.cut.time_micros = self.at.time_micros;
        }
        let due = self.at.position - self.cut.position >= checkpoint_bytes
            || self.at.time_micros - self.cut.time_micros >= CHECKPOINT_MICROS;
        if due {
            self.cut = self.at;
        }
        due
    }
}

impl State {
    /// Restores the newest checkpoint. `floor` is the last index that the log no longer has.
    pub(super) fn open(
        machine: Arc<dyn SharedMachine>,
        checkpoints: Arc<dyn Checkpoints>,
        (policy, checkpoint_bytes): (SnapshotPolicy, u64),
        floor: u64,
    ) -> io::Result<Self> {
        let newest = checkpoints.newest(u64::MAX)?;
        let newest = newest.map(|(_, bytes)| Checkpoint::decode(&bytes)).transpose()?;
        let mut progress = Progress::default();
        if let Some(checkpoint) = &newest {
            progress.resume(checkpoint);
        }
        progress.marks = checkpoints.list()?;
        let state = Self {
            machine,
            checkpoints,
            policy,
            checkpoint_bytes,
            applied: watch::Sender::new(upto(progress.last)),
            progress: Mutex::new(progress),
            floor: AtomicU64::new(floor),
        };
        state.restore(newest.as_ref().map(|checkpoint| checkpoint.state.as_ref()))?;
        if policy == SnapshotPolicy::AtApplied {
            state.progress()?.published = newest;
        }
        Ok(state)
    }

    /// Hands the state to a new consensus core; an earlier one can no longer change it.
    pub(super) fn drive(self: &Arc<Self>) -> io::Result<Driver> {
        let mut progress = self.progress()?;
        progress.driver += 1;
        Ok(Driver { state: Arc::clone(self), number: progress.driver })
    }

    pub(super) fn applied(&self) -> watch::Receiver<AppliedUpto> {
        self.applied.subscribe()
    }

    /// Names the checkpoint that the next snapshot of an `AtFloor` group is taken from.
    pub(super) fn raise_floor(&self, index: u64) {
        self.floor.fetch_max(index, Ordering::AcqRel);
    }

    fn progress(&self) -> io::Result<MutexGuard<'_, Progress>> {
        self.progress.lock().map_err(|_poisoned| broken())
    }

    fn restore(&self, state: Option<&[u8]>) -> io::Result<()> {
        let mut restored = Ok(());
        if !self.machine.with(&mut |machine| restored = machine.restore(state)) {
            return Err(broken());
        }
        restored.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Completes a checkpoint with what the log knows, and checks that both agree.
    fn anchor(&self, checkpoint: &mut Checkpoint) -> io::Result<()> {
        let index = checkpoint.last.index;
        let Some(point) = self.checkpoints.point(index)? else {
            return Err(io::Error::other(format!("the log lacks entry {index} that was applied")));
        };
        checkpoint.chain = point.chain;
        if checkpoint.point() == point {
            return Ok(());
        }
        let message = format!("the log says {point:?}, the state {:?}", checkpoint.point());
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }

    fn encode(&self, progress: &Progress) -> io::Result<Option<Checkpoint>> {
        let mut state = Bytes::new();
        if !self.machine.with(&mut |machine| state = machine.checkpoint()) {
            return Err(broken());
        }
        Ok(progress.checkpoint(state))
    }

    /// The checkpoint at the floor, exactly; none while nothing was trimmed.
    fn at_floor(&self) -> io::Result<Option<(Checkpoint, Bytes)>> {
        let floor = self.floor.load(Ordering::Acquire);
        if floor == 0 {
            return Ok(None);
        }
        match self.checkpoints.newest(floor)? {
            Some((index, bytes)) if index == floor => {
                Ok(Some((Checkpoint::decode(&bytes)?, bytes)))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the log was trimmed up to index {floor}, but there is no checkpoint of it"
                ),
            )),
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the state machine panicked while it applied an entry")
}

fn upto(last: Option<LogId>) -> AppliedUpto {
    last.map_or_else(AppliedUpto::default, |id| AppliedUpto {
        term: id.leader_id.term,
        index: id.index,
    })
}

type Responder = openraft::storage::ApplyResponder<TypeConfig>;

/// What a chunk leaves to do once its locks are released.
#[derive(Default)]
struct Outcome {
    replies: Vec<(Responder, Reply)>,
    cuts: Vec<Checkpoint>,
    /// Checkpoints that nobody needs any more.
    useless: Vec<u64>,
}

/// Lets one consensus core drive the state.
pub(super) struct Driver {
    state: Arc<State>,
    number: u64,
}

impl Driver {
    fn progress(&self) -> io::Result<MutexGuard<'_, Progress>> {
        let progress = self.state.progress()?;
        if progress.driver != self.number {
            return Err(io::Error::other("another core drives this group now"));
        }
        Ok(progress)
    }

    fn apply_chunk(
        &self,
        chunk: Vec<Result<EntryResponder<TypeConfig>, io::Error>>,
    ) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut progress = self.progress()?;
        let mut failed = None;
        let mut chunk = Some(chunk);
        let whole = self.state.machine.with(&mut |machine| {
            for item in chunk.take().into_iter().flatten() {
                let (entry, responder) = match item {
                    Ok(item) => item,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                };
                let cut = progress.cut;
                let due = progress.advance(&entry, self.state.checkpoint_bytes);
                let reply = match &entry.payload {
                    EntryPayload::Normal(payload) => {
                        machine.apply(&applied(&entry, payload, progress.at, cut))
                    }
                    EntryPayload::Blank | EntryPayload::Membership(_) => empty_reply(),
                };
                if let Some(responder) = responder {
                    outcome.replies.push((responder, reply));
                }
                if due {
                    outcome.cuts.extend(progress.checkpoint(machine.checkpoint()));
                    outcome.useless.extend(progress.mark(machine.floor()));
                }
            }
            machine.applied_upto(upto(progress.last).index);
        });
        if !whole {
            return Err(broken());
        }
        // Before the replies leave: who was answered must find its entry applied.
        self.state.applied.send_replace(upto(progress.last));
        drop(progress);
        for (responder, reply) in std::mem::take(&mut outcome.replies) {
            responder.send(reply);
        }
        failed.map_or(Ok(outcome), Err)
    }
}

fn applied<'a>(entry: &Entry, payload: &'a Payload, at: Place, cut: Place) -> Applied<'a> {
    Applied {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        time_micros: at.time_micros,
        position: at.position,
        checkpoint_position: cut.position,
        payload: &payload.0,
    }
}

type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>;

fn snapshot(checkpoint: &Checkpoint, data: Bytes) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta {
            last_log_id: Some(checkpoint.last),
            last_membership: checkpoint.membership.clone(),
        },
        snapshot: data,
    }
}

impl RaftStateMachine<TypeConfig> for Driver {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let progress = self.progress()?;
        Ok((progress.last, progress.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        // What is in memory already is applied under one lock; nothing waits for more to come.
        let mut chunks = entries.ready_chunks(CHUNK_LEN);
        while let Some(chunk) = chunks.next().await {
            let outcome = self.apply_chunk(chunk)?;
            for mut cut in outcome.cuts {
                self.state.anchor(&mut cut)?;
                let kept = &self.state.checkpoints;
                kept.put(cut.point(), cut.encode(), Durability::Lazy).await?;
            }
            if !outcome.useless.is_empty() {
                self.state.checkpoints.remove(&outcome.useless).await?;
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let nothing = match self.state.policy {
            SnapshotPolicy::AtFloor => self.state.floor.load(Ordering::Acquire) == 0,
            // A failure to look is told by the builder.
            SnapshotPolicy::AtApplied => {
                self.progress().is_ok_and(|progress| progress.last.is_none())
            }
        };
        if nothing && !force {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Taken now, so that entries applied meanwhile do not leak into it.
        let now = match self.state.policy {
            SnapshotPolicy::AtFloor => None,
            SnapshotPolicy::AtApplied => {
                let encoded = self.progress().and_then(|progress| self.state.encode(&progress));
                encoded.transpose()
            }
        };
        Builder { state: Arc::clone(&self.state), now }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: Bytes,
    ) -> Result<(), io::Error> {
        let checkpoint = Checkpoint::decode(&data)?;
        if Some(checkpoint.last) != meta.last_log_id {
            let message = format!(
                "the snapshot ends at {}, but is said to end at {:?}",
                checkpoint.last, meta.last_log_id
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        // Synced before the state changes: openraft then drops the entries below it.
        let index = checkpoint.last.index;
        self.state.checkpoints.put(checkpoint.point(), data, Durability::Synced).await?;
        let mut progress = self.progress()?;
        self.state.restore(Some(&checkpoint.state))?;
        self.state.machine.with(&mut |machine| machine.installed(index));
        progress.resume(&checkpoint);
        progress.marks = vec![(index, checkpoint.at.position)];
        self.state.floor.fetch_max(index, Ordering::AcqRel);
        self.state.applied.send_replace(upto(progress.last));
        progress.published = Some(checkpoint);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        match self.state.policy {
            SnapshotPolicy::AtFloor => {
                let at_floor = self.state.at_floor()?;
                Ok(at_floor.map(|(checkpoint, bytes)| snapshot(&checkpoint, bytes)))
            }
            SnapshotPolicy::AtApplied => {
                let progress = self.progress()?;
                let published = progress.published.as_ref();
                Ok(published.map(|checkpoint| snapshot(checkpoint, checkpoint.encode())))
            }
        }
    }
}

/// Publishes a snapshot: of the floor, or of the state when the builder was made.
pub(super) struct Builder {
    state: Arc<State>,
    now: Option<io::Result<Checkpoint>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let nothing = || io::Error::other("there is no state to take a snapshot of");
        if self.state.policy == SnapshotPolicy::AtFloor {
            let (checkpoint, bytes) = self.state.at_floor()?.ok_or_else(nothing)?;
            return Ok(snapshot(&checkpoint, bytes));
        }
        let mut checkpoint = self.now.take().ok_or_else(nothing)??;
        self.state.anchor(&mut checkpoint)?;
        let bytes = checkpoint.encode();
        let kept = &self.state.checkpoints;
        kept.put(checkpoint.point(), bytes.clone(), Durability::Synced).await?;
        let built = snapshot(&checkpoint, bytes);
        let mut progress = self.state.progress()?;
        // A newer one may have been installed meanwhile.
        if progress.published.as_ref().is_none_or(|known| known.last < checkpoint.last) {
            progress.published = Some(checkpoint);
        }
        Ok(built)
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    fn entry(index: u64, time_micros: u64, len: usize) -> Entry {
        let mut bytes = vec![0; len.max(12)];
        bytes[4..12].copy_from_slice(&time_micros.to_le_bytes());
        Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Payload(bytes.into())) }
    }

    #[test]
    fn checkpoint_is_due_by_bytes_and_by_log_time() {
        let mut progress = Progress::default();
        let start = 1_700_000_000_000_000;

        // The first time is no jump from zero.
        assert!(!progress.advance(&entry(1, start, 0), CHECKPOINT_BYTES));
        assert!(!progress.advance(&entry(2, start + CHECKPOINT_MICROS - 1, 0), CHECKPOINT_BYTES));
        assert!(progress.advance(&entry(3, start + CHECKPOINT_MICROS, 0), CHECKPOINT_BYTES));
        // An earlier leader time does not turn log time back.
        assert!(!progress.advance(&entry(4, 5, 0), CHECKPOINT_BYTES));
        assert_eq!(progress.at.time_micros, start + CHECKPOINT_MICROS);

        assert!(!progress.advance(&entry(5, 0, 40 << 20), CHECKPOINT_BYTES));
        assert!(progress.advance(&entry(6, 0, 24 << 20), CHECKPOINT_BYTES));
        assert!(!progress.advance(&entry(7, 0, 0), CHECKPOINT_BYTES));
    }

    #[test]
    fn schedule_goes_on_after_a_checkpoint_is_installed() {
        let mut sender = Progress::default();
        sender.advance(&entry(1, 1_000, 40 << 20), CHECKPOINT_BYTES);
        let mut receiver = Progress::default();
        receiver.resume(&sender.checkpoint(Bytes::new()).unwrap());

        let next = entry(2, 0, 24 << 20);

        assert!(sender.advance(&next, CHECKPOINT_BYTES));
        assert!(receiver.advance(&next, CHECKPOINT_BYTES));
    }
}
