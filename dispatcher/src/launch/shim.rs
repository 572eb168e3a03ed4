//! The step between the dispatcher and a function's program.
//!
//! It runs in the new process, where ordinary calls are allowed that between fork and exec are
//! not: it ties the life of the process to that of the dispatcher, gives up privileges and files
//! for good and tells the program its own process id.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, path_beneath_rules,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// The newest rules that are known here; the kernel's may be older.
const NEWEST: ABI = ABI::V5;
/// The first in which no file can be changed in any way: before it, they could be cut off.
const COMPLETE: ABI = ABI::V3;
/// What programs write to without changing anything.
const SINKS: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// To what the files of a process are confined.
#[derive(Debug)]
pub(super) struct Confined<'a> {
    /// The only folder in which it may write.
    pub(super) scratch: &'a Path,
    /// Largest file that it may make.
    pub(super) file_bytes: u64,
}

impl Confined<'_> {
    /// The arguments of [`shim`] before the program.
    pub(super) fn args(this: Option<&Self>) -> [OsString; 3] {
        let parent = std::process::id().to_string().into();
        match this {
            Some(this) => {
                [parent, this.scratch.as_os_str().to_owned(), this.file_bytes.to_string().into()]
            }
            None => [parent, OsString::new(), OsString::new()],
        }
    }
}

/// Whether this kernel keeps a process from changing any file.
pub(super) fn can_confine() -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::from_write(COMPLETE)).and_then(Ruleset::create).is_ok()
}

/// Becomes the program that `args` name: the dispatcher's process id, the scratch folder and the
/// largest file in it, or nothing twice, the program, its arguments.
///
/// Returns only if that failed.
pub fn shim(mut args: impl Iterator<Item = OsString>) -> io::Error {
    let number = |text: Option<OsString>| text.and_then(|text| text.to_str()?.parse::<i64>().ok());
    let parent = number(args.next());
    let (Some(parent), Some(scratch), Some(bytes), Some(program)) =
        (parent, args.next(), args.next(), args.next())
    else {
        let usage = "usage: PARENT SCRATCH BYTES PROGRAM [ARGUMENT...]";
        return io::Error::new(io::ErrorKind::InvalidInput, usage);
    };
    // A signal that cannot be ignored: without a dispatcher nobody would ever stop the function.
    let tied = prctl::set_pdeathsig(Signal::SIGKILL).and_then(|()| prctl::set_no_new_privs());
    if let Err(error) = tied {
        return error.into();
    }
    // It may have died before the line above took effect.
    if i64::from(getppid().as_raw()) != parent {
        return io::Error::other("the dispatcher is gone");
    }
    if let Err(error) = limit(number(Some(bytes))).and_then(|()| confine(&scratch)) {
        return error;
    }
    let error =
        Command::new(&program).args(args).env("LISTEN_PID", getpid().as_raw().to_string()).exec();
    io::Error::new(error.kind(), format!("cannot run {}: {error}", program.display()))
}

fn limit(file_bytes: Option<i64>) -> io::Result<()> {
    // What is in memory, secrets among it, is not left behind in a file.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if let Some(bytes) = file_bytes.and_then(|bytes| u64::try_from(bytes).ok()) {
        setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?;
    }
    Ok(())
}

/// Makes all files read-only but those in `scratch`, as far as the kernel can; for ever, also for
/// what the program starts.
fn confine(scratch: &OsStr) -> io::Result<()> {
    if scratch.is_empty() {
        return Ok(());
    }
    let failed = |error: RulesetError| io::Error::other(format!("cannot confine files: {error}"));
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(NEWEST))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let folder = path_beneath_rules([scratch], AccessFs::from_write(NEWEST));
    let sinks = path_beneath_rules(SINKS, AccessFs::from_write(NEWEST));
    let ruleset = ruleset.add_rules(folder).and_then(|ruleset| ruleset.add_rules(sinks));
    ruleset.and_then(RulesetCreated::restrict_self).map_err(failed)?;
    Ok(())
}
