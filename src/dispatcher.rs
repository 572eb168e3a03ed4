//! `weft dispatcher`: launches functions and delivers events to them; and the step through which
//! it starts processes.

use std::ffi::OsString;
use std::path::PathBuf;

use weft_dispatcher::Config;

use crate::{signals, telemetry, toml_file};

/// Run one dispatcher until SIGTERM or Ctrl-C.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// TOML file with the settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: a level, or a list as in `info,weft_dispatcher=debug`.
    #[arg(long, default_value = "info,openraft=error", value_name = "FILTER")]
    log: String,
}

/// Runs until stopped.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config: Config = toml_file::load(args.config.as_deref(), toml_file::environment())?;
    let file = args.config.as_deref();
    config.check().map_err(|error| {
        let key = error.field().unwrap_or_default().to_owned();
        toml_file::blame(error, &key, file)
    })?;
    telemetry::start(&args.log)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        // Nobody scrapes a dispatcher, so without export nothing is recorded.
        let exports = !config.telemetry.otlp.endpoint.is_empty();
        let metrics = exports.then(telemetry::recorder).flatten();
        let instance = instance();
        let own = ("weft-dispatcher", instance.as_str());
        let (tracer, export) = telemetry::export(&config.telemetry, own, metrics)?;
        telemetry::beside(export, weft_dispatcher::run(config, tracer, signals::stop()?)).await?;
        Ok(())
    })
}

/// Tells this process from others: a dispatcher has no address.
fn instance() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}

/// Arguments of the hidden subcommand `launch-shim`, which only the dispatcher calls.
#[derive(Debug, clap::Args)]
pub(crate) struct ShimArgs {
    /// The dispatcher's process id, the program, its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Becomes the program; returns only if that failed.
pub(crate) fn shim(args: ShimArgs) -> anyhow::Error {
    weft_dispatcher::launch::shim(args.args.into_iter()).into()
}
