//! A receiver of webhooks on loopback, by HTTPS: answers as it is told, and remembers what it was sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::harness::pki::{Authority, BOTH};

/// A request, as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
    pub(super) at: Instant,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The ids of the events in it, in any mode.
    pub(super) fn ids(&self) -> Vec<String> {
        let id = |event: &serde_json::Value| event["id"].as_str().unwrap().to_owned();
        match self.header("content-type").split(';').next().unwrap() {
            "application/cloudevents+json" => vec![id(&serde_json::from_str(&self.body).unwrap())],
            "application/cloudevents-batch+json" => {
                let events: Vec<serde_json::Value> = serde_json::from_str(&self.body).unwrap();
                events.iter().map(id).collect()
            }
            _ => vec![self.header("ce-id").to_owned()],
        }
    }
}

/// Status, headers, body.
pub(super) type Reply = (u16, Vec<(&'static str, String)>, String);
/// What is answered to a POST, given how many came to its path before.
pub(super) type Rule = Box<dyn Fn(&Seen, usize) -> Reply + Send>;

pub(super) fn status(status: u16) -> Reply {
    (status, Vec::new(), String::new())
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    rules: BTreeMap<String, Rule>,
    /// Answers to the question for consent, by path.
    consent: BTreeMap<String, Reply>,
    connections: usize,
}

/// The receiver. It ends with the test.
pub(super) struct Receiver {
    pub(super) port: u16,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    /// Listens on an address of loopback, with a certificate of the authority.
    pub(super) async fn start(host: &str, authority: &Authority) -> Self {
        let signed = authority.sign(&["localhost", "127.0.0.1", "127.0.0.2"], BOTH);
        let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().connections += 1;
                connections.spawn(serve(stream, acceptor.clone(), Arc::clone(&shared)));
            }
        });
        Self { port, state, _tasks: tasks }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// From now on, POST to this path is answered so.
    pub(super) fn rule(&self, path: &str, rule: impl Fn(&Seen, usize) -> Reply + Send + 'static) {
        self.state.lock().unwrap().rules.insert(path.to_owned(), Box::new(rule));
    }

    /// From now on, the question for consent is answered so. Without it, everybody may.
    pub(super) fn consent(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().consent.insert(path.to_owned(), reply);
    }

    /// What came to a path by POST.
    pub(super) fn posts(&self, path: &str) -> Vec<Seen> {
        self.requests(path).into_iter().filter(|seen| seen.method == "POST").collect()
    }

    /// What came to a path.
    pub(super) fn requests(&self, path: &str) -> Vec<Seen> {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|seen| seen.path == path).cloned().collect()
    }

    pub(super) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let mut stream = BufReader::new(stream);
    while let Some(seen) = read(&mut stream).await {
        let (status, headers, body) = state.lock().unwrap().answer(seen);
        let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text.push_str(&body);
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

impl State {
    fn answer(&mut self, seen: Seen) -> Reply {
        let path = seen.path.clone();
        let before = |seen: &&Seen| seen.path == path && seen.method == "POST";
        let count = self.seen.iter().filter(before).count();
        let reply = if seen.method == "OPTIONS" {
            let everybody = (200, vec![("webhook-allowed-origin", "*".to_owned())], String::new());
            self.consent.get(&path).cloned().unwrap_or(everybody)
        } else {
            self.rules.get(&path).map_or_else(|| status(204), |rule| rule(&seen, count))
        };
        self.seen.push(seen);
        reply
    }
}

async fn read(stream: &mut BufReader<tokio_rustls::server::TlsStream<TcpStream>>) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|&length| length > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|&length| length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Seen { method, path, headers, body, at: Instant::now() })
}
