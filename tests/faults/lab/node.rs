//! One broker of a cluster under test.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use weft_client::{Client, Options, Timeouts};

use super::Lab;
use super::daemon::{Daemon, POLL, cleaned};
use super::disk::Disk;
use super::probe::answers_ready;
use super::shim::Control;

/// An election, a recovery of the store, and a machine with other things to do.
const READY_MAX: Duration = Duration::from_mins(2);
const STOPPED_MAX: Duration = Duration::from_secs(10);
const CHECKPOINT_BYTES: u64 = 128 << 10;
const EXIT_MAX: Duration = Duration::from_secs(30);

/// Where a node listens.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) grpc: String,
    pub(crate) http: String,
    pub(crate) peer: String,
}

/// How brokers are started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) weft: PathBuf,
    pub(crate) data_groups: u32,
    /// Environment of each broker.
    pub(crate) env: Vec<(String, String)>,
}

/// One broker: running, stopped, dead.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) addresses: Addresses,
    pub(crate) disk: Disk,
    pub(crate) control: Control,
    folder: PathBuf,
    founders: Vec<String>,
    daemon: Option<Daemon>,
    /// Ends that nobody asked for.
    pub(crate) crashes: Vec<String>,
}

impl Node {
    pub(crate) fn new(
        number: usize,
        folder: PathBuf,
        disk: Disk,
        addresses: Addresses,
        founders: Vec<String>,
    ) -> anyhow::Result<Self> {
        let control = Control::new(folder.join("control"))?;
        Ok(Self {
            number,
            addresses,
            disk,
            control,
            folder,
            founders,
            daemon: None,
            crashes: Vec::new(),
        })
    }

    fn config(&self, program: &Program) -> String {
        let Addresses { grpc, http, peer } = &self.addresses;
        let data = self.disk.data().display().to_string();
        let mut text = format!("[node]\ndata = {data:?}\n\n");
        // Writing to a text cannot fail.
        _ = write!(text, "[listen]\ngrpc = {grpc:?}\nhttp = {http:?}\npeer = {peer:?}\n\n");
        _ = writeln!(text, "[cluster]\nfounders = {:?}", self.founders);
        _ = writeln!(text, "data_groups = {}", program.data_groups);
        // Many checkpoints, so that floors rise and snapshots are installed.
        _ = write!(text, "checkpoint_bytes = {CHECKPOINT_BYTES}\n\n");
        text + "[store]\nprofile = \"small\"\n\n[security]\ninsecure = true\n"
    }

    /// Starts it with the data that it has.
    pub(crate) fn start(&mut self, program: &Program, lab: &Lab) -> anyhow::Result<()> {
        if self.daemon.is_some() {
            bail!("node {} runs already", self.number);
        }
        let file = self.folder.join("broker.toml");
        fs::write(&file, self.config(program))?;
        let mut command = match &lab.net {
            Some(net) => {
                let mut command = net.enter(self.number);
                command.arg(&program.weft);
                command
            }
            None => Command::new(&program.weft),
        };
        command.arg("broker").arg("--config").arg(&file).arg("--until-stdin-closes");
        let mut command = cleaned(command);
        command.env("RUST_BACKTRACE", "1").envs(program.env.iter().cloned());
        if let Some(library) = &lab.shim {
            self.control.heal()?;
            self.control.attach(&mut command, library);
        }
        let name = format!("node {} at {}", self.number, self.addresses.grpc);
        self.daemon = Some(Daemon::start(&name, command, &self.log_file()));
        Ok(())
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    pub(crate) fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    /// Waits until it can serve; fails if it ends.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !answers_ready(&self.addresses.http).await {
            if let Some(status) = self.ended() {
                bail!("node {} ended when it should start: {status}", self.number);
            }
            if begin.elapsed() > READY_MAX {
                bail!("node {} is not ready after {READY_MAX:?}", self.number);
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// How it ended by itself, if it did; it can then be started again.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.daemon.as_mut()?.status()?;
        self.daemon = None;
        Some(status.to_string())
    }

    /// Waits for an end that is expected.
    pub(crate) async fn exit(&mut self) -> anyhow::Result<String> {
        let begin = Instant::now();
        while begin.elapsed() < EXIT_MAX {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            sleep(POLL).await;
        }
        bail!("node {} goes on after {EXIT_MAX:?}", self.number)
    }

    /// Notes an end that nobody asked for.
    pub(crate) fn look(&mut self) {
        if let Some(status) = self.ended() {
            self.crashes.push(format!("node {}: {status}", self.number));
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.look();
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// SIGTERM, and its end.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        self.look();
        if let Some(mut daemon) = self.daemon.take() {
            let status = daemon.terminate().await;
            if !status.success() {
                self.crashes.push(format!("node {} at SIGTERM: {status}", self.number));
            }
        }
        Ok(())
    }

    /// SIGSTOP; returns once no thread runs any more.
    pub(crate) async fn freeze(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.pid()?);
        let begin = Instant::now();
        while !all_stopped(Path::new(&tasks))? {
            if begin.elapsed() > STOPPED_MAX {
                bail!("node {} does not stop", self.number);
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// SIGCONT.
    pub(crate) fn thaw(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process id is out of range")?, signal)?)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.daemon.as_ref().with_context(|| format!("node {} is dead", self.number))?.id())
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addresses.grpc)
    }

    /// A client that knows this node alone, and soon gives up.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let timeouts = Timeouts {
            connect: Duration::from_secs(1),
            attempt: Duration::from_secs(2),
            call: Duration::from_secs(4),
            ..Timeouts::default()
        };
        Ok(Client::connect(&Options { timeouts, ..Options::new([self.endpoint()]) })?)
    }
}

/// The state is the word after the name, which stands in parentheses.
fn all_stopped(tasks: &Path) -> anyhow::Result<bool> {
    for task in fs::read_dir(tasks)? {
        // A thread may end while we look.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}
