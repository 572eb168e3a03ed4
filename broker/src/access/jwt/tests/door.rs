//! Tokens at the door: who they make of whoever brings them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use weft_proto::resource::Verb;
use weft_proto::{QualifiedName, Reason};

use super::signer::{self, Signer};
use super::{Running, config};
use crate::access::jwt::Limits;
use crate::access::{Access, Certificate, Settings, Shown, authorize};
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

#[tokio::test]
async fn a_token_makes_a_principal_with_groups_until_it_expires() {
    let signer = Signer::es256("one");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, json!({"keys": [signer.jwk()]}).to_string()).unwrap();
    let configs = [super::IssuerConfig { jwks_file: Some(file), ..config(ISSUER) }];
    let running = Running::start(&configs, Limits::default());
    let settings = Settings {
        enforced: true,
        admins: vec!["group:staff:ops".to_owned()],
        ..Settings::default()
    };
    let (_rules, seen) = watch::channel(std::sync::Arc::default());
    let access = Access::new(settings, seen, Some(running.issuers.clone()), Audit::none());
    let anything: QualifiedName = "any/thing".parse().unwrap();
    let bearer = |claims: &Value| format!("Bearer {}", signer.token(claims));
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
