//! Bad tokens, each with exactly what is wrong with it.

use ring::hmac;
use serde_json::json;

use super::keys::{RSA_1, RSA_2, SHORT_N, SHORT_TOKEN};
use super::signer::encode;
use super::*;

type Bad = (&'static str, String, JwtError);

/// An issuer with one key of each kind, and some that must not be used.
struct Issuer {
    rsa: Signer,
    ec: Signer,
    ec384: Signer,
    ed: Signer,
    folder: tempfile::TempDir,
}

const URL: &str = "https://id.example";

impl Issuer {
    fn new() -> Self {
        let issuer = Self {
            rsa: Signer::rsa("rsa", "RS256", RSA_1),
            ec: Signer::es256("ec"),
            ec384: Signer::es384("ec384"),
            ed: Signer::eddsa("ed"),
            folder: tempfile::tempdir().unwrap(),
        };
        let mut keys = vec![issuer.rsa.jwk(), issuer.ec.jwk(), issuer.ec384.jwk(), issuer.ed.jwk()];
        keys.push(json!({"kty": "RSA", "kid": "short", "n": SHORT_N, "e": "AQAB", "use": "sig"}));
        for (id, name, value) in [
            ("enc", "use", json!("enc")),
            ("ops", "key_ops", json!(["encrypt", "wrapKey"])),
            ("strange", "alg", json!("RS257")),
            ("hmac", "alg", json!("HS256")),
            ("secret", "d", json!("AQAB")),
            ("ps", "alg", json!("PS256")),
            ("weak", "e", json!("Aw")),
            ("even", "e", json!("AQAA")),
            ("twice", "x", json!(1)),
            ("twice", "x", json!(2)),
        ] {
            let mut key = issuer.rsa.jwk();
            key["kid"] = id.into();
            key[name] = value;
            keys.push(key);
        }
        let mut other_curve = issuer.ec.jwk();
        other_curve["kid"] = "curve".into();
        other_curve["crv"] = "secp256k1".into();
        keys.push(other_curve);
        // A point that is not on the curve.
        let mut off = issuer.ec.jwk();
        off["kid"] = "off".into();
        off["y"] = off["x"].clone();
        keys.push(off);
        keys.push(json!({"kty": "oct", "kid": "oct", "k": "c2VjcmV0"}));
        std::fs::write(issuer.file(), json!({"keys": keys}).to_string()).unwrap();
        issuer
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("jwks.json")
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.rsa.header();
        header[name] = value;
        self.rsa.sign(&header.to_string(), &good_claims(URL).to_string())
    }

    fn with_key_id(&self, id: &str) -> String {
        self.with_header("kid", id.into())
    }

    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = good_claims(URL);
        claims[name] = value;
        self.rsa.token(&claims)
    }

    fn without_claim(&self, name: &str) -> String {
        let mut claims = good_claims(URL);
        claims.as_object_mut().unwrap().remove(name);
        self.rsa.token(&claims)
    }

    /// Good claims with more text at their end.
    fn with_text(&self, more: &str) -> String {
        let claims = good_claims(URL).to_string();
        let claims = format!("{}{more}}}", claims.strip_suffix('}').unwrap());
        self.rsa.sign(&self.rsa.header().to_string(), &claims)
    }

    fn good(&self) -> String {
        self.rsa.token(&good_claims(URL))
    }

    /// The header and the claims of a good token, each encoded.
    fn parts(&self) -> [String; 3] {
        let good = self.good();
        let mut parts = good.split('.').map(str::to_owned);
        [(); 3].map(|()| parts.next().unwrap())
    }
}

