//! API keys: `weft_<id>_<secret>`.
//!
//! The id is public and finds the key; the secret is 256 random bits. What is stored is a keyed hash
//! of the whole, compared in constant time. *Never* holds a secret longer than it is looked at.

use std::fmt;

use ring::hmac;
use weft_proto::{Error, Result};

const PREFIX: &str = "weft_";
/// Characters of an id: 60 random bits, so that two never meet.
const ID_LEN: usize = 12;
/// Bytes of a secret, twice as many characters.
const SECRET_BYTES: usize = 32;
const TEXT_LEN: usize = PREFIX.len() + ID_LEN + 1 + 2 * SECRET_BYTES;
const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// The public part of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a credential has the looks of a key, good or not.
pub fn looks_like_key(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The id in a key; nothing unless the text has exactly the form of a key.
pub fn id_of(text: &str) -> Option<&str> {
    if text.len() != TEXT_LEN || !text.is_ascii() {
        return None;
    }
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_id = id.len() == ID_LEN && id.bytes().all(|byte| ID_ALPHABET.contains(&byte));
    let is_secret = secret.bytes().all(|byte| HEX.contains(&byte));
    (is_id && is_secret).then_some(id)
}

/// Makes a new key: its id and its text.
///
/// # Errors
///
/// `Internal` when the system has no randomness.
pub fn generate() -> Result<(KeyId, String)> {
    let random: [u8; SECRET_BYTES + ID_LEN] = random()?;
    let (secret, id) = random.split_at(SECRET_BYTES);
    let id: String = id.iter().map(|byte| letter(ID_ALPHABET, byte % 32)).collect();
    let digits = secret.iter().flat_map(|byte| [letter(HEX, byte >> 4), letter(HEX, byte & 15)]);
    let text: String = PREFIX.chars().chain(id.chars()).chain(['_']).chain(digits).collect();
    Ok((KeyId(id), text))
}

fn letter(alphabet: &[u8], place: u8) -> char {
    alphabet.get(usize::from(place)).copied().map_or('x', char::from)
}

/// Random bytes that nobody can guess.
///
/// # Errors
///
/// `Internal` when the system has none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; N];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_unspecified| Error::internal("the system gives no random numbers"))?;
    Ok(bytes)
}

/// The cluster's secret, which keys all hashes.
#[derive(Clone)]
pub struct Hasher(hmac::Key);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Hashes with this secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The hash of a key, as it is stored.
    pub fn hash(&self, key: &str) -> Vec<u8> {
        hmac::sign(&self.0, key.as_bytes()).as_ref().to_vec()
    }

    /// Whether it is the key of a hash. Takes the same time wherever they differ.
    pub fn is_key_of(&self, hash: &[u8], key: &str) -> bool {
        hmac::verify(&self.0, key.as_bytes(), hash).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_one_and_no_other_text_is() {
        let (id, key) = generate().unwrap();
        let (other, _) = generate().unwrap();

        assert_eq!(id_of(&key), Some(id.as_str()));
        assert_ne!(id, other);
        for wrong in [
            String::new(),
            "weft_".to_owned(),
            key.to_uppercase(),
            key[..key.len() - 1].to_owned(),
            format!("{key}0"),
            format!(" {key}"),
            key.replacen('_', "-", 1),
            key.replace("weft", "west"),
            format!("{}\u{e9}{}", &key[..20], &key[22..]),
            format!("weft__{}", &key[6..]),
            format!("weft_{}_{}", "A".repeat(12), "0".repeat(64)),
            format!("weft_{}_{}", "a".repeat(12), "g".repeat(64)),
            format!("weft_{}_{}", "a".repeat(11), "0".repeat(65)),
        ] {
            assert_eq!(id_of(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_the_key_itself_has_its_hash_and_only_with_the_same_secret() {
        let (_, key) = generate().unwrap();
        let hasher = Hasher::new(&[7; 32]);
        let hash = hasher.hash(&key);

        assert!(hasher.is_key_of(&hash, &key));
        assert!(!hasher.is_key_of(&hash, &generate().unwrap().1));
        assert!(!hasher.is_key_of(&hash[..31], &key));
        assert!(!Hasher::new(&[8; 32]).is_key_of(&hash, &key));
        assert!(!format!("{hasher:?}").contains('7'));
    }
}
