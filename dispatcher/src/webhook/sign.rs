//! Signatures that receivers can check: Standard Webhooks, `v1` and `v1a`.
//!
//! Source: standard-webhooks/standard-webhooks `spec/standard-webhooks.md`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue};
use ring::hmac;
use ring::signature::Ed25519KeyPair;
use zeroize::Zeroizing;

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Bytes of a symmetric secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const SEED_BYTES: usize = 32;

/// A secret to sign with.
pub(super) enum Key {
    /// `whsec_`: HMAC-SHA256.
    Shared(hmac::Key),
    /// `whsk_`: ed25519.
    Private(Box<Ed25519KeyPair>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Reads a secret in the form in which it is handed out.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as the end of a sentence that does not hold it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let decode = |text: &str| {
            BASE64_STANDARD
                .decode(text)
                .map(Zeroizing::new)
                .map_err(|_error| "is not Base64 after its prefix")
        };
        if let Some(text) = text.strip_prefix("whsec_") {
            let secret = decode(text)?;
            if !SECRET_BYTES.contains(&secret.len()) {
                return Err("holds a secret that has not 24 to 64 bytes");
            }
            return Ok(Self::Shared(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
        }
        let Some(text) = text.strip_prefix("whsk_") else {
            return Err("holds neither a whsec_ nor a whsk_ secret");
        };
        let bytes = decode(text)?;
        let pair = match bytes.split_at_checked(SEED_BYTES) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err("holds a private key that has not 32 or 64 bytes"),
        };
        match pair {
            Ok(pair) => Ok(Self::Private(Box::new(pair))),
            Err(_error) => Err("holds a private key that is none"),
        }
    }

    fn sign(&self, content: &[u8]) -> String {
        match self {
            Self::Shared(key) => {
                format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, content)))
            }
            Self::Private(key) => format!("v1a,{}", BASE64_STANDARD.encode(key.sign(content))),
        }
    }
}

/// Adds the three headers; without keys only the first two. `id` has no full stop in it.
///
/// # Errors
///
/// When the id is no value of a header.
pub(super) fn sign(
    headers: &mut HeaderMap,
    keys: &[Key],
    id: &str,
    seconds: u64,
    body: &[u8],
) -> Result<(), String> {
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_error| format!("{text:?} cannot be sent as a header"))
    };
    headers.insert(ID, value(id)?);
    headers.insert(TIMESTAMP, HeaderValue::from(seconds));
    if keys.is_empty() {
        return Ok(());
    }
    let mut content = format!("{id}.{seconds}.").into_bytes();
    content.extend_from_slice(body);
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(&content)).collect();
    headers.insert(SIGNATURE, value(&signatures.join(" "))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the libraries of the specification.
    const SHARED: (&str, &str, u64, &str, &str) = (
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1_649_367_553,
        r#"{"email":"test@example.com","username":"test_user"}"#,
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    );
    /// The signature that the specification shows as its example, and the key to it that the
    /// reference server tests with.
    const PRIVATE: (&str, &str, u64, &str, &str) = (
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        r#"{"test": 2432232314}"#,
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    );
    const SEED: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=";

    fn signed(keys: &[&str], id: &str, seconds: u64, body: &str) -> HeaderMap {
        let keys: Vec<Key> = keys.iter().map(|key| Key::parse(key).unwrap()).collect();
        let mut headers = HeaderMap::new();
        sign(&mut headers, &keys, id, seconds, body.as_bytes()).unwrap();
        headers
    }

    #[test]
    fn published_vectors_hold() {
        for (key, id, seconds, body, signature) in [SHARED, PRIVATE] {
            let headers = signed(&[key], id, seconds, body);
            assert_eq!(headers[SIGNATURE], signature);
            assert_eq!(headers[ID], id);
            assert_eq!(headers[TIMESTAMP], seconds.to_string());
        }
        let (_, id, seconds, body, signature) = PRIVATE;
        assert_eq!(signed(&[SEED], id, seconds, body)[SIGNATURE], signature);
    }

    #[test]
    fn while_it_is_rotated_both_sign_and_without_secrets_nobody_does() {
        let (_, id, seconds, body, _) = SHARED;
        let alone = |key| signed(&[key], id, seconds, body)[SIGNATURE].to_str().unwrap().to_owned();
        let both = signed(&[SHARED.0, PRIVATE.0], id, seconds, body);
        assert_eq!(both[SIGNATURE], format!("{} {}", alone(SHARED.0), alone(PRIVATE.0)));
        assert!(!signed(&[], id, seconds, body).contains_key(SIGNATURE));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        for wrong in [
            "",
            "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_%%%",
            "whsk_",
            "whsk_c2hvcnQ=",
            "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
            "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlaaaaaaaaaaAJ6p9lMicMFs6Kvg==",
        ] {
            let problem = Key::parse(wrong).unwrap_err();
            assert!(wrong.len() < 8 || !problem.contains(&wrong[8..]), "{problem}");
        }
        assert_eq!(format!("{:?}", Key::parse(SHARED.0).unwrap()), "Key");
    }
}
