//! The ports for clients: who is let in, and what the others read.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_broker::config::Config;
use weft_client::{Client, ErrorKind, Options, Reason, Timeouts};

use crate::node::{Files, Running, client, configs, options, secured};
use crate::pki::Authority;

/// Gives up soon: what is wrong stays wrong.
fn impatient(options: Options) -> Options {
    let call = std::time::Duration::from_secs(1);
    Options { timeouts: Timeouts { call, ..options.timeouts }, ..options }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_key_is_let_in() {
    let (_files, clients, config, running, key) = secured().await;

    for (token, expected) in [
        (None, "a credential is needed"),
        (Some("another-token-0123456789"), "the credential is not valid"),
        (Some(&key[1..]), "the credential is not valid"),
    ] {
        let error = client(&config, &clients, token).status().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{token:?}");
        assert_eq!(error.reason(), Reason::Unauthenticated, "{token:?}");
        assert!(error.message().contains(expected), "{error}");
    }
    assert!(client(&config, &clients, Some(&key)).status().await.is_ok());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_trusts_another_authority_reads_about_certificates() {
    let (_files, clients, config, running, key) = secured().await;
    // The same name does not help.
    let other = Authority::new("clients");
    let tls = |ca: &Authority, name: Option<&str>| weft_client::Tls {
        ca_pem: ca.pem.clone(),
        server_name: name.map(str::to_owned),
        ..weft_client::Tls::default()
    };

    for (tls, expected) in [
        (tls(&other, None), "invalid peer certificate"),
        (tls(&clients, Some("elsewhere.example")), "certificate not valid for name"),
    ] {
        let options = impatient(options(&format!("https://{}", config.listen.grpc), Some(&key)));
        let client = Client::connect(&Options { tls: Some(tls), ..options }).unwrap();
        let error = client.status().await.unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_text_gets_no_answer_and_a_hint() {
    let (_files, _clients, config, running, key) = secured().await;
    let endpoint = format!("http://{}", config.listen.grpc);

    let plain = Client::connect(&impatient(options(&endpoint, Some(&key)))).unwrap();
    // The kernel may throw away the alert with the connection, but not always.
    let mut hinted = false;
    for _ in 0..200 {
        let error = plain.status().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        hinted |= error.message().contains("try an https");
        if hinted {
            break;
        }
    }

    assert!(hinted, "200 refusals, and no hint");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_tls_is_told_from_one_that_is_gone() {
    let files = Files::new();
    let config = configs(1, &files).remove(0);
    let running = Running::start(config.clone());
    let plain = format!("http://{}", config.listen.grpc);
    Client::connect(&options(&plain, None)).unwrap().status().await.unwrap();

    let secure = impatient(options(&format!("https://{}", config.listen.grpc), None));
    let tls = weft_client::Tls { ca_pem: Authority::new("x").pem, ..weft_client::Tls::default() };
    let secure = Client::connect(&Options { tls: Some(tls), ..secure }).unwrap();
    let error = secure.status().await.unwrap_err();

    assert!(error.message().contains("try an http://"), "{error}");
    running.stop().await;
}

/// The status line and the body of an answer.
async fn get(config: &Config, ca: &Authority, path: &str, token: Option<&str>) -> (String, String) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp = TcpStream::connect(&config.listen.http).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n",
        token.unwrap_or_default()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_encrypted_and_metrics_need_a_key() {
    let (_files, clients, config, running, key) = secured().await;

    let alive = get(&config, &clients, "/livez", None).await;
    let refused = get(&config, &clients, "/metrics", None).await;
    let wrong = get(&config, &clients, "/metrics", Some("another-token-0123456789")).await;
    let shown = get(&config, &clients, "/metrics", Some(&key)).await;
    let mut plain = TcpStream::connect(&config.listen.http).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.ok();

    assert_eq!(alive, ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    assert_eq!(refused.0, "HTTP/1.1 401 Unauthorized");
    assert!(refused.1.contains("a credential is needed"), "{}", refused.1);
    assert_eq!(wrong.0, "HTTP/1.1 401 Unauthorized");
    // This process records no metrics; the key was enough to be told so.
    assert_eq!(shown.0, "HTTP/1.1 404 Not Found");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handshake_holds_up_nobody() {
    let (_files, clients, config, running, key) = secured().await;

    // More than may be in their handshake at once would be needed to hold up others.
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(&config.listen.http).await.unwrap());
        silent.push(TcpStream::connect(&config.listen.grpc).await.unwrap());
    }
    let alive = get(&config, &clients, "/livez", None).await;
    let status = client(&config, &clients, Some(&key)).status().await;

    assert_eq!(alive.0, "HTTP/1.1 200 OK");
    assert!(status.is_ok(), "{status:?}");
    drop(silent);
    running.stop().await;
}
