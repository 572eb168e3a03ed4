//! The one binary of Weft: picks a subcommand and turns its outcome into an exit code.

mod access;
mod apply;
mod audit;
mod bench;
mod broker;
mod cluster;
mod completions;
mod delayed;
mod delete;
mod demo;
mod dev;
mod dispatcher;
mod drain;
mod event;
mod expect;
mod filter;
mod flow;
mod function;
mod get;
mod key;
mod login;
mod node;
mod output;
mod progress;
mod publish;
mod ready;
mod replay;
mod replay_job;
mod sample_function;
mod schema;
mod settings;
mod signals;
mod status;
mod stream;
mod subscribe;
mod subscription;
mod telemetry;
mod toml_file;
mod webhook;
mod when;
mod whoami;

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
#[command(name = "weft", version, after_help = EXAMPLES)]
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
  weft login --endpoint https://weft.example:7400 --ca-file ca.pem

Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage;
3 a broker whose data folder lacks what it promised.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, list, describe and delete streams
    Stream(stream::Args),
    /// Publish events to a stream
    Publish(publish::Args),
    /// Follow a stream, or join a durable subscription
    Subscribe(subscribe::Args),
    /// Create durable subscriptions, move them, deliver dead letters again
    Subscription(subscription::Args),
    /// Read a stored range again; ends
    Replay(replay::Args),
    /// Deliver a stored range to a subscription again
    ReplayJob(replay_job::Args),
    /// Tell the story of one event
    Event(event::Args),
    /// Try filters on events: which pass, and why the others do not
    Filter(filter::Args),
    /// Register, list, get and check schemas; bind them to streams
    Schema(schema::Args),
    /// Deploy, list, describe and delete functions; show their logs
    Function(function::Args),
    /// Try a flow on sample events, without a cluster
    Flow(flow::Args),
    /// List, describe, enable and delete webhooks
    Webhook(webhook::Args),
    /// Create or change any resources from YAML or JSON
    Apply(apply::Args),
    /// Show resources; the YAML is taken back by apply
    Get(get::Args),
    /// Delete a resource
    Delete(delete::Args),
    /// Show nodes, groups and streams
    Status(status::Args),
    /// Say by the exit code whether a broker is ready
    Ready(ready::Args),
    /// Take nodes out of the cluster
    Node(node::Args),
    /// Move leadership away from a node
    Drain(drain::Args),
    /// Keep where the cluster is and your key, for other commands
    Login(login::Args),
    /// Forget what weft login kept
    Logout(login::LogoutArgs),
    /// Show who the cluster takes you for
    Whoami(whoami::Args),
    /// Make, list and revoke API keys
    Key(key::Args),
    /// Say who may do what, and why
    Access(access::Args),
    /// Show and verify the record of what was done and refused
    Audit(audit::Args),
    /// Write a completion script for a shell
    Completions(completions::Args),
    /// Show it all: three nodes, a schema, a function, a killed leader, a replay
    Demo(demo::Args),
    /// Run brokers and a dispatcher on this machine, for development
    Dev(dev::Args),
    /// Run one broker
    Broker(broker::Args),
    /// Run one dispatcher, which launches functions and sends to webhooks
    Dispatcher(dispatcher::Args),
    /// Measure publishing or replay
    #[command(subcommand)]
    Bench(bench::Args),
    /// Serve as a sample function that confirms orders
    SampleFunction(sample_function::Args),
    /// The step through which the dispatcher starts processes
    #[command(hide = true, name = "launch-shim")]
    LaunchShim(dispatcher::ShimArgs),
}

impl Command {
    /// The stream that the command is about, for advice.
    fn stream(&self) -> Option<&str> {
        match self {
            Self::Publish(args) => Some(&args.stream),
            Self::Subscribe(args) => Some(&args.stream),
            Self::Replay(args) => Some(&args.stream),
            Self::Event(args) => Some(args.stream()),
            Self::Filter(args) => args.stream(),
            Self::Stream(args) => args.stream(),
            Self::Schema(args) => args.stream(),
            Self::Delete(args) => args.stream(),
            _ => None,
        }
    }
}

/// A broker must not be started again over its folder; whatever restarts processes can tell.
const SUSPECT: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let stream = cli.command.stream().map(str::to_owned);
    let endpoints = cli.connection.endpoints();
    match run(cli) {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = output::explain(&error, stream.as_deref(), &endpoints);
            // If standard error is closed as well, the exit code is all that is left.
            _ = std::io::stderr().write_all(text.as_bytes());
            let broker = error.downcast_ref::<weft_broker::RunError>();
            if broker.is_some_and(weft_broker::RunError::is_suspect) {
                return ExitCode::from(SUSPECT);
            }
            ExitCode::FAILURE
        }
    }
}

