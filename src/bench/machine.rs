//! The machine that is measured: its disk, its processor, and what processes cost.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

const APPENDS: usize = 200;
const APPEND_BYTES: usize = 4_096;
/// Unit of the processor times in `/proc`: fixed by the kernel's interface, whatever its own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// How long the disk takes to make an append durable.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Fsync {
    p50: u64,
    p99: u64,
}

/// Measures appends in a folder.
pub(super) fn fsync(folder: &Path) -> anyhow::Result<Fsync> {
    let path = folder.join("fsync-probe");
    let mut file = File::create(&path)?;
    let block = [0x5a; APPEND_BYTES];
    let mut times = Histogram::<u64>::new(3)?;
    for _ in 0..APPENDS {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.record(micros(begin))?;
    }
    fs::remove_file(&path)?;
    Ok(Fsync { p50: times.value_at_quantile(0.5), p99: times.value_at_quantile(0.99) })
}

/// Microseconds since then.
pub(super) fn micros(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people, of a few digits")]
fn cpu_seconds_of(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

/// Processor time that this process and these others have used, in seconds.
pub(super) fn cpu_seconds(processes: &[u32]) -> anyhow::Result<f64> {
    let mut ticks = 0;
    let others = processes.iter().map(ToString::to_string);
    for process in others.chain(["self".to_owned()]) {
        let path = format!("/proc/{process}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        ticks += ticks_of(&text).with_context(|| format!("{path} is unreadable"))?;
    }
    Ok(cpu_seconds_of(ticks))
}

/// utime and stime of `/proc/PID/stat`, fields 14 and 15.
fn ticks_of(stat: &str) -> anyhow::Result<u64> {
    // The program's name stands in brackets and may hold anything.
    let Some((_, rest)) = stat.rsplit_once(") ") else { bail!("it has no program name") };
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (Some(user), Some(system)) = (fields.next(), fields.next()) else {
        bail!("it has no processor times")
    };
    Ok(user.parse::<u64>()? + system.parse::<u64>()?)
}

/// What ran it.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    processor: Option<String>,
    processors: Option<usize>,
    kernel: Option<String>,
}

/// This machine, as far as it tells.
pub(super) fn machine() -> Machine {
    let cpu = fs::read_to_string("/proc/cpuinfo").ok();
    let model = cpu.as_deref().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    Machine {
        processor: model,
        processors: std::thread::available_parallelism().ok().map(Into::into),
        kernel: kernel.map(|text| text.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 40 2 13 14";

        assert_eq!(ticks_of(stat).unwrap(), 42);
        assert!(ticks_of("7 (a) S 1").is_err());
        assert!(ticks_of("").is_err());
    }

    #[test]
    fn this_process_costs_time_and_an_unknown_one_is_an_error() {
        assert!(cpu_seconds(&[]).unwrap() >= 0.0);
        assert!(cpu_seconds(&[u32::MAX]).is_err());
    }
}
