//! What a verified certificate of the other end says.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use weft_proto::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a certificate that verifies is not taken all the same: it can be read in more than one way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read: {0}")]
pub struct Unreadable(String);

/// A certificate that the other end showed and has the key of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// URIs of the subject's alternative names, byte for byte and in order. The distinguished name
    /// is never looked at.
    pub uris: Vec<String>,
    /// From then on it is worth nothing; a connection may live longer.
    pub not_after: Timestamp,
    /// SHA-256 of its encoding: tokens may belong to it (RFC 8705).
    pub thumbprint: [u8; 32],
    der: CertificateDer<'static>,
}

impl ClientCertificate {
    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// When anything in it is ambiguous.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, Unreadable> {
        let unreadable = |what: &dyn std::fmt::Display| Unreadable(what.to_string());
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(unreadable(&"there is something behind it"));
        }
        let names = parsed.subject_alternative_name().map_err(|error| unreadable(&error))?;
        let mut uris = Vec::new();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::Invalid(..) => return Err(unreadable(&"a name of it is malformed")),
                _ => {}
            }
        }
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = Timestamp::from_micros(0).saturating_add(Duration::from_secs(seconds));
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest(&SHA256, der).as_ref());
        Ok(Self { uris, not_after, thumbprint, der: der.clone().into_owned() })
    }

    /// Whether it is for this host: a DNS name, or an IP address.
    pub fn covers(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        let parsed = ParsedCertificate::try_from(&self.der);
        parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }
}
