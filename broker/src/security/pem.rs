//! Certificates, keys and authorities out of PEM files, checked.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use weft_proto::Timestamp;

use super::watched::File;
use crate::config::ConfigError;
use crate::listen::ClientCertificate;

/// A certificate chain and the key of its first certificate.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) own: ClientCertificate,
}

impl Shown {
    /// Reads both, and checks that they fit.
    pub(super) fn read(
        (certificate, certificate_pem): (&File, &[u8]),
        (key, key_pem): (&File, &[u8]),
    ) -> Result<Self, ConfigError> {
        let chain = certificates(certificate, certificate_pem)?;
        for der in &chain {
            ParsedCertificate::try_from(der).map_err(|error| {
                certificate.wrong(format_args!("holds no X.509 certificate: {error}"))
            })?;
        }
        let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| match error {
            pem::Error::NoItemsFound => key.wrong(
                "holds no private key: PEM in PKCS#8, PKCS#1 or SEC1 is read, without a passphrase",
            ),
            error => key.wrong(format_args!("is not a PEM file: {error}")),
        })?;
        let matching = CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider());
        matching.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => key.wrong(format_args!(
                "is not the key of the first certificate in {}",
                certificate.path.display()
            )),
            error => key.wrong(format_args!("holds a key that cannot be used: {error}")),
        })?;
        let first = chain.first().ok_or_else(|| certificate.wrong("is empty"))?;
        let own = ClientCertificate::read(first).map_err(|error| certificate.wrong(error))?;
        Ok(Self { chain, key: private, own })
    }

    /// When the first of the chain expires: from then on nobody takes it.
    pub(super) fn expires(&self) -> Timestamp {
        let read = |der| ClientCertificate::read(der).ok().map(|read| read.not_after);
        self.chain.iter().filter_map(read).min().unwrap_or(self.own.not_after)
    }
}

/// What signs and encrypts.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(file: &File, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        match certificate {
            Ok(certificate) => found.push(certificate),
            Err(error) => return Err(file.wrong(format_args!("is not a PEM file: {error}"))),
        }
    }
    if found.is_empty() {
        return Err(file.wrong("holds no certificate: a PEM file is expected"));
    }
    Ok(found)
}

/// The authorities in a file.
pub(super) fn roots(file: &File, text: &[u8]) -> Result<Arc<RootCertStore>, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, text)? {
        roots
            .add(certificate)
            .map_err(|error| file.wrong(format_args!("cannot be trusted: {error}")))?;
    }
    Ok(Arc::new(roots))
}
