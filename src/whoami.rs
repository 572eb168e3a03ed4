//! `weft whoami`: who the cluster takes the caller for.

use weft_client::Client;
use weft_proto::Timestamp;

use crate::output::{Format, Out};
use crate::settings::{self, Connection, Shown};

/// Arguments of `weft whoami`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

/// Asks and tells.
pub(crate) async fn run(connection: &Connection, format: Format) -> anyhow::Result<()> {
    let settled = connection.settled()?;
    let who = Client::connect(&settled.options()?)?.access().who_am_i().await?;
    let shown = match &settled.shown {
        Shown::Nothing => "none".to_owned(),
        Shown::File(path) => format!("in {}", path.display()),
        Shown::Variable(_) => "in $WEFT_TOKEN".to_owned(),
        Shown::Login(_) => {
            let path = settings::login_file().unwrap_or_default();
            format!("by weft login, in {}", path.display())
        }
    };
    let mut out = Out::new();
    if format != Format::Table {
        return out.json(&serde_json::json!({
            "principal": who.principal, "groups": who.groups, "expires": time(who.expires),
            "enforced": who.enforced, "cluster": who.cluster_uid,
            "endpoints": settled.endpoints, "credential": shown,
        }));
    }
    let access =
        if who.enforced { "enforced" } else { "not enforced: everybody may do everything" };
    let groups = if who.groups.is_empty() { "none".to_owned() } else { who.groups.join(", ") };
    let expires = time(who.expires).unwrap_or_else(|| "never".to_owned());
    for (name, value) in [
        ("principal", &*who.principal),
        ("groups", &*groups),
        ("expires", &*expires),
        ("access", access),
        ("cluster", &*who.cluster_uid),
        ("endpoint", &*settled.endpoints.join(", ")),
        ("credential", &*shown),
    ] {
        out.line(&format!("{name:<12}{value}"))?;
    }
    Ok(out.flush()?)
}

/// A time of an answer as people read it.
pub(crate) fn time(time: Option<prost_types::Timestamp>) -> Option<String> {
    Timestamp::try_from(time?).ok().map(|time| time.to_string())
}
