//! `weft delete`: deletes a resource of any kind.

use weft_client::{Client, Error};
use weft_proto::resource::Kind;

use crate::output::{Format, Out};

/// Arguments of `weft delete`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  weft delete function billing
  weft delete stream orders    # its events are gone for good")]
pub(crate) struct Args {
    /// stream, schema, subscription, function, webhook, grant, limit or containerpolicy
    #[arg(value_parser = kind)]
    kind: Kind,

    /// NAME or NAMESPACE/NAME
    name: String,
}

fn kind(text: &str) -> Result<Kind, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

impl Args {
    pub(crate) fn stream(&self) -> Option<&str> {
        (self.kind == Kind::Stream).then_some(&*self.name)
    }
}

pub(crate) async fn run(args: &Args, client: &Client, format: Format) -> anyhow::Result<()> {
    delete(client, args.kind, &args.name, format).await
}

/// Deletes a resource and says so.
pub(crate) async fn delete(
    client: &Client,
    kind: Kind,
    name: &str,
    format: Format,
) -> anyhow::Result<()> {
    client.catalog().delete(kind, name, None).await?;
    Out::new().result((kind, name), "deleted", format)
}
