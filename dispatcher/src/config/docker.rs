//! Settings of functions as containers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_proto::{Error, Result};

/// Functions as containers of a Docker engine of this host, or of another with the same API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerEngine {
    /// Whether functions may run as containers. Whoever reaches the engine's socket is as mighty as
    /// the superuser of its host: so is this dispatcher then.
    pub enabled: bool,
    /// Where the engine listens.
    pub socket: PathBuf,
    /// The network of the engine to which containers belong; this dispatcher must reach it.
    pub network: String,
    /// How containers are connected.
    pub connect: Connect,
    /// Whether images that are missing are fetched.
    pub pull: Pull,
    /// Folder with secrets of functions, as `process.secrets`.
    pub secrets: Option<PathBuf>,
    /// Dispatchers of the same name remove what one of them left behind; this host's name by
    /// default.
    pub owner: Option<String>,
}

/// How containers are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connect {
    /// Each has an address of its own in the engine's network.
    #[default]
    Bridge,
    /// All use the network of the host, and listen where `PORT` says. Faster, and less apart.
    Host,
}

/// When images are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// When they are not there.
    #[default]
    Missing,
    /// Never.
    Never,
}

impl Default for DockerEngine {
    fn default() -> Self {
        Self {
            enabled: false,
            socket: PathBuf::from("/var/run/docker.sock"),
            network: "bridge".to_owned(),
            connect: Connect::Bridge,
            pull: Pull::Missing,
            secrets: None,
            owner: None,
        }
    }
}

impl DockerEngine {
    /// Checks what can be checked before anything starts.
    pub(super) fn check(&self) -> Result<()> {
        if self.enabled && !cfg!(feature = "docker") {
            let message = "this program was built without the feature docker";
            return Err(Error::invalid(message).with_field("docker.enabled"));
        }
        if self.socket.is_relative() {
            let message = "the socket of the engine must be an absolute path";
            return Err(Error::invalid(message).with_field("docker.socket"));
        }
        if self.network.is_empty() {
            let message = "containers belong to a network, such as \"bridge\"";
            return Err(Error::invalid(message).with_field("docker.network"));
        }
        if self.secrets.as_ref().is_some_and(|folder| folder.is_relative()) {
            let message = "the folder with secrets must be an absolute path";
            return Err(Error::invalid(message).with_field("docker.secrets"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut DockerEngine);

    #[test]
    fn each_contradiction_is_named() {
        assert!(DockerEngine::default().check().is_ok());
        let cases: [(&str, Change); 3] = [
            ("docker.socket", |docker| docker.socket = "a".into()),
            ("docker.network", |docker| docker.network = String::new()),
            ("docker.secrets", |docker| docker.secrets = Some("a".into())),
        ];
        for (field, change) in cases {
            let mut docker = DockerEngine::default();
            change(&mut docker);
            assert_eq!(docker.check().unwrap_err().field(), Some(field));
        }
    }
}
