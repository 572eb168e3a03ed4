//! Good tokens, and what comes out of them.

use serde_json::json;

use super::keys::{RSA_1, RSA_2};
use super::*;

#[tokio::test]
async fn a_token_of_each_algorithm_is_accepted() {
    let mut signers: Vec<_> = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
        .map(|algorithm| Signer::rsa("rsa", algorithm, RSA_1))
        .into();
    signers.extend([Signer::es256("p256"), Signer::es384("p384"), Signer::eddsa("ed")]);
    // The first key is that of all RSA algorithms.
    let published: Vec<_> = signers[5..].iter().collect();
    let provider = Provider::start(&published).await;
    let running = Running::start(&[config(&provider.url)], Limits::default());

    for signer in &signers {
        let token = signer.token(&good_claims(&provider.url));
        assert!(!running.has_cached(&token));

        let verified = running.verify(&token).await.unwrap();

        let expected = Verified {
            issuer: "staff".into(),
            subject: "alice".into(),
            groups: [].into(),
            expires: at(NOW_S + 600),
            certificate_thumbprint: None,
            key: verified.key.clone(),
        };
        assert_eq!(verified, expected, "{}", signer.algorithm);
        assert!(running.has_cached(&token), "{}", signer.algorithm);
    }
    assert_eq!(provider.asked(), 2);
}

#[tokio::test]
async fn whatever_may_differ_does() {
    let signer = Signer::es256("a");
    let provider = Provider::start(&[&signer]).await;
    let running = Running::start(&[config(&provider.url)], Limits::default());
    let longest = "a".repeat(255);

    for (name, value) in [
        ("aud", json!(["other", "weft"])),
        ("aud", json!(["weft"])),
        ("sub", json!("auth0|5f7c8ec7c33c6c004bbafe82")),
        ("sub", json!(longest)),
        ("nbf", json!(NOW_S)),
        ("nbf", json!(NOW_S + 30)),
        ("iat", json!(NOW_S + 30)),
        ("iat", json!(0)),
        ("exp", json!(NOW_S + 1)),
        // The last second of the leeway has not begun.
        ("exp", json!(NOW_S - 29)),
        ("exp", json!(253_402_300_799_u64)),
        ("groups", json!([])),
        ("groups", json!("one")),
        ("groups", json!(["team a", "Größe", "a/b:c"])),
        ("scope", json!("a b")),
        ("nested", json!([{"a": [{"a": [1, 2, {"a": null}]}]}])),
    ] {
        let mut claims = good_claims(&provider.url);
        claims[name] = value.clone();
        let verified = running.verify(&signer.token(&claims)).await;
        assert!(verified.is_ok(), "{name} = {value}: {verified:?}");
    }
    for (name, value) in [
        ("typ", json!("JWT")),
        ("typ", json!("application/at+JWT")),
        ("x5t", json!("of no interest")),
    ] {
        let mut header = signer.header();
        header[name] = value;
        let token = signer.sign(&header.to_string(), &good_claims(&provider.url).to_string());
        assert!(running.verify(&token).await.is_ok(), "{header}");
    }
}

