//! `weft dispatcher`: launches functions and delivers events to them; and the step through which
//! it starts processes.

use std::ffi::OsString;

use weft_dispatcher::Config;

/// Runs a dispatcher until stopped.
pub(crate) async fn run(
    config: Config,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    config.check()?;
    weft_dispatcher::run(config, stop).await?;
    Ok(())
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
