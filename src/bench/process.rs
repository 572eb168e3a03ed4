//! What processes cost, by the files of the kernel about them.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::time::{Instant, sleep};

/// Unit of the processor times in `/proc`: fixed by the kernel's interface, whatever its own tick.
const TICKS_PER_SECOND: f64 = 100.0;
/// Brokers that wrote next to nothing for this long have nothing left to write.
const QUIET: Duration = Duration::from_secs(2);
const LITTLE: u64 = 1 << 20;
const QUIET_MAX: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(250);

fn read(process: &str, file: &str) -> anyhow::Result<(String, String)> {
    let path = format!("/proc/{process}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok((path, text))
}

/// Processor time that this process and these others have used, in seconds.
#[expect(clippy::cast_precision_loss, reason = "a figure for people, of a few digits")]
pub(super) fn cpu_seconds(processes: &[u32]) -> anyhow::Result<f64> {
    let mut ticks = 0;
    let others = processes.iter().map(ToString::to_string);
    for process in others.chain(["self".to_owned()]) {
        let (path, text) = read(&process, "stat")?;
        ticks += ticks_of(&text).with_context(|| format!("{path} is unreadable"))?;
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
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

/// The most memory that each process has had at once, in bytes.
pub(super) fn memory_max(processes: &[u32]) -> anyhow::Result<Vec<u64>> {
    memory_as("VmHWM:", processes)
}

/// The memory that each process has now, in bytes.
pub(super) fn memory(processes: &[u32]) -> anyhow::Result<Vec<u64>> {
    memory_as("VmRSS:", processes)
}

fn memory_as(name: &str, processes: &[u32]) -> anyhow::Result<Vec<u64>> {
    let of = |process: &u32| {
        let (path, text) = read(&process.to_string(), "status")?;
        let kibibytes = number_of(&text, name).with_context(|| path)?;
        Ok(kibibytes << 10)
    };
    processes.iter().map(of).collect()
}

/// Bytes that each process has had written to disks.
pub(super) fn written(processes: &[u32]) -> anyhow::Result<Vec<u64>> {
    let of = |process: &u32| {
        let (path, text) = read(&process.to_string(), "io")?;
        number_of(&text, "write_bytes:").with_context(|| path)
    };
    processes.iter().map(of).collect()
}

/// The first number behind a name at the beginning of a line.
fn number_of(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
    let number = number.with_context(|| format!("it has no {name}"))?;
    number.parse().with_context(|| format!("{name} is no number"))
}

/// What a load cost each broker.
#[derive(Debug, Serialize)]
pub(super) struct Footprint {
    /// Most memory that each broker had at once since its start.
    memory_max_bytes: Vec<u64>,
    /// Bytes that each broker had written, over the bytes of payload. Compactions included.
    written_per_payload_byte: Vec<f64>,
}

/// Waits until brokers write no more; answers what the payload, published since `before`, cost.
#[expect(clippy::cast_precision_loss, reason = "a figure for people, of a few digits")]
pub(super) async fn footprint(
    brokers: &[u32],
    before: &[u64],
    payload: f64,
) -> anyhow::Result<Footprint> {
    let memory_max_bytes = memory_max(brokers)?;
    let deadline = Instant::now() + QUIET_MAX;
    let (mut after, mut since) = (written(brokers)?, Instant::now());
    while since.elapsed() < QUIET {
        if Instant::now() >= deadline {
            bail!("the brokers still write to their disks after {} s", QUIET_MAX.as_secs());
        }
        sleep(POLL).await;
        let now = written(brokers)?;
        if now.iter().sum::<u64>() > after.iter().sum::<u64>() + LITTLE {
            (after, since) = (now, Instant::now());
        }
    }
    let ratio = |(after, before): (&u64, &u64)| after.saturating_sub(*before) as f64 / payload;
    let written_per_payload_byte = after.iter().zip(before).map(ratio).collect();
    Ok(Footprint { memory_max_bytes, written_per_payload_byte })
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

    #[test]
    fn memory_and_writes_of_this_process_are_found() {
        let this = [std::process::id()];

        assert!(memory_max(&this).unwrap()[0] > 1 << 20);
        assert_eq!(written(&this).unwrap().len(), 1);
        assert!(memory_max(&[u32::MAX]).is_err());
    }

    #[test]
    fn numbers_are_found_by_name() {
        let text = "VmPeak:  9 kB\nVmHWM:\t  42 kB\n";

        assert_eq!(number_of(text, "VmHWM:").unwrap(), 42);
        assert!(number_of(text, "VmRSS:").is_err());
    }
}
