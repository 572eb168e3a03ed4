//! Connections to strangers: resolved here, looked at, and made to exactly what was looked at.
//!
//! *Never* asks the environment for a proxy, and never lets a library resolve a name again: between
//! two answers a name may come to lead elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tracing::info;
use weft_proto::resource::{Host, WebhookUrl};

use super::Outside;
use crate::egress::address::{check, is_allowed_by_name};
use crate::push::{Dial, Stream};

/// Longest wait for a connection, with resolving and encryption.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for one of several addresses.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Whoever defined the webhook is told no more: what a name leads to inside would be news to them.
const NOWHERE: &str = "its host leads to no address that may be dialled";

/// Dials one webhook.
#[derive(Debug)]
pub(crate) struct Dialer {
    url: WebhookUrl,
    outside: Arc<Outside>,
}

impl Dialer {
    pub(crate) const fn new(url: WebhookUrl, outside: Arc<Outside>) -> Self {
        Self { url, outside }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let ports = &self.outside.ports;
        if !ports.is_empty() && !ports.contains(&self.url.port()) {
            let message = format!("port {} is none that may be dialled", self.url.port());
            return Err(io::Error::other(message));
        }
        let mut last = io::Error::other(NOWHERE);
        for address in self.vetted().await? {
            match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return self.secure(stream).await;
                }
                Ok(Err(error)) => last = io::Error::other(format!("cannot connect: {error}")),
                Err(_) => last = io::Error::other("cannot connect: no answer in time"),
            }
        }
        Err(last)
    }

    /// The addresses that may be dialled.
    async fn vetted(&self) -> io::Result<Vec<SocketAddr>> {
        let port = self.url.port();
        let found: Vec<SocketAddr> = match self.url.host() {
            Host::Address(address) => vec![SocketAddr::new(*address, port)],
            Host::Name(name) => match lookup_host((name.as_str(), port)).await {
                Ok(found) => found.take(ADDRESSES_MAX).collect(),
                Err(error) => {
                    info!(host = %name, %error, "a webhook's host is not resolved");
                    Vec::new()
                }
            },
        };
        let vetted: Vec<_> = found.into_iter().filter(|found| self.may_dial(found.ip())).collect();
        if vetted.is_empty() { Err(io::Error::other(NOWHERE)) } else { Ok(vetted) }
    }

    fn may_dial(&self, address: IpAddr) -> bool {
        let allowed = &self.outside.allowed;
        let problem = match check(address, allowed) {
            Ok(()) if self.url.is_plain() && !is_allowed_by_name(address, allowed) => {
                "plain text goes only to what webhooks.allow_private names"
            }
            Ok(()) => return true,
            Err(forbidden) => forbidden,
        };
        info!(host = %self.url.host(), %address, problem, "an address of a webhook is not dialled");
        false
    }

    async fn secure(&self, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
        if self.url.is_plain() {
            return Ok(Box::new(stream));
        }
        // Whom the certificate must name is the host as it is written, whatever was dialled.
        let name = match self.url.host() {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
            Host::Address(address) => ServerName::IpAddress((*address).into()),
        };
        let secured = self.outside.tls.connect(name, stream).await;
        let stream = secured.map_err(|error| io::Error::other(format!("no TLS: {error}")))?;
        Ok(Box::new(stream))
    }
}

impl Dial for Dialer {
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(self.connect())
    }

    fn timeout(&self) -> Duration {
        DIAL_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;

    fn dialer(url: &str, allowed: &[&str], ports: &[u16]) -> Dialer {
        let settings = config::Webhooks {
            allow_private: allowed.iter().map(|range| range.parse().unwrap()).collect(),
            ports: ports.to_vec(),
            ..config::Webhooks::default()
        };
        let outside = Arc::new(Outside::new(&settings).unwrap());
        Dialer::new(WebhookUrl::parse(url).unwrap(), outside)
    }

    async fn why_not(dialer: &Dialer) -> String {
        dialer.connect().await.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn nobody_is_connected_to_before_the_address_was_looked_at() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for (url, allowed) in [
            (format!("https://127.0.0.1:{port}/"), [].as_slice()),
            (format!("https://localhost:{port}/"), &[]),
            (format!("http://127.0.0.1:{port}/"), &[]),
            (format!("http://localhost:{port}/"), &["10.0.0.0/8"]),
        ] {
            assert_eq!(why_not(&dialer(&url, allowed, &[])).await, NOWHERE, "{url}");
        }
        let waiting = timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(waiting.is_err(), "somebody connected");

        // Port 1 is not listed, and nobody looks any further.
        let listed = dialer("https://127.0.0.1:1/", &["127.0.0.1/32"], &[443]);
        assert!(why_not(&listed).await.contains("port 1 "));
        let allowed = dialer(&format!("http://localhost:{port}/"), &["127.0.0.1/32"], &[]);
        assert_eq!(why_not(&allowed).await, "");
        assert!(listener.accept().await.is_ok());
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_and_one_that_leads_nowhere_look_alike() {
        let inside = dialer("https://localhost/", &[], &[]);
        let nowhere = dialer("https://no-such-host.invalid/", &[], &[]);
        assert_eq!(why_not(&inside).await, why_not(&nowhere).await);
    }
}
