//! The state machine of a data group: the pure state, and what a replica does with its effects.

use bytes::Bytes;
use tokio::sync::watch;
use tracing::error;
use weft_proto::GroupId;

use crate::dedup::Window;
use crate::raft::machine::{Applied, Machine, Unreadable};
use crate::raft::types::Reply;
use crate::state::{GroupState, Identities};
use crate::store::Writer;
use crate::store::keys::index;

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
            broken: watch::Sender::new(None),
        }
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
        match self.state.apply(entry.payload, entry.index) {
            Ok(outcome) => {
                self.first.get_or_insert(entry.index);
                for Identities { partition, base, header } in &outcome.effects.identities {
                    let time = self.state.time();
                    self.window.record(*partition, *base, header.id_hashes(), time);
                }
                for record in outcome.effects.index {
                    let key = index::key(self.group, record.partition, record.base);
                    let place = index::IndexRecord {
                        index: record.index,
                        pos: record.pos,
                        time: record.time.as_micros(),
                    };
                    self.writer.put_deferred(&key, index::encode(&place));
                }
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

    fn checkpoint(&self) -> Bytes {
        self.state.encode()
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Unreadable> {
        self.state = match state {
            Some(bytes) => {
                GroupState::decode(bytes).map_err(|error| Unreadable(error.to_string()))?
            }
            None => GroupState::new(),
        };
        // A snapshot lies further back than the window reaches: what counts follows it in the log.
        self.window = Window::new();
        self.first = None;
        Ok(())
    }
}
