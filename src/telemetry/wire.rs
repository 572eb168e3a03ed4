//! The way to a collector: OTLP over gRPC, or over HTTP with protobuf.
//!
//! *Never* repeats an export by itself, and never waits longer than [`EXPORT_MAX`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use weft_proto::trace::{Otlp, Protocol};

use crate::toml_file;

/// How long one export may take.
const EXPORT_MAX: Duration = Duration::from_secs(10);

/// A collector.
#[derive(Clone, Debug)]
pub(super) enum Wire {
    Grpc { channel: Channel, metadata: MetadataMap },
    Http { base: Uri, headers: http::HeaderMap, tls: Option<Arc<rustls::ClientConfig>> },
}

impl Wire {
    /// Reads what the settings name; dials nobody yet.
    pub(super) fn new(settings: &Otlp) -> anyhow::Result<Self> {
        let headers = headers(settings)?;
        let ca = settings.ca_file.as_deref().map(read).transpose()?;
        match settings.protocol {
            Protocol::Grpc => {
                let mut endpoint = Endpoint::from_shared(settings.endpoint.clone())
                    .context("telemetry.otlp.endpoint")?
                    .connect_timeout(EXPORT_MAX)
                    .timeout(EXPORT_MAX);
                if let Some(pem) = ca {
                    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                    endpoint = endpoint.tls_config(tls).context("telemetry.otlp.ca_file")?;
                }
                let metadata = MetadataMap::from_headers(headers);
                Ok(Self::Grpc { channel: endpoint.connect_lazy(), metadata })
            }
            Protocol::HttpProtobuf => {
                let base = settings.endpoint.parse().context("telemetry.otlp.endpoint")?;
                let tls = ca.map(|pem| encryption(pem.as_bytes())).transpose()?;
                Ok(Self::Http { base, headers, tls })
            }
        }
    }

    /// Sends spans; gives the number that the collector refused.
    pub(super) async fn spans(&self, request: ExportTraceServiceRequest) -> anyhow::Result<i64> {
        match self {
            Self::Grpc { channel, metadata } => {
                let mut client = TraceServiceClient::new(channel.clone());
                let request = with(metadata, request);
                let answer = timeout(EXPORT_MAX, client.export(request)).await??.into_inner();
                Ok(answer.partial_success.map_or(0, |partial| partial.rejected_spans))
            }
            Self::Http { .. } => {
                timeout(EXPORT_MAX, self.post("traces", request.encode_to_vec())).await??;
                Ok(0)
            }
        }
    }

    /// Sends metrics.
    pub(super) async fn metrics(&self, request: ExportMetricsServiceRequest) -> anyhow::Result<()> {
        match self {
            Self::Grpc { channel, metadata } => {
                let mut client = MetricsServiceClient::new(channel.clone());
                timeout(EXPORT_MAX, client.export(with(metadata, request))).await??;
                Ok(())
            }
            Self::Http { .. } => {
                timeout(EXPORT_MAX, self.post("metrics", request.encode_to_vec())).await?
            }
        }
    }

    async fn post(&self, signal: &str, body: Vec<u8>) -> anyhow::Result<()> {
        let Self::Http { base, headers, tls } = self else { return Ok(()) };
        let host = base.host().context("the endpoint has no host")?;
        let port = base.port_u16().unwrap_or_else(|| if tls.is_some() { 443 } else { 80 });
        let path = format!("{}/v1/{signal}", base.path().trim_end_matches('/'));
        let authority = base.authority().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse()?;
        request.headers_mut().clone_from(headers);
        request.headers_mut().insert(HOST, HeaderValue::try_from(authority)?);
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(CONTENT_TYPE, protobuf);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await?;
        match tls {
            None => exchange(stream, request).await,
            Some(tls) => {
                let name = ServerName::try_from(bare.to_owned())?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
                exchange(connector.connect(name, stream).await?, request).await
            }
        }
    }
}

/// One request on a connection of its own: there is one every few seconds.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let answer = async { sender.send_request(request).await };
    let response = tokio::select! {
        answer = answer => answer?,
        ended = connection => {
            ended?;
            bail!("the collector closed the connection without an answer");
        }
    };
    let status = response.status();
    if !status.is_success() {
        bail!("the collector answered {status}");
    }
    Ok(())
}

fn with<T>(metadata: &MetadataMap, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().clone_from(metadata);
    request
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn encryption(pem: &[u8]) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.context("telemetry.otlp.ca_file")?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What goes with each export. The values may be secrets: no error shows one.
fn headers(settings: &Otlp) -> anyhow::Result<http::HeaderMap> {
    let mut pairs = Vec::new();
    if let Some(path) = &settings.headers_file {
        let text = read(path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        pairs.extend(split(lines, ':').with_context(|| path.display().to_string())?);
    }
    if let Some(name) = &settings.headers_env {
        let text = toml_file::environment().find(|(known, _)| known == name);
        let (_, text) = text
            .with_context(|| format!("telemetry.otlp.headers_env: there is no variable {name}"))?;
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        pairs.extend(split(items, '=').with_context(|| name.clone())?);
    }
    let mut headers = http::HeaderMap::new();
    for (name, value) in pairs {
        let problem = || format!("the header {name:?} cannot be sent");
        let key: HeaderName = name.parse().with_context(problem)?;
        let mut value = HeaderValue::try_from(value).with_context(problem)?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

fn split<'a>(
    items: impl Iterator<Item = &'a str>,
    by: char,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for (number, item) in items.enumerate() {
        let Some((name, value)) = item.split_once(by) else {
            bail!("header {} is not of the form name{by}value", number + 1);
        };
        pairs.insert(name.trim().to_lowercase(), value.trim().to_owned());
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn headers_come_from_a_file_and_no_error_shows_a_value() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "Authorization: Bearer abc\n\nx-tenant:shop").unwrap();
        let settings = Otlp { headers_file: Some(file.path().to_owned()), ..Otlp::default() };

        let found = headers(&settings).unwrap();

        assert_eq!(found.get("authorization").unwrap(), "Bearer abc");
        assert_eq!(found.get("x-tenant").unwrap(), "shop");
        assert!(!format!("{found:?}").contains("abc"));
        writeln!(file, "secret-without-colon").unwrap();
        let error = format!("{:#}", headers(&settings).unwrap_err());
        assert!(!error.contains("secret") && error.contains("header 3"), "{error}");
    }

    #[test]
    fn a_missing_variable_is_an_error_that_names_it() {
        let name = Some("WEFT_TEST_NOBODY_SETS_THIS".to_owned());
        let settings = Otlp { headers_env: name, ..Otlp::default() };
        let error = format!("{:#}", headers(&settings).unwrap_err());
        assert!(error.contains("WEFT_TEST_NOBODY_SETS_THIS"), "{error}");
        let pairs = split(["a=b=c", "D = e"].into_iter(), '=').unwrap();
        assert_eq!(&pairs["a"], "b=c");
        assert_eq!(&pairs["d"], "e");
    }
}
