//! Runs instances as processes of this host.
//!
//! The listening socket is made here and handed down (fd 3, the `LISTEN_FDS` convention): the
//! kernel queues connections from the first moment, so there is nothing to probe. We close our
//! copy, so that connections to a dead instance are reset instead of waiting for ever.
//! It may write into a folder of its own and nowhere else, as far as the kernel can see to that.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use futures::future::BoxFuture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use weft_client::Secret;
use weft_proto::resource::{Rule, Runtime};

use super::probe::ready;
use super::scratch::Scratch;
use super::shim::{Confined, can_confine};
use super::{
    Caps, Exit, Failure, FailureKind, Instance, Launch, Launcher, Order, Orders, ParkOrder,
    Progress, Run, Secrets, Wires, lines, wire,
};

/// The descriptor under which the socket is handed down.
const LISTEN_FD: i32 = 3;
/// Starts that may wait for the thread.
const QUEUE_LEN: usize = 16;
/// Longest wait for the rest of the output once the process has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the process launcher.
#[derive(Clone, Debug)]
pub struct Config {
    /// Programs must be in one of these directories. A bare name is looked up in them, in order.
    pub directories: Vec<PathBuf>,
    /// How this program becomes [`super::shim`]: itself with these arguments.
    pub shim: Shim,
    /// Where environments find secrets.
    pub secrets: Secrets,
    /// In which instances get scratch folders.
    pub scratch: PathBuf,
}

/// A command whose further arguments are those of [`super::shim`].
#[derive(Clone, Debug)]
pub struct Shim {
    /// The program.
    pub program: PathBuf,
    /// Arguments before those of the shim.
    pub args: Vec<OsString>,
}

impl Shim {
    /// The running program with the subcommand `launch-shim`. Stays right when the file is
    /// replaced by a newer one.
    pub fn this_program() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), args: vec!["launch-shim".into()] }
    }
}

type Spawn = (Command, oneshot::Sender<std::io::Result<Child>>);

/// The launcher.
#[derive(Debug)]
pub struct Processes {
    directories: Vec<PathBuf>,
    shim: Shim,
    secrets: Secrets,
    scratch: Scratch,
    enforces: BTreeSet<Rule>,
    spawn_tx: mpsc::Sender<Spawn>,
    tasks: TaskTracker,
}

impl Processes {
    /// A launcher whose work is done on `tasks`. Must be called within a runtime.
    pub fn new(config: Config, tasks: TaskTracker) -> std::io::Result<Self> {
        let (spawn_tx, spawn_rx) = mpsc::channel(QUEUE_LEN);
        let runtime = Handle::current();
        // A child dies with the THREAD that started it. This one lives as long as the launcher,
        // which threads of the runtime do not promise.
        std::thread::Builder::new()
            .name("launch".to_owned())
            .spawn(move || spawn_children(&runtime, spawn_rx))?;
        let scratch = Scratch::new(&config.scratch)?;
        // What a directory is called may change; what it is should not.
        let directories = config.directories.into_iter();
        let directories = directories.map(|path| path.canonicalize().unwrap_or(path)).collect();
        let Config { shim, secrets, .. } = config;
        Ok(Self { directories, shim, secrets, scratch, enforces: enforced(), spawn_tx, tasks })
    }

