//! `weft node`: takes nodes out of a cluster.

use clap::Subcommand;
use weft_client::Client;

use crate::output::Out;

/// Arguments of `weft node`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take a node out for good; its id is never given again
    #[command(after_help = "\
A node that is gone for good, or suspect, is replaced by a new one:
  weft node remove 3
  then start a broker over an empty folder with cluster.join = [\"HOST:PEER-PORT\", ...]")]
    Remove {
        /// Its id, as in weft status
        id: u64,
    },
}

pub(crate) async fn run(args: Args, client: &Client) -> anyhow::Result<()> {
    let Verb::Remove { id } = args.verb;
    client.remove_node(id).await?;
    Out::new().line(&format!("node {id} removed"))?;
    Ok(())
}
