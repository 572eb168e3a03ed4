//! What the disk can do, whoever uses it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::Instant;

use super::times::{Percentiles, Times};

const APPENDS: usize = 200;
const APPEND_BYTES: usize = 4_096;
/// Enough to outlast caches of a drive, and short enough to be done each time.
const SEQUENTIAL_BYTES: usize = 256 << 20;
const CHUNK_BYTES: usize = 1 << 20;

/// How long a disk takes to make an append durable, and how fast it takes a large file.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Disk {
    /// Of 4 KiB appended to a file.
    fdatasync_us: Percentiles,
    /// One file written in a row, until it is on the disk; units of 1,000,000 bytes.
    sequential_megabytes_per_second: f64,
}

/// Measures the disk of a folder.
pub(super) async fn probe(folder: &Path) -> anyhow::Result<Disk> {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Whatever was written before is no part of what is measured.
        rustix::fs::sync();
        let file = Probe(folder.join("disk-probe"));
        Ok(Disk {
            fdatasync_us: appends(&file)?,
            sequential_megabytes_per_second: sequential(&file)?,
        })
    })
    .await?
}

/// A file that is gone when the measurement ends, however it ends.
struct Probe(PathBuf);

impl Drop for Probe {
    fn drop(&mut self) {
        // It may not exist; what stays behind is in a folder for measurements.
        _ = fs::remove_file(&self.0);
    }
}

fn appends(probe: &Probe) -> anyhow::Result<Percentiles> {
    let mut file = File::create(&probe.0)?;
    let block = [0x5a; APPEND_BYTES];
    let mut times = Times::new()?;
    for _ in 0..APPENDS {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.record_since(begin, 1)?;
    }
    Ok(times.percentiles())
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people, of a few digits")]
fn sequential(probe: &Probe) -> anyhow::Result<f64> {
    let mut file = File::create(&probe.0)?;
    let chunk = vec![0x5a; CHUNK_BYTES];
    let begin = Instant::now();
    for _ in 0..SEQUENTIAL_BYTES / CHUNK_BYTES {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    Ok(SEQUENTIAL_BYTES as f64 / begin.elapsed().as_secs_f64() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_is_measured_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();

        let disk = probe(&folder.path().join("new")).await.unwrap();

        assert!(disk.sequential_megabytes_per_second > 0.0);
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 0);
    }
}
