//! The machine that is measured.

use std::fs;

use serde::Serialize;

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
