//! Connections to nodes: one lazily opened channel per address, shared by all calls.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use weft_proto::{Error, Result};

use crate::credential::Credential;
use crate::options::{Options, Tls};

/// A dead peer is noticed after interval plus timeout, even while nothing is sent.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a server may send ahead of a slow reader; a window of 64 KiB would cap the rate of one
/// stream at about 64 MB/s on a link of 1 ms.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A channel that adds the credential to every call.
pub(crate) type Transport = InterceptedService<Channel, Credential>;

#[derive(Debug)]
pub(crate) struct Channels {
    scheme: &'static str,
    credential: Credential,
    tls: Option<ClientTlsConfig>,
    connect_timeout: Duration,
    /// Addresses come from the options and from the cluster's own nodes, so there are few.
    open: Mutex<BTreeMap<String, Channel>>,
}

impl Channels {
    /// Checks the options and returns the endpoints as addresses with a scheme.
    pub(crate) fn new(options: &Options) -> Result<(Self, Vec<String>)> {
        let bare = if options.tls.is_some() { "https" } else { "http" };
        let endpoints: Vec<String> =
            options.endpoints.iter().map(|text| with_scheme(text, bare)).collect();
        let Some(first) = endpoints.first() else {
            return Err(Error::invalid("no endpoint is given").with_field("endpoints"));
        };
        let secure = first.starts_with("https://");
        if endpoints.iter().any(|endpoint| endpoint.starts_with("https://") != secure) {
            let message = "either all endpoints are https or none is";
            return Err(Error::invalid(message).with_field("endpoints"));
        }
        if !secure && options.tls.is_some() {
            let message = "an authority to trust is given, but the endpoints are http: use https";
            return Err(Error::invalid(message).with_field("endpoints"));
        }
        let channels = Self {
            scheme: if secure { "https" } else { "http" },
            credential: credential(options)?,
            tls: if secure { Some(tls(options.tls.as_ref())?) } else { None },
            connect_timeout: options.timeouts.connect,
            open: Mutex::default(),
        };
        for endpoint in &endpoints {
            channels.get(endpoint)?;
        }
        Ok((channels, endpoints))
    }

    /// What calls show.
    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The channel to an address; a bare `host:port`, as nodes tell it, gets our scheme.
    pub(crate) fn get(&self, address: &str) -> Result<Transport> {
        let address = with_scheme(address, self.scheme);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = if let Some(channel) = open.get(&address) {
            channel.clone()
        } else {
            let channel = self.endpoint(&address)?.connect_lazy();
            open.insert(address, channel.clone());
            channel
        };
        Ok(InterceptedService::new(channel, self.credential.clone()))
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint> {
        if !self.credential.is_none() && !address.starts_with("https://") && !is_local(address) {
            let message = format!("the token would travel to {address} in plain text; use https");
            return Err(Error::invalid(message).with_field("endpoints"));
        }
        let wrong = |error: tonic::transport::Error| {
            let message = format!("endpoint {address:?} is not usable: {}", root_cause(&error));
            Error::invalid(message).with_field("endpoints").with_source(error)
        };
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(wrong)?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(wrong),
            None => Ok(endpoint),
        }
    }
}

