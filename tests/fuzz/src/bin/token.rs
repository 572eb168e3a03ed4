//! A token of an identity provider: `access::jwt`, under a fixed key.
//!
//! First byte even: the token follows. Odd: header and claims follow as JSON, and are signed, so that
//! what comes after the signature is reached. What is accepted is read again, in another way.

#![cfg_attr(fuzzing, no_main)]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Map, Value, json};
use weft_broker::access::jwt::{IssuerConfig, Issuers, Limits, TOKEN_LEN_MAX, looks_like_jwt};
use weft_fuzz::door::wait;
use weft_fuzz::{Input, chosen, chunk};
use weft_proto::Timestamp;

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

const URL: &str = "https://id.example";
const NOW_S: u64 = 2_000_000_000;
const LEEWAY_S: u64 = 30;

static SIGNER: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key"));

static ISSUERS: LazyLock<Issuers> = LazyLock::new(|| {
    // Of its own, since two fuzzers may start at once; it is read here and never again.
    let file = std::env::temp_dir().join(format!("weft-fuzz-jwks-{}.json", std::process::id()));
    let point = URL_SAFE_NO_PAD.encode(SIGNER.public_key().as_ref());
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": point});
    std::fs::write(&file, json!({"keys": [key]}).to_string()).expect("the key set is written");
    let config = IssuerConfig {
        groups_claim: Some("groups".to_owned()),
        jwks_file: Some(file.clone()),
        leeway_s: LEEWAY_S,
        ..IssuerConfig::new("staff", URL, "weft")
    };
    // Nobody refreshes: what waits for keys gives up at once.
    let limits = Limits { fetch_timeout: Duration::ZERO, ..Limits::default() };
    let issuers = Issuers::new(&[config], limits).expect("issuers");
    std::fs::remove_file(file).expect("the key set is removed");
    issuers
});

fn sign(header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(SIGNER.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let token = if input.u8() & 1 == 0 {
        let Ok(token) = std::str::from_utf8(input.rest()) else { return false };
        token.to_owned()
    } else {
        let header = input.chunk();
        sign(header, input.rest())
    };
    let now = Timestamp::from_micros(NOW_S * 1_000_000);
    let Ok(verified) = wait(ISSUERS.verify(&token, now)) else {
        assert!(ISSUERS.cached(&token, now).is_none());
        return false;
    };
    assert!(token.len() <= TOKEN_LEN_MAX && looks_like_jwt(&token));
    let parts: Vec<Map<String, Value>> = token
        .split('.')
        .take(2)
        .map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64url"))
        .map(|part| serde_json::from_slice(&part).expect("an object"))
        .collect();
    let [header, claims] = parts.as_slice() else { panic!("three parts") };
    check_header(header);
    check_claims(claims);
    assert_eq!(&*verified.issuer, "staff");
    assert_eq!(claims["sub"], *verified.subject);
    let groups: Vec<&Value> = match claims.get("groups") {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().collect(),
        Some(one) => vec![one],
    };
    assert!(groups.into_iter().eq(verified.groups.iter().map(|group| &**group)));
    assert_eq!(claims.contains_key("cnf"), verified.certificate_thumbprint.is_some());
    let expires = claims["exp"].as_u64().expect("seconds");
    assert_eq!(verified.expires, Timestamp::from_micros(expires * 1_000_000));

    let cached = ISSUERS.cached(&token, now);
    assert_eq!(cached.is_some(), NOW_S < expires, "the leeway is for new tokens only");
    assert!(cached.is_none_or(|cached| cached == verified));
    let late = Timestamp::from_micros((expires + LEEWAY_S) * 1_000_000);
    assert!(ISSUERS.cached(&token, late).is_none());
    assert!(wait(ISSUERS.verify(&token, late)).is_err());
    // A character more, less, or another one: it is another token, and nobody signed it.
    let (start, end) = token.split_at(token.len() / 2);
    let other = if end.starts_with('A') { 'B' } else { 'A' };
    for broken in [
        format!("{start}{other}{}", &end[1..]),
        format!("{start}{}", &end[1..]),
        format!("{start}A{end}"),
        format!("{token}="),
    ] {
        assert!(wait(ISSUERS.verify(&broken, now)).is_err(), "{broken}");
    }
    true
}

fn check_header(header: &Map<String, Value>) {
    assert_eq!(header["alg"], "EdDSA");
    assert!(header.get("kid").is_none_or(|kid| kid == "ed"));
    for name in ["enc", "zip", "epk", "crit", "b64", "jku", "jwk", "x5u", "x5c", "cty"] {
        assert!(!header.contains_key(name), "{name}");
    }
    if let Some(kind) = header.get("typ") {
        let kind = kind.as_str().expect("text").to_ascii_lowercase();
        let known = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];
        assert!(known.contains(&kind.as_str()), "{kind}");
    }
}