/// Signed with what everybody can read as if it were a secret.
fn hmac_token(secret: &[u8], header: &Value) -> String {
    let signed = format!("{}.{}", encode(header.to_string()), encode(good_claims(URL).to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{signed}.{}", encode(hmac::sign(&key, signed.as_bytes())))
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN RSA PUBLIC KEY-----\n{text}\n-----END RSA PUBLIC KEY-----\n")
}

/// ASN.1, as OpenSSL writes ECDSA signatures.
fn der_signature(fixed: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| [&[2, 33, 0], bytes].concat();
    let (r, s) = fixed.split_at(32);
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

fn algorithms(issuer: &Issuer) -> Vec<Bad> {
    use JwtError::{
        AlgorithmMissing, AlgorithmRefused, KeyUnfit, SignatureMissing, SignatureWrong,
    };
    let Issuer { rsa, ec, .. } = issuer;
    let [header, claims, _] = issuer.parts();
    let with_algorithm = |name: &str| issuer.with_header("alg", name.into());
    let unsigned = |name: &str| {
        let header = json!({"alg": name, "kid": "rsa"}).to_string();
        format!("{}.{claims}.", encode(header))
    };
    let by = |signer: &Signer, algorithm: &str, id: &str| {
        let header = json!({"alg": algorithm, "kid": id}).to_string();
        signer.sign(&header, &good_claims(URL).to_string())
    };
    let hs = |secret: &[u8]| hmac_token(secret, &json!({"alg": "HS256", "kid": "rsa"}));
    let der = rsa.public_der();
    vec![
        ("none, signed", with_algorithm("none"), AlgorithmRefused),
        ("None, signed", with_algorithm("None"), AlgorithmRefused),
        ("nOnE, signed", with_algorithm("nOnE"), AlgorithmRefused),
        ("none, unsigned", unsigned("none"), SignatureMissing),
        ("NONE, unsigned", unsigned("NONE"), SignatureMissing),
        ("RS256, unsigned", format!("{header}.{claims}."), SignatureMissing),
        ("HS256 by PEM", hs(pem(&der).as_bytes()), AlgorithmRefused),
        ("HS256 by DER", hs(&der), AlgorithmRefused),
        ("HS256 by nothing", hs(b""), AlgorithmRefused),
        ("HS256 by the shared key of the set", hs(b"secret"), AlgorithmRefused),
        ("HS256 that calls itself RS256", hmac_token(&der, &rsa.header()), SignatureWrong),
        ("HS256 and the shared key", by(rsa, "HS256", "oct"), AlgorithmRefused),
        ("RS256 and the shared key", by(rsa, "RS256", "oct"), KeyUnfit),
        ("lower case", with_algorithm("rs256"), AlgorithmRefused),
        ("blank after", with_algorithm("RS256 "), AlgorithmRefused),
        ("unknown algorithm", with_algorithm("XS256"), AlgorithmRefused),
        ("RS512 was not allowed", with_algorithm("RS512"), AlgorithmRefused),
        ("no algorithm", rsa.sign(r#"{"kid":"rsa"}"#, "{}"), AlgorithmMissing),
        ("algorithm is a number", issuer.with_header("alg", json!(256)), AlgorithmMissing),
        ("algorithm is null", issuer.with_header("alg", json!(null)), AlgorithmMissing),
        ("algorithm is a list", issuer.with_header("alg", json!(["RS256"])), AlgorithmMissing),
        ("RS256 by an EC key", by(rsa, "RS256", "ec"), KeyUnfit),
        ("ES256 by the RSA key", by(ec, "ES256", "rsa"), KeyUnfit),
        ("ES256 by a key of P-384", by(ec, "ES256", "ec384"), KeyUnfit),
        ("ES384 by a key of P-256", by(&issuer.ec384, "ES384", "ec"), KeyUnfit),
        ("EdDSA by an EC key", by(&issuer.ed, "EdDSA", "ec"), KeyUnfit),
        ("ES256 by a key of another curve", by(ec, "ES256", "curve"), KeyUnfit),
        ("ES256 by a point off the curve", by(ec, "ES256", "off"), SignatureWrong),
        ("PS256 says the header", by(rsa, "PS256", "rsa"), SignatureWrong),
        ("RS256 by a key for PS256", by(rsa, "RS256", "ps"), KeyUnfit),
    ]
}

fn keys(issuer: &Issuer) -> Vec<Bad> {
    use JwtError::{KeyAmbiguous, KeyIdInvalid, KeyIdMissing, KeyUnfit, KeyUnknown, OwnKey};
    let id = |id: &str| issuer.with_key_id(id);
    let jwk = issuer.ec.jwk();
    let own = |name, value| issuer.with_header(name, value);
    let claims = good_claims(URL).to_string();
    vec![
        ("key id is a path", id("../../../../dev/null"), KeyUnknown),
        ("key id is a file", id("file:///etc/passwd"), KeyUnknown),
        ("key id is an address", id("http://169.254.169.254/latest/meta-data"), KeyUnknown),
        ("key id is SQL", id("x'UNION/**/SELECT/**/'key';--"), KeyUnknown),
        ("key id is SQL with blanks", id("' OR 1=1 --"), KeyIdInvalid),
        ("key id is a command", id("|/usr/bin/id"), KeyUnknown),
        ("key id holds a line end", id("rsa\nadmin"), KeyIdInvalid),
        ("key id holds a zero", id("rsa\0"), KeyIdInvalid),
        ("key id is not ASCII", id("rsä"), KeyIdInvalid),
        ("key id in another case", id("RSA"), KeyUnknown),
        ("key id is empty", id(""), KeyIdInvalid),
        ("key id is huge", id(&"k".repeat(8_000)), KeyIdInvalid),
        ("key id is a number", issuer.with_header("kid", json!(1)), KeyIdInvalid),
        ("key id is null", issuer.with_header("kid", json!(null)), KeyIdInvalid),
        ("no key id", issuer.rsa.sign(r#"{"alg":"RS256"}"#, &claims), KeyIdMissing),
        ("two keys of this id", id("twice"), KeyAmbiguous),
        ("a short key", SHORT_TOKEN.to_owned(), KeyUnfit),
        ("a key for encryption", id("enc"), KeyUnfit),
        ("a key for other operations", id("ops"), KeyUnfit),
        ("a key of an unknown algorithm", id("strange"), KeyUnfit),
        ("an RSA key for HS256", id("hmac"), KeyUnfit),
        ("a private key that is public", id("secret"), KeyUnfit),
        ("a key with exponent 3", id("weak"), KeyUnfit),
        ("a key with an even exponent", id("even"), KeyUnfit),
        ("brings an address of keys", own("jku", json!("http://127.0.0.1:1/")), OwnKey),
        ("brings a key", own("jwk", jwk), OwnKey),
        ("brings an address of a certificate", own("x5u", json!("https://a/")), OwnKey),
        ("brings a certificate", own("x5c", json!(["MIIB"])), OwnKey),
    ]
}

fn forms(issuer: &Issuer) -> Vec<Bad> {
    use JwtError::{
        ClaimsEncoding, ClaimsJson, ClaimsRepeat, Encrypted, Extension, HeaderEncoding, HeaderJson,
        HeaderRepeats, Nested, NotThreeParts, SignatureEncoding, TooLong, WrongType,
    };
    let [header, claims, signature] = issuer.parts();
    let good = issuer.good();
    let rsa = &issuer.rsa;
    let raw = |header: &str, claims: &str| rsa.sign(header, claims);
    let own_header = rsa.header().to_string();
    let own_claims = good_claims(URL).to_string();
    let deep = format!(r#","a":{}{}"#, "[".repeat(5_000), "]".repeat(5_000));
    let set = |name, value| issuer.with_header(name, value);
    let two_algorithms = r#"{"alg":"RS256","alg":"none","kid":"rsa"}"#;
    vec![
        ("10 MB", format!("{good}{}", "A".repeat(10 << 20)), TooLong),
        ("10 MB of dots", ".".repeat(10 << 20), TooLong),
        ("one byte too long", "a".repeat(super::super::TOKEN_LEN_MAX + 1), TooLong),
        ("nothing", String::new(), NotThreeParts),
        ("one part", header.clone(), NotThreeParts),
        ("two parts", format!("{header}.{claims}"), NotThreeParts),
        ("four parts", format!("{good}.x"), NotThreeParts),
        ("dot after", format!("{good}."), NotThreeParts),
        ("dot before", format!(".{good}"), NotThreeParts),
        ("six parts", "a.b.c.d.e.f".to_owned(), NotThreeParts),
        ("dots only", "..".to_owned(), HeaderEncoding),
        ("five parts", format!("{good}.x.y"), Encrypted),
        ("encryption in the header", set("enc", json!("A256GCM")), Encrypted),
        ("compression in the header", set("zip", json!("DEF")), Encrypted),
        ("no claims", format!("{header}..{signature}"), ClaimsEncoding),
        ("padding of the header", format!("{header}=.{claims}.{signature}"), HeaderEncoding),
        ("padding of the claims", format!("{header}.{claims}==.{signature}"), ClaimsEncoding),
        ("padding of the signature", format!("{good}=="), SignatureEncoding),
        ("blank before", format!(" {good}"), HeaderEncoding),
        ("blank after", format!("{good} "), SignatureEncoding),
        ("line end after", format!("{good}\n"), SignatureEncoding),
        ("tab within", format!("{header}.\t{claims}.{signature}"), ClaimsEncoding),
        ("zero after", format!("{good}\0"), SignatureEncoding),
        ("not ASCII", format!("{good}ä"), SignatureEncoding),
        ("standard alphabet", format!("{header}.{claims}.ab+/"), SignatureEncoding),
        ("bits that mean nothing", format!("{header}.{claims}.ab_"), SignatureEncoding),
        ("percent signs", format!("{header}.{claims}.%2e"), SignatureEncoding),
        ("header is a list", raw(r#"["RS256"]"#, &own_claims), HeaderJson),
        ("header is text", raw(r#""RS256""#, &own_claims), HeaderJson),
        ("header is not JSON", raw("alg=RS256", &own_claims), HeaderJson),
        ("header is cut off", raw(r#"{"alg":"RS256""#, &own_claims), HeaderJson),
        ("header and more", raw(&format!("{own_header}{{}}"), &own_claims), HeaderJson),
        ("header with two algorithms", raw(two_algorithms, &own_claims), HeaderRepeats),
        ("claims are a list", raw(&own_header, &format!("[{own_claims}]")), ClaimsJson),
        ("claims are null", raw(&own_header, "null"), ClaimsJson),
        ("claims and more", raw(&own_header, &format!("{own_claims} x")), ClaimsJson),
        ("claims are deep", issuer.with_text(&deep), ClaimsJson),
        ("two subjects", issuer.with_text(r#","sub":"admin""#), ClaimsRepeat),
        ("two subjects, escaped", issuer.with_text(r#","s\u0075b":"admin""#), ClaimsRepeat),
        ("two of something within", issuer.with_text(r#","x":{"a":1,"a":2}"#), ClaimsRepeat),
        ("half a surrogate", issuer.with_text(r#","x":"\ud800""#), ClaimsJson),
        ("extension", set("crit", json!(["exp"])), Extension),
        ("empty extension", set("crit", json!([])), Extension),
        ("unencoded claims", set("b64", json!(false)), Extension),
        ("encoded claims, said so", set("b64", json!(true)), Extension),
        ("nested, by its header", set("cty", json!("JWT")), Nested),
        ("nested, by its claims", raw(&own_header, &good), Nested),
        ("a logout token", set("typ", json!("logout+jwt")), WrongType),
        ("a proof", set("typ", json!("dpop+jwt")), WrongType),
        ("type is a number", set("typ", json!(1)), WrongType),
    ]
}

fn signatures(issuer: &Issuer) -> Vec<Bad> {
    use JwtError::{SignatureEncoding, SignatureWrong};
    let [header, claims, signature] = issuer.parts();
    let [_, _, other_signature] = {
        let other = issuer.with_claim("sub", json!("bob"));
        let mut parts = other.split('.').map(str::to_owned);
        [(); 3].map(|()| parts.next().unwrap())
    };
    let admin = encode(good_claims(URL).to_string().replace("alice", "admin"));
    let by_id = |signer: &Signer, id: &str| {
        let header = json!({"alg": signer.algorithm, "kid": id}).to_string();
        signer.sign(&header, &good_claims(URL).to_string())
    };
    let with = |signer: &Signer, change: fn(Vec<u8>) -> Vec<u8>| {
        let signed = format!(
            "{}.{}",
            encode(signer.header().to_string()),
            encode(good_claims(URL).to_string())
        );
        format!("{signed}.{}", encode(change(signer.signature(signed.as_bytes()))))
    };
    let flip = |mut signature: Vec<u8>| {
        signature[17] ^= 1;
        signature
    };
    let cut = |mut signature: Vec<u8>| {
        signature.pop();
        signature
    };
    let Issuer { rsa, ec, ed, .. } = issuer;
    let stranger = Signer::rsa("rsa", "RS256", RSA_2);
    vec![
        ("other claims", format!("{header}.{admin}.{signature}"), SignatureWrong),
        (
            "signature of other claims",
            format!("{header}.{claims}.{other_signature}"),
            SignatureWrong,
        ),
        ("one character of a signature", format!("{header}.{claims}.A"), SignatureEncoding),
        ("three zero bytes", format!("{header}.{claims}.AAAA"), SignatureWrong),
        (
            "swapped claims and signature",
            format!("{header}.{signature}.{claims}"),
            JwtError::ClaimsJson,
        ),
        (
            "swapped header and claims",
            format!("{claims}.{header}.{signature}"),
            JwtError::AlgorithmMissing,
        ),
        ("RS256, a bit flipped", with(rsa, flip), SignatureWrong),
        ("RS256, cut", with(rsa, cut), SignatureWrong),
        ("RS256, a zero before", with(rsa, |s| [vec![0], s].concat()), SignatureWrong),
        ("RS256, a byte after", with(rsa, |s| [s, vec![0]].concat()), SignatureWrong),
        ("RS256, all zeros", with(rsa, |s| vec![0; s.len()]), SignatureWrong),
        ("RS256, all ones", with(rsa, |s| vec![0xff; s.len()]), SignatureWrong),
        ("ES256, a bit flipped", with(ec, flip), SignatureWrong),
        ("ES256, cut", with(ec, cut), SignatureWrong),
        ("ES256 in DER", with(ec, |s| der_signature(&s)), SignatureWrong),
        ("ES256, zeros", with(ec, |s| vec![0; s.len()]), SignatureWrong),
        ("ES256, r and s swapped", with(ec, |s| [&s[32..], &s[..32]].concat()), SignatureWrong),
        ("EdDSA, a bit flipped", with(ed, flip), SignatureWrong),
        ("EdDSA, garbage", with(ed, |_| b"garbage".to_vec()), SignatureWrong),
        ("EdDSA, zeros", with(ed, |s| vec![0; s.len()]), SignatureWrong),
        ("EdDSA, twice", with(ed, |s| [s.clone(), s].concat()), SignatureWrong),
        ("key of somebody else", stranger.token(&good_claims(URL)), SignatureWrong),
        ("another EC key", by_id(&Signer::es256("x"), "ec"), SignatureWrong),
        ("another EdDSA key", by_id(&Signer::eddsa("x"), "ed"), SignatureWrong),
    ]
}

fn claims(issuer: &Issuer) -> Vec<Bad> {
    use JwtError::{
        AudienceInvalid, AudienceMissing, AudienceWrong, Expired, ExpiryInvalid, ExpiryMissing,
        IssuedInvalid, IssuedLater, IssuerMissing, IssuerUnknown, NotBeforeInvalid, NotYetValid,
    };
    let set = |name, value| issuer.with_claim(name, value);
    let unset = |name| issuer.without_claim(name);
    let literal = |name: &str, text: &str| {
        let claims = good_claims(URL).to_string();
        let value = good_claims(URL)[name].to_string();
        let was = format!(r#""{name}":{value}"#);
        assert!(claims.contains(&was));
        let claims = claims.replace(&was, &format!(r#""{name}":{text}"#));
        issuer.rsa.sign(&issuer.rsa.header().to_string(), &claims)
    };
    vec![
        ("no issuer", unset("iss"), IssuerMissing),
        ("issuer is a list", set("iss", json!([URL])), IssuerMissing),
        ("issuer with a slash", set("iss", json!("https://id.example/")), IssuerUnknown),
        ("issuer in another case", set("iss", json!("https://ID.example")), IssuerUnknown),
        ("issuer with its port", set("iss", json!("https://id.example:443")), IssuerUnknown),
        ("issuer in plain text", set("iss", json!("http://id.example")), IssuerUnknown),
        ("issuer with a blank", set("iss", json!("https://id.example ")), IssuerUnknown),
        ("somebody else's issuer", set("iss", json!("https://evil.example")), IssuerUnknown),
        ("issuer's name", set("iss", json!("staff")), IssuerUnknown),
        ("no audience", unset("aud"), AudienceMissing),
        ("audience is null", set("aud", json!(null)), AudienceInvalid),
        ("audience is a number", set("aud", json!(1)), AudienceInvalid),
        ("audience is an object", set("aud", json!({"weft": 1})), AudienceInvalid),
        ("audience holds a number", set("aud", json!(["weft", 1])), AudienceInvalid),
        ("other audience", set("aud", json!("other")), AudienceWrong),
        ("empty audience", set("aud", json!("")), AudienceWrong),
        ("audience in another case", set("aud", json!("Weft")), AudienceWrong),
        ("longer audience", set("aud", json!("weft2")), AudienceWrong),
        ("no audience listed", set("aud", json!([])), AudienceWrong),
        ("other audiences listed", set("aud", json!(["a", "b"])), AudienceWrong),
        ("no expiry", unset("exp"), ExpiryMissing),
        ("expiry is text", set("exp", json!((NOW_S + 600).to_string())), ExpiryInvalid),
        ("expiry is a fraction", set("exp", json!(2_000_000_600.5)), ExpiryInvalid),
        ("expiry with an exponent", literal("exp", "2e9"), ExpiryInvalid),
        ("expiry is negative", set("exp", json!(-1)), ExpiryInvalid),
        ("expiry is huge", literal("exp", "99999999999999999999999999"), ExpiryInvalid),
        ("expiry is infinite", literal("exp", "1e999"), JwtError::ClaimsJson),
        ("expiry is the largest number", set("exp", json!(u64::MAX)), ExpiryInvalid),
        ("expiry is in milliseconds", set("exp", json!(NOW_S * 1_000)), ExpiryInvalid),
        ("expiry is null", set("exp", json!(null)), ExpiryInvalid),
        ("expiry is true", set("exp", json!(true)), ExpiryInvalid),
        ("expired", set("exp", json!(NOW_S - 600)), Expired),
        ("expired in 1970", set("exp", json!(0)), Expired),
        ("expired with the leeway", set("exp", json!(NOW_S - 30)), Expired),
        ("not yet valid", set("nbf", json!(NOW_S + 600)), NotYetValid),
        ("not yet valid by a second", set("nbf", json!(NOW_S + 31)), NotYetValid),
        ("not-before is text", set("nbf", json!("0")), NotBeforeInvalid),
        ("not-before is negative", set("nbf", json!(-1)), NotBeforeInvalid),
        ("issued in the future", set("iat", json!(NOW_S + 31)), IssuedLater),
        ("issued as text", set("iat", json!("now")), IssuedInvalid),
    ]
}

fn subjects(issuer: &Issuer) -> Vec<Bad> {
    use JwtError::{ConfirmationInvalid, GroupsInvalid, SubjectInvalid, SubjectMissing};
    let set = |name, value| issuer.with_claim(name, value);
    let confirm = |value| issuer.with_claim("cnf", value);
    let thumbprint = encode([7; 32]);
    let other = json!({"x5t#S256": thumbprint, "jkt": thumbprint});
    let many: Vec<_> = (0..257).map(|number| number.to_string()).collect();
    vec![
        ("no subject", issuer.without_claim("sub"), SubjectMissing),
        ("subject is empty", set("sub", json!("")), SubjectInvalid),
        ("subject is a number", set("sub", json!(7)), SubjectInvalid),
        ("subject is null", set("sub", json!(null)), SubjectInvalid),
        ("subject with a line end", set("sub", json!("alice\nadmin")), SubjectInvalid),
        ("subject with an escape", set("sub", json!("\u{1b}[2Jalice")), SubjectInvalid),
        ("subject with a zero", set("sub", json!("alice\0")), SubjectInvalid),
        ("subject with a blank", set("sub", json!("alice admin")), SubjectInvalid),
        ("subject looks like another", set("sub", json!("аlice")), SubjectInvalid),
        ("subject runs backwards", set("sub", json!("\u{202e}ecila")), SubjectInvalid),
        ("subject is too long", set("sub", json!("a".repeat(256))), SubjectInvalid),
        ("groups are an object", set("groups", json!({"ops": true})), GroupsInvalid),
        ("groups hold a number", set("groups", json!(["ops", 1])), GroupsInvalid),
        ("a group without a name", set("groups", json!([""])), GroupsInvalid),
        ("a group with a line end", set("groups", json!(["a\nb"])), GroupsInvalid),
        ("a group runs backwards", set("groups", json!(["\u{202e}a"])), GroupsInvalid),
        ("a group is too long", set("groups", json!(["a".repeat(257)])), GroupsInvalid),
        ("too many groups", set("groups", json!(many)), GroupsInvalid),
        ("bound to another proof", confirm(json!({"jkt": "abc"})), ConfirmationInvalid),
        ("bound to two proofs", confirm(other), ConfirmationInvalid),
        ("bound to nothing", confirm(json!({})), ConfirmationInvalid),
        ("bound to text", confirm(json!("x")), ConfirmationInvalid),
        (
            "bound to half a hash",
            confirm(json!({"x5t#S256": encode([7; 16])})),
            ConfirmationInvalid,
        ),
    ]
}

#[tokio::test]
async fn each_bad_token_is_refused_for_what_is_wrong_with_it() {
    let issuer = Issuer::new();
    let strict = IssuerConfig {
        jwks_file: Some(issuer.file()),
        algorithms: vec![
            Algorithm::RS256,
            Algorithm::PS256,
            Algorithm::ES256,
            Algorithm::ES384,
            Algorithm::EdDSA,
        ],
        ..config(URL)
    };
    // The first token by an unknown key reads the file again, the others do not.
    let running = Running::start(&[strict], Limits::default());
    let mut table = algorithms(&issuer);
    table.extend(keys(&issuer));
    table.extend(forms(&issuer));
    table.extend(signatures(&issuer));
    table.extend(claims(&issuer));
    table.extend(subjects(&issuer));
    assert!(table.len() >= 150, "{} tokens", table.len());

    let mut wrong = Vec::new();
    for (what, token, expected) in &table {
        let verified = running.verify(token).await;
        if verified.as_ref().err() != Some(expected) {
            wrong.push(format!("{what}: {verified:?} instead of {expected:?}"));
        }
        assert!(!running.has_cached(token), "{what} is remembered");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(running.attempts() <= 2, "{} attempts", running.attempts());

    // What they are all made of is good.
    assert!(running.verify(&issuer.good()).await.is_ok());
    for signer in [&issuer.ec, &issuer.ec384, &issuer.ed] {
        assert!(running.verify(&signer.token(&good_claims(URL))).await.is_ok());
    }
}

#[tokio::test]
async fn the_leeway_is_what_the_operator_says() {
    let issuer = Issuer::new();
    let file = Some(issuer.file());
    for leeway_s in [0, 30, 300] {
        let own = IssuerConfig { jwks_file: file.clone(), leeway_s, ..config(URL) };
        let issuers = Issuers::new(&[own], Limits::default()).unwrap();
        let mut claims = good_claims(URL);
        claims["exp"] = (NOW_S + 1_000).into();
        claims["nbf"] = NOW_S.into();
        let token = issuer.ec.token(&claims);
        let verify = async |micros: u64| {
            issuers.verify(&token, Timestamp::from_micros(micros)).await.map(|_| ())
        };
        let (first, last) =
            ((NOW_S - leeway_s) * 1_000_000, (NOW_S + 1_000 + leeway_s) * 1_000_000 - 1);

        assert_eq!(verify(first).await, Ok(()));
        assert_eq!(verify(first - 1).await, Err(JwtError::NotYetValid));
        assert_eq!(verify(last).await, Ok(()));
        assert_eq!(verify(last + 1).await, Err(JwtError::Expired));
    }
}

#[test]
fn nothing_of_a_token_gets_into_an_error() {
    // Errors hold no value: they are as small as a byte.
    assert_eq!(size_of::<JwtError>(), 1);
    assert_eq!(JwtError::AudienceWrong.to_string(), "wrong audience");
    assert_eq!(JwtError::Expired.to_string(), "expired");
}