    /// The program to run, if it exists and may be run.
    fn resolve(&self, name: &str) -> Result<PathBuf, Failure> {
        let denied = |text: String| Err(Failure::denied(text));
        let path = if name.contains('/') {
            PathBuf::from(name)
        } else {
            let candidates = self.directories.iter().map(|directory| directory.join(name));
            let Some(path) = candidates.into_iter().find(|path| path.is_file()) else {
                let message = format!(
                    "command {name:?} is in none of the directories that the dispatcher allows ({})",
                    self.listed()
                );
                return Err(Failure::config(message));
            };
            path
        };
        let (Some(directory), Some(file)) = (path.parent(), path.file_name()) else {
            return Err(Failure::config(format!("command {name:?} is no program")));
        };
        if !path.is_absolute() {
            let message = format!("command {name:?} must be a bare name or an absolute path");
            return Err(Failure::config(message));
        }
        let Ok(directory) = directory.canonicalize() else {
            return Err(Failure::config(format!("command {name:?} does not exist")));
        };
        // The directory counts, not where a link in it leads: whoever may write there decides
        // what is run.
        if !self.directories.contains(&directory) {
            return denied(format!(
                "command {name:?} is in no directory that the dispatcher allows ({})",
                self.listed()
            ));
        }
        let path = directory.join(file);
        let executable = |path: &Path| {
            let meta = path.metadata().ok()?;
            Some(meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        match executable(&path) {
            None => Err(Failure::config(format!("command {name:?} does not exist"))),
            Some(false) => Err(Failure::config(format!("command {name:?} is not executable"))),
            Some(true) => Ok(path),
        }
    }

    fn listed(&self) -> String {
        if self.directories.is_empty() {
            return "none is configured".to_owned();
        }
        let names: Vec<_> =
            self.directories.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    }

    fn command(
        &self,
        launch: &Launch,
        env: &[(String, Secret)],
        scratch: &Path,
        listener: TcpListener,
    ) -> Result<Command, Failure> {
        let Run::Process { command } = &launch.run else {
            return Err(Failure::config("an image is not run as a process"));
        };
        let Some((program, args)) = command.split_first() else {
            return Err(Failure::config("the function has no command"));
        };
        let program = self.resolve(program)?;
        let address = listener.local_addr();
        let address = address.map_err(|error| Failure::engine(format!("no socket: {error}")))?;
        let confined = Confined { scratch, file_bytes: launch.resources.ephemeral.0 };
        let confined = launch.security.read_only_root.then_some(&confined);
        let mut command = Command::new(&self.shim.program);
        command
            .args(&self.shim.args)
            .args(Confined::args(confined))
            .arg(program)
            .args(args)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value.expose())))
            .env("TMPDIR", scratch)
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "http")
            .env("WEFT_LISTEN_FD", LISTEN_FD.to_string())
            .env("PORT", address.port().to_string())
            .env("WEFT_FUNCTION", launch.function.to_string())
            .env("WEFT_INSTANCE", launch.id.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mapping = FdMapping { parent_fd: listener.into(), child_fd: LISTEN_FD };
        command
            .fd_mappings(vec![mapping])
            .map_err(|error| Failure::engine(format!("cannot hand down a socket: {error}")))?;
        Ok(command)
    }

    async fn launch(&self, launch: Launch) -> Result<Instance, Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::engine(format!("cannot {what}: {error}"))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|error| failed("make a socket", &error))?;
        let address = listener.local_addr().map_err(|error| failed("make a socket", &error))?;
        let env = self.secrets.env(&launch.function.namespace, &launch.env).await?;
        let scratch = self.scratch.folder().map_err(|error| failed("make a folder", &error))?;
        let command = self.command(&launch, &env, scratch.path(), listener)?;
        let (child_tx, child_rx) = oneshot::channel();
        let gone = || Failure::engine("the launcher has ended");
        self.spawn_tx.send((command, child_tx)).await.ok().ok_or_else(gone)?;
        let child = child_rx.await.ok().ok_or_else(gone)?;
        let child = child.map_err(|error| failed("start a process", &error))?;
        let (instance, wires) = wire(address);
        self.tasks.spawn(supervise(child, wires, scratch));
        match &launch.probe {
            Some(probe) if probe.path.is_some() => ready(instance, probe).await,
            // The kernel queues connections already.
            _ => Ok(instance),
        }
    }
}

impl Launcher for Processes {
    fn caps(&self, _runtime: Runtime) -> Caps {
        Caps { can_park: true, enforces: self.enforces.clone(), count_max: None }
    }

    fn start(
        &self,
        launch: Launch,
        _progress: Progress,
    ) -> BoxFuture<'_, Result<Instance, Failure>> {
        Box::pin(self.launch(launch))
    }
}

