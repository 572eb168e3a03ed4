//! Keys come and go, and so does the issuer.

use std::time::Duration;

use super::keys::{RSA_1, RSA_2};
use super::provider::Answer;
use super::*;

const LONG: Duration = Duration::from_hours(1);
/// For what must happen: far beyond what it takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// Nothing is asked for again before a token wants it.
fn at_once() -> Limits {
    Limits { retry_min: Duration::ZERO, refresh: LONG, ..Limits::default() }
}

/// Asks again and again.
fn often() -> Limits {
    Limits {
        retry_min: Duration::from_millis(1),
        refresh: Duration::from_millis(10),
        ..Limits::default()
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap()
}

#[tokio::test]
async fn a_new_key_is_asked_for_when_its_first_token_comes() {
    let (old, new) = (Signer::es256("old"), Signer::eddsa("new"));
    let provider = Provider::start(&[&old]).await;
    let running = Running::start(&[config(&provider.url)], at_once());
    let claims = good_claims(&provider.url);
    let by_old = old.token(&claims);
    assert!(running.verify(&by_old).await.is_ok());
    let asked = provider.asked();

    provider.set_keys(&[&old, &new]);

    assert!(running.verify(&new.token(&claims)).await.is_ok());
    assert_eq!(provider.asked(), asked + 2);
    // The old key is the same as before: what it proved still counts.
    assert!(running.has_cached(&by_old));
    assert!(running.verify(&by_old).await.is_ok());
    assert_eq!(provider.asked(), asked + 2);
}

#[tokio::test]
async fn tokens_cannot_make_it_ask_more_often_than_it_may() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let provider = Provider::start(&[&old]).await;
    let rarely = Limits { retry_min: LONG, refresh: LONG, ..Limits::default() };
    let running = Running::start(&[config(&provider.url)], rarely);
    let claims = good_claims(&provider.url);
    assert!(running.verify(&old.token(&claims)).await.is_ok());

    provider.set_keys(&[&new]);
    for _ in 0..100 {
        let verified = soon(running.verify(&new.token(&claims))).await;
        assert_eq!(verified, Err(JwtError::KeyUnknown));
    }

    assert_eq!(provider.asked(), 2);
    assert!(running.verify(&old.token(&claims)).await.is_ok());
}

#[tokio::test]
async fn many_callers_wait_for_one_fetch() {
    let signer = Signer::es256("a");
    let provider = Provider::start(&[&signer]).await;
    let rarely = Limits { retry_min: LONG, refresh: LONG, ..Limits::default() };
    let running = Running::start(&[config(&provider.url)], rarely);
    let token = signer.token(&good_claims(&provider.url));

    let calls = (0..100).map(|_| running.verify(&token));
    let verified = futures::future::join_all(calls).await;

    assert!(verified.iter().all(Result::is_ok));
    assert_eq!(provider.asked(), 2);
}

#[tokio::test]
async fn too_many_callers_do_not_wait() {
    let signer = Signer::es256("a");
    let provider = Provider::start(&[&signer]).await;
    provider.answer_description(Answer::Silence);
    let few = Limits { waiting_max: 2, ..at_once() };
    let running = Running::start(&[config(&provider.url)], few);
    let token = signer.token(&good_claims(&provider.url));

    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(running.verify(&token))).collect();
    for call in &mut waiting {
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    assert_eq!(running.verify(&token).await, Err(JwtError::Busy));
    // Whoever goes away makes room.
    drop(waiting.pop());
    let mut next = Box::pin(running.verify(&token));
    assert!(futures::poll!(next.as_mut()).is_pending());
}

