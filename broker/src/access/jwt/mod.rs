//! Tokens of identity providers: JSON Web Tokens, checked strictly, by keys that are looked up
//! as `OpenID` Connect Discovery says.
//!
//! *Owns* the keys of the issuers and the tokens that were verified. *Never* decides what a caller
//! may do, and never takes an address from a token.
//!
//! The format is read here and signatures are checked by `ring` itself, because the common crate
//! `jsonwebtoken` 12 has only two back-ends: one is a large library in C, the other contains the
//! crate `rsa` (RUSTSEC-2023-0071). Neither it nor its likes would refuse what is refused here:
//! names that come twice, keys of their own, types that mean something else.

mod algorithm;
mod cache;
mod claims;
mod config;
mod error;
mod fetch;
mod issuer;
mod json;
mod key;
#[cfg(test)]
mod tests;
mod token;
mod url;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_proto::Timestamp;

use self::cache::Cache;
use self::fetch::Fetcher;
use self::issuer::{Issuer, Source};
use self::key::Key;
use self::token::Token;
use self::url::Url;
use crate::clock;
use crate::config::ConfigError;

pub use self::algorithm::Algorithm;
pub use self::config::IssuerConfig;
pub use self::error::JwtError;
pub use self::token::{TOKEN_LEN_MAX, looks_like_jwt};

/// Between two looks for verified tokens that have expired.
const SWEEP: Duration = Duration::from_mins(1);

/// What bounds the work for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One fetch must end by then.
    pub fetch_timeout: Duration,
    /// A larger document of an issuer is not read.
    pub document_bytes_max: usize,
    /// Between two refreshes of the keys, give or take a tenth.
    pub refresh: Duration,
    /// Keys are asked for at most once in this time, whatever tokens say.
    pub retry_min: Duration,
    /// Keys are used for this long after the issuer was last heard.
    pub keys_kept: Duration,
    /// Calls that may wait for the keys of one issuer.
    pub waiting_max: usize,
    /// Verified tokens that are remembered.
    pub cache_entries_max: usize,
    /// What they may take.
    pub cache_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fetch_timeout: Duration::from_secs(5),
            document_bytes_max: 256 << 10,
            refresh: Duration::from_mins(5),
            retry_min: Duration::from_secs(10),
            keys_kept: Duration::from_hours(24),
            waiting_max: 256,
            cache_entries_max: 20_000,
            cache_bytes_max: 16 << 20,
        }
    }
}

/// What a token proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The configured name of the issuer, not its address.
    pub issuer: Arc<str>,
    /// Who the token is about, by the issuer: 1 to 255 characters of visible ASCII.
    pub subject: Arc<str>,
    /// The caller's groups, by the issuer.
    pub groups: Arc<[Box<str>]>,
    /// From then on the token counts no more. A new call may use the leeway on top.
    pub expires: Timestamp,
    /// SHA-256 of the only client certificate that may send this token (RFC 8705). Whoever accepts
    /// the token must compare it.
    pub certificate_thumbprint: Option<[u8; 32]>,
    key: Proof,
}

/// The key that proved something; one is as good as another.
#[derive(Clone, Debug)]
struct Proof(Arc<Key>);

impl PartialEq for Proof {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Proof {}

impl Verified {
    /// Whether the issuer still has the key that signed it: nothing counts that one it has withdrawn
    /// had proved.
    pub fn is_vouched_for(&self) -> bool {
        self.key.0.is_live()
    }

    fn bytes(&self) -> usize {
        let groups: usize =
            self.groups.iter().map(|group| size_of::<Box<str>>() + group.len()).sum();
        size_of::<Self>() + self.subject.len() + groups
    }
}

/// The issuers whose tokens are accepted; clones share everything.
#[derive(Clone, Debug)]
pub struct Issuers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    issuers: Vec<Issuer>,
    cache: Cache,
}

impl Issuers {
    /// Reads the files that the configurations name. Nothing is fetched before `run`.
    ///
    /// # Errors
    ///
    /// The key whose value or file cannot be used.
    pub fn new(configs: &[IssuerConfig], limits: Limits) -> Result<Self, ConfigError> {
        let mut issuers: Vec<Issuer> = Vec::new();
        for config in configs {
            config.check()?;
            let other = |issuer: &&Issuer| {
                issuer.config.name == config.name || issuer.config.url == config.url
            };
            if let Some(other) = issuers.iter().find(other) {
                let problem = format!("{} and {} are the same", other.name, config.name);
                return Err(ConfigError { key: "access.issuers", problem });
            }
            issuers.push(issuer(config, limits)?);
        }
        let cache = Cache::new(limits.cache_entries_max, limits.cache_bytes_max);
        Ok(Self { shared: Arc::new(Shared { issuers, cache }) })
    }

