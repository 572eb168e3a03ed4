//! Tokens at the door: who they make of whoever brings them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use weft_proto::resource::Verb;
use weft_proto::{QualifiedName, Reason};

use super::signer::{self, Signer};
use super::{Running, config};
use crate::access::jwt::Limits;
use crate::access::{Access, Certificate, Rules, Settings, Shown, authorize};
use crate::audit::Audit;
use crate::clock;

const ISSUER: &str = "https://id.example";

/// Claims that are right now: the door knows one clock.
fn claims(extra: &[(&str, Value)]) -> Value {
    let now = clock::now().as_micros() / 1_000_000;
    let mut claims = json!({"iss": ISSUER, "aud": "weft", "sub": "alice", "exp": now + 60});
    for (name, value) in extra {
        claims[name] = value.clone();
    }
    claims
}

/// A door that takes tokens of one issuer, whose keys are in a file.
struct World {
    access: Access,
    file: PathBuf,
    _folder: TempDir,
    _running: Running,
    _rules: watch::Sender<Arc<Rules>>,
}

impl World {
    fn new(signer: &Signer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        publish(&file, signer);
        let configs = [super::IssuerConfig { jwks_file: Some(file.clone()), ..config(ISSUER) }];
        let often = Limits { refresh: Duration::from_millis(10), ..Limits::default() };
        let running = Running::start(&configs, often);
        let settings = Settings {
            enforced: true,
            admins: vec!["group:staff:ops".to_owned()],
            ..Settings::default()
        };
        let (rules, seen) = watch::channel(Arc::default());
        let access = Access::new(settings, seen, Some(running.issuers.clone()), Audit::none());
        Self { access, file, _folder: folder, _running: running, _rules: rules }
    }
}

/// The issuer has this key, and no other.
fn publish(file: &Path, signer: &Signer) {
    std::fs::write(file, json!({"keys": [signer.jwk()]}).to_string()).unwrap();
}

fn bearer(signer: &Signer, claims: &Value) -> String {
    format!("Bearer {}", signer.token(claims))
}

#[tokio::test]
async fn a_token_makes_a_principal_with_groups_until_it_expires() {
    let signer = Signer::es256("one");
    let world = World::new(&signer);
    let access = &world.access;
    let bearer = |claims: &Value| bearer(&signer, claims);
    let anything: QualifiedName = "any/thing".parse().unwrap();
    let text = bearer(&claims(&[("groups", json!(["ops", "on call"]))]));
    let shown = Shown { authorization: Some(&text), ..Shown::default() };

    let caller = access.authenticate(shown).await.unwrap();

    assert_eq!(caller.principal().name(), "jwt:staff:alice");
    assert_eq!(caller.groups(), ["group:staff:ops", "group:staff:on call"]);
    assert!(caller.expires().is_some());
    authorize(&caller, Verb::Govern, &anything).unwrap();

    // The same person without the group may do nothing.
    let text = bearer(&claims(&[]));
    let shown = Shown { authorization: Some(&text), ..Shown::default() };
    let caller = access.authenticate(shown).await.unwrap();
    let denied = authorize(&caller, Verb::Read, &anything).unwrap_err();
    assert_eq!(denied.reason(), Reason::PermissionDenied);

    // What is wrong with a token is for the record, not for the caller.
    for wrong in [
        bearer(&claims(&[("aud", json!("other"))])),
        bearer(&claims(&[("exp", json!(1_000_000))])),
        format!("{}x", bearer(&claims(&[]))),
    ] {
        let shown = Shown { authorization: Some(&wrong), ..Shown::default() };
        let error = access.authenticate(shown).await.unwrap_err();
        assert_eq!(error.message(), "the credential is not valid", "{wrong}");
    }

    // A token that belongs to a certificate is nothing without it, cached or not.
    let text = bearer(&claims(&[("cnf", json!({"x5t#S256": signer::encode([7; 32])}))]));
    let uris = Vec::new();
    let on = |thumbprint| Shown {
        authorization: Some(&text),
        certificate: Some(Certificate {
            uris: &uris,
            not_after: clock::now().saturating_add(Duration::from_mins(1)),
            thumbprint,
        }),
        remote: None,
    };
    access.authenticate(on([7; 32])).await.unwrap();
    for shown in [on([8; 32]), Shown { certificate: None, ..on([7; 32]) }] {
        let error = access.authenticate(shown).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Unauthenticated);
    }

    // It ends while a call goes on.
    let soon = clock::now().as_micros() / 1_000_000 + 2;
    let text = bearer(&claims(&[("exp", json!(soon))]));
    let shown = Shown { authorization: Some(&text), ..Shown::default() };
    let caller = access.authenticate(shown).await.unwrap().standing();
    let ended = caller.until_lost().await;
    assert_eq!(ended.reason(), Reason::Unauthenticated);
}

/// Of those either that were let in.
#[tokio::test]
async fn a_key_that_its_issuer_has_withdrawn_proves_nothing_more() {
    let signer = Signer::es256("one");
    let world = World::new(&signer);
    let text = bearer(&signer, &claims(&[]));
    let shown = Shown { authorization: Some(&text), ..Shown::default() };
    let open = world.access.authenticate(shown).await.unwrap().standing();

    publish(&world.file, &Signer::es256("two"));

    let refused = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match world.access.authenticate(shown).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => return error.reason(),
            }
        }
    });
    assert_eq!(refused.await.unwrap(), Reason::Unauthenticated);
    // A call that goes on ends long before its token would.
    let ended = tokio::time::timeout(Duration::from_secs(20), open.until_lost()).await.unwrap();
    assert_eq!(ended.reason(), Reason::Unauthenticated);
    assert!(ended.message().contains("withdrawn the key"), "{ended}");
}