#[tokio::test]
async fn a_removed_key_proves_nothing_any_more() {
    let (old, new) = (Signer::rsa("old", "RS256", RSA_1), Signer::rsa("new", "RS256", RSA_2));
    let provider = Provider::start(&[&old, &new]).await;
    let running = Running::start(&[config(&provider.url)], often());
    let claims = good_claims(&provider.url);
    let (by_old, by_new) = (old.token(&claims), new.token(&claims));
    running.verify(&by_old).await.unwrap();
    running.verify(&by_new).await.unwrap();
    soon(running.asked_again()).await;
    assert!(running.has_cached(&by_old) && running.has_cached(&by_new));

    provider.set_keys(&[&new]);
    soon(running.asked_again()).await;

    assert!(!running.has_cached(&by_old) && running.has_cached(&by_new));
    assert_eq!(running.verify(&by_old).await, Err(JwtError::KeyUnknown));
    assert!(running.verify(&by_new).await.is_ok());

    provider.set_keys(&[]);
    soon(running.asked_again()).await;
    assert!(!running.has_cached(&by_new));
    assert_eq!(running.verify(&by_new).await, Err(JwtError::KeyUnknown));
}

#[tokio::test]
async fn another_key_of_the_same_id_is_another_key() {
    let (old, new) = (Signer::rsa("a", "RS256", RSA_1), Signer::rsa("a", "RS256", RSA_2));
    let provider = Provider::start(&[&old]).await;
    let running = Running::start(&[config(&provider.url)], often());
    let claims = good_claims(&provider.url);
    let (by_old, by_new) = (old.token(&claims), new.token(&claims));
    running.verify(&by_old).await.unwrap();

    provider.set_keys(&[&new]);
    soon(running.asked_again()).await;

    assert!(!running.has_cached(&by_old));
    assert_eq!(running.verify(&by_old).await, Err(JwtError::SignatureWrong));
    assert!(running.verify(&by_new).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_away_takes_nothing_with_it() {
    let signer = Signer::es256("a");
    let provider = Provider::start(&[&signer]).await;
    let running = Running::start(&[config(&provider.url)], often());
    let token = signer.token(&good_claims(&provider.url));
    running.verify(&token).await.unwrap();
    let strange = Signer::es256("b").token(&good_claims(&provider.url));

    drop(provider);
    soon(running.asked_again()).await;
    soon(running.asked_again()).await;

    assert!(running.has_cached(&token));
    assert!(running.verify(&token).await.is_ok());
    assert_eq!(soon(running.verify(&strange)).await, Err(JwtError::KeyUnknown));
}

#[tokio::test]
async fn keys_that_were_not_heard_of_for_too_long_are_not_used() {
    let signer = Signer::es256("a");
    let provider = Provider::start(&[&signer]).await;
    let limits = Limits { keys_kept: Duration::ZERO, ..often() };
    let running = Running::start(&[config(&provider.url)], limits);
    let token = signer.token(&good_claims(&provider.url));
    running.verify(&token).await.unwrap();

    provider.answer_keys(Answer::Other(503, "application/json", "{}".to_owned()));
    soon(running.asked_again()).await;

    assert!(!running.has_cached(&token));
    assert_eq!(soon(running.verify(&token)).await, Err(JwtError::KeysUnavailable));
    provider.set_keys(&[&signer]);
    soon(running.asked_again()).await;
    assert!(running.verify(&token).await.is_ok());
}

#[tokio::test]
async fn the_file_with_the_keys_is_read_again() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let write = |signer: &Signer| {
        std::fs::write(&file, json!({"keys": [signer.jwk()]}).to_string()).unwrap();
    };
    write(&old);
    let url = "https://id.example";
    let config = IssuerConfig { jwks_file: Some(file.clone()), ..config(url) };
    let running = Running::start(&[config], at_once());
    let by_old = old.token(&good_claims(url));
    assert!(running.verify(&by_old).await.is_ok());

    write(&new);

    assert!(running.verify(&new.token(&good_claims(url))).await.is_ok());
    assert!(!running.has_cached(&by_old));
    assert_eq!(soon(running.verify(&by_old)).await, Err(JwtError::KeyUnknown));
    // A damaged file is no reason to forget the keys.
    std::fs::write(&file, "{").unwrap();
    let attempts = running.attempts();
    assert_eq!(soon(running.verify(&by_old)).await, Err(JwtError::KeyUnknown));
    assert!(running.attempts() > attempts);
    assert!(running.verify(&new.token(&good_claims(url))).await.is_ok());
}
