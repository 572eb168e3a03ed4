//! A process that serves: started, watched, and ended whatever happens to the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// Between two looks at something that is awaited.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// For whatever a process does at once, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// Lines of a log that a failed test shows.
const LOG_LINES: usize = 60;

/// A command without the settings of whoever runs the tests.
pub(crate) fn cleaned(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("WEFT_")) {
            command.env_remove(name);
        }
    }
    command
}

/// A process that runs until it is told to stop.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    /// A broker ends when this closes: it does not survive the test, however that ends.
    _stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Daemon {
    /// Starts the command; what it writes is added to the log.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, _stdin: stdin, log: log.to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Ends it at once, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, by SIGTERM, and waits for it.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.ended().await
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(begin.elapsed() < SOON, "{} did not end within {SOON:?}", self.name);
            sleep(POLL).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- end of the log of {} ---\n{}", self.name, end.join("\n"));
        }
    }
}
