//! The one binary of Weft: picks a subcommand and turns its outcome into an exit code.

mod apply;
mod completions;
mod function;
mod get;
mod output;
mod progress;
mod publish;
mod replay;
mod schema;
mod settings;
mod status;
mod stream;
mod subscribe;
mod when;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::Format;
use crate::settings::Connection;

/// Weft: a distributed event mesh.
///
/// Publish CloudEvents to streams that are replicated and stored, read them live or again, check
/// them against schemas, and run functions for them.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true, after_long_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    connection: Connection,

    /// Form of the output
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  weft stream create orders
  echo '{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/shop\",\"type\":\"order.placed\",\"data\":{\"total\":5}}' | weft publish orders
  weft subscribe orders --from earliest
  weft replay orders --from -1h --to latest
  weft apply -f mesh.yaml

Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, list, describe and delete streams
    Stream(stream::Args),
    /// Publish events to a stream
    Publish(publish::Args),
    /// Follow a stream, or join a durable subscription
    Subscribe(subscribe::Args),
    /// Read a stored range again; ends
    Replay(replay::Args),
    /// Register, list, get and check schemas; bind them to streams
    Schema(schema::Args),
    /// Deploy, list, describe and delete functions; show their logs
    Function(function::Args),
    /// Create or change any resources from YAML or JSON
    Apply(apply::Args),
    /// Show resources; the YAML is taken back by apply
    Get(get::Args),
    /// Show nodes, groups and streams
    Status(status::Args),
    /// Write a completion script for a shell
    Completions(completions::Args),
}

impl Command {
    /// The stream that the command is about, for advice.
    fn stream(&self) -> Option<&str> {
        match self {
            Self::Publish(args) => Some(&args.stream),
            Self::Subscribe(args) => Some(&args.stream),
            Self::Replay(args) => Some(&args.stream),
            Self::Stream(args) => args.stream(),
            Self::Schema(args) => args.stream(),
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let stream = cli.command.stream().map(str::to_owned);
    match run(cli) {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("error: {error:#}\n");
            if let Some(advice) = output::advice(&error, stream.as_deref()) {
                text += &format!("  {advice}\n");
            }
            // If standard error is closed as well, the exit code is all that is left.
            _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(dispatch(cli))
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { command, connection, output } = cli;
    let client = || connection.client();
    match command {
        Command::Stream(args) => stream::run(args, &client()?, output).await?,
        Command::Publish(args) => return publish::run(args, &client()?, output).await,
        Command::Subscribe(args) => subscribe::run(args, &client()?, output).await?,
        Command::Replay(args) => replay::run(args, &client()?, output).await?,
        Command::Schema(args) => schema::run(args, &client()?, output).await?,
        Command::Function(args) => function::run(args, &client()?, output).await?,
        Command::Apply(args) => return apply::run(&args, &client()?, output).await,
        Command::Get(args) => get::run(args, &client()?, output).await?,
        Command::Status(_) => status::run(&client()?, output).await?,
        Command::Completions(args) => completions::run::<Cli>(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpoint_is_taken_before_and_after_the_verb() {
        for line in ["weft --endpoint http://a:1 status", "weft status --endpoint http://a:1"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
