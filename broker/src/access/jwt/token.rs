//! Takes a token apart. What comes out is not proven yet.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::JwtError;
use super::algorithm::Algorithm;
use super::json::{self, Problem};

/// A longer token is refused before anything of it is decoded.
pub const TOKEN_LEN_MAX: usize = 16 << 10;
/// A longer key id is refused.
const KEY_ID_LEN_MAX: usize = 256;

/// The pieces of a token, decoded. Nothing in it is proven before the signature is.
pub(super) struct Token<'a> {
    pub(super) header: Header,
    pub(super) claims: Map<String, Value>,
    /// What is signed: header and claims as they were sent.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
}

/// What a header may say.
#[derive(Debug)]
pub(super) struct Header {
    /// By its name: which ones are allowed is the issuer's matter.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) key_id: Option<Box<str>>,
}

/// Whether a credential is meant to be a JWT, which says nothing of its worth: it begins as the JSON
/// of a header does in base64url, and has parts.
///
/// Needs nanoseconds. Encrypted tokens count, so that they are refused for what they are.
pub fn looks_like_jwt(token: &str) -> bool {
    // `{` and then a quote or a blank; or a line end.
    let begins = token.starts_with("ey") || token.starts_with("ew");
    let head = token.get(..TOKEN_LEN_MAX).unwrap_or(token);
    begins && head.bytes().filter(|&byte| byte == b'.').take(2).count() == 2
}

impl<'a> Token<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(JwtError::TooLong);
        }
        let dots = token.bytes().filter(|&byte| byte == b'.').count();
        if dots == 4 {
            return Err(JwtError::Encrypted);
        }
        let whole = || {
            let (signed, signature) = token.rsplit_once('.')?;
            let (header, claims) = signed.split_once('.')?;
            Some((signed, header, claims, signature))
        };
        let (2, Some((signed, header, claims, signature))) = (dots, whole()) else {
            return Err(JwtError::NotThreeParts);
        };
        let header = decode(header).ok_or(JwtError::HeaderEncoding)?;
        let header = json::object(&header).map_err(|problem| match problem {
            Problem::NoObject => JwtError::HeaderJson,
            Problem::Repeats => JwtError::HeaderRepeats,
        })?;
        let header = Header::read(&header)?;
        let claims = decode(claims).ok_or(JwtError::ClaimsEncoding)?;
        // A token within a token says so by `cty`, which not everybody writes.
        if std::str::from_utf8(&claims).is_ok_and(looks_like_jwt) {
            return Err(JwtError::Nested);
        }
        let claims = json::object(&claims).map_err(|problem| match problem {
            Problem::NoObject => JwtError::ClaimsJson,
            Problem::Repeats => JwtError::ClaimsRepeat,
        })?;
        if signature.is_empty() {
            return Err(JwtError::SignatureMissing);
        }
        let signature = decode(signature).ok_or(JwtError::SignatureEncoding)?;
        Ok(Self { header, claims, signed, signature })
    }
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Self, JwtError> {
        let has = |names: &[&str]| names.iter().any(|&name| header.contains_key(name));
        if has(&["enc", "zip", "epk"]) {
            return Err(JwtError::Encrypted);
        }
        if has(&["crit", "b64"]) {
            return Err(JwtError::Extension);
        }
        if has(&["jku", "jwk", "x5u", "x5c"]) {
            return Err(JwtError::OwnKey);
        }
        if has(&["cty"]) {
            return Err(JwtError::Nested);
        }
        if let Some(kind) = header.get("typ") {
            let kind = kind.as_str().ok_or(JwtError::WrongType)?.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            // Other kinds, as a logout token, come from the same keys and mean something else.
            if !matches!(kind, "jwt" | "at+jwt") {
                return Err(JwtError::WrongType);
            }
        }
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = Algorithm::of(algorithm.ok_or(JwtError::AlgorithmMissing)?);
        let key_id = match header.get("kid") {
            None => None,
            Some(id) => Some(id.as_str().filter(|id| is_key_id(id)).ok_or(JwtError::KeyIdInvalid)?),
        };
        Ok(Self { algorithm, key_id: key_id.map(Into::into) })
    }
}

/// Whether a text may be the id of a key. It is only ever compared: no file and no address is made
/// of it.
pub(super) fn is_key_id(id: &str) -> bool {
    is_visible(id) && id.len() <= KEY_ID_LEN_MAX
}

/// Whether a text is not empty and only of visible ASCII: it can be put in a log.
pub(super) fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Base64url as RFC 7515 wants it: without padding, blanks, or bits that mean nothing.
pub(super) fn decode(part: &str) -> Option<Vec<u8>> {
    if part.is_empty() {
        return None;
    }
    URL_SAFE_NO_PAD.decode(part).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_encoding_is_decoded() {
        assert_eq!(decode("-_8").unwrap(), [0xfb, 0xff]);
        for wrong in ["", "-_8=", "+/8", "-_9", "-_ 8", "-_8\n", " -_8", "-", "-_8A=", "ä"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_jwt_is_told_from_other_credentials() {
        for jwt in ["eyJhbGciOiJub25lIn0.e30.", "ewogIA.e30.x", "eyA.a.b.c.d"] {
            assert!(looks_like_jwt(jwt), "{jwt}");
        }
        let late = format!("ey{}.a.b", "x".repeat(TOKEN_LEN_MAX));
        for other in ["", "weft_id_secret", "eyJhbGciOiJub25lIn0.e30", "a.b.c", "ey", &late] {
            assert!(!looks_like_jwt(other), "{}", &other[..other.len().min(20)]);
        }
    }
}
