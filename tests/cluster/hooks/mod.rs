//! Webhooks: a broker, a dispatcher, and a receiver that speaks HTTPS, all as they are in earnest.

mod answers;
mod consent;
mod modes;
mod receiver;
mod traced;

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use weft_client::{Client, PublisherOptions, status_of};
use weft_proto::event::from_json;
use weft_proto::resource::{Kind, WebhookStatus};

use self::receiver::{Receiver, Seen};
use crate::harness::node::quoted;
use crate::harness::pki::Authority;
use crate::harness::ports::address;
use crate::harness::process::{Daemon, Ended, run, weft};
use crate::harness::{Cluster, eventually, put, within};

const LIMIT: Duration = Duration::from_mins(1);
const ORIGIN: &str = "mesh.example";
/// What requests are signed with, as it is handed out.
const SHARED: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const PRIVATE: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=";

struct Bed {
    cluster: Cluster,
    client: Client,
    receiver: Receiver,
    authority: Authority,
    dispatcher: Daemon,
}

impl Bed {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more TOML for the dispatcher.
    async fn start_with(more: &str) -> Self {
        let cluster = Cluster::start(1).await;
        let authority = Authority::new("receivers");
        let receiver = Receiver::start("127.0.0.1", &authority).await;
        let folder = cluster.place.dir.path();
        let secrets = folder.join("secrets");
        fs::create_dir_all(secrets.join("default")).unwrap();
        for (name, text) in [("token", "Bearer t0ken"), ("shared", SHARED), ("private", PRIVATE)] {
            fs::write(secrets.join("default").join(name), format!("{text}\n")).unwrap();
        }
        let ca = folder.join("receivers.pem");
        fs::write(&ca, &authority.pem).unwrap();
        let config = format!(
            "endpoints = [{:?}]\n[webhooks]\norigin = {ORIGIN:?}\nports = []\n\
             allow_private = [\"127.0.0.1/32\"]\nca_file = {}\nsecrets = {}\n\
             consent_every = \"1s\"\n{more}",
            address(cluster.nodes[0].ports.grpc),
            quoted(&ca),
            quoted(&secrets),
        );
        fs::write(folder.join("dispatcher.toml"), config).unwrap();
        let dispatcher = dispatcher(&cluster);
        Self { client: cluster.client(), cluster, receiver, authority, dispatcher }
    }

    /// A stream, and a webhook of the same name that sends its events to a path of the same name.
    async fn webhook(&self, name: &str, more: &Value) {
        put(&self.client, Kind::Stream, name, &json!({})).await;
        let mut spec = json!({
            "stream": name,
            "start": "earliest",
            "url": self.receiver.url(&format!("/{name}")),
            "retry": {"base": "20ms", "cap": "100ms", "attempts": 5},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        put(&self.client, Kind::Webhook, name, &spec).await;
    }

    /// A stream with events in it.
    async fn stream(&self, name: &str, ids: std::ops::Range<usize>) {
        put(&self.client, Kind::Stream, name, &json!({})).await;
        self.publish(name, ids).await;
    }

    async fn publish(&self, stream: &str, ids: std::ops::Range<usize>) {
        let publisher = self.client.publisher(stream, PublisherOptions::default()).await.unwrap();
        let events = ids.map(event).collect();
        let pending = publisher.publish_batch(events).await.unwrap();
        let outcome = within(LIMIT, "publishing", pending.outcome()).await;
        let refused = outcome.receipts().into_iter().find_map(Result::err);
        assert!(refused.is_none(), "{refused:?}");
    }

    async fn status(&self, name: &str) -> WebhookStatus {
        status_of(&self.client.catalog().get(Kind::Webhook, name).await.unwrap()).unwrap()
    }

    /// Waits until the status is as wanted.
    async fn until(&self, name: &str, is_so: impl Fn(&WebhookStatus) -> bool) -> WebhookStatus {
        let what = format!("what is wanted of the webhook {name}");
        eventually(LIMIT, &what, async || Some(self.status(name).await).filter(|now| is_so(now)))
            .await
    }

    /// Waits until so many requests came by POST.
    async fn posts(&self, name: &str, count: usize) -> Vec<Seen> {
        let path = format!("/{name}");
        let what = format!("{count} requests to {path}");
        let all = async || Some(self.receiver.posts(&path)).filter(|seen| seen.len() >= count);
        eventually(LIMIT, &what, all).await
    }

    /// Dead letters of a webhook: the id of the event, and what the last attempt said.
    async fn dead(&self, name: &str, count: usize) -> Vec<(String, String)> {
        let subscription = format!("wh-{name}");
        let what = format!("{count} dead letters of {name}");
        eventually(LIMIT, &what, async || {
            let args = ["subscription", "dead-letters", &subscription, "-o", "json"];
            let ended = self.weft(&args).await;
            let letters: Vec<Value> =
                ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let told = |letter: &Value| {
                let event = &letter["event"];
                let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                (text("id"), text("weftlasterror"))
            };
            Some(letters.iter().map(told).collect::<Vec<_>>()).filter(|all| all.len() >= count)
        })
        .await
    }

    async fn weft(&self, args: &[&str]) -> Ended {
        let endpoint = self.cluster.nodes[0].endpoint();
        let args: Vec<&str> = ["--endpoint", &endpoint].iter().chain(args).copied().collect();
        run(&args, "").await
    }

    async fn enable(&self, name: &str) {
        let ended = self.weft(&["webhook", "enable", name]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

fn dispatcher(cluster: &Cluster) -> Daemon {
    let folder = cluster.place.dir.path();
    let mut command = weft();
    command.arg("dispatcher").arg("--config").arg(folder.join("dispatcher.toml"));
    Daemon::start("the dispatcher", command, &folder.join("dispatcher.log"))
}

fn event(number: usize) -> Bytes {
    let text = format!(
        r#"{{"specversion":"1.0","id":"{number}","source":"/shop","type":"order.placed","subject":"cart/{number}","datacontenttype":"application/json","data":{{"n": {number}}}}}"#
    );
    from_json(text.as_bytes()).unwrap().encode_to_vec().into()
}

/// The condition `Ready`: whether it holds, and by which reason.
fn ready(status: &WebhookStatus) -> (bool, &str) {
    let ready = status.conditions.iter().find(|condition| condition.kind == "Ready");
    ready.map_or((false, ""), |ready| (ready.status, ready.reason.as_str()))
}
