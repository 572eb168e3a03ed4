//! `weft audit`: what was done and refused in the cluster.

mod chain;
mod show;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;
use weft_client::{Client, Position, ReadOptions, Reader, Reason};

use crate::output::Format;
use crate::when::When;

/// Where brokers record what is done and refused. It has one partition.
const STREAM: &str = "weft-system/_weft.audit";

/// Arguments of `weft audit`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what was done and refused, one record a line
    #[command(after_help = "\
Examples:
  weft audit show --from -1h
  weft audit show --principal key:shop/orders-writer --denied
  weft audit show -o json | jq .")]
    Show(show::Args),
    /// Check that no record was changed, taken out or put in
    #[command(after_help = "\
Each record has the hash of the one before it. Whoever can change the store of a majority of the
nodes can write the whole chain anew: keep OFFSET:HASH of the last record, which this prints,
somewhere else, and give it to --expect the next time.

Exit code 0: the chain holds; 1: it does not, and the offset of the first break is shown.

Examples:
  weft audit verify
  weft audit verify --expect 17:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    Verify(verify::Args),
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Show(args) => show::run(&args, client, format).await,
        Verb::Verify(args) => verify::run(args, client, format).await,
    }
}

/// Reads what is stored of the record from there on.
async fn read(client: &Client, from: When) -> anyhow::Result<Reader> {
    let options = ReadOptions {
        from: from.position(),
        to: Some(Position::Latest),
        linearizable: true,
        ..ReadOptions::all(STREAM)
    };
    client.read(options).await.map_err(|error| match error.reason() {
        Reason::UnknownStream => {
            anyhow::anyhow!("this cluster has no record: it has never asked for credentials")
        }
        _ => error.into(),
    })
}
