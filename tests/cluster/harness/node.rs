//! One broker process: its configuration, its life, its health.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use weft_client::{Client, Options, Tls};

use super::pki;
use super::ports::{Ports, address};
use super::probe::{answers_ready, asks_ready};
use super::process::{Daemon, POLL, weft};

/// A first start makes a cluster; elections on a busy machine take a while.
const READY_MAX: Duration = Duration::from_mins(1);

/// One broker, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ports: Ports,
    /// Peer ports of all founders; empty for a node alone.
    founders: Vec<u16>,
    folder: PathBuf,
    process: Option<Daemon>,
    /// Further settings of its cluster, and further sections, as TOML.
    pub(crate) cluster_settings: String,
    pub(crate) sections: String,
    /// Authorities that its clients trust, in PEM, where it shows a certificate.
    pub(crate) trusted: Option<String>,
}

impl Node {
    /// A node that is not started yet; everything of it is below `folder`.
    pub(crate) fn new(folder: PathBuf, ports: Ports, founders: Vec<u16>) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let (cluster_settings, sections) = (String::new(), String::new());
        let (process, trusted) = (None, None);
        Self { ports, founders, folder, process, cluster_settings, sections, trusted }
    }

    /// Its configuration, as an operator would write it.
    pub(crate) fn config(&self) -> String {
        let Ports { grpc, http, peer } = self.ports;
        let founders: Vec<_> = self.founders.iter().map(|&port| address(port)).collect();
        format!(
            "[node]\ndata = {}\n\n\
             [listen]\ngrpc = {:?}\nhttp = {:?}\npeer = {:?}\n\n\
             [cluster]\nfounders = {founders:?}\ndata_groups = 2\n{}\n\
             [store]\nprofile = \"small\"\n{}",
            quoted(&self.data()),
            address(grpc),
            address(http),
            address(peer),
            self.cluster_settings,
            self.sections,
        )
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The file with its configuration, written now.
    pub(crate) fn config_file(&self) -> PathBuf {
        let file = self.folder.join("broker.toml");
        fs::write(&file, self.config()).unwrap();
        file
    }

    /// Starts it, with the data that it has.
    pub(crate) fn start(&mut self) {
        let command = broker(weft(), &self.config_file());
        self.start_as(command);
    }

    /// Starts it by a command of the caller's choice.
    pub(crate) fn start_as(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "{} runs already", self.name());
        // It does not survive this test, however that ends.
        command.arg("--until-stdin-closes");
        let log = self.folder.join("broker.log");
        self.process = Some(Daemon::start(&self.name(), command, &log));
    }

    /// Waits until it can serve.
    pub(crate) async fn ready(&mut self) {
        let begin = Instant::now();
        while !self.is_ready().await {
            let name = self.name();
            let status = self.running().status();
            assert!(status.is_none(), "{name} ended: {status:?}");
            assert!(begin.elapsed() < READY_MAX, "{name} is not ready after {READY_MAX:?}");
            sleep(POLL).await;
        }
    }

    async fn is_ready(&self) -> bool {
        let http = address(self.ports.http);
        let Some(trusted) = &self.trusted else { return answers_ready(&http).await };
        let tls = pki::client(trusted, None, rustls::DEFAULT_VERSIONS);
        let probe = async {
            let tcp = TcpStream::connect(http).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            asks_ready(TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?).await
        };
        matches!(timeout(Duration::from_secs(2), probe).await, Ok(Ok(true)))
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.running().kill();
        self.process = None;
    }

    /// Stops it by SIGTERM; how it ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let status = self.running().terminate().await;
        self.process = None;
        status
    }

    /// Its process.
    pub(crate) fn running(&mut self) -> &mut Daemon {
        let folder = &self.folder;
        self.process.as_mut().unwrap_or_else(|| panic!("{} does not run", folder.display()))
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.trusted.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", address(self.ports.grpc))
    }

    /// What its clients need to reach it.
    pub(crate) fn tls(&self) -> Option<Tls> {
        self.trusted.clone().map(|ca_pem| Tls { ca_pem, ..Tls::default() })
    }

    /// A client that knows this node alone.
    pub(crate) fn client(&self) -> Client {
        let options = Options { tls: self.tls(), ..Options::new([self.endpoint()]) };
        Client::connect(&options).unwrap()
    }

    /// A file in its folder, which is there as a whole or not at all.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (new, path) = (self.folder.join("new"), self.folder.join(name));
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        format!("{} at {}", name.to_string_lossy(), address(self.ports.grpc))
    }
}

/// A path as TOML has it.
pub(crate) fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

/// The command that runs a broker.
pub(crate) fn broker(mut program: Command, config: &Path) -> Command {
    program.arg("broker").arg("--config").arg(config);
    program
}
