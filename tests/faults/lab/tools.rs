//! Programs of the machine that faults are made with.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Runs a command that must succeed; what it wrote.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<String> {
    let (program, args) = words.split_first().context("there is no command")?;
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", words.join(" "), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
