//! One GET of a small JSON document, over a connection of its own.
//!
//! *Never* follows a redirect, asks the environment for a proxy, or reads more than it must: a
//! client library for everything would have to be told all that.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Body as _, Bytes};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::url::Url;

/// Headers of an answer.
const HEADER_BYTES_MAX: usize = 32 << 10;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a document could not be had. The address is the operator's or the issuer's own.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot reach the issuer")]
    Away(#[source] Cause),
    #[error("the issuer did not answer in time")]
    Slow,
    #[error("a name of this machine leads to another machine")]
    NotLoopback,
    #[error("the issuer answered with a redirect")]
    Redirect,
    #[error("the issuer answered with status {0}")]
    Status(u16),
    #[error("the answer is not JSON")]
    NotJson,
    #[error("the answer is larger than it may be, or broke off")]
    Body(#[source] Cause),
}

/// Fetches documents of one issuer.
#[derive(Clone)]
pub(super) struct Fetcher {
    tls: TlsConnector,
    timeout: Duration,
    bytes_max: usize,
}

impl Fetcher {
    pub(super) fn new(tls: ClientConfig, timeout: Duration, bytes_max: usize) -> Self {
        Self { tls: TlsConnector::from(Arc::new(tls)), timeout, bytes_max }
    }

    /// Fetches a document, within the time and the size that are allowed.
    pub(super) async fn get(&self, url: &Url) -> Result<Bytes, FetchError> {
        match tokio::time::timeout(self.timeout, self.connect(url)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(FetchError::Slow),
        }
    }

    async fn connect(&self, url: &Url) -> Result<Bytes, FetchError> {
        let away = |error: std::io::Error| FetchError::Away(error.into());
        let found = lookup_host((url.host.as_str(), url.port)).await.map_err(away)?;
        let addresses: Vec<SocketAddr> = found.collect();
        // What was allowed for its name must hold for the address that is dialled.
        if url.is_plain && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(FetchError::NotLoopback);
        }
        let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(away)?;
        if url.is_plain {
            return self.exchange(url, tcp).await;
        }
        let name = ServerName::try_from(url.host.clone());
        let name = name.map_err(|error| FetchError::Away(error.into()))?;
        let tls = self.tls.connect(name, tcp).await.map_err(away)?;
        self.exchange(url, tls).await
    }

    async fn exchange<S>(&self, url: &Url, stream: S) -> Result<Bytes, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let away = |error: Cause| FetchError::Away(error);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| away(error.into()))?;
        let request = Request::get(&url.path)
            .header(HOST, &url.authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("weft/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| away(error.into()))?;
        let answer = pin!(async move {
            let response =
                sender.send_request(request).await.map_err(|error| away(error.into()))?;
            check_head(&response)?;
            self.read(response).await
        });
        match select(answer, pin!(connection)).await {
            Either::Left((answer, _connection)) => answer,
            // The connection is done; what it brought waits for the reader.
            Either::Right((_, answer)) => answer.await,
        }
    }

    async fn read(&self, response: Response<hyper::body::Incoming>) -> Result<Bytes, FetchError> {
        let body = response.into_body();
        let max = self.bytes_max;
        if body.size_hint().lower() > max as u64 {
            return Err(FetchError::Body(format!("more than {max} bytes are announced").into()));
        }
        let whole = Limited::new(body, max).collect().await.map_err(FetchError::Body)?;
        Ok(whole.to_bytes())
    }
}

fn check_head<B>(response: &Response<B>) -> Result<(), FetchError> {
    let status = response.status();
    if status.is_redirection() {
        return Err(FetchError::Redirect);
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(status.as_u16()));
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let kind = header(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = matches!(kind.as_str(), "application/json" | "application/jwk-set+json");
    if is_json && header(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity") {
        Ok(())
    } else {
        Err(FetchError::NotJson)
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
