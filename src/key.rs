//! `weft key`: makes, lists and revokes API keys.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use weft_client::Client;
use weft_client::proto::v1;
use weft_proto::resource::DurationText;

use crate::output::{Format, Out};
use crate::whoami::time;

/// Arguments of `weft key`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key; it is shown once, on standard output, and nowhere else
    #[command(after_help = "\
Whoever shows the key is the principal key:NAMESPACE/NAME: grants name it so, and the key alone
allows nothing. A name has at most two keys, so that one can take the place of the other.

Examples:
  weft key create orders-writer --namespace shop --expires 90d --out orders-writer.key
  weft key create shop/orders-writer > orders-writer.key")]
    Create(Create),
    /// List keys; never what they are
    List {
        /// Only those of this namespace
        #[arg(long, value_name = "NS")]
        namespace: Option<String>,
    },
    /// End a key; open calls that showed it end within a second
    #[command(after_help = "Example:\n  weft key revoke 4f9a0c2b77de    # an id of weft key list")]
    Revoke {
        /// The id that weft key list shows
        id: String,
    },
}

#[derive(clap::Args, Debug)]
struct Create {
    /// NAME or NAMESPACE/NAME
    name: String,

    /// The namespace, instead of NAMESPACE/NAME
    #[arg(long, value_name = "NS")]
    namespace: Option<String>,

    /// How long it lasts: 90d, 24h, ...; for ever without it, until it is revoked
    #[arg(long, value_name = "AGE", value_parser = lasts)]
    expires: Option<Duration>,

    /// Write the key to this new file, which only you can read
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn lasts(text: &str) -> Result<Duration, String> {
    text.parse::<DurationText>().map(|lasts| lasts.0)
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<()> {
    match args.verb {
        Verb::Create(args) => create(&args, client, format).await,
        Verb::List { namespace } => {
            list(namespace.as_deref().unwrap_or_default(), client, format).await
        }
        Verb::Revoke { id } => {
            client.access().revoke_key(&id).await?;
            let mut out = Out::new();
            if format != Format::Table {
                return out.json(&serde_json::json!({ "id": id, "result": "revoked" }));
            }
            out.line(&format!("key {id}: revoked"))?;
            Ok(out.flush()?)
        }
    }
}

async fn create(args: &Create, client: &Client, format: Format) -> anyhow::Result<()> {
    let name = full_name(&args.name, args.namespace.as_deref())?;
    // Before the key is made: one that cannot be kept is of no use.
    let mut kept = args.out.as_deref().map(Kept::new).transpose()?;
    let made = client.access().create_key(&name, args.expires).await?;
    let v1::Key { id, principal, expires, .. } = made.key;
    let expires = time(expires);
    let ends = expires
        .as_deref()
        .map_or_else(|| "does not expire".to_owned(), |at| format!("expires {at}"));
    tell(&format!("key {id} of {principal} {ends}; weft key revoke {id} ends it\n"))?;
    let lost = || format!("key {id} was made and could not be kept; end it: weft key revoke {id}");
    let secret = match &mut kept {
        Some(kept) => {
            kept.keep(made.secret.expose()).with_context(lost)?;
            tell(&format!("the key is in {}\n", kept.path.display()))?;
            None
        }
        None => Some(made.secret.expose()),
    };
    let mut out = Out::new();
    if format != Format::Table {
        return out
            .json(&serde_json::json!({
                "id": id, "principal": principal, "expires": expires, "secret": secret,
                "file": args.out,
            }))
            .with_context(lost);
    }
    if let Some(secret) = secret {
        tell("keep it now: it is not shown again\n")?;
        out.line(secret).and_then(|()| out.flush()).with_context(lost)?;
    }
    Ok(())
}

/// For people: standard output has nothing but the key.
fn tell(text: &str) -> io::Result<()> {
    io::stderr().write_all(text.as_bytes())
}

fn full_name(name: &str, namespace: Option<&str>) -> anyhow::Result<String> {
    match namespace {
        None => Ok(name.to_owned()),
        Some(_) if name.contains('/') => {
            bail!("{name:?} has a namespace already: drop --namespace")
        }
        Some(namespace) => Ok(format!("{namespace}/{name}")),
    }
}

/// A new file for a key. It goes when nothing was written to it.
struct Kept<'a> {
    path: &'a Path,
    file: File,
    written: bool,
}

impl<'a> Kept<'a> {
    fn new(path: &'a Path) -> anyhow::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let shown = path.display();
        let file = file.with_context(|| {
            if path.exists() {
                format!("{shown} exists; it is not overwritten")
            } else {
                format!("cannot write {shown}")
            }
        })?;
        Ok(Self { path, file, written: false })
    }

    fn keep(&mut self, secret: &str) -> io::Result<()> {
        self.written = true;
        self.file.write_all(secret.as_bytes())?;
        self.file.write_all(b"\n")?;
        self.file.sync_all()
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if !self.written {
            // An empty file is a nuisance and nothing worse.
            _ = fs::remove_file(self.path);
        }
    }
}

async fn list(namespace: &str, client: &Client, format: Format) -> anyhow::Result<()> {
    let keys = client.access().list_keys(namespace).await?;
    let mut out = Out::new();
    if format != Format::Table {
        return keys.into_iter().try_for_each(|key| {
            out.json(&serde_json::json!({
                "id": key.id, "principal": key.principal, "created": time(key.created),
                "expires": time(key.expires), "created_by": key.created_by,
            }))
        });
    }
    let rows = keys.into_iter().map(|key| {
        let expires = time(key.expires).unwrap_or_else(|| "never".to_owned());
        let created = time(key.created).unwrap_or_default();
        vec![key.id, key.principal, created, expires, key.created_by]
    });
    out.table(&["ID", "PRINCIPAL", "CREATED", "EXPIRES", "CREATED BY"], rows.collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_kept_in_a_new_file_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");

        drop(Kept::new(&path).unwrap());
        assert!(!path.exists());
        Kept::new(&path).unwrap().keep("weft_x").unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "weft_x\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Kept::new(&path).err().unwrap().to_string();
        assert!(error.contains("not overwritten"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "weft_x\n");
    }

    #[test]
    fn a_namespace_is_given_once() {
        assert_eq!(full_name("a", Some("shop")).unwrap(), "shop/a");
        assert_eq!(full_name("shop/a", None).unwrap(), "shop/a");
        assert!(full_name("shop/a", Some("shop")).is_err());
    }
}
