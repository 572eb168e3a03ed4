//! Writes the history down while it happens.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::check::history::{History, Injected, Micros, Outcome, Process, Record, Sent};

/// The history of a round, in memory and in a file.
#[derive(Debug)]
pub(crate) struct Recorder {
    begin: Instant,
    lines: Mutex<Lines>,
    ops: AtomicU64,
    processes: AtomicU32,
    acked: AtomicU64,
}

#[derive(Debug)]
struct Lines {
    history: History,
    file: BufWriter<File>,
    failed: Option<std::io::Error>,
}

impl Recorder {
    pub(crate) fn new(file: &Path) -> anyhow::Result<Self> {
        let file = BufWriter::new(File::create(file)?);
        Ok(Self {
            begin: Instant::now(),
            lines: Mutex::new(Lines { history: History::new(), file, failed: None }),
            ops: AtomicU64::new(0),
            processes: AtomicU32::new(0),
            acked: AtomicU64::new(0),
        })
    }

    /// Adds a line. The time is taken while nobody else writes, so the lines are in its order.
    pub(crate) fn add(&self, line: impl FnOnce(Micros) -> Record) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let record = line(self.now());
        let written = serde_json::to_writer(&mut lines.file, &record)
            .map_err(std::io::Error::from)
            .and_then(|()| lines.file.write_all(b"\n"));
        if let Err(error) = written {
            lines.failed.get_or_insert(error);
        }
        lines.history.push(record);
    }

    /// The time of the history.
    pub(crate) fn now(&self) -> Micros {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A new process.
    pub(crate) fn process(&self) -> Process {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    /// The name of something that begins.
    pub(crate) fn op(&self) -> u64 {
        self.ops.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that a send begins; its name.
    pub(crate) fn invoke(&self, process: Process, events: Vec<Sent>) -> u64 {
        let op = self.op();
        self.add(|t| Record::Invoke { t, process, op, events });
        op
    }

    /// Notes how it ended.
    pub(crate) fn done(&self, process: Process, op: u64, outcome: Outcome) {
        if matches!(outcome, Outcome::Ok { .. }) {
            self.acked.fetch_add(1, Ordering::Relaxed);
        }
        self.add(|t| Record::Done { t, process, op, outcome });
    }

    pub(crate) fn fault(&self, name: &str, state: Injected, detail: &str) {
        let (name, detail) = (name.to_owned(), detail.to_owned());
        self.add(|t| Record::Fault { t, name, state, detail });
    }

    /// Sends that were acknowledged so far.
    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// All lines. Fails if the file does not have them all.
    pub(crate) fn finish(&self) -> anyhow::Result<History> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = lines.failed.take() {
            return Err(error.into());
        }
        lines.file.flush()?;
        Ok(std::mem::take(&mut lines.history))
    }
}
