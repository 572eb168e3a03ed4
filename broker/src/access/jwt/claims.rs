//! What the claims of a token must say, once its signature is right.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use weft_proto::Timestamp;

use super::token::{decode, is_visible};
use super::{IssuerConfig, JwtError};

/// As `OpenID` Connect has it.
const SUBJECT_LEN_MAX: usize = 255;
const GROUPS_MAX: usize = 256;
const GROUP_LEN_MAX: usize = 256;
/// The end of the year 9999: later times have no text.
const SECONDS_MAX: u64 = 253_402_300_799;

type Claims = Map<String, Value>;

/// What is left of the claims.
pub(super) struct Accepted {
    pub(super) subject: Arc<str>,
    pub(super) groups: Arc<[Box<str>]>,
    pub(super) expires: Timestamp,
    pub(super) certificate_thumbprint: Option<[u8; 32]>,
}

/// The issuer that a token names. Not proven.
pub(super) fn issuer(claims: &Claims) -> Result<&str, JwtError> {
    claims.get("iss").and_then(Value::as_str).ok_or(JwtError::IssuerMissing)
}

/// Checks all claims.
pub(super) fn check(
    claims: &Claims,
    config: &IssuerConfig,
    now: Timestamp,
) -> Result<Accepted, JwtError> {
    check_audience(claims, &config.audience)?;
    let leeway = Duration::from_secs(config.leeway_s);
    let expires = time(claims, "exp", JwtError::ExpiryInvalid)?.ok_or(JwtError::ExpiryMissing)?;
    if now >= expires.saturating_add(leeway) {
        return Err(JwtError::Expired);
    }
    let not_before = time(claims, "nbf", JwtError::NotBeforeInvalid)?;
    if not_before.is_some_and(|at| now.saturating_add(leeway) < at) {
        return Err(JwtError::NotYetValid);
    }
    let issued = time(claims, "iat", JwtError::IssuedInvalid)?;
    if issued.is_some_and(|at| now.saturating_add(leeway) < at) {
        return Err(JwtError::IssuedLater);
    }
    let groups = match &config.groups_claim {
        Some(name) => groups(claims.get(name))?,
        None => Vec::new(),
    };
    Ok(Accepted {
        subject: subject(claims)?.into(),
        groups: groups.into(),
        expires,
        certificate_thumbprint: thumbprint(claims)?,
    })
}

fn check_audience(claims: &Claims, wanted: &str) -> Result<(), JwtError> {
    let is_ours = match claims.get("aud") {
        None => return Err(JwtError::AudienceMissing),
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(list)) => {
            if !list.iter().all(Value::is_string) {
                return Err(JwtError::AudienceInvalid);
            }
            list.iter().any(|one| one == wanted)
        }
        Some(_) => return Err(JwtError::AudienceInvalid),
    };
    if is_ours { Ok(()) } else { Err(JwtError::AudienceWrong) }
}

/// Whole seconds since 1970. RFC 7519 would allow fractions; no issuer needs them, and whoever reads
/// them rounds in one direction or the other.
fn time(claims: &Claims, name: &str, invalid: JwtError) -> Result<Option<Timestamp>, JwtError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_u64().filter(|&seconds| seconds <= SECONDS_MAX).ok_or(invalid)?;
    Ok(Some(Timestamp::from_micros(seconds * 1_000_000)))
}

/// Principals are printed in logs and compared: visible ASCII has one way to be written.
fn subject(claims: &Claims) -> Result<&str, JwtError> {
    let subject = claims.get("sub").ok_or(JwtError::SubjectMissing)?;
    let subject = subject.as_str().ok_or(JwtError::SubjectInvalid)?;
    if is_visible(subject) && subject.len() <= SUBJECT_LEN_MAX {
        Ok(subject)
    } else {
        Err(JwtError::SubjectInvalid)
    }
}

/// One text or a list. A group that cannot be read refuses the token: something might be denied to
/// that very group.
fn groups(claim: Option<&Value>) -> Result<Vec<Box<str>>, JwtError> {
    let list = match claim {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    if list.len() > GROUPS_MAX {
        return Err(JwtError::GroupsInvalid);
    }
    let group = |value: &Value| match value.as_str() {
        Some(name) if is_group(name) => Ok(name.into()),
        _ => Err(JwtError::GroupsInvalid),
    };
    list.iter().map(group).collect()
}

/// Letters of any script, since people name their groups in their language; nothing that cannot be
/// seen or that changes the direction of a line.
fn is_group(name: &str) -> bool {
    let is_printable = |c: char| c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric();
    !name.is_empty() && name.len() <= GROUP_LEN_MAX && name.chars().all(is_printable)
}

/// RFC 8705, section 3.1. A token that is bound to something else must not pass as one that is not.
fn thumbprint(claims: &Claims) -> Result<Option<[u8; 32]>, JwtError> {
    let Some(confirmation) = claims.get("cnf") else { return Ok(None) };
    let members = confirmation.as_object().filter(|members| members.len() == 1);
    let text = members.and_then(|members| members.get("x5t#S256")).and_then(Value::as_str);
    let bytes = text.and_then(decode).and_then(|bytes| bytes.try_into().ok());
    bytes.map(Some).ok_or(JwtError::ConfirmationInvalid)
}
