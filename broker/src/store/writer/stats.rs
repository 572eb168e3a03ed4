//! What the writer tells about itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub(crate) const SYNCS_TOTAL: &str = "weft_store_syncs_total";
pub(crate) const SYNC_SECONDS: &str = "weft_store_sync_seconds";
pub(crate) const WRITTEN_BYTES_TOTAL: &str = "weft_store_written_bytes_total";
pub(crate) const QUEUE_BYTES: &str = "weft_store_queue_bytes";
pub(crate) const FAILURES_TOTAL: &str = "weft_store_failures_total";

/// What was written since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterStats {
    /// How often data was forced to disk.
    pub syncs: u64,
    /// How many bytes were written, synced or not.
    pub bytes: u64,
    /// How long all syncs took together.
    pub sync_time: Duration,
}

/// Counts for metrics and for `WriterStats`.
#[derive(Debug)]
pub(super) struct Meter {
    syncs: AtomicU64,
    bytes: AtomicU64,
    sync_nanos: AtomicU64,
    syncs_total: Counter,
    sync_seconds: Histogram,
    written_bytes: Counter,
    queue_bytes: Gauge,
    failures: Counter,
}

impl Meter {
    pub(super) fn new(node: &str) -> Self {
        let label = [("node", node.to_owned())];
        Self {
            syncs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            sync_nanos: AtomicU64::new(0),
            syncs_total: counter!(SYNCS_TOTAL, &label),
            sync_seconds: histogram!(SYNC_SECONDS, &label),
            written_bytes: counter!(WRITTEN_BYTES_TOTAL, &label),
            queue_bytes: gauge!(QUEUE_BYTES, &label),
            failures: counter!(FAILURES_TOTAL, &label),
        }
    }

    pub(super) fn synced(&self, bytes: usize, took: Duration) {
        self.syncs.fetch_add(1, Relaxed);
        self.sync_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.syncs_total.increment(1);
        self.sync_seconds.record(took);
        self.written(bytes);
    }

    pub(super) fn written(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.written_bytes.increment(bytes as u64);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge; the queue is below 2^52 bytes")]
    pub(super) fn queued(&self, bytes: usize) {
        self.queue_bytes.increment(bytes as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge; the queue is below 2^52 bytes")]
    pub(super) fn left(&self, bytes: usize) {
        self.queue_bytes.decrement(bytes as f64);
    }

    pub(super) fn failed(&self) {
        self.failures.increment(1);
    }

    pub(super) fn stats(&self) -> WriterStats {
        WriterStats {
            syncs: self.syncs.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            sync_time: Duration::from_nanos(self.sync_nanos.load(Relaxed)),
        }
    }
}