/// What this launcher can promise, on this kernel and as this user. Without control groups of its
/// own it limits neither memory nor processor time: limits of address space count what is never
/// used, and limits of processes count those of the whole user.
fn enforced() -> BTreeSet<Rule> {
    let is_root = rustix::process::geteuid().is_root();
    let rules = [
        (true, Rule::NoEscalation),
        (can_confine(), Rule::ReadOnlyRoot),
        (!is_root, Rule::NonRoot),
        // Those of other users were gone when they became other users.
        (!is_root, Rule::DropCapabilities),
    ];
    rules.into_iter().filter(|(holds, _)| *holds).map(|(_, rule)| rule).collect()
}

fn spawn_children(runtime: &Handle, mut spawn_rx: mpsc::Receiver<Spawn>) {
    while let Some((mut command, child_tx)) = spawn_rx.blocking_recv() {
        let _within = runtime.enter();
        // If nobody waits any more, the child is dropped, and with it killed.
        child_tx.send(command.spawn()).ok();
        // Dropping the command closes our copy of the socket.
    }
}

async fn supervise(mut child: Child, mut wires: Wires, scratch: TempDir) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let out_tx = wires.lines_tx.clone();
    let err_tx = wires.lines_tx;
    let output = async {
        let out = async {
            if let Some(stdout) = stdout {
                lines::forward(stdout, out_tx).await;
            }
        };
        let err = async {
            if let Some(stderr) = stderr {
                lines::forward(stderr, err_tx).await;
            }
        };
        tokio::join!(out, err);
    };
    tokio::pin!(output);
    let mut output_open = true;
    let ending = run_to_end(&mut child, group, &mut wires.orders);
    tokio::pin!(ending);
    let exit = loop {
        tokio::select! {
            exit = &mut ending => break exit,
            () = &mut output, if output_open => output_open = false,
        }
    };
    // Whatever it started itself goes as well. The group cannot have been reused as long as one
    // of its processes lives, and else there is nothing to signal.
    signal(group, Signal::SIGKILL);
    if output_open {
        timeout(OUTPUT_TIMEOUT, output).await.ok();
    }
    wires.exit_tx.send(exit).ok();
    // It may hold many files.
    tokio::task::spawn_blocking(move || drop(scratch)).await.ok();
}

async fn run_to_end(child: &mut Child, group: Option<Pid>, orders: &mut Orders) -> Exit {
    let drain = loop {
        let order = tokio::select! {
            biased;
            status = child.wait() => return Exit::Crashed(describe(status)),
            order = orders.next() => order,
        };
        match order {
            Order::Stop(drain) => break drain,
            Order::Park(order) => park(group, order),
        }
    };
    if !drain.is_zero() {
        signal(group, Signal::SIGTERM);
        // A parked one learns of it when it goes on.
        signal(group, Signal::SIGCONT);
        if timeout(drain, child.wait()).await.is_ok() {
            return Exit::Stopped;
        }
    }
    signal(group, Signal::SIGKILL);
    child.wait().await.ok();
    Exit::Killed
}

/// Stops the whole group, or lets it go on. Its socket takes connections all the while.
fn park(group: Option<Pid>, order: ParkOrder) {
    let wanted = if order.is_parked { Signal::SIGSTOP } else { Signal::SIGCONT };
    let gone = || Failure::engine("the process has ended");
    let result = group.ok_or_else(gone).and_then(|group| {
        killpg(group, wanted).map_err(|error| Failure::engine(format!("cannot park: {error}")))
    });
    order.done(result);
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It may have ended by itself a moment ago.
        killpg(group, signal).ok();
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> Failure {
    let status = match status {
        Ok(status) => status,
        Err(error) => return Failure::engine(format!("lost sight of the process: {error}")),
    };
    let message = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => "ended".to_owned(),
    };
    Failure::new(FailureKind::CrashLoop, message).with_exit_code(status.code())
}
