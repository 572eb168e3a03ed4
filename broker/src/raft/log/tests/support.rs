//! A log on either engine, with its writer, for one test.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;

use crate::raft::log::{GroupLog, Logs};
use crate::raft::types::{Entry, EntryPayload, Payload, TypeConfig, log_id};
use crate::store::{
    LogEngine, MemoryEngine, Profile, RocksEngine, StoreError, Writer, WriterOptions,
};
use weft_proto::GroupId;

pub(super) const GROUP: GroupId = GroupId(3);
const TAIL_BYTES: usize = 1 << 20;

/// A running node's store.
#[derive(Debug)]
pub(super) struct Node {
    logs: Option<Logs>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(logs) = self.logs.take() else { return };
        let is_rocks = logs.engine().is_blocking();
        drop(logs);
        // RocksDB must be closed before the process ends, and before its folder goes.
        if is_rocks && let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Node {
    pub(super) fn start(engine: Arc<dyn LogEngine>, tail_bytes_max: usize) -> Self {
        let (writer, writer_loop) = Writer::new(Arc::clone(&engine), &WriterOptions::default());
        let thread = std::thread::spawn(move || writer_loop.run_blocking());
        Self { logs: Some(Logs::new(engine, writer, tail_bytes_max)), thread: Some(thread) }
    }

    pub(super) fn memory(engine: &MemoryEngine) -> Self {
        Self::start(Arc::new(engine.clone()), TAIL_BYTES)
    }

    pub(super) fn rocks(path: &Path) -> Self {
        Self::start(Arc::new(RocksEngine::open(path, Profile::Small).unwrap()), TAIL_BYTES)
    }

    pub(super) fn logs(&self) -> &Logs {
        self.logs.as_ref().unwrap()
    }

    pub(super) fn open(&self) -> GroupLog {
        self.logs().open(GROUP).unwrap()
    }

    /// Ends the writer; all logs must be dropped.
    pub(super) fn stop(mut self) -> Result<(), StoreError> {
        self.logs = None;
        self.thread.take().unwrap().join().unwrap()
    }
}

pub(super) fn payload(time: u64, body: &[u8]) -> Bytes {
    [&[0, 1, 0, 0][..], &time.to_le_bytes(), body].concat().into()
}

pub(super) fn normal(term: u64, index: u64, body: Bytes) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Payload(body)) }
}

/// An entry with a payload of about `bytes`.
pub(super) fn sized(term: u64, index: u64, bytes: usize) -> Entry {
    normal(term, index, payload(index, &vec![u8::try_from(index % 256).unwrap(); bytes]))
}

/// Appends without waiting for the sync.
pub(super) async fn append_ff(
    log: &mut GroupLog,
    entries: Vec<Entry>,
) -> OneshotReceiverOf<TypeConfig, Result<(), io::Error>> {
    let (tx, rx) = TypeConfig::oneshot();
    // A refused append says so through its callback too, or drops it.
    drop(log.append(entries, IOFlushed::signal(tx)).await);
    rx
}

pub(super) async fn append(log: &mut GroupLog, entries: Vec<Entry>) {
    append_ff(log, entries).await.await.unwrap().unwrap();
}

pub(super) async fn entries(log: &GroupLog) -> Vec<Entry> {
    log.reader().try_get_log_entries(0..).await.unwrap()
}
