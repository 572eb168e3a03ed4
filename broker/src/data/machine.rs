//! The state machine of a data group: the pure state, and what a replica does with its effects.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::sync::watch;
use tracing::{error, warn};
use weft_proto::{GroupId, Offset, PartitionUid};

use crate::dedup::Window;
use crate::metrics as names;
#[cfg(debug_assertions)]
use crate::planted::{self, Bug};
use crate::raft::machine::{Applied, Machine, Unreadable};
use crate::raft::types::Reply;
use crate::state::{Effects, GroupState, Identities, LastOfSubject};
use crate::store::Writer;
use crate::store::keys::{index, subject};
use crate::subjects::SubjectHash;

/// Where the log of this replica begins: after which entry, and which offset comes next in each
/// partition there. It differs between replicas, so it is no part of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    index: Option<u64>,
    ends: BTreeMap<PartitionUid, Offset>,
}

impl Base {
    /// The log begins after `index`, at which this was the state.
    pub fn after(index: u64, state: &GroupState) -> Self {
        let ends = state.partitions().iter().map(|(uid, partition)| (uid, partition.end()));
        Self { index: Some(index), ends: ends.collect() }
    }

    /// The last entry that may be gone; none if the log is whole.
    pub fn index(&self) -> Option<u64> {
        self.index
    }

    /// The first offset of a partition that the log can still hold.
    pub fn end(&self, partition: PartitionUid) -> Offset {
        self.ends.get(&partition).copied().unwrap_or_default()
    }

    /// The same for all partitions that had begun by then.
    pub fn ends(&self) -> impl Iterator<Item = (PartitionUid, Offset)> {
        self.ends.iter().map(|(&uid, &end)| (uid, end))
    }
}

/// One data group's state on this node.
#[derive(Debug)]
pub struct DataMachine {
    group: GroupId,
    state: GroupState,
    window: Window,
    /// Index of the first entry applied since the state was opened.
    first: Option<u64>,
    /// Whether the window has what was before that entry, too.
    is_read: watch::Sender<bool>,
    writer: Writer,
    base: Base,
    /// The floor of the log that the state asks for.
    floor: watch::Sender<u64>,
    /// Rung when a partition has new events; only for those that somebody listens to.
    bells: BTreeMap<PartitionUid, watch::Sender<()>>,
    /// Partitions whose bells are to be rung once this chunk is applied.
    ringing: BTreeSet<PartitionUid>,
    /// Set at the first entry that cannot be read: nothing is applied after it.
    broken: watch::Sender<Option<String>>,
}

impl DataMachine {
    /// A machine without any entry applied.
    pub fn new(group: GroupId, writer: Writer) -> Self {
        Self {
            group,
            state: GroupState::new(),
            window: Window::new(),
            first: None,
            is_read: watch::Sender::new(false),
            writer,
            base: Base::default(),
            floor: watch::Sender::new(0),
            bells: BTreeMap::new(),
            ringing: BTreeSet::new(),
            broken: watch::Sender::new(None),
        }
    }

