//! The broker under attack: a process of its own, and how it is found to be well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};
use weft_client::{Client, Options, PutOptions, ReadOptions, Tls, resource_of};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::resource::Kind;
use weft_proto::v1::{PublishRequest, publish_result};

use crate::daemon::{Daemon, POLL, SOON, cleaned};
use crate::pki::{Authority, Signed};
use crate::ports::{Ports, address};
use crate::probe::answers_ready;

/// More than one broker at once would only disturb each other.
static ROOM: Semaphore = Semaphore::const_new(1);
/// How much more memory the broker may have after a group of attacks: a few windows and buffers of
/// the connections that were open at once, and what the allocator keeps.
const RSS_GROWTH_MAX: u64 = 96 << 20;
const STREAM: &str = "orders";

/// What is written in the broker's file beside the addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// Certificates on all ports.
    pub(crate) secured: bool,
    /// Keys of the section `listen`.
    pub(crate) listen: &'static str,
}

#[derive(Debug)]
pub(crate) struct Server {
    daemon: Daemon,
    pub(crate) ports: Ports,
    pub(crate) client: Client,
    rss: u64,
    published: usize,
    _folder: TempDir,
    _room: SemaphorePermit<'static>,
}

impl Server {
    /// Starts a broker and waits until it works.
    pub(crate) async fn start(setup: Setup) -> Self {
        let room = ROOM.acquire().await.unwrap();
        let folder = tempfile::Builder::new().prefix("weft-abuse-").tempdir().unwrap();
        let ports = Ports::free(1)[0];
        let (security, mut options) = if setup.secured {
            let files = Files { folder: folder.path().to_owned() };
            let (security, ca_pem) = files.write();
            let options = Options::new([format!("https://{}", address(ports.grpc))]);
            let tls = Some(Tls { ca_pem, ..Tls::default() });
            (security, Options { tls, ..options })
        } else {
            let options = Options::new([format!("http://{}", address(ports.grpc))]);
            (String::new(), options)
        };
        let config = format!(
            "[node]\ndata = {}\n[listen]\ngrpc = {:?}\nhttp = {:?}\npeer = {:?}\n{}\n\
             [cluster]\ndata_groups = 1\n[store]\nprofile = \"small\"\n{security}",
            quoted(&folder.path().join("data")),
            address(ports.grpc),
            address(ports.http),
            address(ports.peer),
            setup.listen,
        );
        let file = folder.path().join("broker.toml");
        fs::write(&file, config).unwrap();
        let mut command = cleaned(Command::new(env!("CARGO_BIN_EXE_weft")));
        command.arg("broker").arg("--config").arg(file).arg("--until-stdin-closes");
        let daemon = Daemon::start("the broker", command, &folder.path().join("broker.log"));
        options.timeouts.call = SOON;
        let client = Client::connect(&options).unwrap();
        let mut server =
            Self { daemon, ports, client, rss: 0, published: 0, _folder: folder, _room: room };
        server.prepare(setup.secured).await;
        server
    }

    async fn prepare(&mut self, secured: bool) {
        // Over TLS the health check is left to the client.
        while !secured && !answers_ready(&address(self.ports.http)).await {
            assert_eq!(self.daemon.status(), None, "{}", self.daemon.log());
            sleep(POLL).await;
        }
        let schema = json!({ "document": { "type": "object" } });
        self.put(Kind::Schema, "object", &schema).await;
        let bindings = json!([{ "type": "checked", "schema": "object", "mode": "enforce" }]);
        self.put(Kind::Stream, STREAM, &json!({ "partitions": 1, "schemas": bindings })).await;
        // What the first use of each part allocates is not the attackers' doing.
        for _ in 0..3 {
            self.works().await;
        }
        self.rss = self.rss();
    }

    async fn put(&self, kind: Kind, name: &str, spec: &Value) {
        let resource = resource_of(kind, name, spec).unwrap();
        self.client.catalog().put(resource, PutOptions::default()).await.unwrap();
    }

    /// A publish and a read of everything, as of any client.
    pub(crate) async fn works(&mut self) {
        let event = event(&format!("well-{}", self.published), "well", None);
        let request = PublishRequest {
            stream: STREAM.to_owned(),
            events: vec![event.encode_to_vec().into()],
            ..PublishRequest::default()
        };
        let working = async {
            let results = self.client.publish_once(request).await.unwrap();
            let outcome = results[0].outcome.as_ref();
            assert!(matches!(outcome, Some(publish_result::Outcome::Receipt(_))), "{results:?}");
            let records = self.client.read(ReadOptions::all(STREAM)).await.unwrap();
            let records: Vec<_> = records.into_records().collect().await;
            records
                .into_iter()
                .map(|record| CloudEvent::decode(record.unwrap().event).unwrap())
                .collect()
        };
        let events: Vec<CloudEvent> = timeout(SOON, working).await.unwrap();
        self.published += 1;
        let well = events.iter().filter(|event| event.r#type == "well").count();
        assert_eq!(well, self.published);
        // Whatever else is there was let in by mistake.
        assert_eq!(events.len(), well, "{events:?}");
    }

    /// Works, and has not grown.
    pub(crate) async fn is_well(&mut self) {
        assert_eq!(self.daemon.status(), None, "{}", self.daemon.log());
        self.works().await;
        let (before, now) = (self.rss, self.rss());
        assert!(now < before + RSS_GROWTH_MAX, "resident memory grew from {before} to {now}");
        let log = self.daemon.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

/// An event with a JSON payload, if it has any.
pub(crate) fn event(id: &str, ty: &str, json: Option<String>) -> CloudEvent {
    use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
    use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
    let content = Attr::CeString("application/json".to_owned());
    let content = CloudEventAttributeValue { attr: Some(content) };
    CloudEvent {
        id: id.to_owned(),
        source: "/abuse".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: ty.to_owned(),
        attributes: [("datacontenttype".to_owned(), content)].into(),
        data: json.map(Data::TextData),
    }
}

/// A path as TOML has it.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

struct Files {
    folder: PathBuf,
}

impl Files {
    /// The section `security`, and the authority to trust.
    fn write(&self) -> (String, String) {
        let authority = Authority::new("all");
        let Signed { certificate, key } = authority.node();
        let path = |name: &str, text: &str| {
            let path = self.folder.join(name);
            fs::write(&path, text).unwrap();
            quoted(&path)
        };
        let (certificate, key) = (path("node.pem", &certificate), path("node.key", &key));
        let ca = path("ca.pem", &authority.pem);
        let section = format!(
            "[security]\ncertificate = {certificate}\nkey = {key}\n\
             client_ca = {ca}\npeer_ca = {ca}\n\
             peer_certificate = {certificate}\npeer_key = {key}\n"
        );
        (section, authority.pem)
    }
}

/// Nothing takes longer unless it hangs.
pub(crate) const HANGS: Duration = Duration::from_secs(40);
