//! The command line against a cluster that asks everybody who they are: from the first key to the
//! record of what was done.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};
use weft_client::{Client, ErrorKind, Options, PublisherOptions, ReadItem, ReadOptions, Reason};
use weft_proto::cloudevents::CloudEvent;

use crate::harness::pki::Authority;
use crate::harness::process::{Ended, finished, weft};
use crate::harness::{Cluster, eventually, within};

const SOON: Duration = Duration::from_mins(1);
const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.placed"}"#;

/// A cluster of one node, and a home folder in which nobody has logged in.
struct Place {
    cluster: Cluster,
    home: PathBuf,
}

impl Place {
    async fn start() -> Self {
        let mut cluster = Cluster::new(1).await;
        cluster.nodes[0].sections.push_str("[access]\nenforced = true\n");
        cluster.start_all().await;
        let home = cluster.place.dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        Self { cluster, home }
    }

    fn endpoint(&self) -> String {
        self.cluster.nodes[0].endpoint()
    }

    fn login_file(&self) -> PathBuf {
        self.home.join("weft/login.toml")
    }

    /// The key that the node has shown to whoever started it.
    async fn first_key(&mut self) -> String {
        let node = &mut self.cluster.nodes[0];
        eventually(SOON, "the first key", async || {
            let log = node.running().log();
            log.split_ascii_whitespace()
                .find(|word| word.len() == 82 && word.starts_with("weft_"))
                .map(str::to_owned)
        })
        .await
    }

    /// Runs the command as somebody whose home this is.
    async fn run(&self, line: &str, input: &str) -> Ended {
        let mut command = weft();
        command.args(line.split(' ')).env("XDG_CONFIG_HOME", &self.home).env("HOME", &self.home);
        finished(command, input).await
    }

    /// Runs it and expects that it succeeds.
    async fn done(&self, line: &str, input: &str) -> String {
        let ended = self.run(line, input).await;
        assert_eq!(ended.code, Some(0), "weft {line}: {}", ended.stderr);
        ended.stdout
    }

    /// Runs it and expects that it is refused, with this in what it says.
    async fn refused(&self, line: &str, input: &str, expected: &str) {
        let ended = self.run(line, input).await;
        assert_eq!(ended.code, Some(1), "weft {line}: {} {}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(expected), "weft {line}: {}", ended.stderr);
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(line, "").await).unwrap()
    }

