//! Clusters that ask everybody who they are: what each may do, what none finds out, what is recorded.

mod audit;
mod dispatched;
mod events;
mod limits;
mod matrix;
mod revoked;
mod routes;
mod tenants;
mod traced;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use weft_client::{Client, Options, PutOptions, Secret};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::resource::Kind;
use weft_proto::v1;

use self::wire::{Answer, call};
use crate::harness::Cluster;

/// For whatever happens at once on a machine that is busy.
const SOON: Duration = Duration::from_mins(1);
const NAMESPACE: &str = "shop";

/// A cluster with access control, and an administrator's key.
pub(crate) struct Secured {
    pub(crate) cluster: Cluster,
    pub(crate) root: String,
}

impl Secured {
    async fn start(nodes: usize) -> Self {
        let mut cluster = Cluster::new(nodes).await;
        for node in &mut cluster.nodes {
            node.sections.push_str("[access]\nenforced = true\n");
        }
        cluster.start_all().await;
        let root = timeout(SOON, first_key(&mut cluster)).await.unwrap();
        Self { cluster, root }
    }

    fn endpoint(&self) -> String {
        self.cluster.nodes[0].endpoint()
    }

    /// A client with a key, of the first node.
    fn client(&self, key: &str) -> Client {
        client_of(&self.endpoint(), key)
    }

    async fn put(&self, kind: Kind, name: &str, spec: Value) {
        self.try_put(&self.root, kind, name, spec).await.unwrap();
    }

    async fn try_put(
        &self,
        key: &str,
        kind: Kind,
        name: &str,
        spec: Value,
    ) -> weft_client::Result<()> {
        let (namespace, name) = name.split_once('/').unwrap();
        let resource = v1::Resource {
            kind: kind.as_str().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            spec: spec.to_string().into(),
            ..v1::Resource::default()
        };
        self.client(key).catalog().put(resource, PutOptions::default()).await.map(drop)
    }

    /// A new key of a name.
    async fn key(&self, name: &str) -> String {
        self.created(name, 0).await.secret
    }

    async fn created(&self, name: &str, expires_in_seconds: u64) -> v1::CreateKeyResponse {
        let request = v1::CreateKeyRequest { name: name.to_owned(), expires_in_seconds };
        self.ask(&self.root, "/weft.v1.Access/CreateKey", &request).await.one()
    }

    /// A key of a name that has a role in the namespace, by a grant of the same name.
    async fn with_role(&self, role: &str) -> String {
        let name = format!("{NAMESPACE}/{role}");
        let spec = json!({"principals": [format!("key:{name}")], "role": role});
        self.put(Kind::Grant, &name, spec).await;
        self.key(&name).await
    }

    /// Calls a method with one message.
    async fn ask(&self, key: &str, path: &str, message: &impl prost::Message) -> Answer {
        let message = Bytes::from(message.encode_to_vec());
        call(&self.endpoint(), Some(key), path, vec![message]).await
    }
}

fn client_of(endpoint: &str, key: &str) -> Client {
    let options = Options { token: Some(Secret::new(key)), ..Options::new([endpoint.to_owned()]) };
    Client::connect(&options).unwrap()
}

/// The key that one of the nodes has shown.
async fn first_key(cluster: &mut Cluster) -> String {
    loop {
        for node in &mut cluster.nodes {
            let log = node.running().log();
            let words = log.split_ascii_whitespace();
            if let Some(key) =
                words.into_iter().find(|word| word.len() == 82 && word.starts_with("weft_"))
            {
                return key.to_owned();
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// An encoded event.
fn event(id: &str, ty: &str) -> Bytes {
    CloudEvent {
        id: id.to_owned(),
        source: "/test".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: ty.to_owned(),
        ..CloudEvent::default()
    }
    .encode_to_vec()
    .into()
}
