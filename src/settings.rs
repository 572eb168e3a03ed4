//! How the command line reaches a cluster; the only reader of the environment.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use weft_client::{Client, Options, Secret, Tls};

/// Where `weft broker` listens when its configuration says nothing.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7400";
const DEFAULT_TLS_ENDPOINT: &str = "https://127.0.0.1:7400";

/// How to reach the cluster.
#[expect(clippy::doc_markdown, reason = "the command line shows these comments as they are")]
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Connection {
    /// Client address of a node; several, by commas or by repetition, for the case that one is
    /// down. Default: $WEFT_ENDPOINT, else http://127.0.0.1:7400
    #[arg(
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Connection"
    )]
    endpoint: Vec<String>,

    /// File with the bearer token. Default: the token in $WEFT_TOKEN, if it is set
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    token_file: Option<PathBuf>,

    /// File with the certificates (PEM) of the authorities to trust; needed for https endpoints.
    /// Default: $WEFT_CA_FILE
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    ca_file: Option<PathBuf>,
}

impl Connection {
    /// The addresses to try, in this order.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        match (self.endpoint.is_empty(), variable("WEFT_ENDPOINT")) {
            (false, _) => self.endpoint.clone(),
            (true, Some(text)) => text.split(',').map(|part| part.trim().to_owned()).collect(),
            (true, None) if self.ca_file().is_some() => vec![DEFAULT_TLS_ENDPOINT.to_owned()],
            (true, None) => vec![DEFAULT_ENDPOINT.to_owned()],
        }
    }

    fn ca_file(&self) -> Option<PathBuf> {
        self.ca_file.clone().or_else(|| variable("WEFT_CA_FILE").map(PathBuf::from))
    }

    /// A handle to the cluster. Connects later, when something is asked.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.options_of(self.endpoints())?)?)
    }

    /// How to reach the cluster at addresses that were given in another way.
    pub(crate) fn options_of(&self, endpoints: Vec<String>) -> anyhow::Result<Options> {
        let token = match &self.token_file {
            Some(path) => Some(read(path)?.trim().to_owned()),
            None => variable("WEFT_TOKEN"),
        };
        let tls = match self.ca_file() {
            Some(path) => Some(Tls { ca_pem: read(&path)?, ..Tls::default() }),
            None => None,
        };
        let token = token.map(Secret::new);
        Ok(Options { token, tls, ..Options::new(endpoints) })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
