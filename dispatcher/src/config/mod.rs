//! Settings of a dispatcher.

mod docker;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_proto::resource::DurationText;
use weft_proto::trace::Telemetry;
use weft_proto::{Error, Result};

use crate::egress::address::Range;
pub use docker::{Connect, DockerEngine, Pull};

/// Settings of one dispatcher process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses of brokers, `host:port`. Any one is enough; several survive the loss of one.
    pub endpoints: Vec<String>,
    /// File that holds the key to show to the brokers. When it is replaced, the new one is shown
    /// from then on.
    pub token_file: Option<PathBuf>,
    /// Encryption towards the brokers.
    pub tls: Tls,
    /// Name of the cluster, on the containers of its functions.
    pub cluster: String,
    /// Functions as processes of this host.
    pub process: Process,
    /// Functions as containers.
    pub docker: DockerEngine,
    /// Events to addresses outside.
    pub webhooks: Webhooks,
    /// Where spans and metrics go.
    pub telemetry: Telemetry,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            token_file: None,
            tls: Tls::default(),
            cluster: "weft".to_owned(),
            process: Process::default(),
            docker: DockerEngine::default(),
            webhooks: Webhooks::default(),
            telemetry: Telemetry::default(),
        }
    }
}

/// Events to addresses outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// Whether this dispatcher sends them.
    pub enabled: bool,
    /// Who asks receivers for consent: a name in DNS. This host's name by default.
    pub origin: Option<String>,
    /// Ports that may be dialled; any when the list is empty.
    pub ports: Vec<u16>,
    /// Addresses that may be dialled although they are not public, also in plain text. Whoever may
    /// define webhooks then reaches what listens there.
    pub allow_private: Vec<Range>,
    /// File with the certificates of those who sign receivers' certificates; those of the system
    /// by default.
    pub ca_file: Option<PathBuf>,
    /// Folder with secrets of webhooks, a folder for each namespace in it.
    pub secrets: Option<PathBuf>,
    /// How often receivers are asked again whether they want events.
    pub consent_every: DurationText,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            enabled: true,
            origin: None,
            ports: vec![443, 8443],
            allow_private: Vec::new(),
            ca_file: None,
            secrets: None,
            consent_every: DurationText::from_secs(3_600),
        }
    }
}

impl Webhooks {
    fn check(&self) -> Result<()> {
        let is_name = |origin: &String| {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
            !origin.is_empty() && origin.len() <= 253 && origin.chars().all(good)
        };
        if self.origin.as_ref().is_some_and(|origin| !is_name(origin)) {
            let message = "an origin is a name in DNS, such as \"mesh.example.com\"";
            return Err(Error::invalid(message).with_field("webhooks.origin"));
        }
        if self.secrets.as_ref().is_some_and(|folder| folder.is_relative()) {
            let message = "the folder with secrets must be an absolute path";
            return Err(Error::invalid(message).with_field("webhooks.secrets"));
        }
        if self.consent_every < DurationText::from_secs(1) {
            let message = "receivers are asked once a second at most";
            return Err(Error::invalid(message).with_field("webhooks.consent_every"));
        }
        Ok(())
    }
}

/// Encryption towards the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Whether connections are encrypted. In production they should be.
    pub enabled: bool,
    /// File with the certificates of those who sign the brokers' certificates.
    pub ca_file: Option<PathBuf>,
    /// File with the certificate to show to the brokers, and its chain.
    pub certificate: Option<PathBuf>,
    /// File with the private key of the certificate.
    pub key: Option<PathBuf>,
}

/// Functions as processes of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Whether functions may run as processes of this host. Whoever may define functions then
    /// runs programs here.
    pub enabled: bool,
    /// Programs must be in one of these directories.
    pub directories: Vec<PathBuf>,
    /// Folder with secrets of functions: a file for each key, in a folder for each secret, in one
    /// for each namespace.
    pub secrets: Option<PathBuf>,
    /// Folder in which each instance gets one of its own, to write in; that of the system for
    /// such by default.
    pub scratch: Option<PathBuf>,
}