fn check_claims(claims: &Map<String, Value>) {
    assert_eq!(claims["iss"], URL);
    let is_ours = match &claims["aud"] {
        Value::Array(list) => list.contains(&json!("weft")),
        one => one == "weft",
    };
    assert!(is_ours);
    assert!(claims["exp"].as_u64().is_some_and(|exp| NOW_S < exp + LEEWAY_S));
    for name in ["nbf", "iat"] {
        let at = claims.get(name).map(|at| at.as_u64().expect("seconds"));
        assert!(at.is_none_or(|at| at <= NOW_S + LEEWAY_S), "{name}");
    }
    let subject = claims["sub"].as_str().expect("text");
    assert!((1..=255).contains(&subject.len()));
    assert!(subject.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let header = json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"});
    let good = json!({"iss": URL, "aud": "weft", "sub": "alice", "exp": NOW_S + 600});
    let with = |more: Value| {
        let mut claims = good.clone();
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    };
    let thumbprint = URL_SAFE_NO_PAD.encode([9; 32]);
    let claims = [
        good.clone(),
        with(
            json!({"aud": ["other", "weft"], "nbf": NOW_S, "iat": NOW_S - 9, "groups": ["a b", "é"]}),
        ),
        with(json!({"groups": "staff", "cnf": {"x5t#S256": thumbprint}, "deep": [[[1.5, null]]]})),
        with(json!({"exp": NOW_S - 29})),
        with(json!({"exp": NOW_S - 31})),
        with(json!({"nbf": NOW_S + 60})),
        with(json!({"aud": "other"})),
        with(json!({"iss": "https://id.example/"})),
        with(json!({"cnf": {"jkt": "x"}})),
        with(json!({"sub": "a\u{202e}b"})),
    ];
    let mut seeds = Vec::new();
    for claims in claims {
        let (header, claims) = (header.to_string(), claims.to_string());
        seeds.push(chosen(0, sign(header.as_bytes(), claims.as_bytes())));
        seeds.push(chosen(1, [chunk(header.as_bytes()), claims.into_bytes()].concat()));
    }
    for header in [
        json!({"alg": "EdDSA"}),
        json!({"alg": "EdDSA", "kid": "other"}),
        json!({"alg": "none"}),
        json!({"alg": "HS256", "kid": "ed"}),
        json!({"alg": "ES256", "kid": "ed"}),
        json!({"alg": "EdDSA", "kid": "ed", "jwk": {}}),
        json!({"alg": "EdDSA", "kid": "ed", "crit": ["exp"]}),
        json!({"alg": "EdDSA", "kid": "ed", "typ": "logout+jwt"}),
    ] {
        let parts = [chunk(header.to_string().as_bytes()), good.to_string().into_bytes()];
        seeds.push(chosen(1, parts.concat()));
    }
    let twice =
        br#"{"iss":"https://id.example","aud":"weft","sub":"a","sub":"b","exp":2000000600}"#;
    seeds.push(chosen(1, [chunk(header.to_string().as_bytes()), twice.to_vec()].concat()));
    seeds.push(chosen(0, "a.b.c"));
    seeds
}
