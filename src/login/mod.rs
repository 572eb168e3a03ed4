//! `weft login` and `weft logout`: where the cluster is and what to show there, kept for other
//! commands.

mod file;
mod prompt;

use std::io::Write as _;

use anyhow::{Context as _, bail};
use weft_client::{Client, Options, Secret};

pub(crate) use self::file::Login;
use crate::output::{Format, Out};
use crate::settings::{self, Connection, Shown};

/// Arguments of `weft login`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Asks for the key without showing it, or reads it from standard input or --token-file; asks the
cluster whose it is; and stores it, with the endpoint and --ca-file, in
$XDG_CONFIG_HOME/weft/login.toml, which only you can read. Other commands use it when neither flags
nor environment say otherwise, and never show it to another endpoint.

Examples:
  weft login --endpoint https://weft.example:7400 --ca-file ca.pem
  pass show weft | weft login --endpoint https://weft.example:7400 --ca-file ca.pem")]
pub(crate) struct Args {}

/// Arguments of `weft logout`.
#[derive(clap::Args, Debug)]
pub(crate) struct LogoutArgs {}

/// Checks a credential and stores it.
pub(crate) async fn run(connection: &Connection, format: Format) -> anyhow::Result<()> {
    let path = settings::login_file().context("neither XDG_CONFIG_HOME nor HOME says where to")?;
    let settled = connection.settled_for_login()?;
    let at = settled.endpoints.join(", ");
    let credential = match &settled.shown {
        Shown::File(file) => {
            let text = std::fs::read_to_string(file).map(Secret::new);
            let text = text.with_context(|| format!("cannot read {}", file.display()))?;
            Secret::new(text.expose().trim())
        }
        _ => prompt::secret(&format!("Key for {at}: ")).await?,
    };
    if credential.expose().is_empty() {
        bail!("no key was given");
    }
    let options = settled.options()?;
    let options = Options { token: Some(credential.clone()), token_file: None, ..options };
    let who = Client::connect(&options)?.access().who_am_i().await?;
    if !who.enforced {
        bail!("the cluster at {at} asks for no credential, so that this one cannot be checked");
    }
    let ca_file = settled.ca_file.map(std::path::absolute).transpose()?;
    let principal = who.principal.clone();
    let login = Login { endpoints: settled.endpoints.clone(), ca_file, principal, credential };
    login.store(&path)?;
    for name in ["WEFT_TOKEN", "WEFT_TOKEN_FILE"] {
        if settings::variable(name).is_some() {
            let warning = format!("warning: ${name} is set, and other commands use that instead\n");
            std::io::stderr().write_all(warning.as_bytes())?;
        }
    }
    let mut out = Out::new();
    if format != Format::Table {
        return out.json(&serde_json::json!({
            "principal": who.principal, "endpoints": settled.endpoints, "file": path,
        }));
    }
    out.line(&format!("logged in to {at} as {}", who.principal))?;
    out.line(&format!("stored in {}; weft logout removes it", path.display()))?;
    Ok(out.flush()?)
}

/// Removes what is stored.
pub(crate) fn logout() -> anyhow::Result<()> {
    let removed = match settings::login_file() {
        Some(path) => file::remove(&path)?,
        None => false,
    };
    let mut out = Out::new();
    out.line(if removed {
        "logged out; the key itself goes on: weft key revoke ID ends it"
    } else {
        "there was no login"
    })?;
    Ok(out.flush()?)
}
