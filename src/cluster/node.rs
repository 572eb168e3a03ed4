//! One broker process: its settings, its life, its log.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};
use weft_broker::config::Config;

use super::{POLL, address, program};
use crate::toml_file;

/// A node that does not stop by then is killed; its data are safe either way.
const STOP_MAX: Duration = Duration::from_secs(10);
const PROBE_MAX: Duration = Duration::from_secs(1);
/// How much of the end of a log an error shows.
const LOG_BYTES: u64 = 1_500;
const CONFIG_FILE: &str = "broker.toml";
const LOG_FILE: &str = "broker.log";

/// One broker process.
#[derive(Debug)]
pub(super) struct Node {
    number: usize,
    folder: PathBuf,
    config: Config,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// The child ends when this closes: by intent, or because this process is gone.
    stdin: Option<ChildStdin>,
}

impl Node {
    /// Writes the settings into the folder and starts the process.
    pub(super) fn start(number: usize, folder: PathBuf, config: Config) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let file = folder.join(CONFIG_FILE);
        fs::write(&file, toml::to_string(&config)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut node = Self { number, folder, config, process: None };
        node.restart()?;
        Ok(node)
    }

    /// Starts the process, if it does not run.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        if self.process.is_none() {
            self.process =
                Some(launch(&self.folder).with_context(|| format!("node {}", self.number))?);
        }
        Ok(())
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(|process| process.child.id())
    }

    /// Waits until the node can serve; fails when it ends first, with what it logged.
    pub(super) async fn ready(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let port = self.config.listen.http.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let port = port.context("the HTTP address has no port")?;
        while let Some(process) = &mut self.process {
            if let Some(status) = process.child.try_wait()? {
                self.process = None;
                bail!("node {} ended ({status}):\n{}", self.number, self.log_end());
            }
            if answers_ready(port).await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("node {} is not ready in time:\n{}", self.number, self.log_end());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until the process ends by itself. Never ends when it does not run.
    pub(super) async fn ended(&mut self) -> (usize, ExitStatus) {
        let Some(process) = &mut self.process else { return std::future::pending().await };
        match process.child.wait().await {
            Ok(status) => {
                self.process = None;
                (self.number, status)
            }
            // The kernel refuses to say: then nobody can know.
            Err(_unknown) => std::future::pending().await,
        }
    }

    /// Ends the process at once. Answers its process id.
    pub(super) async fn kill(&mut self) -> anyhow::Result<u32> {
        let number = self.number;
        let mut process =
            self.process.take().with_context(|| format!("node {number} does not run"))?;
        let pid = process.child.id().with_context(|| format!("node {number} has ended already"))?;
        process.child.kill().await?;
        Ok(pid)
    }

    /// Asks the process to stop; fails when it does not do so in time and without complaint.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        drop(process.stdin.take());
        let how = match timeout(STOP_MAX, process.child.wait()).await {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            // Dropping the child kills it.
            Err(_elapsed) => format!("killed after {} s", STOP_MAX.as_secs()),
        };
        bail!("node {} did not stop in order ({how}):\n{}", self.number, self.log_end())
    }

    /// The last lines of the log.
    pub(super) fn log_end(&self) -> String {
        let path = self.folder.join(LOG_FILE);
        log_end(&path)
            .unwrap_or_else(|error| format!("({} is unreadable: {error})", path.display()))
    }
}

fn launch(folder: &Path) -> anyhow::Result<Process> {
    let path = folder.join(LOG_FILE);
    let log = File::options().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(program()?);
    command.arg("broker").arg("--config").arg(folder.join(CONFIG_FILE)).arg("--until-stdin-closes");
    // Settings that were meant for this process would give all nodes the same address.
    for (name, _) in toml_file::environment().filter(|(name, _)| toml_file::is_setting(name)) {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    // Ctrl-C reaches a whole process group; the children shall stop when their parent says so.
    command.process_group(0);
    let mut child = command.spawn().context("cannot start a broker")?;
    // Kept apart, for `Child::wait` closes what it finds.
    let stdin = child.stdin.take();
    Ok(Process { child, stdin })
}

fn log_end(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The cut leaves a part of a line in front.
    let whole = match text.split_once('\n') {
        Some((_, rest)) if length > LOG_BYTES => rest,
        _ => &text,
    };
    Ok(whole.trim_end().to_owned())
}

/// Whether `GET /readyz` is answered with 200.
pub(super) async fn answers_ready(http_port: u16) -> bool {
    let probe = async {
        let mut stream = TcpStream::connect(address(http_port)).await?;
        let request = format!(
            "GET /readyz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            address(http_port)
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(1 << 16).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200 "))
    };
    matches!(timeout(PROBE_MAX, probe).await, Ok(Ok(true)))
}
