//! No text makes it panic, and no change of a good token makes another good one.

use std::future::Future;
use std::time::Duration;

use proptest::prelude::*;

use super::super::looks_like_jwt;
use super::keys::RSA_1;
use super::*;

const URL: &str = "https://id.example";

struct Fixture {
    issuers: Issuers,
    tokens: Vec<String>,
    _folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let signers = [Signer::rsa("rsa", "RS256", RSA_1), Signer::es256("ec"), Signer::eddsa("ed")];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let keys: Vec<_> = signers.iter().map(Signer::jwk).collect();
    std::fs::write(&file, json!({"keys": keys}).to_string()).unwrap();
    let config = IssuerConfig { jwks_file: Some(file), ..config(URL) };
    // Nobody refreshes: what waits for keys gives up at once.
    let limits = Limits { fetch_timeout: Duration::ZERO, ..Limits::default() };
    Fixture {
        issuers: Issuers::new(&[config], limits).unwrap(),
        tokens: signers.iter().map(|signer| signer.token(&good_claims(URL))).collect(),
        _folder: folder,
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(work)
}

/// Pieces that tokens are made of, in an order that makes no sense.
fn pieces() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[A-Za-z0-9_-]{0,40}",
        "\\PC{0,20}",
        Just(signer::encode(r#"{"alg":"RS256","kid":"rsa"}"#)),
        Just(signer::encode(good_claims(URL).to_string())),
        "[{}\\[\\]\":,a-z0-9]{0,60}".prop_map(signer::encode),
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.join("."))
}

#[test]
fn no_text_is_a_token() {
    let fixture = fixture();
    proptest!(ProptestConfig::with_cases(2_000), |(token in prop_oneof!["\\PC*", pieces()])| {
        prop_assert!(wait(fixture.issuers.verify(&token, now())).is_err());
        prop_assert!(fixture.issuers.cached(&token, now()).is_none());
        looks_like_jwt(&token);
    });
}

#[test]
fn no_time_makes_it_panic() {
    let fixture = fixture();
    proptest!(|(exp: i128, nbf in any::<u64>(), now: u64)| {
        let claims = format!(r#"{{"iss":"{URL}","aud":"weft","sub":"a","exp":{exp},"nbf":{nbf}}}"#);
        let signer = Signer::rsa("rsa", "RS256", RSA_1);
        let token = signer.sign(&signer.header().to_string(), &claims);
        let now = Timestamp::from_micros(now);
        // Good or not is the table's matter.
        _ = wait(fixture.issuers.verify(&token, now));
        _ = wait(fixture.issuers.verify(&fixture.tokens[0], now));
    });
}

#[test]
fn a_good_token_is_good_unchanged_only() {
    let fixture = fixture();
    for token in &fixture.tokens {
        assert!(wait(fixture.issuers.verify(token, now())).is_ok());
        assert!(looks_like_jwt(token));
    }
    let changed = (0..fixture.tokens.len(), any::<prop::sample::Index>(), any::<char>(), 0..4_u8);
    proptest!(ProptestConfig::with_cases(2_000), |((which, at, new, how) in changed)| {
        let good = &fixture.tokens[which];
        let at = at.index(good.len());
        let (before, after) = good.split_at(at);
        let token = match how {
            0 => format!("{before}{new}{after}"),
            1 => format!("{before}{new}{}", &after[1..]),
            2 => format!("{before}{}", &after[1..]),
            _ => before.to_owned(),
        };
        prop_assume!(token != *good);
        prop_assert!(fixture.issuers.cached(&token, now()).is_none());
        prop_assert!(wait(fixture.issuers.verify(&token, now())).is_err());
    });
}
