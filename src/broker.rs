//! `weft broker`: one node of a cluster.

use std::path::PathBuf;
use std::time::Duration;

use weft_broker::config::Config;

use crate::{signals, telemetry, toml_file};

/// How long whatever is left of a stopped broker may take.
const END_MAX: Duration = Duration::from_secs(5);

/// Run one broker until SIGTERM or Ctrl-C.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags of a command line")]
pub(crate) struct Args {
    /// TOML file with the settings. Environment variables WEFT_<SECTION>__<KEY> win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings in force as TOML, and end.
    #[arg(long)]
    print_config: bool,
    /// What to log: a level, or a list as in `info,weft_broker=debug`.
    #[arg(long, default_value = "info,openraft=error", value_name = "FILTER")]
    log: String,
    /// End when standard input closes: whoever started this process is gone.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Runs until stopped.
#[expect(clippy::print_stdout, reason = "--print-config is for standard output")]
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config: Config = toml_file::load(args.config.as_deref(), toml_file::environment())?;
    let file = args.config.as_deref();
    config.check().map_err(|error| {
        let key = error.key;
        toml_file::blame(error, key, file)
    })?;
    if args.print_config {
        print!("{}", toml::to_string(&config)?);
        return Ok(());
    }
    telemetry::start(&args.log)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let until_stdin_closes = args.until_stdin_closes;
    let result = runtime.block_on(async {
        let signal = signals::stop()?;
        let stop = async move {
            tokio::select! {
                () = signal => {}
                () = signals::stdin_closed(), if until_stdin_closes => {}
            }
        };
        let mut process = telemetry::process();
        let own = ("weft-broker", config.advertised());
        let metrics = process.metrics.clone();
        let (tracer, export) = telemetry::export(&config.telemetry, own, metrics)?;
        process.tracer = tracer;
        let broker = Box::pin(weft_broker::run(config, process, stop));
        telemetry::beside(export, broker).await?;
        Ok(())
    });
    // Tasks of connections may still hold the store. Closing it while the process ends would pull
    // the ground from under it: RocksDB's own statics go then.
    runtime.shutdown_timeout(END_MAX);
    result
}
