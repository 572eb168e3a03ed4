//! From what a call shows to who calls.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::digest;
use tokio::time::Instant;
use weft_proto::{Error, Principal, Reason, Result, Timestamp};

use super::caller::{Caller, Identity};
use super::gcra::{Answer, Gcra, Rate};
use super::jwt::{JwtError, looks_like_jwt};
use super::{Access, IDENTITIES_MAX, key};
use crate::audit::{Outcome, Record};
use crate::clock;
use crate::data::lock;
use crate::listen::network;

/// Credentials that are none, from one address; beyond it they are told to slow down. Whoever shows a
/// good one is let in all the same: many share an address.
const FAILURES: Rate = Rate { per_second: 5, burst: 50 };
/// The same for all addresses together, while too many are known.
const FAILURES_ALL: Rate = Rate { per_second: 500, burst: 1_000 };
const ADDRESSES_MAX: usize = 4_096;

/// What a call shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    /// The header `authorization`; what cannot be read as text is none that is good.
    pub authorization: Option<&'a str>,
    /// The certificate of the connection.
    pub certificate: Option<Certificate<'a>>,
    /// Where it comes from.
    pub remote: Option<IpAddr>,
}

/// What a call needs to know of its connection's certificate, which was verified.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// All URIs among its names.
    pub uris: &'a [String],
    /// When it ends.
    pub not_after: Timestamp,
    /// SHA-256 of its encoding.
    pub thumbprint: [u8; 32],
}

/// How many credentials were none, by address.
pub(super) struct Failures {
    began: Instant,
    by_address: Mutex<BTreeMap<IpAddr, Arc<Gcra>>>,
    rest: Arc<Gcra>,
}

impl Default for Failures {
    fn default() -> Self {
        Self { began: Instant::now(), by_address: Mutex::default(), rest: Arc::default() }
    }
}

impl Failures {
    /// Whether an address may have costly work done.
    fn check(&self, address: Option<IpAddr>) -> Result<()> {
        let wait = self.units(address, 0);
        wait.map_or(Ok(()), |wait| Err(too_many(wait)))
    }

    fn take(&self, address: Option<IpAddr>) -> Option<Duration> {
        self.units(address, 1)
    }

    fn units(&self, address: Option<IpAddr>, units: u64) -> Option<Duration> {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let address = address.map(network);
        let mut by_address = lock(&self.by_address);
        if by_address.len() >= ADDRESSES_MAX {
            by_address.retain(|_, gcra| !gcra.is_idle(now));
        }
        let (gcra, rate) = match address {
            Some(address)
                if by_address.len() < ADDRESSES_MAX || by_address.contains_key(&address) =>
            {
                (Arc::clone(by_address.entry(address).or_default()), FAILURES)
            }
            _ => (Arc::clone(&self.rest), FAILURES_ALL),
        };
        drop(by_address);
        match gcra.take(rate, units, now) {
            Answer::Wait(wait) => Some(wait),
            Answer::Pass { .. } | Answer::Never => None,
        }
    }
}

fn too_many(wait: Duration) -> Error {
    let message = "too many calls from this address showed no good credential";
    Error::new(Reason::LimitReached, message).with_retry_after(wait)
}

