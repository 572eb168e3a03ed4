//! What an issuer may answer, and over which connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::provider::Answer;
use super::*;

fn limits() -> Limits {
    Limits { refresh: Duration::from_hours(1), ..Limits::default() }
}

fn text(status: u16, kind: &'static str, body: impl Into<String>) -> Answer {
    Answer::Other(status, kind, body.into())
}

const JSON: &str = "application/json";

/// Makes the provider answer something else.
type Change<'a> = &'a dyn Fn(&Provider, &Signer);

/// What becomes of a good token when the issuer's first answers are these.
async fn verified_after(change: impl FnOnce(&Provider, &Signer)) -> Result<(), JwtError> {
    let signer = Signer::es256("a");
    let provider = Provider::start(&[&signer]).await;
    change(&provider, &signer);
    let limits = Limits { fetch_timeout: Duration::from_millis(500), ..limits() };
    let running = Running::start(&[config(&provider.url)], limits);
    running.verify(&signer.token(&good_claims(&provider.url))).await.map(|_| ())
}

#[tokio::test]
async fn answers_that_are_wrong_in_any_way_are_not_used() {
    let described =
        |issuer: String, keys: String| Answer::Json(json!({"issuer": issuer, "jwks_uri": keys}));
    let description = |answer: fn(&str) -> Answer| {
        move |provider: &Provider, _: &Signer| provider.answer_description(answer(&provider.url))
    };
    let keys = |answer: fn(Value) -> Answer| {
        move |provider: &Provider, signer: &Signer| provider.answer_keys(answer(signer.jwk()))
    };
    let other_name = move |provider: &Provider, _: &Signer| {
        let url = &provider.url;
        provider
            .answer_description(described("https://id.example".to_owned(), format!("{url}/keys")));
    };
    let slash = move |provider: &Provider, _: &Signer| {
        let url = &provider.url;
        provider.answer_description(described(format!("{url}/"), format!("{url}/keys")));
    };
    let plain = move |provider: &Provider, _: &Signer| {
        let keys = "http://id.example/keys".to_owned();
        provider.answer_description(described(provider.url.clone(), keys));
    };
    let file = move |provider: &Provider, _: &Signer| {
        let keys = "file:///etc/passwd".to_owned();
        provider.answer_description(described(provider.url.clone(), keys));
    };
    let cases: &[(&str, Change<'_>)] = &[
        ("another issuer", &other_name),
        ("a slash more", &slash),
        ("keys in plain text elsewhere", &plain),
        ("keys in a file", &file),
        ("no description", &description(|_| text(404, JSON, "{}"))),
        ("no JSON", &description(|_| text(200, JSON, "<html>"))),
        ("no address of keys", &description(|url| Answer::Json(json!({"issuer": url})))),
        ("described by a redirect", &description(|url| Answer::Redirect(format!("{url}/keys")))),
        ("silence", &description(|_| Answer::Silence)),
        ("keys by a redirect", &keys(|_| Answer::Redirect("/keys".to_owned()))),
        ("silence about keys", &keys(|_| Answer::Silence)),
        (
            "an error that looks good",
            &keys(|jwk| text(500, JSON, json!({"keys": [jwk]}).to_string())),
        ),
        ("a page", &keys(|jwk| text(200, "text/html", json!({"keys": [jwk]}).to_string()))),
        (
            "too large",
            &keys(|jwk| Answer::Json(json!({"keys": [jwk], "x": "x".repeat(256 << 10)}))),
        ),
        ("keys twice", &keys(|jwk| text(200, JSON, format!(r#"{{"keys":[],"keys":[{jwk}]}}"#)))),
        ("no list", &keys(|jwk| Answer::Json(json!({"keys": jwk})))),
        ("a list only", &keys(|jwk| Answer::Json(json!([jwk])))),
        ("no key in the list", &keys(|jwk| Answer::Json(json!({"keys": [jwk, 1]})))),
        (
            "a malformed id",
            &keys(|jwk| Answer::Json(json!({"keys": [jwk, {"kty": "RSA", "kid": 1}]}))),
        ),
        ("too many keys", &keys(|jwk| Answer::Json(json!({"keys": vec![jwk; 65]})))),
    ];
    for (what, change) in cases {
        let verified = verified_after(change).await;
        assert_eq!(verified, Err(JwtError::KeysUnavailable), "{what}");
    }
    assert_eq!(verified_after(|_, _| {}).await, Ok(()));
    let as_key_set = keys(|jwk| {
        let body = json!({"keys": [jwk, {"kty": "new"}]}).to_string();
        text(200, "application/jwk-set+json; charset=utf-8", body)
    });
    assert_eq!(verified_after(as_key_set).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_caller_does_not_wait_for_ever_when_nobody_asks() {
    let signer = Signer::es256("a");
    let issuers = Issuers::new(&[config("http://127.0.0.1:9")], limits()).unwrap();

    let verified = issuers.verify(&signer.token(&good_claims("http://127.0.0.1:9")), now()).await;

    assert_eq!(verified.map(|_| ()), Err(JwtError::KeysUnavailable));
}

#[tokio::test]
async fn it_stops_when_told_whatever_the_issuer_does() {
    let provider = Provider::start(&[]).await;
    provider.answer_description(Answer::Silence);
    let issuers = Issuers::new(&[config(&provider.url)], limits()).unwrap();
    let stop = CancellationToken::new();
    let mut running = Box::pin(issuers.run(stop.clone()));
    assert!(futures::poll!(running.as_mut()).is_pending());

    stop.cancel();

    running.await;
}

/// Accepts encrypted connections, one after the other.
struct Encrypted {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (tcp, address) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(tcp).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

#[tokio::test]
async fn only_an_issuer_that_the_configured_authority_vouches_for_is_heard() {
    let signer = Signer::es256("a");
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        (rcgen::Issuer::new(params, key), file)
    };
    let ((ours, our_file), (_, other_file)) = (authority("ours.pem"), authority("other.pem"));
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let listener = Encrypted { tcp, acceptor: TlsAcceptor::from(Arc::new(tls)) };
    let url = format!("https://localhost:{port}");
    let provider = Provider::serve(listener, url.clone(), &[&signer]);
    let token = signer.token(&good_claims(&url));

    let trusting = |file| IssuerConfig { ca_file: Some(file), ..config(&url) };
    let running = Running::start(&[trusting(other_file)], limits());
    assert_eq!(running.verify(&token).await, Err(JwtError::KeysUnavailable));
    assert_eq!(provider.asked(), 0);
    let running = Running::start(&[trusting(our_file.clone())], limits());
    assert!(running.verify(&token).await.is_ok());

    // Right authority, other name.
    let url = format!("https://127.0.0.1:{port}");
    let misnamed = IssuerConfig { ca_file: Some(our_file), ..config(&url) };
    let running = Running::start(&[misnamed], limits());
    let verified = running.verify(&signer.token(&good_claims(&url))).await;
    assert_eq!(verified, Err(JwtError::KeysUnavailable));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let key_of = |change: &dyn Fn(&mut IssuerConfig)| {
        let mut config = IssuerConfig::new("a", "https://id.example", "weft");
        change(&mut config);
        Issuers::new(&[config], Limits::default()).err().map(|error| error.key)
    };
    let (empty, damaged) = (file("empty", ""), file("damaged", "{\"keys\":1}"));
    let large = file("large", &format!("{{\"keys\":[]{}}}", " ".repeat(256 << 10)));
    let missing = folder.path().join("missing");

    for path in [&empty, &missing] {
        let key = key_of(&|config| config.ca_file = Some(path.clone()));
        assert_eq!(key, Some("access.issuers.ca_file"));
    }
    for path in [&empty, &damaged, &large, &missing] {
        let key = key_of(&|config| config.jwks_file = Some(path.clone()));
        assert_eq!(key, Some("access.issuers.jwks_file"));
    }
    let one = IssuerConfig::new("a", "http://localhost:1", "weft");
    let same_url = IssuerConfig { name: "b".to_owned(), ..one.clone() };
    let same_name = IssuerConfig { url: "http://localhost:2".to_owned(), ..one.clone() };
    for other in [same_url, same_name] {
        let error = Issuers::new(&[one.clone(), other], Limits::default()).unwrap_err();
        assert_eq!(error.key, "access.issuers");
    }
}