    async fn lines(&self, line: &str) -> Vec<Value> {
        let text = self.done(line, "").await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn apply(&self, manifests: Value) -> String {
        self.done("apply -f -", &manifests.to_string()).await
    }

    /// Logs in with the first key.
    async fn log_in(&mut self) -> String {
        let key = self.first_key().await;
        let endpoint = self.endpoint();
        let said = self.done(&format!("login --endpoint {endpoint}"), &format!("{key}\n")).await;
        assert!(said.contains("key:weft-system/bootstrap"), "{said}");
        key
    }
}

fn grant(name: &str, spec: &Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let metadata = json!({"namespace": namespace, "name": name});
    json!({"apiVersion": "weft/v1", "kind": "Grant", "metadata": metadata, "spec": spec})
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn whoever_logs_in_is_known_at_that_endpoint_and_nowhere_else() {
    let mut place = Place::start().await;
    let endpoint = place.endpoint();
    place.refused(&format!("status --endpoint {endpoint}"), "", "weft login --endpoint").await;
    let wrong = format!("login --endpoint {endpoint}");
    place.refused(&wrong, "weft_wrong", "UNAUTHENTICATED").await;
    assert!(!place.login_file().exists());

    let key = place.log_in().await;
    assert_eq!(mode(&place.login_file()), 0o600);
    assert_eq!(mode(place.login_file().parent().unwrap()), 0o700);
    let who = place.json("whoami -o json").await;
    assert_eq!(who["principal"], "key:weft-system/bootstrap");
    assert_eq!((&who["enforced"], &who["endpoints"]), (&json!(true), &json!([endpoint])));
    assert!(!place.done("whoami", "").await.contains(&key));
    place.done("status", "").await;

    // The same node by another name is another place.
    let other = endpoint.replace("127.0.0.1", "localhost");
    place.refused(&format!("status --endpoint {other}"), "", "a credential is needed").await;

    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(place.login_file(), open).unwrap();
    place.refused("status", "", "chmod 600 ").await;
    place.done("logout", "").await;
    assert!(!place.login_file().exists());
    let status = format!("status --endpoint {endpoint}");
    place.refused(&status, "", "a credential is needed").await;
}

#[tokio::test]
async fn a_key_may_do_what_a_grant_says_and_the_command_line_says_why() {
    let mut place = Place::start().await;
    place.log_in().await;
    let endpoint = place.endpoint();
    place.done("stream create shop/orders", "").await;

    let file = place.home.join("writer.key");
    let out = file.display();
    let create = format!("key create writer --namespace shop --expires 90d --out {out} -o json");
    let made = place.json(&create).await;
    assert_eq!((&made["principal"], &made["secret"]), (&json!("key:shop/writer"), &Value::Null));
    assert_eq!(mode(&file), 0o600);
    place.refused(&create, "", "not overwritten").await;
    let ended = place.run("key create shop/reader", "").await;
    let reader = ended.stdout.trim();
    assert!(reader.starts_with("weft_") && !reader.contains(char::is_whitespace), "{reader}");
    assert!(!ended.stderr.contains(reader), "{}", ended.stderr);
    let reader_file = place.home.join("reader.key");
    std::fs::write(&reader_file, reader).unwrap();

    let as_writer = format!("--endpoint {endpoint} --token-file {out}");
    let publish = format!("publish shop/orders {as_writer}");
    place.refused(&publish, EVENT, "weft access explain key:shop/writer").await;
    let spec = json!({"principals": ["key:shop/writer"], "role": "writer", "types": ["order.*"]});
    let limit = json!({
        "apiVersion": "weft/v1", "kind": "Limit",
        "metadata": {"namespace": "weft-system", "name": "writers"},
        "spec": {"principals": ["key:shop/writer"], "requests_per_second": 1000},
    });
    let said = place.apply(json!([grant("shop/writers", &spec), limit])).await;
    assert!(said.contains("grant shop/writers: created"), "{said}");
    assert!(said.contains("limit weft-system/writers: created"), "{said}");
    place.done(&publish, EVENT).await;

    let explain = "access explain key:shop/writer publish shop/orders";
    let explained = place.json(&format!("{explain} -o json")).await;
    assert_eq!(explained["verdict"], "some-events");
    assert_eq!(explained["grants"][0]["grant"], "shop/writers");
    assert!(place.done(explain, "").await.contains("types order.*"));
    let denied = place.json("access explain key:shop/writer read shop/orders -o json").await;
    assert_eq!(denied["verdict"], "denied");

    let table = place.done("get grants", "").await;
    assert!(table.contains("PRINCIPALS") && table.contains("shop/*"), "{table}");
    let table = place.done("access grants key:shop/writer", "").await;
    assert!(table.contains("writer") && !table.contains("bootstrap"), "{table}");
    let table = place.done("get limits", "").await;
    assert!(table.contains("requests_per_second=1000"), "{table}");
    place.done("delete limit weft-system/writers", "").await;

    let keys = place.lines("key list --namespace shop -o json").await;
    let id = keys.iter().find(|key| key["principal"] == "key:shop/reader").unwrap();
    let id = id["id"].as_str().unwrap().to_owned();
    let whoami = format!("whoami --endpoint {endpoint} --token-file {}", reader_file.display());
    place.done(&whoami, "").await;
    place.done(&format!("key revoke {id}"), "").await;
    place.refused(&whoami, "", "UNAUTHENTICATED").await;
}

#[tokio::test]
async fn the_record_holds_and_what_was_kept_of_it_is_found_again() {
    let mut place = Place::start().await;
    place.log_in().await;
    place.done("stream create shop/orders", "").await;
    place.done("key create shop/writer", "").await;
    let login = format!("login --endpoint {}", place.endpoint());
    place.refused(&login, "weft_wrong", "the credential is not valid").await;

    let found = place.json("audit verify -o json").await;
    assert_eq!((&found["holds"], &found["first"]), (&json!(true), &json!(0)), "{found}");
    let (last, hash) = (found["last"].as_u64().unwrap(), found["hash"].as_str().unwrap());
    assert_eq!(found["records"].as_u64(), Some(last + 1));

    place.done("stream create shop/more", "").await;
    let text = place.done(&format!("audit verify --expect {last}:{hash}"), "").await;
    assert!(text.contains("the chain holds"), "{text}");
    let other = hash.replace(|digit: char| digit.is_ascii_digit(), "a");
    let wrong = format!("audit verify --expect {last}:{other}");
    place.refused(&wrong, "", &format!("broken at offset {last}")).await;
    let gone = format!("audit verify --from {} --expect {last}:{hash}", last + 1);
    place.refused(&gone, "", &format!("broken at offset {last}")).await;

    let acts = place.lines("audit show --principal key:weft-system/bootstrap -o json").await;
    let all: Vec<_> = acts.iter().map(|act| act["act"].as_str().unwrap()).collect();
    assert!(all.contains(&"put") && all.contains(&"create-key"), "{all:?}");
    assert!(place.done("audit show", "").await.contains("shop/orders"));
    // Refusals wait a moment for others like them.
    eventually(SOON, "the refusal in the record", async || {
        let denied = place.lines("audit show --from -1h --denied -o json").await;
        denied.iter().any(|entry| entry["act"] == "unauthenticated").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replaced_key_keeps_a_reader_and_a_publisher_going_when_the_old_one_is_revoked() {
    let mut place = Place::start().await;
    place.log_in().await;
    place.done("stream create shop/orders", "").await;
    let spec = json!({
        "principals": ["key:shop/app"], "verbs": ["view", "read", "publish"],
    });
    place.apply(json!([grant("shop/app", &spec)])).await;
    let (old, new) = (place.home.join("app.key"), place.home.join("new.key"));
    let made = place.json(&format!("key create shop/app --out {} -o json", old.display())).await;

    let options = Options { token_file: Some(old.clone()), ..Options::new([place.endpoint()]) };
    let client = Client::connect(&options).unwrap();
    let mut reader = client.read(ReadOptions::follow("shop/orders")).await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), Some(ReadItem::CaughtUp)));
    let publisher = client.publisher("shop/orders", PublisherOptions::default()).await.unwrap();
    let publish = async |id: &str| publisher.publish(event(id)).await;
    publish("1").await.unwrap();

    place.done(&format!("key create shop/app --out {}", new.display()), "").await;
    std::fs::rename(&new, &old).unwrap();
    place.done(&format!("key revoke {}", made["id"].as_str().unwrap()), "").await;

    publish("2").await.unwrap();
    let mut seen = 0;
    while seen < 2 {
        let item = within(SOON, "the event", reader.next()).await.unwrap().unwrap();
        let ReadItem::Batch(batch) = item else { panic!("{item:?}") };
        seen += batch.events.len();
    }

    // With nothing to take its place, the end of a key is the end of both.
    let keys = place.lines("key list --namespace shop -o json").await;
    place.done(&format!("key revoke {}", keys[0]["id"].as_str().unwrap()), "").await;
    let error = within(SOON, "the end of the read", reader.next()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unauthenticated, "{error}");
    // An event that was on its way when the stream ended is one of unknown fate.
    eventually(SOON, "the refusal", async || {
        publish("3").await.err().filter(|error| error.kind() == ErrorKind::Denied)
    })
    .await;
}

#[tokio::test]
async fn an_administrator_with_a_certificate_gets_in_when_all_keys_are_lost() {
    let mut cluster = Cluster::new(1).await;
    let home = cluster.place.dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let file = |name: &str, text: &str| {
        let path = home.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let authority = Authority::new("all");
    let ca = file("ca.pem", &authority.pem);
    let server = authority.sign(&["127.0.0.1"], &[ExtendedKeyUsagePurpose::ServerAuth]);
    let who = ["spiffe://weft.example/rescue"];
    let rescue = authority.sign(&who, &[ExtendedKeyUsagePurpose::ClientAuth]);
    let certificate = file("server.pem", &server.certificate);
    let key = file("server.key", &server.key);
    cluster.nodes[0].sections = format!(
        "[security]\ncertificate = {certificate:?}\nkey = {key:?}\nclient_ca = {ca:?}\n\
         [access]\nenforced = true\nadmins = [\"cert:spiffe://weft.example/rescue\"]\n"
    );
    cluster.nodes[0].start();
    let shown = (file("rescue.pem", &rescue.certificate), file("rescue.key", &rescue.key));
    let place = Place { cluster, home: home.clone() };
    let endpoint = place.endpoint().replace("http:", "https:");
    let at = format!("--endpoint {endpoint} --ca-file {ca}");
    let with = format!("{at} --cert-file {} --key-file {}", shown.0, shown.1);

    let who = eventually(SOON, "an answer", async || {
        let ended = place.run(&format!("whoami -o json {with}"), "").await;
        (ended.code == Some(0)).then_some(ended.stdout)
    })
    .await;
    let who: Value = serde_json::from_str(&who).unwrap();
    assert_eq!(who["principal"], "cert:spiffe://weft.example/rescue");
    let root = home.join("root.key");
    let create = format!("key create weft-system/bootstrap --out {} {with}", root.display());
    place.done(&create, "").await;
    place.done(&format!("login --token-file {} {at}", root.display()), "").await;
    place.done("status", "").await;
    place.refused(&format!("status --endpoint {endpoint} --cert-file x"), "", "--key-file").await;
}

fn event(id: &str) -> CloudEvent {
    CloudEvent {
        id: id.to_owned(),
        source: "/shop".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "order.placed".to_owned(),
        ..CloudEvent::default()
    }
}