/// What was shown, and on which certificate's connection: a token may belong to one.
fn hash_of(kind: u8, text: &str, certificate: Option<[u8; 32]>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[kind]);
    if let Some(thumbprint) = &certificate {
        context.update(thumbprint);
    }
    context.update(text.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

impl Access {
    /// Says who calls.
    ///
    /// # Errors
    ///
    /// `Unauthenticated`, always with the same words for a credential that is none, or
    /// `LimitReached` for an address that failed too often.
    pub async fn authenticate(&self, shown: Shown<'_>) -> Result<Caller> {
        if !self.is_enforced() {
            return Ok(self.on_behalf(Principal::anonymous().name().to_owned(), Vec::new()));
        }
        let now = clock::now();
        // What was shown on purpose counts, and not what the connection happens to have.
        let (kind, text) = match (shown.authorization, shown.certificate) {
            (Some(header), _) => (0, header),
            (None, Some(Certificate { uris: [uri], .. })) => (1, uri.as_str()),
            (None, Some(_)) => {
                self.failed(shown.remote, "a certificate without exactly one URI")?;
                let message = "the certificate must have exactly one URI among its names: it is \
                               the principal";
                return Err(Error::new(Reason::Unauthenticated, message));
            }
            (None, None) => {
                let message = "a credential is needed: an API key or a token, sent as \
                               `authorization: Bearer CREDENTIAL`, or a client certificate";
                return Err(Error::new(Reason::Unauthenticated, message));
            }
        };
        let hash = hash_of(kind, text, shown.certificate.map(|shown| shown.thumbprint));
        if let Some(identity) = self.known().by_credential.get(&hash)
            && identity.expires.is_none_or(|expires| now < expires)
            && identity.token.as_ref().is_none_or(|token| token.is_vouched_for())
        {
            return Ok(Caller::new(Arc::clone(identity), self.clone()));
        }
        let found = match (kind, shown.certificate) {
            (1, Some(Certificate { not_after, .. })) if now < not_after => {
                let principal = Principal::new(format!("cert:{text}"));
                Ok(self.identity(principal, Vec::new(), Some(not_after), None))
            }
            (1, _) => Err("a certificate that has expired".to_owned()),
            _ => self.of_header(text, &shown, now).await?,
        };
        match found {
            Ok(identity) => {
                let identity = Arc::new(identity);
                let mut known = self.known();
                if known.by_credential.len() >= IDENTITIES_MAX {
                    known.by_credential.clear();
                }
                known.by_credential.insert(hash, Arc::clone(&identity));
                drop(known);
                Ok(Caller::new(identity, self.clone()))
            }
            Err(what) => {
                self.failed(shown.remote, &what)?;
                Err(Error::new(Reason::Unauthenticated, "the credential is not valid"))
            }
        }
    }

    /// Whose credential is in a header; or what is wrong with it, for the record alone.
    ///
    /// # Errors
    ///
    /// What is not the caller's fault, and too many failures before costly work.
    async fn of_header(
        &self,
        header: &str,
        shown: &Shown<'_>,
        now: Timestamp,
    ) -> Result<Result<Identity, String>> {
        let none = |what: &str| Ok(Err(what.to_owned()));
        let Some((scheme, token)) = header.split_once(' ') else {
            return none("a header without scheme");
        };
        // Clients of Event Grid say so before a key.
        let is_key = scheme.eq_ignore_ascii_case("sharedaccesskey") && key::looks_like_key(token);
        if !(is_key || scheme.eq_ignore_ascii_case("bearer")) {
            return none("a scheme other than bearer");
        }
        if key::looks_like_key(token) {
            let Some(id) = key::id_of(token) else { return none("a key of the wrong form") };
            let Some((principal, expires)) = self.rules().principal_of_key(id, token, now) else {
                return none("a key that is none");
            };
            return Ok(Ok(self.identity(principal, Vec::new(), expires, Some(id.to_owned()))));
        }
        let Some(issuers) = self.0.issuers.as_ref().filter(|_| looks_like_jwt(token)) else {
            return none("a token of no known kind");
        };
        let verified = if let Some(verified) = issuers.cached(token, now) {
            verified
        } else {
            // A signature costs a hundred times what a key does.
            self.0.failures.check(shown.remote)?;
            match issuers.verify(token, now).await {
                Ok(verified) => verified,
                // Not the caller's fault.
                Err(JwtError::KeysUnavailable | JwtError::Busy) => {
                    let message = "the keys of the token's issuer cannot be had at present";
                    let error = Error::unavailable(message).with_not_applied();
                    return Err(error.with_retry_after(Duration::from_secs(1)));
                }
                Err(error) => return none(&format!("a token: {error}")),
            }
        };
        if let Some(bound) = verified.certificate_thumbprint
            && shown.certificate.map(|shown| shown.thumbprint) != Some(bound)
        {
            return none("a token that belongs to another certificate");
        }
        let issuer = &verified.issuer;
        let groups = verified.groups.iter().map(|group| format!("group:{issuer}:{group}"));
        let principal = Principal::new(format!("jwt:{issuer}:{}", verified.subject));
        let identity = self.identity(principal, groups.collect(), Some(verified.expires), None);
        Ok(Ok(Identity { token: Some(verified), ..identity }))
    }

    /// Counts and records a credential that was none.
    fn failed(&self, remote: Option<IpAddr>, what: &str) -> Result<()> {
        let record = Record::new("unauthenticated", &Principal::new("unknown"), Outcome::Denied);
        self.audit().note(record.because(what).from(remote));
        metrics::counter!(crate::metrics::REFUSED_CREDENTIALS).increment(1);
        match self.0.failures.take(remote) {
            None => Ok(()),
            Some(wait) => Err(too_many(wait)),
        }
    }
}
