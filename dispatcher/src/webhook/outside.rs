//! What the operator says about the world outside: who may be dialled, who is trusted, who we are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use weft_proto::resource::{Host, WebhookUrl};
use weft_proto::{Error, Result};

use crate::config;
use crate::egress::address::{Range, is_allowed_by_name};

/// Where systems keep the authorities that they trust, in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Settings for everything outside, ready for use.
#[derive(Clone)]
pub(crate) struct Outside {
    /// How we call ourselves to receivers.
    pub(super) origin: String,
    /// Ports that may be dialled; all of them when empty.
    pub(super) ports: Vec<u16>,
    /// Addresses that may be dialled although they are not public.
    pub(super) allowed: Vec<Range>,
    /// Encrypts, and checks certificates.
    pub(super) tls: TlsConnector,
    /// Where secrets are, a folder for each namespace.
    pub(super) secrets: Option<PathBuf>,
    /// How often consent is asked for again.
    pub(super) consent_every: Duration,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Outside {
    /// Reads what the settings name.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the key.
    pub(crate) fn new(settings: &config::Webhooks) -> Result<Self> {
        Ok(Self {
            origin: settings.origin.clone().unwrap_or_else(host_name),
            ports: settings.ports.clone(),
            allowed: settings.allow_private.clone(),
            tls: TlsConnector::from(Arc::new(tls(settings.ca_file.as_deref())?)),
            secrets: settings.secrets.clone(),
            consent_every: settings.consent_every.0,
        })
    }

    /// Where secrets are, a folder for each namespace.
    pub(crate) fn secrets(&self) -> Option<&PathBuf> {
        self.secrets.as_ref()
    }

    /// Says at once what is certain: whether a receiver may be spoken to by `http`. The catalog, which
    /// does not know who may be dialled, takes any that is near by its name.
    ///
    /// # Errors
    ///
    /// `Invalid`, for the status of the webhook.
    pub(super) fn check_plain(&self, url: &WebhookUrl) -> Result<()> {
        let may_be = match url.host() {
            _ if !url.is_plain() => true,
            Host::Address(address) => is_allowed_by_name(*address, &self.allowed),
            // Where it leads is found out by whoever dials it.
            Host::Name(_) => !self.allowed.is_empty(),
        };
        if may_be {
            return Ok(());
        }
        let message = "spec.url is http, which the dispatcher sends only to what \
                       webhooks.allow_private in its configuration names";
        Err(Error::invalid(message).with_field("spec.url"))
    }
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().unwrap_or_default().to_ascii_lowercase()
}

/// Trusts the authorities in a file; without one, those of the system. A system that has none is
/// found out by whoever sends by `https`.
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let wrong = |what: String| {
            let message = format!("{} cannot be used: {what}", path.display());
            Error::invalid(message).with_field("webhooks.ca_file")
        };
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("it holds no certificate in PEM".to_owned()));
        }
    } else {
        let text = BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
        // The system's own: what cannot be read of it, nobody trusts.
        let found = text.unwrap_or_default();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&found).flatten());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| Error::internal("no TLS").with_source(error))?;
    let mut tls = versions.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_is_named_and_the_host_is_our_origin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let settings =
            config::Webhooks { ca_file: Some(path.clone()), ..config::Webhooks::default() };
        assert_eq!(Outside::new(&settings).unwrap_err().field(), Some("webhooks.ca_file"));
        std::fs::write(&path, "junk").unwrap();
        assert_eq!(Outside::new(&settings).unwrap_err().field(), Some("webhooks.ca_file"));

        let outside = Outside::new(&config::Webhooks::default()).unwrap();
        assert!(!outside.origin.is_empty() && outside.ports == [443, 8443]);
    }

    #[test]
    fn plain_text_to_what_nobody_allows_is_refused_at_once() {
        let refused = |url: &str, allowed: &[&str]| {
            let settings = config::Webhooks {
                allow_private: allowed.iter().map(|range| range.parse().unwrap()).collect(),
                ..config::Webhooks::default()
            };
            let outside = Outside::new(&settings).unwrap();
            let told = outside.check_plain(&WebhookUrl::parse(url).unwrap());
            told.is_err_and(|error| error.field() == Some("spec.url"))
        };

        assert!(refused("http://127.0.0.1/", &[]) && refused("http://localhost/", &[]));
        assert!(refused("http://127.0.0.1/", &["10.0.0.0/8"]));
        assert!(!refused("http://127.0.0.1/", &["127.0.0.0/8"]));
        // Where a name leads is not known yet.
        assert!(!refused("http://localhost/", &["10.0.0.0/8"]));
        assert!(!refused("https://127.0.0.1/", &[]));
    }
}
