//! `weft drain`: moves leadership away from a node.

use weft_client::Client;

use crate::output::Out;

/// Arguments of `weft drain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The node stays a replica and answers as before. It gets leadership back when it starts again, or by
--undo. A node that is stopped by SIGTERM drains by itself.

Examples:
  weft drain 2
  weft drain 2 --undo")]
pub(crate) struct Args {
    /// Number of the node, as weft status shows it
    node: u64,

    /// Give the node its share again
    #[arg(long)]
    undo: bool,
}

pub(crate) async fn run(args: &Args, client: &Client) -> anyhow::Result<()> {
    client.drain(args.node, args.undo).await?;
    let done = if args.undo { "may lead again" } else { "drains; weft status shows what it leads" };
    let mut out = Out::new();
    out.line(&format!("node {} {done}", args.node))?;
    Ok(out.flush()?)
}
