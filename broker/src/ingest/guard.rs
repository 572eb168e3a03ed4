//! Refuses publishes while the disk is nearly full, so that everything else goes on; and entries of
//! leaders elsewhere before it is full to the last byte.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_proto::{Error, Reason, Result};

use crate::identity;
use crate::metrics as names;

/// Between two looks at the disk.
const PERIOD: Duration = Duration::from_millis(500);
/// Publishing resumes when this much more than the limit is free, so that it does not flap.
const SLACK: u64 = 64 << 20;

/// Knows whether the disk has room; clones share it.
#[derive(Clone, Debug)]
pub struct Guard {
    full: Arc<AtomicBool>,
    /// Nearly nothing is left: entries of other leaders are not taken either.
    out: Arc<AtomicBool>,
    path: PathBuf,
    reserve: Reserve,
}

/// How much must stay free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// What the store may write in a hurry: memtables and write-ahead log.
    pub store_bytes: u64,
    /// A tenth of the disk, but no more than this.
    pub tenth_bytes_max: u64,
    /// What is given back when the store cannot even open.
    pub ballast_bytes: u64,
}

impl Guard {
    /// Watches the disk of a folder.
    pub fn new(path: &Path, reserve: Reserve) -> Self {
        let path = path.to_owned();
        let guard = Self { full: Arc::default(), out: Arc::default(), path, reserve };
        guard.look();
        guard
    }

    /// True while not even entries that other nodes lead can be taken.
    pub fn out_of_room(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.out)
    }

    /// Refuses while the disk is nearly full.
    pub fn check(&self) -> Result<()> {
        if !self.full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let message = "the disk of this node is nearly full: nothing is stored until there is room; reading goes on";
        let retry = Duration::from_secs(5);
        Err(Error::new(Reason::DiskFull, message).with_not_applied().with_retry_after(retry))
    }

    /// Looks at the disk until the node stops.
    pub async fn run(self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => self.look(),
            }
        }
    }

    fn look(&self) {
        let Ok(stat) = rustix::fs::statvfs(&self.path) else { return };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let limit = (total / 10).min(self.reserve.tenth_bytes_max).max(self.reserve.store_bytes);
        let was = self.full.load(Ordering::Relaxed);
        let full = free < if was { limit.saturating_add(SLACK) } else { limit };
        if full != was {
            self.full.store(full, Ordering::Relaxed);
            if full {
                warn!(free, limit, "disk nearly full, refusing publishes");
            } else {
                info!(free, limit, "disk has room again, taking publishes");
            }
        }
        let last = self.reserve.store_bytes / 2;
        let was_out = self.out.load(Ordering::Relaxed);
        let out = free < if was_out { last.saturating_add(last / 4) } else { last };
        if out != was_out {
            self.out.store(out, Ordering::Relaxed);
            if out {
                warn!(free, last, "disk all but full, taking no entries of other leaders");
            } else {
                info!(free, last, "taking entries of other leaders again");
            }
        }
        self.keep_ballast(full, free, limit);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!(names::DISK_FREE_BYTES).set(free as f64);
        metrics::gauge!(names::DISK_FULL).set(f64::from(u8::from(full)));
    }

    /// Reserves the ballast again once there is room for it and for publishing.
    fn keep_ballast(&self, full: bool, free: u64, limit: u64) {
        let bytes = self.reserve.ballast_bytes;
        if full || free < limit.saturating_add(SLACK).saturating_add(bytes) {
            return;
        }
        match identity::reserve_ballast(&self.path, bytes) {
            Ok(true) => info!(bytes, "the ballast is reserved again"),
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the ballast is not reserved");
            }
        }
    }
}
