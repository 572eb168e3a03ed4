//! The first start of a cluster that asks for credentials: its audit stream, its first administrator.
//!
//! Every node tries; the catalog lets one succeed, and only that one shows the key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use weft_proto::internal::catalog_command::Change;
use weft_proto::resource::Kind;
use weft_proto::{Error, Principal, QualifiedName, Reason, Result, internal, v1};

use super::key::{self, Hasher};
use crate::resources::Resources;

const NAMESPACE: &str = "weft-system";
const NAME: &str = "bootstrap";
const RETRY: Duration = Duration::from_millis(300);
/// Long enough for a year's report; whoever governs the cluster may change it.
const AUDIT: &str = r#"{"partitions":1,"retention":{"max_age":"400d"}}"#;
const GRANT: &str =
    r#"{"principals":["key:weft-system/bootstrap"],"role":"admin","namespaces":["*"]}"#;

/// Shows the first key to whoever started the node, once.
#[derive(Clone, Default)]
pub struct Announce(Option<Show>);

type Show = Arc<dyn Fn(&str) + Send + Sync>;

impl Announce {
    /// Shows it by a function.
    pub fn new(show: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(show)))
    }
}

impl fmt::Debug for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Announce")
    }
}

/// Tries until it is done, by this node or another.
///
/// # Errors
///
/// What will not go away by itself.
pub async fn run(resources: Resources, announce: Announce, stop: CancellationToken) -> Result<()> {
    let work = async {
        loop {
            match secure(&resources, &announce).await {
                Err(error) if error.is_retryable() => debug!(%error, "not secured yet"),
                done => return done,
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        done = work => {
            done?;
            stop.cancelled().await;
            Ok(())
        }
    }
}

async fn secure(resources: &Resources, announce: &Announce) -> Result<()> {
    let audit = QualifiedName::audit();
    create(resources, Kind::Stream, &audit, AUDIT).await?;
    // The answer says how new the catalog is; from here on this node knows it.
    if resources.snapshot().key_secret().is_some() {
        return Ok(());
    }
    let grant = QualifiedName {
        namespace: audit.namespace,
        name: NAME.parse().map_err(|_error| Error::internal("a name is none"))?,
    };
    create(resources, Kind::Grant, &grant, GRANT).await?;
    let secret: [u8; 32] = key::random()?;
    let (id, text) = key::generate()?;
    let key = internal::CatalogKey {
        id: id.to_string(),
        namespace: NAMESPACE.to_owned(),
        name: NAME.to_owned(),
        hash: Hasher::new(&secret).hash(&text).into(),
        created_us: 0,
        expires_us: 0,
        created_by: Principal::system().to_string(),
    };
    let secure = internal::CatalogSecure { key_secret: secret.to_vec().into(), key: Some(key) };
    let reply = resources.change(&Principal::system(), Change::Secure(secure)).await?;
    reply.outcome.map_err(Error::from_refusal)?;
    if reply.change == v1::Change::Created {
        info!(id = %id, "the first key of this cluster was made");
        if let Some(show) = &announce.0 {
            show(&text);
        }
    }
    Ok(())
}

/// Creates a resource; one that is there stays as it is.
async fn create(resources: &Resources, kind: Kind, name: &QualifiedName, spec: &str) -> Result<()> {
    let put = internal::CatalogPut {
        resource: Some(v1::Resource {
            kind: kind.as_str().to_owned(),
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            spec: spec.to_owned().into(),
            ..v1::Resource::default()
        }),
        expected_generation: Some(0),
    };
    let reply = resources.change(&Principal::system(), Change::Put(put)).await?;
    resources.wait_for(reply.generation).await?;
    match reply.outcome.map_err(Error::from_refusal) {
        Err(error) if error.reason() != Reason::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
