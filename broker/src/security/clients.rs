//! TLS of the two ports for clients.

use std::sync::Arc;

use rustls::ServerConfig;

use super::pem::{Shown, roots};
use super::watched::{Contents, File, Watched};
use super::{Asks, FROM_12, ONLY_13, server, tell_expiry};
use crate::clock;
use crate::config::{ConfigError, Security};

/// One certificate for both ports that clients reach.
#[derive(Debug)]
pub struct ClientPorts {
    /// For gRPC.
    pub grpc: Arc<ServerConfig>,
    /// For HTTP.
    pub http: Arc<ServerConfig>,
}

/// Reads the files of the section; nothing without a certificate.
pub(super) fn load(security: &Security) -> Result<Option<Watched<ClientPorts>>, ConfigError> {
    let (Some(certificate), Some(key)) = (&security.certificate, &security.key) else {
        return Ok(None);
    };
    let mut files =
        vec![File::new("security.certificate", certificate), File::new("security.key", key)];
    if let Some(ca) = &security.client_ca {
        files.push(File::new("security.client_ca", ca));
    }
    let tls12 = security.tls12;
    Watched::load("clients", files, move |files, contents| make(files, contents, tls12)).map(Some)
}

fn make(files: &[File], contents: &Contents, tls12: bool) -> Result<ClientPorts, ConfigError> {
    let mut read = files.iter().zip(contents.iter().map(Vec::as_slice));
    let (Some(certificate), Some(key)) = (read.next(), read.next()) else {
        let problem = "no certificate is named".to_owned();
        return Err(ConfigError { key: "security.certificate", problem });
    };
    let shown = Shown::read(certificate, key)?;
    if shown.expires() <= clock::now() {
        return Err(certificate.0.wrong("has expired"));
    }
    let roots = read.next().map(|(file, text)| roots(file, text)).transpose()?;
    let versions = if tls12 { FROM_12 } else { ONLY_13 };
    let asked = roots.map(|roots| (roots, Asks::Everybody));
    let mut grpc = server(&shown, asked, versions)
        .map_err(|error| certificate.0.wrong(format_args!("cannot be used: {error}")))?;
    let mut http = grpc.clone();
    grpc.alpn_protocols = vec![b"h2".to_vec()];
    http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tell_expiry("client", shown.expires());
    Ok(ClientPorts { grpc: Arc::new(grpc), http: Arc::new(http) })
}
