//! `weft completions`: writes a completion script.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::output::Out;

/// Arguments of `weft completions`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  weft completions bash > /etc/bash_completion.d/weft")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run<C: CommandFactory>(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "weft", &mut script);
    let mut out = Out::new();
    out.line(String::from_utf8(script)?.trim_end())?;
    Ok(out.flush()?)
}
