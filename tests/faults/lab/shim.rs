//! The library that is put between a broker and its disk, and the file that steers it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::tools::run;

const SOURCE: &str = include_str!("shim.c");
/// One page, which the shim maps.
const CONTROL_BYTES: u64 = 4_096;
const CALLS: u64 = 0;
const STALL: u64 = 1;
const STALLED: u64 = 2;
const ERRORS: u64 = 3;
const FAILED: u64 = 4;

/// Compiles the library. Needs a C compiler.
pub(crate) fn compile(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    fs::write(&source, SOURCE)?;
    let (from, to) = (source.display().to_string(), library.display().to_string());
    run(&["cc", "-O1", "-shared", "-fPIC", "-o", &to, &from, "-ldl"])?;
    Ok(library)
}

/// Steers the shim of one broker.
#[derive(Debug)]
pub(crate) struct Control {
    file: File,
    path: PathBuf,
}

impl Control {
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        let file =
            File::options().create(true).read(true).write(true).truncate(true).open(&path)?;
        file.set_len(CONTROL_BYTES)?;
        Ok(Self { file, path })
    }

    /// Puts the shim under a command.
    pub(crate) fn attach(&self, command: &mut Command, library: &Path) {
        command.env("LD_PRELOAD", library).env("WEFT_FAULT_CONTROL", &self.path);
    }

    fn get(&self, place: u64) -> io::Result<i64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, place * 8)?;
        Ok(i64::from_ne_bytes(bytes))
    }

    fn set(&self, place: u64, value: i64) -> io::Result<()> {
        self.file.write_all_at(&value.to_ne_bytes(), place * 8)
    }

    /// Syncs that the broker asked for: zero means that the shim does not work.
    pub(crate) fn calls(&self) -> io::Result<i64> {
        self.get(CALLS)
    }

    /// Makes each sync take so much longer.
    pub(crate) fn stall(&self, stall: Duration) -> io::Result<()> {
        self.set(STALL, i64::try_from(stall.as_micros()).unwrap_or(i64::MAX))
    }

    /// Makes the next sync fail, or all of them.
    pub(crate) fn fail(&self, for_ever: bool) -> io::Result<()> {
        self.set(ERRORS, if for_ever { -1 } else { 1 })
    }

    pub(crate) fn heal(&self) -> io::Result<()> {
        self.set(STALL, 0)?;
        self.set(ERRORS, 0)
    }

    /// Syncs that were made slow or failed.
    pub(crate) fn hits(&self) -> io::Result<i64> {
        Ok(self.get(STALLED)? + self.get(FAILED)?)
    }
}