impl Config {
    /// Checks what can be checked before anything starts.
    pub fn check(&self) -> Result<()> {
        if self.endpoints.is_empty() {
            let message = "name at least one broker, for example [\"127.0.0.1:7400\"]";
            return Err(Error::invalid(message).with_field("endpoints"));
        }
        self.telemetry.check().map_err(|(key, problem)| Error::invalid(problem).with_field(key))?;
        if let Some(relative) = self.process.directories.iter().find(|path| path.is_relative()) {
            let message = format!("{} must be an absolute path", relative.display());
            return Err(Error::invalid(message).with_field("process.directories"));
        }
        if self.process.enabled && self.process.directories.is_empty() {
            let message = "the process launcher is enabled, but no directory is allowed";
            return Err(Error::invalid(message).with_field("process.directories"));
        }
        if self.process.secrets.as_ref().is_some_and(|folder| folder.is_relative()) {
            let message = "the folder with secrets must be an absolute path";
            return Err(Error::invalid(message).with_field("process.secrets"));
        }
        let far = self.endpoints.iter().find(|endpoint| !is_loopback(endpoint));
        if let Some(far) = far
            && self.token_file.is_some()
            && !self.tls.enabled
        {
            let message = format!("the token would travel to {far} in plain text");
            return Err(Error::invalid(message).with_field("tls.enabled"));
        }
        if self.tls.ca_file.is_none() && self.tls.enabled {
            let message = "encryption needs the certificates of those who sign the brokers'";
            return Err(Error::invalid(message).with_field("tls.ca_file"));
        }
        if self.tls.ca_file.is_some() && !self.tls.enabled {
            let message = "a certificate file is given, but encryption is not enabled";
            return Err(Error::invalid(message).with_field("tls.enabled"));
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            let (given, missing) = if self.tls.key.is_some() {
                ("key", "certificate")
            } else {
                ("certificate", "key")
            };
            let message = format!("tls.{given} is given, and its {missing} is not");
            return Err(Error::invalid(message).with_field(format!("tls.{missing}")));
        }
        if self.tls.certificate.is_some() && !self.tls.enabled {
            let message = "a certificate to show is given, but encryption is not enabled";
            return Err(Error::invalid(message).with_field("tls.enabled"));
        }
        self.docker.check()?;
        self.webhooks.check()
    }
}

fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contradiction_is_named() {
        let good = Config { endpoints: vec!["h:1".to_owned()], ..Config::default() };
        assert!(good.check().is_ok());
        let process = |enabled, directories: &[&str]| Process {
            enabled,
            directories: directories.iter().map(PathBuf::from).collect(),
            ..Process::default()
        };
        let tls = |given: &[&str]| {
            let file = |name| given.contains(&name).then(|| PathBuf::from(name));
            Tls {
                enabled: given.contains(&"on"),
                ca_file: file("ca_file"),
                certificate: file("certificate"),
                key: file("key"),
            }
        };
        let hooks = Webhooks::default;
        let cases = [
            ("endpoints", Config { endpoints: Vec::new(), ..good.clone() }),
            ("process.directories", Config { process: process(true, &[]), ..good.clone() }),
            ("process.directories", Config { process: process(true, &["bin"]), ..good.clone() }),
            (
                "process.secrets",
                Config {
                    process: Process { secrets: Some("a".into()), ..process(true, &["/bin"]) },
                    ..good.clone()
                },
            ),
            ("tls.enabled", Config { tls: tls(&["ca_file"]), ..good.clone() }),
            ("tls.enabled", Config { tls: tls(&["certificate", "key"]), ..good.clone() }),
            ("tls.key", Config { tls: tls(&["on", "ca_file", "certificate"]), ..good.clone() }),
            ("tls.certificate", Config { tls: tls(&["on", "ca_file", "key"]), ..good.clone() }),
            ("tls.enabled", Config { token_file: Some("token".into()), ..good.clone() }),
            ("tls.ca_file", Config { tls: tls(&["on"]), ..good.clone() }),
            (
                "webhooks.origin",
                Config {
                    webhooks: Webhooks { origin: Some("a b".into()), ..hooks() },
                    ..good.clone()
                },
            ),
            (
                "webhooks.secrets",
                Config {
                    webhooks: Webhooks { secrets: Some("a".into()), ..hooks() },
                    ..good.clone()
                },
            ),
            (
                "webhooks.consent_every",
                Config {
                    webhooks: Webhooks { consent_every: DurationText::from_millis(9), ..hooks() },
                    ..good
                },
            ),
        ];
        for near in ["127.0.0.1:1", "localhost:1", "[::1]:1"] {
            let token_file = Some("token".into());
            let config =
                Config { endpoints: vec![near.to_owned()], token_file, ..Config::default() };
            assert!(config.check().is_ok(), "{near}");
        }
        for (field, config) in cases {
            assert_eq!(config.check().unwrap_err().field(), Some(field));
        }
    }
}
