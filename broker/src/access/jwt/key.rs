//! Keys of an issuer: what a JWKS says, which key may check which token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

use super::JwtError;
use super::algorithm::{Algorithm, Check, Family};
use super::json;
use super::token::{decode, is_key_id};

/// More keys than this are no key set of one issuer.
const KEYS_MAX: usize = 64;
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

/// A key, and what it may check.
#[derive(Debug)]
pub(super) struct Key {
    content: Content,
    /// Whether the issuer still has it.
    is_live: AtomicBool,
}

#[derive(Debug, PartialEq, Eq)]
struct Content {
    id: Option<Box<str>>,
    /// Fixed when the key is read: what a token says of its algorithm never makes a key fit. Empty
    /// for a key that is known but not usable.
    algorithms: Vec<Algorithm>,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, as `ring` takes it.
    Point(Vec<u8>),
    None,
}

/// Keys as read, and what was wrong with those that cannot be used.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Arc<Key>>,
    pub(super) unusable: Vec<&'static str>,
}

impl KeySet {
    /// Reads a JWKS; keys that were there before stay the same ones.
    ///
    /// A key that cannot be used does not spoil the others: sets often hold keys for other ends.
    pub(super) fn read(
        text: &[u8],
        allowed: &[Algorithm],
        before: &[Arc<Key>],
    ) -> Result<Self, &'static str> {
        let set = json::object(text).map_err(|_problem| "the key set is not a JSON object")?;
        let listed = set.get("keys").and_then(Value::as_array);
        let listed = listed.ok_or("the key set has no list of keys")?;
        if listed.len() > KEYS_MAX {
            return Err("the key set has too many keys");
        }
        let mut read = Self::default();
        for jwk in listed {
            let jwk = jwk.as_object().ok_or("the key set has an item that is no key")?;
            let id = match jwk.get("kid") {
                None => None,
                Some(id) => Some(
                    id.as_str()
                        .filter(|id| is_key_id(id))
                        .ok_or("the key set has a malformed id")?,
                ),
            };
            let (algorithms, material) = match usable(jwk, allowed) {
                Ok((algorithms, material)) => (algorithms, material),
                Err(problem) => {
                    read.unusable.push(problem);
                    (Vec::new(), Material::None)
                }
            };
            let content = Content { id: id.map(Into::into), algorithms, material };
            let same = before.iter().find(|key| key.content == content && key.is_live());
            let key = same.map_or_else(
                || Arc::new(Key { content, is_live: AtomicBool::new(true) }),
                Arc::clone,
            );
            read.keys.push(key);
        }
        Ok(read)
    }
}

/// The one key that may check a token.
pub(super) fn select(
    keys: &[Arc<Key>],
    id: Option<&str>,
    algorithm: Algorithm,
) -> Result<Arc<Key>, JwtError> {
    let fits = |key: &&Arc<Key>| key.content.algorithms.contains(&algorithm);
    let named = |key: &&Arc<Key>| id.is_none() || key.content.id.as_deref() == id;
    let mut fitting = keys.iter().filter(named).filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(Arc::clone(key)),
        (Some(_), Some(_)) if id.is_none() => Err(JwtError::KeyIdMissing),
        (Some(_), Some(_)) => Err(JwtError::KeyAmbiguous),
        (None, _) if id.is_some() && keys.iter().any(|key| named(&key)) => Err(JwtError::KeyUnfit),
        (None, _) => Err(JwtError::KeyUnknown),
    }
}

impl Key {
    /// Whether the issuer still has this key.
    pub(super) fn is_live(&self) -> bool {
        self.is_live.load(Ordering::Acquire)
    }

    /// From now on nothing that this key proved counts.
    pub(super) fn remove(&self) {
        self.is_live.store(false, Ordering::Release);
    }

    /// Whether this key made the signature.
    pub(super) fn proves(&self, algorithm: Algorithm, signed: &str, signature: &[u8]) -> bool {
        if !self.content.algorithms.contains(&algorithm) {
            return false;
        }
        let signed = signed.as_bytes();
        match (algorithm.check(), &self.content.material) {
            (Check::Rsa(parameters), Material::Rsa { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            (Check::Other(check), Material::Point(point)) => {
                UnparsedPublicKey::new(check, point).verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// What a key may check, or why nothing.
fn usable(
    jwk: &Map<String, Value>,
    allowed: &[Algorithm],
) -> Result<(Vec<Algorithm>, Material), &'static str> {
    // Whoever can read the set could sign.
    if ["d", "p", "q", "k"].iter().any(|&name| jwk.contains_key(name)) {
        return Err("it is a secret, and not one any more");
    }
    if jwk.get("use").is_some_and(|use_| use_ != "sig") {
        return Err("it is not for signatures");
    }
    if let Some(operations) = jwk.get("key_ops") {
        let operations = operations.as_array().ok_or("its operations are malformed")?;
        if !operations.iter().any(|operation| operation == "verify") {
            return Err("it is not for checking signatures");
        }
    }
    let (family, material) = material(jwk)?;
    let named = match jwk.get("alg") {
        None => None,
        Some(name) => {
            let named = name.as_str().and_then(Algorithm::of);
            Some(named.ok_or("its algorithm is not known")?)
        }
    };
    let fits = |algorithm: &Algorithm| {
        algorithm.family() == family && named.is_none_or(|named| named == *algorithm)
    };
    let algorithms: Vec<_> = allowed.iter().copied().filter(fits).collect();
    if algorithms.is_empty() {
        return Err("its algorithm is not allowed");
    }
    Ok((algorithms, material))
}

fn material(jwk: &Map<String, Value>) -> Result<(Family, Material), &'static str> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(decode);
    let coordinate = |name: &str, len: usize| bytes(name).filter(|bytes| bytes.len() == len);
    match (text("kty"), text("crv")) {
        (Some("RSA"), None) => {
            let (n, e) = bytes("n").zip(bytes("e")).ok_or("it is malformed")?;
            check_rsa(&n, &e)?;
            Ok((Family::Rsa, Material::Rsa { n, e }))
        }
        (Some("EC"), Some(curve)) => {
            let (family, len) = match curve {
                "P-256" => (Family::P256, 32),
                "P-384" => (Family::P384, 48),
                _ => return Err("its curve is not known"),
            };
            let point = coordinate("x", len).zip(coordinate("y", len));
            let (x, y) = point.ok_or("it is malformed")?;
            // Uncompressed, as SEC 1 writes it.
            Ok((family, Material::Point([&[4], x.as_slice(), &y].concat())))
        }
        (Some("OKP"), Some("Ed25519")) => {
            let point = coordinate("x", 32).ok_or("it is malformed")?;
            Ok((Family::Ed25519, Material::Point(point)))
        }
        _ => Err("its type is not known"),
    }
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), &'static str> {
    let Some((&first, &last)) = n.first().zip(n.last()) else { return Err("it is malformed") };
    if first == 0 || last % 2 == 0 {
        return Err("it is malformed");
    }
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if bits < RSA_BITS_MIN {
        return Err("it is shorter than RSA keys must be");
    }
    if bits > RSA_BITS_MAX {
        return Err("it is longer than RSA keys may be");
    }
    // 65537 is what everybody uses; small exponents broke too often.
    let exponent = e.iter().fold(0_u64, |sum, &byte| (sum << 8) | u64::from(byte));
    if e.len() > 4 || e.first() == Some(&0) || exponent < 65_537 || exponent % 2 == 0 {
        return Err("its exponent is weak");
    }
    Ok(())
}