/// Whether an address with a scheme is on this machine.
fn is_local(address: &str) -> bool {
    let Ok(uri) = address.parse::<tonic::codegen::http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn with_scheme(address: &str, scheme: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") }
}

fn credential(options: &Options) -> Result<Credential> {
    match (&options.token, &options.token_file) {
        (None, None) => Ok(Credential::none()),
        (Some(token), None) => Credential::token(token),
        (None, Some(path)) => Credential::file(path),
        (Some(_), Some(_)) => {
            let message = "a token and a file with one are given: give one of them";
            Err(Error::invalid(message).with_field("token_file"))
        }
    }
}

fn tls(tls: Option<&Tls>) -> Result<ClientTlsConfig> {
    let Some(tls) = tls else {
        let message = "https endpoints need the certificate of the authority to trust";
        return Err(Error::invalid(message).with_field("tls"));
    };
    // Anything else would be passed over, and then no node could be trusted.
    if !tls.ca_pem.contains("-----BEGIN CERTIFICATE-----") {
        let message = "the file of the authority to trust holds no certificate in PEM";
        return Err(Error::invalid(message).with_field("tls.ca_pem"));
    }
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
    if let Some((certificate, key)) = &tls.identity_pem {
        let problem = if !certificate.contains("-----BEGIN CERTIFICATE-----") {
            Some("the file of this client's certificate holds no certificate in PEM")
        } else if !key.expose().contains("PRIVATE KEY-----") {
            Some("the file of this client's key holds no private key in PEM")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(Error::invalid(problem).with_field("tls.identity_pem"));
        }
        config = config.identity(Identity::from_pem(certificate, key.expose()));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

/// The innermost sentence: the outer ones of transports say only "transport error".
pub(crate) fn root_cause(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The caller's error for a status.
pub(crate) fn error_of(status: Status) -> Error {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            let cause = root_cause(error);
            let message = format!("cannot connect: {cause}{}", hint(&cause));
            return Error::unavailable(message).with_not_applied();
        }
        cause = error.source();
    }
    let Some(cause) = status.source().map(root_cause) else { return Error::from(status) };
    // Made by the transport of this side, which says only that it broke.
    let hint = hint(&cause);
    let error = Error::from(status);
    if hint.is_empty() && error.message().contains(&cause) {
        return error;
    }
    let broke = Error::new(error.reason(), format!("the connection broke: {cause}{hint}"));
    if error.not_applied() { broke.with_not_applied() } else { broke }
}

/// What to do when one end speaks TLS and the other does not; libraries say only what they met.
fn hint(cause: &str) -> &'static str {
    // The first bytes of a TLS alert, read as the length of an HTTP/2 frame.
    if cause.contains("frame with invalid size") {
        "; it may expect TLS: try an https:// endpoint"
    } else if cause.contains("InvalidContentType") {
        "; it may not speak TLS: try an http:// endpoint"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Secret;

    /// A frame of PEM around bytes that are no base64.
    const PEM: &str = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";

    fn tls(ca_pem: &str) -> Tls {
        Tls { ca_pem: ca_pem.to_owned(), ..Tls::default() }
    }

    #[tokio::test]
    async fn unusable_options_are_refused_with_the_field() {
        let cases = [
            (Options::default(), "endpoints"),
            (Options::new(["http://a:1", "https://b:1"]), "endpoints"),
            (Options::new(["https://a:1"]), "tls"),
            (Options { tls: Some(tls("x")), ..Options::new(["a:1"]) }, "tls.ca_pem"),
            (Options { tls: Some(tls(PEM)), ..Options::new(["http://a:1"]) }, "endpoints"),
            (Options { tls: Some(tls(PEM)), ..Options::new(["https://a:1"]) }, "endpoints"),
            (Options { token: Some(Secret::new("")), ..Options::new(["127.0.0.1:1"]) }, "token"),
            (Options::new(["http://a b:1"]), "endpoints"),
            (Options { token: Some(Secret::new("a\nb")), ..Options::new(["a:1"]) }, "token"),
            (Options { token: Some(Secret::new("t")), ..Options::new(["a:1"]) }, "endpoints"),
            (
                Options { token_file: Some("/no/such".into()), ..Options::new(["a:1"]) },
                "token_file",
            ),
            (
                Options {
                    token: Some(Secret::new("t")),
                    token_file: Some("/no/such".into()),
                    ..Options::new(["127.0.0.1:1"])
                },
                "token_file",
            ),
            (
                Options {
                    tls: Some(Tls {
                        identity_pem: Some((PEM.to_owned(), Secret::new("x"))),
                        ..tls(PEM)
                    }),
                    ..Options::new(["a:1"])
                },
                "tls.identity_pem",
            ),
        ];
        for (options, field) in cases {
            let error = Channels::new(&options).unwrap_err();
            assert_eq!(error.field(), Some(field), "{error}");
        }
    }

    #[tokio::test]
    async fn a_token_may_stay_on_this_machine_in_plain_text() {
        for near in ["127.0.0.1:1", "localhost:1", "http://[::1]:1"] {
            let token = Some(Secret::new("t"));
            let options = Options { token, ..Options::new([near]) };
            assert!(Channels::new(&options).is_ok(), "{near}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_certainly_wrote_nothing() {
        let (channels, endpoints) = Channels::new(&Options::new(["127.0.0.1:9"])).unwrap();
        let transport = channels.get(&endpoints[0]).unwrap();
        let mut cluster = weft_proto::v1::cluster_client::ClusterClient::new(transport);

        let status = cluster.status(weft_proto::v1::StatusRequest {}).await.unwrap_err();
        let error = error_of(status);

        assert!(error.is_retryable());
        assert!(error.not_applied(), "{error}");
    }
}
