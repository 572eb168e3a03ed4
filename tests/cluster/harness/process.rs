//! Commands that end by themselves.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

pub(crate) use super::daemon::{Daemon, POLL, SOON, cleaned};

/// The binary under test, without the settings of whoever runs the tests.
pub(crate) fn weft() -> Command {
    cleaned(Command::new(env!("CARGO_BIN_EXE_weft")))
}

/// What a command that ended left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `weft` with these arguments and this input to its end.
pub(crate) async fn run(args: &[&str], input: &str) -> Ended {
    let mut command = weft();
    command.args(args);
    finished(command, input).await
}

/// Runs a command to its end.
pub(crate) async fn finished(mut command: Command, input: &str) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let pid = Pid::from_child(&child);
    let input = input.to_owned();
    let end = tokio::task::spawn_blocking(move || {
        // A command that refuses at once does not read its input.
        _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output()
    });
    let Ok(end) = timeout(SOON, end).await else {
        _ = kill_process(pid, Signal::KILL);
        panic!("{what} did not end within {SOON:?}");
    };
    let Output { status, stdout, stderr } = end.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}
