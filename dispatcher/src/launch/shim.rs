//! The step between the dispatcher and a function's program.
//!
//! It runs in the new process, where ordinary calls are allowed that between fork and exec are
//! not: it ties the life of the process to that of the dispatcher, gives up privileges for good
//! and tells the program its own process id.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Becomes the program that `args` name: the dispatcher's process id, the program, its arguments.
///
/// Returns only if that failed.
pub fn shim(mut args: impl Iterator<Item = OsString>) -> io::Error {
    let parent = args.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, args.next()) else {
        return io::Error::new(io::ErrorKind::InvalidInput, "usage: PARENT PROGRAM [ARGUMENT...]");
    };
    // A signal that cannot be ignored: without a dispatcher nobody would ever stop the function.
    let tied = prctl::set_pdeathsig(Signal::SIGKILL).and_then(|()| prctl::set_no_new_privs());
    if let Err(error) = tied {
        return error.into();
    }
    // It may have died before the line above took effect.
    if getppid().as_raw() != parent {
        return io::Error::other("the dispatcher is gone");
    }
    let error =
        Command::new(&program).args(args).env("LISTEN_PID", getpid().as_raw().to_string()).exec();
    io::Error::new(error.kind(), format!("cannot run {}: {error}", program.display()))
}