/// Processes bring their own runtime; verbs over the client share one.
fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Demo(args) => demo::run(&args)?,
        Command::Dev(args) => dev::run(&args)?,
        Command::Broker(args) => broker::run(&args)?,
        Command::Dispatcher(args) => dispatcher::run(&args)?,
        Command::Bench(args) => bench::run(&args, &cli.connection)?,
        Command::SampleFunction(args) => sample_function::run(&args)?,
        Command::LaunchShim(args) => return Err(dispatcher::shim(args)),
        command => {
            let runtime = tokio::runtime::Runtime::new()?;
            let result = runtime.block_on(dispatch(command, &cli.connection, cli.output));
            // A read of standard input cannot be cancelled; without this, it would hold up the end.
            runtime.shutdown_background();
            return result;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn dispatch(
    command: Command,
    connection: &Connection,
    output: Option<Format>,
) -> anyhow::Result<ExitCode> {
    let format = output.unwrap_or(Format::Table);
    let client = || connection.client();
    match command {
        Command::Stream(args) => return stream::run(args, &client()?, format).await,
        Command::Publish(args) => return publish::run(args, &client()?, format).await,
        Command::Subscribe(args) => subscribe::run(args, &client()?, format).await?,
        Command::Subscription(args) => subscription::run(args, &client()?, format).await?,
        Command::Replay(args) => replay::run(args, &client()?, format).await?,
        Command::ReplayJob(args) => replay_job::run(args, &client()?, format).await?,
        Command::Event(args) => return event::run(args, &client()?, format).await,
        Command::Filter(args) => return filter::run(args, connection, format).await,
        Command::Schema(args) => return schema::run(args, &client()?, format).await,
        Command::Function(args) => return function::run(args, &client()?, format).await,
        Command::Flow(args) => return flow::run(args, format),
        Command::Webhook(args) => return webhook::run(args, &client()?, format).await,
        Command::Apply(args) => return apply::run(&args, &client()?, format).await,
        Command::Get(args) => get::run(args, &client()?, output).await?,
        Command::Delete(args) => delete::run(&args, &client()?, format).await?,
        Command::Status(_) => status::run(&client()?, format).await?,
        Command::Ready(args) => {
            ready::run(&args, connection.settled()?.ca_file.as_deref()).await?;
        }
        Command::Node(args) => node::run(args, &client()?).await?,
        Command::Drain(args) => drain::run(&args, &client()?).await?,
        Command::Login(_) => login::run(connection, format).await?,
        Command::Logout(_) => login::logout()?,
        Command::Whoami(_) => whoami::run(connection, format).await?,
        Command::Key(args) => key::run(args, &client()?, format).await?,
        Command::Access(args) => access::run(args, &client()?, format).await?,
        Command::Audit(args) => return audit::run(args, &client()?, format).await,
        Command::Completions(args) => completions::run::<Cli>(&args)?,
        Command::Demo(_)
        | Command::Dev(_)
        | Command::Broker(_)
        | Command::Dispatcher(_)
        | Command::Bench(_)
        | Command::SampleFunction(_)
        | Command::LaunchShim(_) => {
            anyhow::bail!("this runs without a cluster")
        }
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

    #[test]
    fn every_verb_of_the_readme_is_taken() {
        for line in [
            "weft stream create orders --partitions 3 --max-age 24h",
            "weft publish orders --file a.jsonl --type order.placed --source /shop",
            "weft stream create carts --subject-index",
            "weft publish carts --expect 0=17 --expect 1=0 --expect-subject cart/1=3 --expect-subject cart/2=none",
            "weft subscribe orders --from -1h --filter-type order.*",
            "weft subscribe orders --subscription audit -o json",
            "weft replay orders --from 2026-03-01T12:00:00Z --to latest",
            "weft replay orders --linearizable --checksum",
            "weft subscribe orders --merged --linearizable",
            "weft event trace order-1 --stream orders --source /shop --since -7d --json",
            "weft filter test --sql TRUE --cel data.total>5 --event -",
            "weft filter test --stream orders --from -1h --to latest --filter []",
            "weft filter test --stream orders --subscription audit --max 500",
            "weft schema register order -f order.json",
            "weft schema get order --version 2",
            "weft schema check order -f payload.json",
            "weft schema bind orders --type * --schema order --version 1 --mode off",
            "weft function deploy -f confirm.yaml",
            "weft flow test -f parcels.yaml --event - --answer ask=200:{} --last --function a/b",
            "weft apply -f mesh.yaml --dry-run",
            "weft get streams -o yaml",
            "weft delete function confirm",
            "weft drain 2 --undo",
            "weft ready https://broker-1:7500 --ca-file ca.pem",
            "weft login --endpoint https://a:1 --ca-file ca.pem --token-file -",
            "weft logout",
            "weft whoami -o json",
            "weft key create orders-writer --namespace shop --expires 90d --out a.key",
            "weft key list --namespace shop",
            "weft key revoke 4f9a0c2b77de",
            "weft access explain key:shop/a publish orders --group group:corp:x",
            "weft access grants key:shop/a",
            "weft audit verify --from 5 --expect 4:0000000000000000000000000000000000000000000000000000000000000000",
            "weft audit show --from -1h --principal key:shop/a --denied",
            "weft get grants",
            "weft delete limit weft-system/l",
            "weft status --cert-file c.pem --key-file k.pem",
            "weft launch-shim 1 /bin/true --flag",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    /// What looks like a secret and is none.
    const NO_SECRETS: [(&str, &str); 1] = [
        // The key of a partition.
        ("publish", "key"),
    ];

    /// Arguments are seen by every process of the machine, and kept by shells.
    #[test]
    fn no_argument_takes_a_secret() {
        let mut seen = 0;
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                seen += 1;
                let names = argument.get_long_and_visible_aliases().unwrap_or_default();
                let id = argument.get_id().as_str();
                for name in names.into_iter().chain([id]) {
                    let plain = name.to_lowercase().replace('_', "-");
                    let words: Vec<_> = plain.split('-').collect();
                    let is_secret =
                        ["token", "secret", "password", "passphrase", "key", "credential"]
                            .iter()
                            .any(|word| words.contains(word));
                    let is_known = NO_SECRETS.contains(&(command.get_name(), name));
                    let names_a_file = plain.ends_with("-file") || plain.ends_with("-id");
                    assert!(
                        !is_secret || names_a_file || is_known,
                        "weft ... {} takes a secret as an argument: {name}",
                        command.get_name()
                    );
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(seen > 100, "{seen} arguments: was the tree walked?");
    }
}