#[tokio::test]
async fn without_a_key_id_the_only_key_that_fits_is_taken() {
    let (ec, ed) = (Signer::es256("a"), Signer::eddsa("b"));
    let provider = Provider::start(&[&ec, &ed]).await;
    let running = Running::start(&[config(&provider.url)], Limits::default());
    let claims = good_claims(&provider.url).to_string();

    assert!(running.verify(&ec.sign(r#"{"alg":"ES256"}"#, &claims)).await.is_ok());
    assert!(running.verify(&ed.sign(r#"{"alg":"EdDSA"}"#, &claims)).await.is_ok());
    assert!(running.verify(&ed.sign(r#"{"alg":"Ed25519"}"#, &claims)).await.is_ok());
}

#[tokio::test]
async fn groups_and_the_bound_certificate_come_out() {
    let signer = Signer::rsa("a", "RS256", RSA_1);
    let provider = Provider::start(&[&signer]).await;
    let running = Running::start(&[config(&provider.url)], Limits::default());
    let mut claims = good_claims(&provider.url);
    claims["groups"] = json!(["ops", "dev"]);
    claims["cnf"] = json!({"x5t#S256": signer::encode([7; 32])});

    let verified = running.verify(&signer.token(&claims)).await.unwrap();

    assert_eq!(verified.groups[..], ["ops".into(), "dev".into()]);
    assert_eq!(verified.certificate_thumbprint, Some([7; 32]));
}

#[tokio::test]
async fn a_verified_token_is_remembered_until_it_expires_and_no_longer() {
    let signer = Signer::es256("a");
    let provider = Provider::start(&[&signer]).await;
    let running = Running::start(&[config(&provider.url)], Limits::default());
    let token = signer.token(&good_claims(&provider.url));
    running.verify(&token).await.unwrap();
    let cached = |token: &str, seconds| running.issuers.cached(token, at(seconds)).is_some();

    assert!(cached(&token, NOW_S + 599));
    assert!(!cached(&format!("{token}A"), NOW_S));
    assert!(!cached(&token[..token.len() - 1], NOW_S));
    assert!(!cached(&token, NOW_S + 600));
    // Expired: it is gone, and within the leeway it is accepted but not remembered.
    assert!(!cached(&token, NOW_S));
    assert!(running.issuers.verify(&token, at(NOW_S + 629)).await.is_ok());
    assert!(!cached(&token, NOW_S));
    let late = running.issuers.verify(&token, at(NOW_S + 630)).await;
    assert_eq!(late.map(|_| ()), Err(JwtError::Expired));
}

#[tokio::test]
async fn the_memory_of_verified_tokens_is_bounded() {
    let signer = Signer::eddsa("a");
    let provider = Provider::start(&[&signer]).await;
    let tokens: Vec<_> = (0..20)
        .map(|number| {
            let mut claims = good_claims(&provider.url);
            claims["jti"] = number.into();
            signer.token(&claims)
        })
        .collect();

    let few = Limits { cache_entries_max: 3, ..Limits::default() };
    let running = Running::start(&[config(&provider.url)], few);
    for token in &tokens {
        running.verify(token).await.unwrap();
        running.verify(token).await.unwrap();
    }
    let kept: Vec<_> = tokens.iter().map(|token| running.has_cached(token)).collect();
    assert_eq!(kept, [[false; 17].as_slice(), &[true; 3]].concat());

    let small = Limits { cache_bytes_max: 2_000, ..Limits::default() };
    let running = Running::start(&[config(&provider.url)], small);
    for token in &tokens {
        running.verify(token).await.unwrap();
        let (entries, bytes) = running.issuers.shared.cache.size();
        assert!((1..20).contains(&entries) && bytes <= 2_000, "{entries} entries, {bytes} bytes");
    }
    running.issuers.shared.cache.sweep(at(NOW_S + 600));
    assert_eq!(running.issuers.shared.cache.size(), (0, 0));

    let none = Limits { cache_bytes_max: 10, ..Limits::default() };
    let running = Running::start(&[config(&provider.url)], none);
    running.verify(&tokens[0]).await.unwrap();
    assert_eq!(running.issuers.shared.cache.size(), (0, 0));
}

#[tokio::test]
async fn each_issuer_has_its_own_keys_and_audience() {
    let (one, other) = (Signer::rsa("k", "RS256", RSA_1), Signer::rsa("k", "RS256", RSA_2));
    let (staff, shop) = (Provider::start(&[&one]).await, Provider::start(&[&other]).await);
    let shop_config = IssuerConfig::new("shop", &shop.url, "orders");
    let running = Running::start(&[config(&staff.url), shop_config], Limits::default());
    let mut claims = good_claims(&shop.url);
    claims["groups"] = json!(["ops"]);

    assert_eq!(running.verify(&other.token(&claims)).await, Err(JwtError::AudienceWrong));
    claims["aud"] = "orders".into();
    let verified = running.verify(&other.token(&claims)).await.unwrap();
    assert_eq!(&*verified.issuer, "shop");
    // Nobody said that this issuer has groups.
    assert!(verified.groups.is_empty());
    assert_eq!(running.verify(&one.token(&claims)).await, Err(JwtError::SignatureWrong));
    let claims = good_claims(&staff.url);
    assert!(running.verify(&one.token(&claims)).await.is_ok());
}