    /// Where the log of this replica begins.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Follows the end of one partition: thousands may wait for as many partitions of a group, and
    /// only those of one wake up when it grows.
    pub fn bell(&mut self, partition: PartitionUid) -> watch::Receiver<()> {
        self.bells.entry(partition).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    fn ring(&mut self) {
        for partition in std::mem::take(&mut self.ringing) {
            if let Some(bell) = self.bells.get(&partition) {
                if bell.receiver_count() == 0 {
                    self.bells.remove(&partition);
                } else {
                    bell.send_replace(());
                }
            }
        }
    }

    /// Says that the log begins further up from now on. Before entries are taken away: readers then
    /// look for none of them.
    pub fn raise_base(&mut self, base: Base) {
        if base.index > self.base.index {
            self.base = base;
        }
    }

    /// Follows up to which entry no replica needs the log any more.
    pub fn floor(&self) -> watch::Receiver<u64> {
        self.floor.subscribe()
    }

    /// The state as of the last applied entry.
    pub fn state(&self) -> &GroupState {
        &self.state
    }

    /// Identities of the events appended lately.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Becomes true when the window is complete: as long as [`WINDOW_TIME`](crate::dedup::WINDOW_TIME)
    /// and as large as [`IDS_MAX`](crate::dedup::IDS_MAX) allow.
    pub fn window_read(&self) -> watch::Receiver<bool> {
        self.is_read.subscribe()
    }

    /// Index of the first entry whose identities are in the window, if any was applied.
    pub(super) fn window_first(&self) -> Option<u64> {
        self.first
    }

    /// Completes the window with what the log has from before.
    pub(super) fn complete_window(&mut self, older: Window) {
        self.window.prepend(older);
        self.is_read.send_replace(true);
    }

    fn carry_out(&self, effects: Effects) {
        for record in effects.index {
            let key = index::key(self.group, record.partition, record.base);
            let place = index::IndexRecord {
                index: record.index,
                pos: record.pos,
                time: record.time.as_micros(),
                bytes: record.bytes,
            };
            self.writer.put_deferred(&key, index::encode(&place));
        }
        for LastOfSubject { partition, subject: SubjectHash(hash), offset } in effects.subjects {
            let key = subject::key(self.group, partition, hash);
            self.writer.put_deferred(&key, subject::encode(offset));
        }
        for (subscription, partition, events) in effects.overtaken {
            metrics::counter!(names::OVERTAKEN_EVENTS, "group" => self.group.to_string())
                .increment(events);
            warn!(
                group = self.group.get(),
                subscription = subscription.get(),
                partition = partition.get(),
                events,
                "retention took events that a subscription had not settled"
            );
        }
        if let Some(floor) = effects.floor_index {
            self.floor.send_replace(floor);
        }
    }

    /// Tells of an entry that this release cannot read: the process must end.
    pub fn broken(&self) -> watch::Receiver<Option<String>> {
        self.broken.subscribe()
    }
}

impl Machine for DataMachine {
    fn apply(&mut self, entry: &Applied<'_>) -> Reply {
        if self.broken.borrow().is_some() {
            return Reply(Bytes::new());
        }
        self.state.checkpoint_was_at(entry.checkpoint_position);
        match self.state.apply(entry.payload, entry.index) {
            Ok(outcome) => {
                self.first.get_or_insert(entry.index);
                for Identities { partition, base, header } in &outcome.effects.identities {
                    let time = self.state.time();
                    self.window.record(*partition, *base, header.id_hashes(), time);
                }
                if !self.bells.is_empty() {
                    let readable = outcome.effects.readable.iter().map(|(partition, _)| *partition);
                    let dropped = outcome.effects.dropped.iter().copied();
                    let moved = outcome.effects.moved.iter().copied();
                    self.ringing.extend(readable.chain(dropped).chain(moved));
                }
                self.carry_out(outcome.effects);
                Reply(outcome.reply.encode())
            }
            // Skipping it would let this replica differ from the others.
            Err(unreadable) => {
                let message = format!(
                    "group {}: entry {} cannot be applied: {unreadable}",
                    self.group, entry.index
                );
                error!(group = self.group.get(), index = entry.index, "{message}");
                self.broken.send_replace(Some(message));
                Reply(Bytes::new())
            }
        }
    }

    fn applied_upto(&mut self, _index: u64) {
        self.ring();
    }

    fn checkpoint(&self) -> Bytes {
        self.state.encode()
    }

    fn floor(&self) -> u64 {
        self.state.floor_index()
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Unreadable> {
        self.state = match state {
            Some(bytes) => {
                GroupState::decode(bytes).map_err(|error| Unreadable(error.to_string()))?
            }
            None => GroupState::new(),
        };
        #[cfg(debug_assertions)]
        if planted::is(Bug::ProducersNotInCheckpoint) {
            self.state.forget_producers();
        }
        // A snapshot lies further back than the window reaches: what counts follows it in the log.
        self.window = Window::new();
        self.first = None;
        self.floor.send_replace(self.state.floor_index());
        self.ringing = self.bells.keys().copied().collect();
        self.ring();
        Ok(())
    }

    fn installed(&mut self, index: u64) {
        self.base = Base::after(index, &self.state);
    }
}
