//! What all targets share: the entry points around a target's `run`, and a reader that turns bytes
//! into small choices.
//!
//! A target is one file in `src/bin` with two functions: `run` feeds bytes to a decoder and says
//! whether it accepted them, `seeds` gives it a start. Under cargo-fuzz the file is a fuzzer; else
//! it is a program that replays files; in `replay` it is a module.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[cfg(test)]
extern crate self as weft_fuzz;
pub mod corpus;
pub mod door;
#[cfg(test)]
mod replay;
pub mod sample;

#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// Makes a program of a target.
#[macro_export]
macro_rules! target {
    () => {
        // Read by `run`, and kept by the replay.
        const _: () = assert!(MAX_LEN > 0);

        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::before(seeds),
            |data: &[u8]| {
                run(data);
            }
        );

        #[cfg(not(fuzzing))]
        #[allow(dead_code, reason = "unused where the target is a module of the replay")]
        fn main() -> std::process::ExitCode {
            $crate::main(run)
        }
    };
}

/// The program of a target without a fuzzer: runs the files that it is given.
pub fn main(run: fn(&[u8]) -> bool) -> ExitCode {
    let files = std::env::args().skip(1);
    for file in files {
        match std::fs::read(&file) {
            Ok(input) => {
                println!("{file}: {}", if run(&input) { "accepted" } else { "refused" });
            }
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Called before a fuzzer begins. With `WEFT_FUZZ_UNPACK` it only writes seeds and corpus as files
/// into that folder, with `WEFT_FUZZ_PACK` it only keeps the files of that folder as corpus.
pub fn before(seeds: fn() -> Vec<Vec<u8>>) {
    let program = PathBuf::from(std::env::args().next().unwrap_or_default());
    let target = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let done = if let Some(folder) = std::env::var_os("WEFT_FUZZ_UNPACK") {
        unpack(&target, Path::new(&folder), seeds())
    } else if let Some(folder) = std::env::var_os("WEFT_FUZZ_PACK") {
        pack(&target, Path::new(&folder))
    } else {
        return;
    };
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    std::process::exit(done.is_err().into());
}

fn unpack(target: &str, folder: &Path, seeds: Vec<Vec<u8>>) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let kept = corpus::read(target)?.into_iter().map(|kept| kept.input);
    for (number, input) in seeds.into_iter().chain(kept).enumerate() {
        std::fs::write(folder.join(format!("kept-{number:04}")), input)?;
    }
    Ok(())
}

fn pack(target: &str, folder: &Path) -> io::Result<()> {
    let files = std::fs::read_dir(folder)?;
    let inputs = files.map(|file| std::fs::read(file?.path())).collect::<io::Result<_>>()?;
    corpus::write(target, inputs)
}

/// Reads choices from the front of the bytes; at their end everything is zero.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Over these bytes.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// A truth value.
    pub fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from(self.u8()) | u16::from(self.u8()) << 8
    }

    /// A number that is small as a rule and anything now and then: the borders are where rules break.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=0xef => u64::from(small),
            0xf0..=0xf7 => u64::from(self.u16()),
            0xf8..=0xfb => u64::MAX - u64::from(self.u8()),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.u8())),
        }
    }

    /// Up to so many bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their length in front, two bytes.
    pub fn chunk(&mut self) -> &'a [u8] {
        let len = self.u16().into();
        self.take(len)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Writes what [`Input::chunk`] reads.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut out = len.to_le_bytes().to_vec();
    out.extend(&bytes[..usize::from(len)]);
    out
}

/// A seed: a choice, then bytes.
pub fn chosen(choice: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&[choice], bytes.as_ref()].concat()
}