    /// What a token proved before: it was verified, has not expired, and its key is still there.
    ///
    /// Hashes the token, and does no more; a miss says nothing about it.
    pub fn cached(&self, token: &str, now: Timestamp) -> Option<Arc<Verified>> {
        if token.len() > TOKEN_LEN_MAX {
            return None;
        }
        self.shared.cache.get(token, now)
    }

    /// Verifies a token. May wait for the keys of its issuer, for a bounded time, when the token
    /// names one that is not known; they are asked for by `run`, which must run.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong. Nothing but the form of the token and its issuer's name is
    /// looked at before the signature is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch that was asked for goes on without the caller.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Verified>, JwtError> {
        let parsed = Token::parse(token)?;
        let name = claims::issuer(&parsed.claims)?;
        let named = self.shared.issuers.iter().find(|issuer| issuer.config.url == name);
        let issuer = named.ok_or(JwtError::IssuerUnknown)?;
        let algorithm = parsed.header.algorithm;
        let allowed = algorithm.filter(|it| issuer.config.algorithms.contains(it));
        let algorithm = allowed.ok_or(JwtError::AlgorithmRefused)?;
        let key = issuer.key(parsed.header.key_id.as_deref(), algorithm).await?;
        if !key.proves(algorithm, parsed.signed, &parsed.signature) {
            return Err(JwtError::SignatureWrong);
        }
        let accepted = claims::check(&parsed.claims, &issuer.config, now)?;
        let verified = Arc::new(Verified {
            issuer: Arc::clone(&issuer.name),
            subject: accepted.subject,
            groups: accepted.groups,
            expires: accepted.expires,
            certificate_thumbprint: accepted.certificate_thumbprint,
            key: Proof(Arc::clone(&key)),
        });
        if now < verified.expires {
            self.shared.cache.put(token, &verified);
        }
        Ok(verified)
    }

    /// Keeps the keys of all issuers fresh until the stop.
    ///
    /// An issuer that is away changes nothing at first: its last keys are kept for as long as the
    /// limits say.
    pub async fn run(self, stop: CancellationToken) {
        let kept = self.shared.issuers.iter().map(|issuer| issuer.keep(&stop));
        let sweep = async {
            while stop.run_until_cancelled(sleep(SWEEP)).await.is_some() {
                self.shared.cache.sweep(clock::now());
            }
        };
        futures::join!(futures::future::join_all(kept), sweep);
    }
}

fn issuer(config: &IssuerConfig, limits: Limits) -> Result<Issuer, ConfigError> {
    if let Some(path) = &config.jwks_file {
        const KEY: &str = "access.issuers.jwks_file";
        let refuse = |what: String| ConfigError {
            key: KEY,
            problem: format!("{} cannot be used: {what}", path.display()),
        };
        let text = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        if text.len() > limits.document_bytes_max {
            return Err(refuse(format!("it has more than {} bytes", limits.document_bytes_max)));
        }
        let issuer = Issuer::new(config.clone(), Source::File, limits);
        issuer.start_with(&text).map_err(|problem| refuse(problem.to_owned()))?;
        return Ok(issuer);
    }
    let url = Url::issuer(&config.url).map_err(|problem| ConfigError {
        key: "access.issuers.url",
        problem: format!("{:?} {problem}", config.url),
    })?;
    let tls = tls(config.ca_file.as_deref())?;
    let fetcher = Fetcher::new(tls, limits.fetch_timeout, limits.document_bytes_max);
    Ok(Issuer::new(config.clone(), Source::Remote { url, fetcher }, limits))
}

/// Trusts the authorities in a file, and nobody without one.
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, ConfigError> {
    const KEY: &str = "access.issuers.ca_file";
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let refuse = |what: String| ConfigError {
            key: KEY,
            problem: format!("{} cannot be used: {what}", path.display()),
        };
        let text = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
            roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refuse("it holds no certificate in PEM".to_owned()));
        }
    }
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions();
    let versions =
        versions.map_err(|error| ConfigError { key: KEY, problem: format!("no TLS: {error}") })?;
    let mut tls = versions.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}
